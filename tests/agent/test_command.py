"""Programs that say how an endpoint is: their exit code, their last words, their end."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import pytest

from sidecar.agent.command import LAST_WORDS, run
from sidecar.agent.health import Checks
from sidecar.agent.probe import Prober
from sidecar.compiler.clusters import make_endpoint
from sidecar.model.cluster import Cluster
from sidecar.model.endpoint import Endpoint
from sidecar.model.health import CommandHealthCheck, HealthCheck
from sidecar.model.identity import Workload
from sidecar.model.snapshot import Snapshot


def sh(script: str, *arguments: str) -> list[str]:
    return ["/bin/sh", "-c", script, "sh", *arguments]


def descriptors() -> list[str]:
    """What is open, the listing itself aside."""
    return sorted(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize(
    ("argv", "failure"),
    [
        (["true"], ""),
        (sh("echo fine >&2"), ""),
        (sh("head -c 300000 /dev/zero >&2"), ""),  # more than a pipe holds
        (["false"], "exit code 1"),
        (sh("echo one >&2; echo 'disk full' >&2; exit 2"), "exit code 2: disk full"),
        (sh("kill -TERM $$"), "ended by signal 15"),
        (sh("exec 2>&-; exit 3"), "exit code 3"),
        (sh("head -c 9999 /dev/zero | tr '\\0' x >&2; exit 4"),
         "exit code 4: " + "x" * LAST_WORDS),
        (["/nonexistent/check"], "/nonexistent/check cannot be run: No such file or directory"),
    ],
)  # fmt: skip
async def test_the_exit_code_says_it_and_the_last_words_why(argv: list[str], failure: str) -> None:
    before = descriptors()
    assert await run(argv, os.environ, 30.0) == failure
    assert descriptors() == before


def is_alive(pid: int) -> bool:
    """Say whether a process runs; one that is dead and not ours to bury does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def ended(pid: int) -> None:
    while is_alive(pid):  # noqa: ASYNC110 - nothing tells us of the end of a grandchild
        await asyncio.sleep(0.001)


async def test_one_that_takes_too_long_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    noted = tmp_path / "pids"
    before = descriptors()
    found = await run(sh('sleep 600 & echo $$ $! > "$1"; wait', str(noted)), os.environ, 0.5)

    assert found == "/bin/sh did not end within 0.5 s"
    assert descriptors() == before
    for pid in noted.read_text().split():
        await asyncio.wait_for(ended(int(pid)), 10)


async def test_one_that_is_given_up_is_killed(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    before = descriptors()
    task = asyncio.ensure_future(  # noqa: TID251 - awaited below
        run(sh('echo $$ > "$1"; exec sleep 600', str(fifo)), os.environ, 600.0)
    )
    pid = int(await asyncio.to_thread(fifo.read_text))
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task

    assert task.cancelled()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
    assert descriptors() == before


async def test_a_program_is_told_what_it_is_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/ours")
    script = 'echo "$SIDECAR_CLUSTER $SIDECAR_ENDPOINT ${NOTIFY_SOCKET-none}" >&2; exit 1'
    check = HealthCheck(command=CommandHealthCheck(argv=tuple(sh(script))), timeout=30.0)
    places = (Endpoint(address="10.0.0.1:80"),)
    tree = Snapshot(
        workload=Workload(name="web"),
        clusters=(Cluster(name="catalog", endpoints=places, health_checks=(check,)),),
    )
    plan = Checks.plans(tree, None)["catalog"]

    found = await Prober().ask(plan, make_endpoint("10.0.0.1:80"), check)
    assert found == "exit code 1: catalog 10.0.0.1:80 none"
