"""A Debian of our own to try the packaging in: made from the host's package sources, gone after."""

import contextlib
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = "systemd,python3,python3-venv,ca-certificates"
CERTIFICATES = Path("/etc/ssl/certs")
PIP_CONFIG = Path("/etc/pip.conf")
SOURCES = (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list"))
# Seconds; a mirror or an index slower than that is as good as none. What one test sets up must stay
# below pytest's faulthandler_timeout in all, which ends the whole run.
MAKE, INSTALL = 120, 50

INSTALL_SCRIPT = """
set -e
python3 -m venv /opt/sidecar
pip="/opt/sidecar/bin/pip --quiet --disable-pip-version-check install --no-cache-dir --no-deps"
$pip --require-hashes -r /build/requirements.lock
$pip --no-index /build/*.whl
"""


def missing(*commands: str) -> str:
    """Return why a test that needs root and `commands` cannot run; empty if it can."""
    if os.geteuid() != 0:
        return "only root can make a machine or a container"
    absent = [command for command in commands if shutil.which(command) is None]
    return f"not installed: {', '.join(absent)}" if absent else ""


def run(*words: str | Path, seconds: float) -> subprocess.CompletedProcess[str]:
    """Run a command; after `seconds` it is told to end, and tidies up behind itself."""
    return subprocess.run(
        ["timeout", "--kill-after=5", str(seconds), *map(str, words)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def pip_config(directory: Path) -> Path:
    """Return a file that leads pip to the index that the host uses."""
    path = directory / "pip.conf"
    ours = f"[global]\ncert = {CERTIFICATES}/ca-certificates.crt\n"
    path.write_text(PIP_CONFIG.read_text() if PIP_CONFIG.exists() else ours)
    return path


def make_tree(directory: Path) -> Path:
    """Return the root of a small Debian of the host's release, or skip."""
    release = platform.freedesktop_os_release()
    sources = [path for path in SOURCES if path.exists() and "deb" in path.read_text()]
    if release.get("ID") != "debian" or not sources:
        pytest.skip("the host is no Debian with package sources")
    dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True)
    wanted = ("Acquire::Check", "Acquire::http", "Acquire::https")
    options = directory / "apt.conf"
    options.write_text(
        "".join(f"{line}\n" for line in dump.stdout.splitlines() if line.startswith(wanted))
    )
    tree = directory / "tree"
    said = run(
        "mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}",
        f"--aptopt={options}", release["VERSION_CODENAME"], tree, *sources, seconds=MAKE,
    )  # fmt: skip
    if said.returncode != 0:
        pytest.skip(f"mmdebstrap made no Debian: {said.stdout[-500:]}")
    return tree


def install(tree: Path, directory: Path) -> Path:
    """Return what an operator would have at /opt/sidecar of `tree`, or skip."""
    build, prefix = directory / "build", directory / "prefix"
    prefix.mkdir()
    wheel = run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", build, seconds=30)
    assert wheel.returncode == 0, wheel.stdout
    shutil.copy(ROOT / "requirements.lock", build)
    tried = run(*nspawn(tree, "--pipe"), "/bin/true", seconds=10)
    if tried.returncode != 0:
        pytest.skip(f"systemd-nspawn does not work here: {tried.stdout[-500:]}")
    said = run(
        *nspawn(tree, "--pipe", "--resolv-conf=copy-host"), f"--bind={prefix}:/opt/sidecar",
        f"--bind-ro={build}:/build", f"--bind-ro={pip_config(directory)}:{PIP_CONFIG}",
        f"--bind-ro={CERTIFICATES}", "/bin/sh", "-c", INSTALL_SCRIPT, seconds=INSTALL,
    )  # fmt: skip
    if said.returncode != 0:
        pytest.skip(f"the packages could not be installed: {said.stdout[-500:]}")
    return prefix


def nspawn(tree: Path, *options: str) -> list[str]:
    """Return the command that runs something in `tree`, which the host's init hears nothing of."""
    return [
        "systemd-nspawn", "--quiet", "-D", str(tree), f"--machine=sidecar-test-{os.getpid()}",
        "--register=no", "--keep-unit", "--volatile=overlay", *options,
    ]  # fmt: skip


def boot(tree: Path, *options: str, seconds: float) -> str:
    """Boot `tree` until it ends by itself; return what went wrong, empty if nothing did."""
    process = subprocess.Popen(
        [*nspawn(tree, "--private-network", "--console=pipe"), *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        said, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        return f"the machine did not end within {seconds} s"
    finally:
        _end(process)
    return "" if process.returncode == 0 else f"exit code {process.returncode}: {said}"


def _end(process: subprocess.Popen[str]) -> None:
    """End a machine: its init first, which outlives systemd-nspawn."""
    if process.poll() is not None:
        return
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(child), signal.SIGKILL)
    try:
        process.communicate(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


@contextlib.contextmanager
def workplace(base: Path) -> Iterator[Path]:
    """Give a directory that is gone afterwards, with the hundreds of megabytes in it."""
    base.mkdir()
    try:
        yield base
    finally:
        shutil.rmtree(base)
        # What systemd-nspawn leaves where /run is no tmpfs.
        with contextlib.suppress(OSError):
            os.rmdir(f"/run/systemd/nspawn/propagate/sidecar-test-{os.getpid()}")
