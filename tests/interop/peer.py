"""Other people's programs: found or skipped, started, waited for, ended."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.e2e.stand import ROOT, wait_for

# Debian keeps servers where a user's PATH does not look.
_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])


def need(command: str) -> str:
    """Return where `command` is; skip the test if it is nowhere."""
    found = shutil.which(command, path=_PATH)
    if found is None:
        pytest.skip(f"no {command} on this machine; .ci/run says which package has it")
    return found


def listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def running(
    arguments: Sequence[str], ports: Sequence[int], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server from when it listens on all `ports`; what it says is in `log`."""
    with log.open("ab") as sink:
        process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink)
    try:
        wait_for(lambda: process.poll() is not None or all(map(listens, ports)))
        assert process.poll() is None, f"{arguments[0]} ended: {log.read_text()}"
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


@contextlib.contextmanager
def python(module: str, *arguments: str) -> Iterator[Mapping[str, int]]:
    """Run one of our own servers; the ports that it says it is on (first line, `name=port ...`)."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, f"{module} ended before it listened"
        words = (word.partition("=") for word in line.split())
        yield {name: int(port) for name, _, port in words}
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


def run(*arguments: str | Path, seconds: float = 30.0, good: bool = True) -> str:
    """Run a program to its end; what it printed. With `good`, it must exit 0."""
    done = subprocess.run(
        [str(part) for part in arguments], capture_output=True, timeout=seconds, check=False
    )
    output = (done.stdout + done.stderr).decode(errors="replace")
    if good:
        assert done.returncode == 0, f"{arguments[0]} exited {done.returncode}: {output[-4000:]}"
    return output
