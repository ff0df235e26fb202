"""A worker that has too much does less, and goes on serving: through real processes and sockets."""

import contextlib
import json
import os
import resource
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.stand import (
    Sidecar,
    Upstream,
    echo,
    free_port,
    read_response,
    talk,
    wait_for,
)

LIMIT = 200 << 20
HELD = 0.5  # seconds for which one request to /held keeps the worker from everything else
HOLD = f"""\
import time

from sidecar.filter import Filter, Reply

class Hold(Filter[None]):
    def on_request(self, request):
        time.sleep({HELD})
        return Reply(204)
"""


def get(path: str = "/") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: app\r\n\r\n".encode()


class Scene:
    """A sidecar in front of one server; `overload` is its YAML."""

    def __init__(self, directory: Path) -> None:
        self.upstream = Upstream(echo)
        self.port = free_port()
        self.sidecar = Sidecar(directory, self.config())

    def config(self, overload: str = "{}") -> str:
        return (
            "workload: web\n"
            f"outbound: [{{address: '127.0.0.1:{self.port}', protocol: http, routes: ["
            "{name: health, match: {path: /healthz}, cluster: app, bypass_overload: true},"
            " {name: held, match: {path: /held}, cluster: app, bypass_overload: true, filters: ["
            f"{{name: hold, code: {json.dumps(HOLD)}, budget: 10s, max_overruns: 0}}]}},"
            " {name: all, cluster: app}]}]\n"
            f"clusters: [{{name: app, endpoints: ['127.0.0.1:{self.upstream.port}']}}]\n"
            f"telemetry: {{access_log: 'off'}}\noverload: {overload}\n"
        )

    def push(self, overload: str) -> None:
        before = self.sidecar.info()["version"]
        self.sidecar.write(self.config(overload))
        wait_for(lambda: self.sidecar.info()["version"] != before)

    def ask(self, path: str = "/") -> tuple[bytes, bytes]:
        with talk(self.port, get(path)) as sock:
            head, body, _ = read_response(sock)
            return head, body

    def is_served(self) -> bool:
        with contextlib.suppress(OSError):
            return self.ask()[0].startswith(b"HTTP/1.1 200")
        return False

    def statuses(self, path: str = "/", count: int = 60) -> Counter[bytes]:
        return Counter(self.ask(path)[0][9:12] for _ in range(count))

    def values(self) -> dict[str, float]:
        rows = json.loads(self.sidecar.get("/overload?format=json")[1])
        return {row.get("resource") or row["action"]: row["value"] for row in rows}

    def close(self) -> None:
        self.sidecar.end()
        self.upstream.close()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    scene.close()


def test_between_the_watermarks_a_share_of_requests_is_refused(scene: Scene) -> None:
    statm = Path(f"/proc/{scene.sidecar.worker_pid()}/statm").read_text().split()
    percent = int(statm[1]) * resource.getpagesize() * 100 / LIMIT
    thresholds = (
        f"scaling_threshold: {percent - 12:.1f}%, saturation_threshold: {percent + 12:.1f}%"
    )
    scene.push(f"{{memory: {{limit: {LIMIT}, {thresholds}}}}}")
    wait_for(lambda: scene.values().get("memory", 0) > 0.2)

    found = scene.statuses()
    assert set(found) == {b"200", b"503"}
    assert min(found.values()) >= 6
    head, body = wait_for(lambda: next((a for a in [scene.ask()] if b" 503 " in a[0]), None))
    assert b"\r\nretry-after: " in head
    assert b"flag OM, route all, memory at " in body
    assert scene.statuses("/healthz") == {b"200": 60}
    assert scene.sidecar.get("/ready")[0] == 200
    assert scene.values()["disable_http_keepalive"] == 1.0
    assert 'response_flags="OM"' in scene.sidecar.get("/metrics")[1]

    scene.push("{}")
    wait_for(lambda: scene.values().get("memory") == 0.0)
    assert scene.statuses() == {b"200": 60}


def test_a_worker_that_comes_late_sheds_requests_until_it_is_in_time_again(scene: Scene) -> None:
    scene.push("{loop_lag: {scaling_threshold: 100ms, saturation_threshold: 200ms}}")
    wait_for(scene.is_served)  # also where this machine itself was late a moment ago
    with talk(scene.port) as holding, talk(scene.port) as kept:

        def served(sock: socket.socket) -> tuple[bytes, bytes]:
            sock.sendall(get())
            return read_response(sock)[:2]

        @contextlib.contextmanager
        def held() -> Iterator[None]:
            """Hold the worker up once: its next look at the clock is late by 0.3 s at least."""
            holding.sendall(get("/held"))
            yield
            assert read_response(holding)[0].startswith(b"HTTP/1.1 204")

        def shed() -> tuple[bytes, bytes] | None:
            with held():
                head, body = served(kept)
            return (head, body) if head.startswith(b"HTTP/1.1 503") else None

        def is_refused() -> bool:
            with held(), contextlib.suppress(OSError):
                scene.ask()
                return False
            return True

        head, body = wait_for(shed)
        assert b"\r\nretry-after: " in head
        assert b"\r\nconnection: " not in head.lower()  # a new one would cost time as well
        assert b"flag OM, route all, loop lag at 100% of the way" in body
        wait_for(is_refused)

        wait_for(lambda: served(kept)[0].startswith(b"HTTP/1.1 200"))
    wait_for(scene.is_served)

    def is_counted() -> bool:
        metrics = scene.sidecar.get("/metrics")[1]
        return 'reason="overloaded"' in metrics and 'response_flags="OM"' in metrics

    wait_for(is_counted)


def test_one_connection_more_than_all_listeners_may_have_is_closed(scene: Scene) -> None:
    scene.push("{max_connections: 3}")
    with contextlib.ExitStack() as stack:
        kept = [stack.enter_context(talk(scene.port)) for _ in range(3)]
        for sock in kept:
            sock.sendall(get())
            assert read_response(sock)[0].startswith(b"HTTP/1.1 200")
        with pytest.raises(OSError, match=r"reset|closed"):
            scene.ask()
    wait_for(scene.is_served)
    refused = 'reason="connections-overflow"'
    wait_for(lambda: refused in scene.sidecar.get("/metrics")[1])


def test_requests_are_served_while_callers_use_up_the_descriptors(scene: Scene) -> None:
    before = scene.sidecar.worker_pid()
    resource.prlimit(scene.sidecar.process.pid, resource.RLIMIT_NOFILE, (120, 120))
    os.kill(before, signal.SIGKILL)  # the one after it inherits the limit
    wait_for(lambda: scene.sidecar.worker_pid() not in (0, before))
    wait_for(scene.sidecar.ready)
    wait_for(lambda: "stop_accepting_requests" in scene.values())

    found: Counter[str] = Counter()
    with contextlib.ExitStack() as stack:
        for _ in range(130):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", scene.port), 10))
            try:
                sock.sendall(get())
                found[read_response(sock)[0][9:12].decode()] += 1
            except OSError:
                found["closed"] += 1
    assert set(found) == {"200", "closed"}  # never a 503 for want of a socket to the endpoint
    assert found["200"] >= 20
    wait_for(scene.is_served)
    assert scene.sidecar.worker_pid() != before
