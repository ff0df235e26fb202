"""Who writes the access log: one thread with a bounded queue, so that a full pipe stalls nobody."""

import os
import queue
import threading
from typing import Final, final

BATCH: Final = 65536  # octets that are written at once
INTERVAL: Final = 0.2  # seconds that a line waits at most
MAX_QUEUED: Final = 128  # batches; beyond it lines are dropped and counted


@final
class LogWriter:
    """Lines in, batches out to a file or to standard output; `off` drops them."""

    def __init__(self, path: str) -> None:
        self._path: Final = path
        self._lines: list[bytes] = []
        self._size = 0
        self._queue: Final[queue.Queue[bytes | None]] = queue.Queue(MAX_QUEUED)
        self._reopen = threading.Event()
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._thread.start()

    def write(self, line: bytes) -> None:
        """Take one line; it is written within an interval (see `flush`)."""
        self._lines.append(line)
        self._size += len(line)
        if self._size >= BATCH:
            self.flush()

    def flush(self) -> None:
        """Hand what was taken to the thread; called every `INTERVAL`."""
        lines = self._lines
        if not lines:
            return
        self._lines = []
        self._size = 0
        try:
            self._queue.put_nowait(b"".join(lines))
        except queue.Full:
            self.dropped += len(lines)

    def reopen(self) -> None:
        """Open the file again before the next write: it has been rotated."""
        self._reopen.set()

    def close(self) -> None:
        """Write what is left, for a second at most."""
        self.flush()
        try:
            self._queue.put(None, timeout=1)
        except queue.Full:
            return
        self._thread.join(1)

    def _run(self) -> None:
        handle = self._open()
        while True:
            batch = self._queue.get()
            if batch is None:
                break
            if self._reopen.is_set():
                self._reopen.clear()
                self._shut(handle)
                handle = self._open()
            try:
                while batch:
                    batch = batch[os.write(handle, batch) :]
            except OSError:
                self.dropped += batch.count(b"\n")
        self._shut(handle)

    def _open(self) -> int:
        if self._path == "stdout":
            return 1
        try:
            return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError:
            return -1  # every write fails and is counted as dropped; the next reopen tries again

    def _shut(self, handle: int) -> None:
        if handle > 2:
            os.close(handle)
