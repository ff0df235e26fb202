"""Does systemd accept the units, and do they close what the service does not need?"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGING = Path(__file__).parents[2] / "packaging"
UNITS = ("sidecar.service", "sidecar.socket")
EXPOSURE = 20  # tenths, of 100; systemd calls up to 20 "OK", an unhardened service has 96
DRAIN_TIMEOUT = 30  # seconds, the default of process.drain_timeout

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


def setting(unit: str, name: str) -> list[str]:
    """Return the values that `unit` gives `name`, in order."""
    return re.findall(rf"^{name}=(.*)$", (PACKAGING / unit).read_text(), re.MULTILINE)


@needs_systemd
def test_systemd_has_nothing_to_say_about_the_units(tmp_path: Path) -> None:
    # verify looks whether the program exists, which on this machine it need not; and it returns
    # success for settings it does not know, so what counts is that it printed nothing.
    for unit in UNITS:
        text = (PACKAGING / unit).read_text()
        text = re.sub(r"(?m)^ExecStart=\S+", f"ExecStart={sys.executable}", text)
        (tmp_path / unit).write_text(text)

    said = subprocess.run(
        ["systemd-analyze", "verify", *(str(tmp_path / unit) for unit in UNITS)],
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert said.stdout + said.stderr == ""
    assert said.returncode == 0


@needs_systemd
def test_a_misspelt_setting_would_be_noticed(tmp_path: Path) -> None:
    unit = tmp_path / "sidecar.service"
    unit.write_text(f"[Service]\nExecStart={sys.executable}\nProtectSytem=strict\n")

    said = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60
    )

    assert "ProtectSytem" in said.stderr


@needs_systemd
def test_the_service_is_confined() -> None:
    said = subprocess.run(
        [
            "systemd-analyze",
            "security",
            "--offline=yes",
            "--no-pager",
            f"--threshold={EXPOSURE}",
            str(PACKAGING / "sidecar.service"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )

    if "unrecognized option" in said.stderr:
        pytest.skip("this systemd-analyze is older than 250 and has no --offline")
    assert said.returncode == 0, said.stdout.splitlines()[-1:] or said.stderr


def test_stopping_waits_longer_than_a_drain() -> None:
    assert [
        int(seconds) > DRAIN_TIMEOUT for seconds in setting("sidecar.service", "TimeoutStopSec")
    ] == [True]


def test_only_the_agent_is_signalled_and_it_comes_back() -> None:
    assert setting("sidecar.service", "KillMode") == ["process"]
    assert setting("sidecar.service", "Restart") == ["always"]


def test_the_container_and_the_unit_start_the_same_command() -> None:
    dockerfile = (PACKAGING.parent / "Dockerfile").read_text()

    assert setting("sidecar.service", "ExecStart") == [
        "/opt/sidecar/bin/sidecar run /etc/sidecar/sidecar.yaml"
    ]
    assert 'ENTRYPOINT ["sidecar"]' in dockerfile
    assert 'CMD ["run", "/etc/sidecar/sidecar.yaml"]' in dockerfile
