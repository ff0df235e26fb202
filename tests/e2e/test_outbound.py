"""An outbound listener between a real caller and a real upstream."""

import http.client
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
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


def config(port: int, upstream: str, more: str = "", cluster: str = "") -> str:
    return (
        "workload: web\n"
        f'outbound: [{{address: "127.0.0.1:{port}", cluster: app{more}}}]\n'
        f'clusters: [{{name: app, endpoints: ["{upstream}"]{cluster}}}]\n'
        "telemetry: {access_log: {path: stdout, format: json}}\n"
    )


class Rig:
    def __init__(self, directory: Path) -> None:
        self.upstream = Upstream(echo)
        self.port = free_port()
        self.sidecar = Sidecar(directory, config(self.port, f"127.0.0.1:{self.upstream.port}"))


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    rig = Rig(tmp_path_factory.mktemp("outbound"))
    yield rig
    rig.upstream.close()
    rig.sidecar.end()


def test_order_and_case_of_fields_survive(rig: Rig) -> None:
    sent = b"GET /a?b HTTP/1.1\r\nhOsT: x.example\r\nX-B: 2\r\nx-a: 1\r\nX-B: 3\r\n"
    with talk(rig.port, sent + b"\r\n") as sock:
        _, body, _ = read_response(sock)
    assert body.startswith(sent)
    assert b"\r\nx-request-id: " in body
    assert b"\r\ntraceparent: 00-" in body


def test_hop_by_hop_fields_end_here(rig: Rig) -> None:
    with talk(rig.port, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, X-Hop\r\n"
              b"X-Hop: 1\r\nKeep-Alive: 3\r\n\r\n") as sock:  # fmt: skip
        _, body, _ = read_response(sock)
    assert b"X-Hop" not in body
    assert b"eep-" not in body


def test_pipelined_requests_are_answered_in_order(rig: Rig) -> None:
    with talk(
        rig.port, b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % n for n in range(20))
    ) as s:
        rest = b""
        for number in range(20):
            _, body, rest = read_response(s, rest)
            assert body.startswith(b"GET /%d HTTP/1.1\r\n" % number)


def test_chunked_bodies_and_trailers_pass(tmp_path: Path) -> None:
    seen = []

    def serve(connection: socket.socket, number: int) -> None:
        _, data = read_head(connection)
        while not data.endswith(b"X-Sum: 7\r\n\r\n"):
            data += connection.recv(65536)
        seen.append(data)
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n"
                           b"3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n")  # fmt: skip

    upstream, port = Upstream(serve), free_port()
    sidecar = Sidecar(tmp_path, config(port, f"127.0.0.1:{upstream.port}"))
    with talk(port, b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n") as sock:
        sock.sendall(b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nX-Sum: 7\r\n\r\n")
        _, rest = read_head(sock)
        while not rest.endswith(b"X-T: 1\r\n\r\n"):
            rest += sock.recv(65536)
    assert b"hello" in seen[0]
    assert b"x=y" not in seen[0]
    assert rest == b"3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n"
    sidecar.end()
    upstream.close()


def test_an_http10_caller_gets_http10_manners(rig: Rig) -> None:
    with talk(rig.port, b"GET / HTTP/1.0\r\n\r\n") as sock:
        answer = read_all(sock)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Connection: close" in answer


def test_head_has_no_body_and_keeps_the_connection(rig: Rig) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", rig.port, timeout=10)
    for _ in range(3):
        connection.request("POST", "/", body=b"x" * 100000)
        answer = connection.getresponse()
        assert answer.status == 200
        assert answer.read().endswith(b"x" * 100000)
    connection.close()


BAD = {
    "both lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "plus sign": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +3\r\n\r\nabc",
    "underscore": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1_0\r\n\r\nabc",
    "space before colon": b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
    "obs-fold": b"GET / HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n",
    "bare LF": b"GET / HTTP/1.1\nHost: x\n\n",
    "bare CR": b"GET / HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n",
    "NUL": b"GET / HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "hosts disagree": b"GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n",
    "gzip, chunked": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    "chunk size": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n",
    "trailer": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nHost: y\r\n\r\n",
    "version": b"GET / HTTP/1.9\r\nHost: x\r\n\r\n",
    "space in target": b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
    "connect": b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
def test_malformed_requests_get_4xx_and_close_and_never_go_upstream(rig: Rig, data: bytes) -> None:
    # The tail is a well-formed request: were it read as one, the answer would be 200.
    marker = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
    before = rig.upstream.connections
    with talk(rig.port, b"GET /first HTTP/1.1\r\nHost: x\r\n\r\n") as sock:
        read_response(sock)
        sock.sendall(data + marker)
        answer = read_all(sock)
    assert answer.split(b" ")[1] in (b"400", b"405", b"501", b"505"), answer
    assert b"Connection: close" in answer
    assert b"smuggled" not in answer
    assert b"HTTP/1.1 200" not in answer
    assert rig.upstream.connections <= before + 1


def test_an_endless_head_is_refused(rig: Rig) -> None:
    with talk(rig.port, b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: " + b"a" * 70000) as sock:
        assert read_all(sock).startswith(b"HTTP/1.1 431 ")
    with talk(rig.port, b"GET /" + b"a" * 70000) as sock:
        assert read_all(sock).startswith(b"HTTP/1.1 414 ")
    with talk(rig.port, b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: 1\r\n" * 200 + b"\r\n") as sock:
        assert read_all(sock).startswith(b"HTTP/1.1 431 ")


def test_upgrade_is_an_opaque_tunnel(tmp_path: Path) -> None:
    def serve(connection: socket.socket, number: int) -> None:
        head, _ = read_head(connection)
        assert b"Upgrade: websocket" in head
        connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
                           b"Upgrade: websocket\r\n\r\nwelcome")  # fmt: skip
        while data := connection.recv(65536):
            connection.sendall(data.upper())

    upstream, port = Upstream(serve), free_port()
    sidecar = Sidecar(tmp_path, config(port, f"127.0.0.1:{upstream.port}"))
    with talk(
        port, b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    ) as s:
        head, rest = read_head(s)
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"Upgrade: websocket" in head
        while len(rest) < 7:
            rest += s.recv(100)
        s.sendall(b"\x81\x05hello")
        assert s.recv(100) == b"\x81\x05HELLO"
        s.shutdown(socket.SHUT_WR)
        assert read_all(s) == b""
    sidecar.end()
    upstream.close()


def test_expect_is_answered_by_the_endpoint(tmp_path: Path) -> None:
    def serve(connection: socket.socket, number: int) -> None:
        head, data = read_head(connection)
        assert b"Expect: 100-continue" in head
        assert data == b""
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        while len(data) < 5:
            data += connection.recv(100)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" + data)

    upstream, port = Upstream(serve), free_port()
    sidecar = Sidecar(tmp_path, config(port, f"127.0.0.1:{upstream.port}"))
    with talk(
        port, b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    ) as s:
        head, rest = read_head(s)
        assert head == b"HTTP/1.1 100 Continue\r\n\r\n"
        s.sendall(b"hello")
        head, body, _ = read_response(s, rest)
    assert body == b"hello"
    sidecar.end()
    upstream.close()


def test_a_reused_connection_that_died_is_retried_for_get_and_not_for_post(tmp_path: Path) -> None:
    seen: list[bytes] = []

    def serve(connection: socket.socket, number: int) -> None:
        head, _ = read_head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        head, _ = read_head(connection)  # the second request is read, and never answered
        seen.append(head.split(b" ")[0])

    upstream, port = Upstream(serve), free_port()
    sidecar = Sidecar(tmp_path, config(port, f"127.0.0.1:{upstream.port}"))
    for method, expected in (("GET", 200), ("POST", 502)):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/")
        connection.getresponse().read()
        connection.request(method, "/")
        answer = connection.getresponse()
        assert answer.status == expected, answer.read()
        answer.read()
        connection.close()
        if method == "GET":  # the retried one left its connection in the pool: use it up
            seen.clear()
    sidecar.end()
    upstream.close()


def test_an_endpoint_that_refuses_is_explained(tmp_path: Path) -> None:
    port, nobody = free_port(), free_port()
    sidecar = Sidecar(tmp_path, config(port, f"127.0.0.1:{nobody}"))
    answer = httpx.get(f"http://127.0.0.1:{port}/")
    assert answer.status_code == 503
    assert "code connect-failed, flag UF" in answer.text
    assert f"endpoint 127.0.0.1:{nobody}" in answer.text
    assert sidecar.get("/metrics")[1].count('response_flags="UF"') > 0
    sidecar.end()
    record = sidecar.log.read_text()
    assert '"response_code_details":"connect-failed"' in record


def test_a_slow_endpoint_is_timed_out(tmp_path: Path) -> None:
    def serve(connection: socket.socket, number: int) -> None:
        read_all(connection)

    upstream, port = Upstream(serve), free_port()
    text = config(port, f"127.0.0.1:{upstream.port}").replace(
        "cluster: app}", "routes: [{cluster: app, timeout: 300ms}]}"
    )
    sidecar = Sidecar(tmp_path, text)
    answer = httpx.get(f"http://127.0.0.1:{port}/")
    assert answer.status_code == 504
    assert "flag UT" in answer.text
    sidecar.end()
    upstream.close()


def test_a_server_that_speaks_first_is_not_kept_waiting(tmp_path: Path) -> None:
    def serve(connection: socket.socket, number: int) -> None:
        connection.sendall(b"220 hello\r\n")
        data = read_all(connection)  # until the caller closes its direction
        connection.sendall(b"got " + data)

    upstream, port = Upstream(serve), free_port()
    sidecar = Sidecar(tmp_path, config(port, f"127.0.0.1:{upstream.port}"))
    with talk(port) as sock:
        assert sock.recv(100) == b"220 hello\r\n"
        sock.sendall(b"\x00\x01bytes")
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b"got \x00\x01bytes"
    wait_for(lambda: "istio_tcp_connections_closed_total{" in sidecar.get("/metrics")[1])
    sidecar.end()
    upstream.close()


def test_a_huge_body_through_a_slow_reader_stays_small(tmp_path: Path) -> None:
    size = 256 * 1024 * 1024

    def serve(connection: socket.socket, number: int) -> None:
        read_head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        block = b"x" * 65536
        for _ in range(size // len(block)):
            connection.sendall(block)

    upstream, port = Upstream(serve), free_port()
    sidecar = Sidecar(tmp_path, config(port, f"127.0.0.1:{upstream.port}"))
    pid = sidecar.worker_pid()

    def resident() -> int:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = resident()
    peak = 0
    with talk(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") as sock:
        got = 0
        while got < size:
            piece = sock.recv(65536)
            assert piece
            got += len(piece)
            peak = max(peak, resident())
            if got >= size:
                break
    assert peak - before < 8 * 1024 * 1024
    sidecar.end()
    upstream.close()


def test_a_proxy_header_in_and_out_names_the_caller(tmp_path: Path) -> None:
    seen = []

    def serve(connection: socket.socket, number: int) -> None:
        data = connection.recv(65536)
        while b"\r\n\r\n" not in data:
            data += connection.recv(65536)
        seen.append(data)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    upstream, port = Upstream(serve), free_port()
    text = config(
        port, f"127.0.0.1:{upstream.port}", ", accept_proxy_protocol: true", ", proxy_protocol: v1"
    )
    sidecar = Sidecar(tmp_path, text)
    request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    with talk(port, b"PROXY TCP4 192.0.2.7 192.0.2.1 5555 80\r\n" + request) as sock:
        read_response(sock)
    assert seen[0].startswith(b"PROXY TCP4 192.0.2.7 192.0.2.1 5555 80\r\nGET / ")
    with talk(port, request) as sock:
        assert read_all(sock) == b""
    sidecar.end()
    upstream.close()


def test_a_unix_socket_serves_as_endpoint_and_as_listener(tmp_path: Path) -> None:
    upstream = Upstream(echo)
    path = tmp_path / "in.sock"
    text = config(0, f"127.0.0.1:{upstream.port}").replace('"127.0.0.1:0"', f'"unix:{path}"')
    sidecar = Sidecar(tmp_path, text)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(str(path))
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        head, _, _ = read_response(sock)
    assert head.startswith(b"HTTP/1.1 200 ")
    sidecar.end()
    assert not path.exists()
    upstream.close()


@pytest.mark.parametrize("tool", ["curl", "wrk", "h2load"])
def test_common_tools_are_served(rig: Rig, tool: str) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    url = f"http://127.0.0.1:{rig.port}/"
    command = {
        "curl": ["curl", "-fsS", url, "-d", "a=b"],
        "wrk": ["wrk", "-t1", "-c8", "-d1s", url],
        "h2load": ["h2load", "--h1", "-n", "500", "-c", "8", url],
    }[tool]
    told = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    if tool == "curl":
        assert told.endswith("a=b")
    elif tool == "wrk":
        assert "Non-2xx" not in told
        assert "Socket errors" not in told
    else:
        assert "500 succeeded, 0 failed, 0 errored" in told


def test_nginx_is_served_as_an_endpoint(tmp_path: Path) -> None:
    nginx = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
    if nginx is None:
        pytest.skip("nginx is not installed")
    port, behind = free_port(), free_port()
    (tmp_path / "index.html").write_text("hello from nginx")
    paths = " ".join(
        f"{name}_temp_path {tmp_path};"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (tmp_path / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {tmp_path}/pid; error_log stderr;"
        f"events {{}} http {{ access_log off; {paths}"
        f" server {{ listen 127.0.0.1:{behind}; root {tmp_path}; }} }}"
    )
    process = subprocess.Popen([nginx, "-c", str(tmp_path / "nginx.conf"), "-e", "stderr"])
    sidecar = Sidecar(tmp_path, config(port, f"127.0.0.1:{behind}"))
    with httpx.Client() as caller:
        answer = wait_for(lambda: _ok(caller, port))
        for _ in range(5):
            answer = wait_for(lambda: _ok(caller, port))
            assert answer.text == "hello from nginx"
            assert answer.headers["server"].startswith("nginx")
        assert caller.head(f"http://127.0.0.1:{port}/").headers["content-length"] == "16"
        etag = answer.headers["etag"]
        again = caller.get(f"http://127.0.0.1:{port}/", headers={"if-none-match": etag})
        assert again.status_code == 304
    sidecar.end()
    process.send_signal(signal.SIGTERM)
    process.wait(10)


def _ok(caller: httpx.Client, port: int) -> httpx.Response | None:
    answer = caller.get(f"http://127.0.0.1:{port}/")
    return answer if answer.status_code == 200 else None
