"""What systemd is told: readiness, reload, stop, watchdog (sd_notify(3))."""

import os
import socket
import time
from collections.abc import Mapping
from typing import Final, final

PATIENCE: Final = 0.5  # seconds that a manager may be behind before it misses a change of state


@final
class Notifier:
    """Speaks to the service manager; does nothing where there is none."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._path: Final = environ.get("NOTIFY_SOCKET", "")
        mine = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        spent = int(environ.get("WATCHDOG_USEC", "0")) if mine else 0
        self.watchdog: Final = spent / 2_000_000  # seconds between signs of life; 0: none wanted

    def ready(self, status: str) -> None:
        """Everything runs."""
        self._send(f"READY=1\nSTATUS={status}")

    def reloading(self) -> None:
        """A reload has begun; `ready` ends it."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send(f"RELOADING=1\nMONOTONIC_USEC={now}")

    def stopping(self) -> None:
        """The drain has begun."""
        self._send("STOPPING=1\nSTATUS=draining")

    def alive(self) -> None:
        """Feed the watchdog."""
        self._send("WATCHDOG=1", patience=0.0)

    def _send(self, text: str, patience: float = PATIENCE) -> None:
        if not self._path:
            return
        address = "\0" + self._path[1:] if self._path[0] == "@" else self._path
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.settimeout(patience)
            try:
                sock.sendto(text.encode(), address)
            except OSError:
                return  # a manager that does not listen must not stop us
