"""What callers see of endpoints that fail, are slow or ask for time: over real sockets."""

import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.stand import Sidecar, Upstream, free_port, read_head, read_response, talk, wait_for

GET = b"GET / HTTP/1.1\r\nHost: app\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 0\r\n\r\n"
KEYED = POST.replace(b"\r\n\r\n", b"\r\nIdempotency-Key: 1\r\n\r\n")

Answer = Callable[[bytes], bytes | None]
"""What to answer to a request's head; None: close without a word."""


def answered(text: bytes, status: bytes = b"200 OK", *lines: bytes) -> bytes:
    fields = (b"Content-Length: %d" % len(text), *lines)
    return b"HTTP/1.1 " + status + b"\r\n" + b"".join(f + b"\r\n" for f in fields) + b"\r\n" + text


class App:
    """An upstream that answers as the test has it, and remembers what it was asked."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.heads: list[bytes] = []
        self.upstream = Upstream(self._serve)
        self.address = f"127.0.0.1:{self.upstream.port}"

    def _serve(self, connection: socket.socket, number: int) -> None:
        data = b""
        while True:
            head, data = read_head(connection, data)
            self.heads.append(head)
            answer = self.answer(head)
            if answer is None:
                return
            connection.sendall(answer)


class Rig:
    """Apps, and sidecars in front of them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.apps: list[App] = []
        self.sidecars: list[Sidecar] = []

    def app(self, answer: Answer) -> App:
        self.apps.append(App(answer))
        return self.apps[-1]

    def start(self, cluster: str = "", route: str = "") -> int:
        """Start a sidecar before all apps, with more of its cluster and its route; its port."""
        port = free_port()
        endpoints = ", ".join(f'"{app.address}"' for app in self.apps)
        directory = self._directory / str(port)
        directory.mkdir()
        self.sidecars.append(
            Sidecar(
                directory,
                "workload: web\n"
                f'outbound: [{{address: "127.0.0.1:{port}", routes: [{{cluster: app{route}}}]}}]\n'
                f"clusters: [{{name: app, endpoints: [{endpoints}]{cluster}}}]\n",
            )
        )
        return port

    def close(self) -> None:
        for sidecar in self.sidecars:
            sidecar.end()
        for app in self.apps:
            app.upstream.close()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.close()


def ask(port: int, request: bytes = GET) -> tuple[int, bytes]:
    """Return status and body of one answer."""
    with talk(port, request) as sock:
        head, body, _ = read_response(sock)
    return int(head.split(b" ")[1]), body


def test_without_a_word_in_the_config_failures_of_one_endpoint_stay_unseen(rig: Rig) -> None:
    good = rig.app(lambda head: answered(b"good"))
    rig.app(lambda head: answered(b"", b"503 Busy"))
    rig.app(lambda head: None)
    port = rig.start(", balancer: round_robin, outlier_detection: {enabled: false}")
    assert [ask(port) for _ in range(12)] == [(200, b"good")] * 12
    assert len(good.heads) == 12
    posts = {ask(port, POST)[0] for _ in range(6)}
    assert posts == {200, 502, 503}
    assert {ask(port, KEYED)[0] for _ in range(6)} == {200}


def test_an_endpoint_that_asks_for_a_second_is_given_it_and_told_which_try_it_is(rig: Rig) -> None:
    times: list[float] = []

    def busy_at_first(head: bytes) -> bytes:
        times.append(time.monotonic())
        if len(times) == 1:
            return answered(b"", b"503 Busy", b"Retry-After: 1")
        return answered(b"at last")

    app = rig.app(busy_at_first)
    port = rig.start("", ", retry: {attempt_count: true}")
    assert ask(port) == (200, b"at last")
    assert times[1] - times[0] >= 1
    assert b"x-envoy-attempt-count: 1\r\n" in app.heads[0]
    assert b"x-envoy-attempt-count: 2\r\n" in app.heads[1]
    sidecar = rig.sidecars[0]
    assert "sidecar_retries_total 1.0" in sidecar.get("/metrics")[1]
    wait_for(lambda: "attempts=2" in sidecar.log.read_text())


def test_requests_that_would_only_queue_are_refused_and_more_are_let_through_again(
    rig: Rig,
) -> None:
    pause = threading.Event()
    slow = threading.Event()

    def answer(head: bytes) -> bytes:
        pause.wait(0.3 if slow.is_set() else 0.005)
        return answered(b"")

    rig.app(answer)
    settings = "{min_rtt_request_count: 5, max_concurrency_limit: 20, enabled: true}"
    port = rig.start(f", adaptive_concurrency: {settings}")
    assert [ask(port)[0] for _ in range(5)] == [200] * 5
    slow.set()
    with ThreadPoolExecutor(20) as pool:
        statuses = Counter(status for status, _ in pool.map(ask, [port] * 100))
        assert set(statuses) == {200, 503}
        metrics = rig.sidecars[0].get("/metrics")[1]
        (limit,) = re.findall(r'sidecar_concurrency_limit{cluster="app"} ([0-9.]+)', metrics)
        assert 3 <= float(limit) < 20
        assert (
            'sidecar_admission_refused_total{cluster="app",reason="concurrency-overflow"}'
            in metrics
        )
        slow.clear()
        wait_for(lambda: {status for status, _ in pool.map(ask, [port] * 40)} == {200})


def test_a_cluster_that_fails_is_not_asked_for_everything(rig: Rig) -> None:
    app = rig.app(lambda head: answered(b"", b"500 Oops"))
    port = rig.start(", admission_control: true")
    statuses = Counter(ask(port)[0] for _ in range(60))
    assert set(statuses) == {500, 503}
    assert len(app.heads) == statuses[500] < 40
    assert 'reason="admission-denied' in wait_for(
        lambda: (text := rig.sidecars[0].log.read_text()) and "admission" in text and text
    )


@pytest.mark.parametrize("hedge", ["50ms", "{percentile: 90}"])
def test_a_slow_endpoint_is_overtaken_and_hears_that_nobody_waits(rig: Rig, hedge: str) -> None:
    pause = threading.Event()
    slow = threading.Event()
    ends: list[bytes] = []

    def sometimes_slow(connection: socket.socket, number: int) -> None:
        data = b""
        while True:
            _, data = read_head(connection, data)
            if slow.is_set():
                connection.settimeout(10)
                ends.append(connection.recv(1))  # empty: the sidecar has closed
                return
            pause.wait(0.01)
            connection.sendall(answered(b"slow"))

    app = rig.app(lambda head: answered(b""))
    app.upstream.close()
    app.upstream = Upstream(sometimes_slow)
    app.address = f"127.0.0.1:{app.upstream.port}"
    rig.app(lambda head: answered(b"quick"))
    port = rig.start(", balancer: round_robin", f", hedge: {hedge}")
    assert {ask(port)[0] for _ in range(110)} == {200}
    slow.set()
    began = time.monotonic()
    assert [ask(port) for _ in range(10)] == [(200, b"quick")] * 10
    assert time.monotonic() - began < 9  # the slow one would have taken 10 s each time
    wait_for(lambda: len(ends) >= 5 and set(ends) == {b""})
    metrics = rig.sidecars[0].get("/metrics")[1]
    (won,) = re.findall(r'sidecar_hedges_total{cluster="app",result="won"} ([0-9.]+)', metrics)
    assert 5 <= len(ends) <= float(won)


def test_over_a_limit_of_connections_few_wait_and_not_for_long(rig: Rig) -> None:
    pause = threading.Event()

    def slow(head: bytes) -> bytes:
        pause.wait(1.5)
        return answered(b"")

    app = rig.app(slow)
    port = rig.start(", limits: {connections: 1, pending: 2, pending_timeout: 500ms}")
    with ThreadPoolExecutor(6) as pool:
        statuses = Counter(status for status, _ in pool.map(ask, [port] * 6))
    assert statuses == {200: 1, 503: 5}
    assert len(app.heads) == 1

    def logged() -> Counter[str]:
        return Counter(re.findall(r'reason="([a-z-]+)"', rig.sidecars[0].log.read_text()))

    # The one that the connection was begun for was among those that waited.
    wait_for(
        lambda: sum(logged()[reason] for reason in ("pending-timeout", "pending-overflow")) == 5
    )
    assert logged()["pending-timeout"] in (1, 2)
