"""Limits of time that are off by default, through real sockets."""

import json
import select
import socket
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.e2e.stand import (
    Sidecar,
    Upstream,
    echo,
    free_port,
    read_all,
    read_head,
    read_response,
    talk,
    wait_for,
)

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


class Ports(NamedTuple):
    """Those of one sidecar, by what its listener limits."""

    stream: int  # the whole exchange, and the connection
    request: int  # how long a request may take
    rate: int  # how fast its body comes


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ports]:
    directory = tmp_path_factory.mktemp("timeouts")
    upstream, echoing = Upstream(serve), Upstream(echo)
    ports = Ports(free_port(), free_port(), free_port())
    sidecar = Sidecar(
        directory,
        "workload: web\n"
        f"outbound: [{{address: '127.0.0.1:{ports.stream}', cluster: app, protocol: http,"
        " max_stream_duration: 0.5s, max_connection_duration: 1.5s},"
        f" {{address: '127.0.0.1:{ports.request}', cluster: app, protocol: http,"
        " request_timeout: 0.5s},"
        f" {{address: '127.0.0.1:{ports.rate}', cluster: echo, protocol: http,"
        " min_request_rate: 100B}]\n"
        f"clusters: [{{name: app, endpoints: ['127.0.0.1:{upstream.port}']}},"
        f" {{name: echo, endpoints: ['127.0.0.1:{echoing.port}']}}]\n"
        f"telemetry: {{access_log: {{path: {directory}/access.log, format: json}}}}\n",
    )
    yield ports
    sidecar.end()
    upstream.close()
    echoing.close()
    rows = [json.loads(line) for line in (directory / "access.log").read_text().splitlines()]
    assert rows != []
    for row in rows:
        expected = {"/ever": "DT", "/never": "DT", "/slow": "DPE"}
        assert row["response_flags"] == expected.get(row["path"], "-")


def test_a_request_that_is_never_whole_is_answered(ports: Ports) -> None:
    head = b"POST /slow HTTP/1.1\r\nHost: app\r\nContent-Length: 10\r\n\r\n12345"
    with talk(ports.request, head) as sock:
        answer = read_all(sock)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"code request-timeout, flag DPE" in answer


def test_a_body_that_drips_is_cut_and_one_that_comes_fast_enough_is_not(ports: Ports) -> None:
    head = b"POST /%b HTTP/1.1\r\nHost: app\r\nContent-Length: %d\r\n\r\n"
    length = 100_000
    sent = 0
    with talk(ports.rate) as fast, talk(ports.rate) as slow:
        begun = time.monotonic()
        fast.sendall(head % (b"", length))
        slow.sendall(head % (b"slow", length))
        while not select.select([slow], [], [], 0.1)[0]:
            assert time.monotonic() < begun + 20
            slow.sendall(b"x")  # never more than 10 octets a second
            fast.sendall(b"x" * 100)  # never more than ten times what is asked for
            sent += 100
        assert time.monotonic() - begun >= 9.9  # it is looked at once in ten seconds
        answer = read_all(slow)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"code request-too-slow, flag DPE" in answer
        assert not select.select([fast], [], [], 0)[0]
        fast.sendall(b"x" * (length - sent))
        answer, body, _ = read_response(fast)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert body.endswith(b"\r\n\r\n" + b"x" * length)


def test_a_stream_that_never_ends_is_ended(ports: Ports) -> None:
    with talk(ports.stream, GET % b"never") as sock:
        answer = sock.recv(4096)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"flag DT" in answer
    with talk(ports.stream, GET % b"ever") as sock:
        body = read_all(sock)
        assert body.startswith(b"HTTP/1.1 200 OK")
        assert not body.endswith(b"0\r\n\r\n")  # so that it shows that it was cut


def test_a_connection_is_told_to_end_and_a_new_one_is_served(ports: Ports) -> None:
    with talk(ports.stream, GET % b"") as sock:
        sock.recv(4096)
        begun = time.monotonic()
        assert wait_for(lambda: sock.recv(4096) == b"")
        assert 0.5 < time.monotonic() - begun < 10
    with talk(ports.stream, GET % b"") as sock:
        assert sock.recv(4096).startswith(b"HTTP/1.1 200")
