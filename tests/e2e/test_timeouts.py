"""Limits of time that are off by default, through real sockets."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.stand import Sidecar, Upstream, free_port, read_all, read_head, talk, wait_for

GET = b"GET /%b HTTP/1.1\r\nHost: app\r\n\r\n"
STREAM = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def serve(connection: socket.socket, number: int) -> None:
    """Answer at once, never, or with octets that go on for ever, as the path says."""
    rest = b""
    pause = threading.Event()
    while True:
        head, rest = read_head(connection, rest)
        if b"/never" in head or b"/slow" in head:
            connection.recv(1)
        elif b"/ever" in head:
            connection.sendall(STREAM)
            while not pause.wait(0.05):
                connection.sendall(b"1\r\nx\r\n")
        else:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


@pytest.fixture
def ports(tmp_path: Path) -> Iterator[tuple[int, int]]:
    upstream = Upstream(serve)
    port, other = free_port(), free_port()
    sidecar = Sidecar(
        tmp_path,
        "workload: web\n"
        f"outbound: [{{address: '127.0.0.1:{port}', cluster: app, protocol: http,"
        " max_stream_duration: 0.5s, max_connection_duration: 1.5s},"
        f" {{address: '127.0.0.1:{other}', cluster: app, protocol: http, request_timeout: 0.5s,"
        " min_request_rate: 100B}]\n"
        f"clusters: [{{name: app, endpoints: ['127.0.0.1:{upstream.port}']}}]\n"
        f"telemetry: {{access_log: {{path: {tmp_path}/access.log, format: json}}}}\n",
    )
    yield port, other
    assert sidecar.stop() == 0
    upstream.close()
    rows = [json.loads(line) for line in (tmp_path / "access.log").read_text().splitlines()]
    assert "msg=bug" not in sidecar.log.read_text()
    assert rows != []
    for row in rows:
        expected = {"/ever": "DT", "/never": "DT", "/slow": "DPE"}
        assert row["response_flags"] == expected.get(row["path"], "-")


def test_a_request_that_is_never_whole_is_answered(ports: tuple[int, int]) -> None:
    head = b"POST /slow HTTP/1.1\r\nHost: app\r\nContent-Length: 10\r\n\r\n12345"
    with talk(ports[1], head) as sock:
        answer = read_all(sock)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"code request-timeout, flag DPE" in answer


def test_a_stream_that_never_ends_is_ended(ports: tuple[int, int]) -> None:
    port, _ = ports
    with talk(port, GET % b"never") as sock:
        answer = sock.recv(4096)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"flag DT" in answer
    with talk(port, GET % b"ever") as sock:
        body = read_all(sock)
        assert body.startswith(b"HTTP/1.1 200 OK")
        assert not body.endswith(b"0\r\n\r\n")  # so that it shows that it was cut


def test_a_connection_is_told_to_end_and_a_new_one_is_served(ports: tuple[int, int]) -> None:
    port, _ = ports
    with talk(port, GET % b"") as sock:
        sock.recv(4096)
        begun = time.monotonic()
        assert wait_for(lambda: sock.recv(4096) == b"")
        assert 0.5 < time.monotonic() - begun < 10
    with talk(port, GET % b"") as sock:
        assert sock.recv(4096).startswith(b"HTTP/1.1 200")
