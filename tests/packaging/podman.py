"""Containers with a store of their own: podman without a daemon, systemd or a network."""

import contextlib
import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packaging import debian

BUILD = 120  # seconds; it takes about 15
DOCKERFILE = debian.ROOT / "Dockerfile"


class Podman:
    """Images and containers below one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        limits = directory / "containers.conf"
        # podman asks for more than a host that is itself confined may give.
        wanted = {"nofile": resource.RLIMIT_NOFILE, "nproc": resource.RLIMIT_NPROC}
        given = [f'"{name}={most(kind)}:{most(kind)}"' for name, kind in wanted.items()]
        limits.write_text(f"[containers]\ndefault_ulimits = [{', '.join(given)}]\n")
        self._environ = {**os.environ, "CONTAINERS_CONF": str(limits)}
        self._command = [
            "podman", "--root", str(directory / "store"), "--runroot", str(directory / "run"),
            "--storage-driver", "overlay", "--runtime", "runc", "--cgroup-manager", "cgroupfs",
            "--events-backend", "none",
        ]  # fmt: skip

    def __call__(self, *words: str, seconds: float = 30) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["timeout", "--kill-after=5", str(seconds), *self._command, *words],
            env=self._environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )

    def said(self, *words: str) -> str:
        """Run a command that must succeed; return what it printed."""
        done = self(*words)
        assert done.returncode == 0, f"podman {' '.join(words)}: {done.stderr}"
        return done.stdout.strip()

    def use(self, tree: Path, name: str) -> None:
        """Make an image of the files in `tree`, or skip."""
        pipe = 'tar -C "$0" --one-file-system -c . | "$@"'
        done = subprocess.run(
            ["timeout", "60", "sh", "-c", pipe, str(tree), *self._command, "import", "-", name],
            env=self._environ,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            pytest.skip(f"podman cannot keep an image here: {done.stderr[-500:]}")

    def build(self, image: str) -> subprocess.CompletedProcess[str]:
        """Build the Dockerfile as it is, with the host's way to the package index."""
        return self(
            "build", "--pull=never", "--network=host", "--isolation=chroot", "--format=docker",
            f"--volume={debian.CERTIFICATES}:{debian.CERTIFICATES}:ro",
            f"--volume={debian.pip_config(self._directory)}:{debian.PIP_CONFIG}:ro",
            f"--tag={image}", str(debian.ROOT), seconds=BUILD,
        )  # fmt: skip


def most(kind: int) -> int:
    """Return the hard limit, of which a container gets no more than it could need."""
    hard = resource.getrlimit(kind)[1]
    return 20_000 if hard == resource.RLIM_INFINITY else min(hard, 20_000)


@contextlib.contextmanager
def podman(directory: Path) -> Iterator[Podman]:
    """Give a podman of which nothing is left afterwards."""
    with debian.workplace(directory):
        command = Podman(directory)
        try:
            yield command
        finally:
            command("rm", "--all", "--force", "--time=0")
            # podman keeps its store mounted on itself.
            subprocess.run(["umount", "-q", str(directory / "store" / "overlay")])
