"""Which endpoint real requests go to: away from one that fails, back once it has recovered, by cookie."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.stand import Sidecar, Upstream, free_port, read_head, read_response, talk, wait_for


class Place:
    """An upstream that says which one it is, with a status that the test sets."""

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.status = b"200 OK"
        self.upstream = Upstream(self._serve)

    def _serve(self, connection: socket.socket, number: int) -> None:
        data = b""
        while True:
            _, data = read_head(connection, data)
            length = b"Content-Length: %d" % len(self.name)
            lines = (b"HTTP/1.1 " + self.status, length, b"", self.name)
            connection.sendall(b"\r\n".join(lines))


Start = Callable[[str, str], tuple[Sidecar, int]]


@pytest.fixture
def places() -> Iterator[list[Place]]:
    made = [Place(b"%d" % number) for number in range(3)]
    yield made
    for place in made:
        place.upstream.close()


@pytest.fixture
def start(places: list[Place], tmp_path: Path) -> Iterator[Start]:
    """Return what starts a sidecar before the places, with more of its cluster and its route."""
    started = []

    def new(cluster: str, route: str) -> tuple[Sidecar, int]:
        port = free_port()
        endpoints = ", ".join(f'"127.0.0.1:{place.upstream.port}"' for place in places)
        started.append(
            Sidecar(
                tmp_path,
                "workload: web\n"
                f'outbound: [{{address: "127.0.0.1:{port}", routes: [{{cluster: app{route}}}]}}]\n'
                f"clusters: [{{name: app, endpoints: [{endpoints}]{cluster}}}]\n",
            )
        )
        return started[-1], port

    yield new
    for sidecar in started:
        sidecar.end()


def ask(port: int, lines: bytes = b"") -> tuple[bytes, bytes]:
    """Return head and body of one answer."""
    with talk(port, b"GET / HTTP/1.1\r\nHost: app\r\n" + lines + b"\r\n") as sock:
        head, body, _ = read_response(sock)
    return head, body


def test_an_endpoint_that_fails_is_left_out_until_it_has_recovered(
    places: list[Place], start: Start
) -> None:
    sidecar, port = start(
        ", balancer: round_robin, outlier_detection: {interval: 100ms, base_ejection_time: 200ms}",
        "",
    )
    places[1].status = b"500 Oops"
    answers = [ask(port)[0].split(b" ")[1] for _ in range(60)]
    assert 5 <= answers.count(b"500") <= 20  # a row of five, and the probes after it
    clusters, metrics = (sidecar.get(path)[1] for path in ("/clusters", "/metrics"))
    assert f"127.0.0.1:{places[1].upstream.port}  ejected:" in clusters
    assert 'sidecar_outlier_ejected_endpoints{cluster="app"} 1.0' in metrics
    assert 'sidecar_outlier_ejections_total{cluster="app",reason="consecutive-5xx"} 1.0' in metrics
    places[1].status = b"200 OK"
    wait_for(lambda: ask(port)[1] == b"1" and "ejected" not in sidecar.get("/clusters")[1])


def test_the_affinity_cookie_leads_back(start: Start) -> None:
    _, port = start(", balancer: maglev", ", hash_policy: [{cookie: {name: at, ttl: 60s}}]")
    found = set()
    for _ in range(20):
        head, first = ask(port)
        (line,) = [x for x in head.split(b"\r\n") if x.lower().startswith(b"set-cookie:")]
        cookie = line.partition(b":")[2].strip().partition(b";")[0]
        head, second = ask(port, b"Cookie: " + cookie + b"\r\n")
        assert second == first
        assert b"set-cookie" not in head.lower()
        found.add(first)
    assert len(found) > 1
