"""Does the unit keep its promises on a machine that systemd has booted?

The machine is a container of systemd-nspawn with the package installed at /opt/sidecar and the units
as they are. It runs `boot/checks.py` and ends.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.packaging import debian
from tests.packaging.boot.checks import CHECKS, App

HERE = Path(__file__).parent
UNITS = "/etc/systemd/system"
LONGEST = 100  # seconds; it takes about 15


@pytest.fixture(scope="module")
def results(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where each check has left what went wrong."""
    reason = debian.missing("systemd-nspawn")
    if reason:
        pytest.skip(reason)
    packaging, found = debian.ROOT / "packaging", tmp_path_factory.mktemp("results")
    with debian.workplace(tmp_path_factory.mktemp("boot") / "work") as directory:
        wrong = debian.boot(
            tree,
            f"--bind-ro={debian.install(tree, directory)}:/opt/sidecar",
            f"--bind-ro={packaging / 'sidecar.service'}:{UNITS}/sidecar.service",
            f"--bind-ro={packaging / 'sidecar.socket'}:{UNITS}/sidecar.socket",
            f"--bind-ro={packaging / 'sidecar.sysusers.conf'}:/usr/lib/sysusers.d/sidecar.conf",
            f"--bind-ro={HERE / 'boot' / 'selftest.service'}:{UNITS}/selftest.service",
            f"--bind-ro={HERE / 'boot' / 'selftest.target'}:{UNITS}/selftest.target",
            f"--bind-ro={HERE / 'boot'}:/checks",
            f"--bind={found}:/results",
            "/lib/systemd/systemd",
            "--unit=selftest.target",
            seconds=LONGEST,
        )
    (found / "machine").write_text(wrong)
    return found


def journal(results: Path) -> str:
    path = results / "journal.txt"
    return path.read_text() if path.exists() else "none was left"


def test_the_machine_boots_and_ends(results: Path) -> None:
    assert (results / "machine").read_text() == ""
    assert (results / "journal.txt").exists(), "the checks did not come to their end"


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_in_a_booted_machine(check: Callable[[App], None], results: Path) -> None:
    path = results / check.__name__
    wrong = path.read_text() if path.exists() else "the check was not reached"

    assert wrong == "", f"{wrong}\nthe journal:\n{journal(results)}"
