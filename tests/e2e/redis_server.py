"""A real Redis for a test: started on a free loopback port, killed, started again."""

import contextlib
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from tests.e2e.stand import free_port, wait_for

BINARY = shutil.which("redis-server")

needs_redis = pytest.mark.skipif(BINARY is None, reason="redis-server is not installed")


class RedisServer:
    """`more` are further arguments; what it kept is gone when it was killed."""

    def __init__(self, directory: Path, *more: str) -> None:
        self.port = free_port()
        self._directory = directory
        self._more = more
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        assert BINARY is not None
        arguments = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", *self._more]
        with (self._directory / "redis.log").open("ab") as log:
            self.process = subprocess.Popen(
                [BINARY, *arguments], stdout=log, stderr=log, cwd=self._directory
            )
        wait_for(self._answers)
        return self.process

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(10)

    def say(self, command: str, password: str = "") -> bytes:
        """Send one inline command; return what is answered, up to 64 KiB."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as sock:
            if password:
                sock.sendall(f"AUTH {password}\r\n".encode())
                assert sock.recv(100) == b"+OK\r\n"
            sock.sendall(command.encode() + b"\r\n")
            return sock.recv(65536)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            return bool(self.say("PING"))
        return False
