"""Copies of requests through real sockets: a mirror that hangs delays nobody."""

import socket
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.e2e.stand import Sidecar, Upstream, echo, free_port, read_head, wait_for

CONFIG = """\
workload: web
outbound:
  - address: 127.0.0.1:{port}
    routes:
      - cluster: app
        mirror:
          - {{cluster: hangs, timeout: 60s}}
          - {{cluster: absent}}
          - {{cluster: shadow, max_body: 10}}
clusters:
  - {{name: app, endpoints: ["127.0.0.1:{app}"]}}
  - {{name: shadow, endpoints: ["127.0.0.1:{shadow}"]}}
  - {{name: hangs, endpoints: ["127.0.0.1:{hangs}"]}}
  - {{name: absent, endpoints: ["127.0.0.1:{absent}"]}}
"""


@pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])
def test_a_mirror_that_hangs_or_is_not_there_delays_nobody(tmp_path: Path, http2: bool) -> None:
    over = threading.Event()
    copies: list[bytes] = []

    def hang(connection: socket.socket, number: int) -> None:
        connection.recv(65536)
        over.wait(20)

    def keep(connection: socket.socket, number: int) -> None:
        data = b""
        while True:
            head, data = read_head(connection, data)
            copies.append(head)
            data = data[2:]  # the body of each is "hi"
            connection.sendall(b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno")

    app, shadow, hangs = Upstream(echo), Upstream(keep), Upstream(hang)
    port = free_port()
    sidecar = Sidecar(
        tmp_path,
        CONFIG.format(
            port=port, app=app.port, shadow=shadow.port, hangs=hangs.port, absent=free_port()
        ),
    )
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", http1=not http2, http2=http2) as client:
        began = time.monotonic()
        for number in range(20):
            answer = client.post(f"/{number}", content=b"hi")
            assert answer.status_code == 200
            assert answer.text.startswith(f"POST /{number} HTTP/1.1\r\n")
        assert client.post("/long", content=b"longer than ten").status_code == 200
        assert time.monotonic() - began < 10  # a mirror that were waited for would take 60 s
    wait_for(lambda: len(copies) == 20)
    assert {head.split(b" ")[1] for head in copies} == {b"/%d" % n for n in range(20)}
    assert all(b"-shadow:%d\r\n" % port in head for head in copies)
    wait_for(lambda: hangs.connections == 21)
    skipped = 'sidecar_mirror_skipped_total{cluster="shadow",reason="body-too-large"} 1.0'
    wait_for(lambda: skipped in sidecar.get("/metrics")[1])
    counted = [
        line for line in sidecar.get("/metrics")[1].splitlines()
        if line.startswith("istio_requests_total") and 'reporter="source"' in line
    ]  # fmt: skip
    assert [line.rpartition(" ")[2] for line in counted] == ["21.0"]
    over.set()
    sidecar.end()
    for upstream in (app, shadow, hangs):
        upstream.close()
