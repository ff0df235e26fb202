"""Limits of octets and of connections through real sockets: HTTP/1.1, HTTP/2, TLS and opaque TCP."""

import contextlib
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from sidecar.issuers.ephemeral import Authority
from tests.e2e.stand import (
    Sidecar,
    Upstream,
    free_port,
    read_all,
    read_head,
    read_response,
    talk,
    wait_for,
)

SIZE = 300_000
RATE = 250_000
LEAST = (SIZE - RATE * 0.1) / RATE * 0.95  # seconds: a tenth of a second's may pass at once

CONFIG = """\
workload: web
outbound:
  - address: 127.0.0.1:{http}
    protocol: http
    bandwidth_limits: [{{up: {rate}, down: {rate}, by: [source]}}]
    cluster: app
  - address: 127.0.0.1:{tcp}
    protocol: tcp
    bandwidth_limits: [{{up: {rate}, down: {rate}}}]
    cluster: raw
  - address: 127.0.0.1:{routed}
    protocol: http
    routes:
      - name: slow
        cluster: app
        bandwidth_limits: [{{up: {rate}, down: {rate}}}]
  - address: 127.0.0.1:{few}
    connection_limits: [{{name: few, connections: 2, by: [source]}}]
    cluster: app
clusters:
  - {{name: app, endpoints: ["127.0.0.1:{app}"]}}
  - {{name: raw, endpoints: ["127.0.0.1:{raw}"]}}
"""


def size_asked(connection: socket.socket, number: int) -> None:
    """Take the whole body of a request, and answer as many octets as its path says."""
    data = b""
    while True:
        head, data = read_head(connection, data)
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        data = take(connection, data, int(length or 0))
        size = int(head.split(b" ")[1].strip(b"/") or 0)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + pattern(size))


def take(connection: socket.socket, data: bytes, size: int) -> bytes:
    while len(data) < size:
        piece = connection.recv(65536)
        if not piece:
            raise OSError("closed in the middle of a body")
        data += piece
    assert data[:size] == pattern(size)
    return data[size:]


def mirror(connection: socket.socket, number: int) -> None:
    """Take all there is, then send it back."""
    connection.sendall(read_all(connection))


def pattern(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


class Rig:
    def __init__(self, directory: Path) -> None:
        self.app, self.raw = Upstream(size_asked), Upstream(mirror)
        self.ports = {name: free_port() for name in ("http", "tcp", "routed", "few")}
        config = CONFIG.format(rate=RATE, app=self.app.port, raw=self.raw.port, **self.ports)
        self.sidecar = Sidecar(directory, config)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    rig = Rig(tmp_path_factory.mktemp("pacing"))
    yield rig
    rig.app.close()
    rig.raw.close()
    rig.sidecar.end()


@contextlib.contextmanager
def taking_its_time(least: float) -> Iterator[None]:
    begun = time.monotonic()
    yield
    spent = time.monotonic() - begun
    assert least <= spent < least * 2 + 2


@pytest.mark.parametrize("listener", ["http", "routed"])
@pytest.mark.parametrize("protocol", ["HTTP/1.1", "HTTP/2"])
def test_bodies_keep_the_rate_both_ways(rig: Rig, protocol: str, listener: str) -> None:
    is_2 = protocol == "HTTP/2"
    url = f"http://127.0.0.1:{rig.ports[listener]}"
    with httpx.Client(base_url=url, http1=not is_2, http2=is_2, timeout=20) as client:
        with taking_its_time(LEAST):
            answer = client.get(f"/{SIZE}")
        assert answer.content == pattern(SIZE)
        with taking_its_time(0.4):
            # A body is ahead by one read at most; what is behind it waits until that is paid for.
            for _ in range(2):
                assert client.post("/0", content=pattern(SIZE // 2)).status_code == 200
        with taking_its_time(0.0):
            assert client.get("/1").content == b"\0"


def test_opaque_octets_keep_the_rate_both_ways_and_the_end_comes_behind_them(rig: Rig) -> None:
    data = pattern(SIZE)
    with talk(rig.ports["tcp"]) as sock, taking_its_time(2 * LEAST):
        sock.settimeout(20)
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == data


def test_one_connection_too_many_is_told_so_and_the_next_is_served_again(rig: Rig) -> None:
    port, get = rig.ports["few"], b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n"
    with talk(port, get) as one, talk(port, get) as two:
        assert [read_response(sock)[1] for sock in (one, two)] == [b"\0", b"\0"]
        with talk(port, get) as three:
            answer = read_all(three)
        assert answer.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
        assert answer.endswith(b"(code connection-limit, flag RL, limit few)\n")
        line = "sidecar_refused_total{listener=outbound|127.0.0.1:%d,reason=connection-limit} 1"
        assert line % port in rig.sidecar.get("/stats")[1]
        one.sendall(get)
        assert read_response(one)[1] == b"\0"

    def is_served() -> bool:
        with talk(port, get) as sock:
            return read_head(sock)[0].startswith(b"HTTP/1.1 200")

    assert wait_for(is_served)


DOMAIN = "example.org"
INBOUND = """\
workload: {{name: catalog, trust_domain: {domain}}}
certificates: {{certificate: {place}/certificate, key: {place}/key, roots: {place}/roots}}
inbound:
  - address: 127.0.0.1:{port}
    app: 127.0.0.1:{app}
    connection_limits: [{{connections: 1, by: [peer]}}]
    bandwidth_limits: [{{down: {rate}, by: [peer]}}]
"""


def test_callers_over_mutual_tls_are_told_apart_by_identity(tmp_path: Path) -> None:
    authority, app, port = Authority(DOMAIN), Upstream(size_asked), free_port()
    own = authority.issue(f"spiffe://{DOMAIN}/ns/default/sa/catalog")
    for name in ("certificate", "key", "roots"):
        (tmp_path / name).write_bytes(getattr(own, name))
    text = INBOUND.format(domain=DOMAIN, place=tmp_path, port=port, app=app.port, rate=RATE)
    sidecar = Sidecar(tmp_path, text)

    @contextlib.contextmanager
    def connected(account: str) -> Iterator[ssl.SSLSocket]:
        secret = authority.issue(f"spiffe://{DOMAIN}/ns/default/sa/{account}")
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        tls.check_hostname = False
        tls.load_verify_locations(cadata=authority.roots.decode())
        (tmp_path / account).write_bytes(secret.certificate + secret.key)
        tls.load_cert_chain(tmp_path / account)
        with talk(port) as raw, tls.wrap_socket(raw) as sock:
            sock.settimeout(20)
            yield sock

    get = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n"
    try:
        with connected("web") as one, connected("jobs") as other:
            one.sendall(get % SIZE)
            with taking_its_time(LEAST):
                assert read_response(one)[1] == pattern(SIZE)
            other.sendall(get % 1)
            assert read_response(other)[1] == b"\0"
            with connected("web") as second:
                second.sendall(get % 1)
                answer = read_all(second)
        assert answer.startswith(b"HTTP/1.1 429 ")
        assert answer.endswith(b"flag RL, limit connections by peer)\n")
    finally:
        app.close()
        sidecar.end()
