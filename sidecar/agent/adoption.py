"""Workers that outlived the agent before us: where they wait, and which of them answer."""

import asyncio
import contextlib
import os
import re
import socket
from typing import Final

from sidecar.agent.logs import log
from sidecar.agent.process import Watched, peer_of
from sidecar.agent.worker import GREETED, STARTING, Watch, Worker

PATTERN: Final = re.compile(r"worker-.*\.sock")
ADOPTION: Final = 5.0  # seconds that an orphan has to say hello; it has nothing slow to do first


async def find_orphans(directory: str) -> list[Worker]:
    """Return the orphans that wait in `directory` and have said hello, by name.

    Each holds copies of its listening sockets (`handed_over`), and tells nobody of its end before
    it is given a `watch`.  One that does not answer serves nobody either: it is ended.
    """
    paths = _list(directory)
    found = await asyncio.gather(*(_meet(path) for path in paths))
    return [worker for worker in found if worker is not None and worker.state == GREETED]


async def _meet(path: str) -> Worker | None:
    sock = await _connect(path)
    if sock is None:
        return None
    pid = peer_of(sock)
    if not pid:
        log.warning("%s: a worker of another pid namespace cannot be adopted", path)
        sock.close()
        return None
    worker = Worker(_index(path), Watched(pid), sock, Watch(), is_ours=False)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(worker.settled.wait(), ADOPTION)
    if worker.state == GREETED:
        return worker
    if worker.state == STARTING:
        log.error("orphaned worker (pid %d) does not answer: it is ended", pid)
        worker.dump_and_end("stuck")
        await worker.parted.wait()
    else:
        # It has ended, or another agent was first, or it speaks in words that we do not know.
        worker.let_be()
        worker.terminate()
    _remove(path)
    return None


async def _connect(path: str) -> socket.socket | None:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    try:
        await asyncio.wait_for(loop.sock_connect(sock, path), ADOPTION)
    except (OSError, TimeoutError) as error:
        sock.close()
        if isinstance(error, ConnectionRefusedError):  # its owner is gone
            _remove(path)
        elif not isinstance(error, FileNotFoundError):
            log.warning("%s: no worker can be adopted: %s", path, error)
        return None
    return sock


def _list(directory: str) -> list[str]:
    with contextlib.suppress(OSError):
        names = sorted(name for name in os.listdir(directory) if PATTERN.fullmatch(name))
        return [os.path.join(directory, name) for name in names]
    return []


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


def _index(path: str) -> int:
    """Return the index in `worker-INDEX-PID.sock`."""
    word = os.path.basename(path).split("-")[1].partition(".")[0]
    return int(word) if word.isdigit() else 0
