"""A sidecar under test: a real process, real sockets, an upstream that records what it was sent."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sidecar.sources.yaml_tree import load

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def wait_for(condition: Callable[[], Any], seconds: float = 15.0) -> Any:
    """Poll until `condition` is true; its value."""
    pause = threading.Event()
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"{condition} stayed false for {seconds} s"
        pause.wait(0.02)


class Upstream:
    """Accepts connections, and answers each with `serve(connection, number)` in a thread."""

    def __init__(self, serve: Callable[[socket.socket, int], None]) -> None:
        self._serve = serve
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = int(self._listener.getsockname()[1])
        self.connections = 0
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._main = threading.Thread(target=self._accept, daemon=True)
        self._main.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(
                target=self._one, args=(connection, self.connections), daemon=True
            )
            thread.start()
            self._threads.append(thread)

    def _one(self, connection: socket.socket, number: int) -> None:
        connection.settimeout(20)
        self._open.add(connection)
        with connection, contextlib.suppress(OSError):
            self._serve(connection, number)
        self._open.discard(connection)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._main.join(5)
        for connection in self._open.copy():  # a pool keeps them, and their threads wait
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)


def read_head(connection: socket.socket, data: bytes = b"") -> tuple[bytes, bytes]:
    """Read one message head; return it, and what came behind it."""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            raise OSError("closed before the head was whole")
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    return head + b"\r\n\r\n", rest


def echo(connection: socket.socket, number: int) -> None:
    """Answer every request with its own head as the body."""
    data = b""
    while True:
        head, data = read_head(connection, data)
        length = 0
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        while len(data) < length:
            piece = connection.recv(65536)
            if not piece:
                raise OSError("closed in the middle of a body")
            data += piece
        body, data = head + data[:length], data[length:]
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


CODEC = "own"
"""Which HTTP/2 codec the next sidecars use."""


def with_codec(config: str) -> str:
    """Return `config` with `CODEC` on every listener and cluster."""
    if CODEC == "own":
        return config
    tree: dict[str, Any] = load(config.encode())[0]
    for part in ("inbound", "outbound", "clusters"):
        for one in tree.get(part, ()):
            one["http2"] = {**one.get("http2", {}), "codec": CODEC}
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in tree.items())


class Sidecar:
    """A running sidecar; `config` is its YAML without `admin` and `process`."""

    def __init__(self, directory: Path, config: str, drain: str = "5s", workers: int = 1) -> None:
        self.admin = free_port()
        self.path = directory / "sidecar.yaml"
        self.state = directory / "state"
        self.log = directory / "sidecar.log"
        self.workers = workers
        self._drain = drain
        self.write(config)
        self.process = self.start()

    def write(self, config: str) -> None:
        config = with_codec(config)
        spare = self.path.with_suffix(".new")
        spare.write_text(
            f"{config}\nadmin: 127.0.0.1:{self.admin}\nprocess: {{state_dir: {self.state}, "
            f"drain_timeout: {self._drain}, workers: {self.workers}}}\n"
        )
        spare.rename(self.path)

    def start(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "sidecar", "run", str(self.path)],
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env={**os.environ, "XDG_STATE_HOME": str(self.state)},
            )
        wait_for(lambda: self.process.poll() is not None or self.ready())
        assert self.process.poll() is None, self.log.read_text()
        return self.process

    def ready(self) -> bool:
        with contextlib.suppress(OSError):
            return self.get("/ready")[0] == 200
        return False

    def get(self, path: str, method: str = "GET") -> tuple[int, str]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.admin}{path}", method=method)
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 - loopback
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def info(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.get("/server_info")[1])
        return found

    def worker_pid(self) -> int:
        """The first worker's; 0 while its place is empty."""
        return int(self.info()["workers"][0]["pid"] or 0)

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def end(self) -> None:
        """Stop it; it must end with success, and have met no bug of its own."""
        assert self.stop() == 0
        assert "msg=bug" not in self.log.read_text()


@contextlib.contextmanager
def talk(port: int, data: bytes = b"") -> Iterator[socket.socket]:
    """A plain connection to `port`."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        if data:
            sock.sendall(data)
        yield sock


def read_all(sock: socket.socket) -> bytes:
    """Everything until the peer closes."""
    data = b""
    while piece := sock.recv(65536):
        data += piece
    return data


def read_response(sock: socket.socket, data: bytes = b"") -> tuple[bytes, bytes, bytes]:
    """One response with Content-Length: head, body, rest."""
    head, rest = read_head(sock, data)
    length = 0
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    while len(rest) < length:
        piece = sock.recv(65536)
        assert piece, "closed in the middle of a body"
        rest += piece
    return head, rest[:length], rest[length:]
