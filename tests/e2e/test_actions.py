"""Actions, faults and quota through real sockets, over both protocols."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from tests.e2e.stand import ROOT, Sidecar, Upstream, echo, free_port, talk, wait_for

CONFIG = """\
workload: web
outbound:
  - address: 127.0.0.1:{port}
    routes:
      - {{match: {{path: /closed}}, respond: {{status: 503, body: "back at noon\\n", headers: {{retry-after: "60"}}}}}}
      - {{match: {{prefix: /old}}, redirect: {{status: 308, prefix: /new, host: example.org}}}}
      - match: {{prefix: /api, cookies: {{beta: "1"}}}}
        cluster: app
        rewrite: {{prefix: /, host: internal}}
        request_headers: {{set: {{x-id: "%REQUEST_ID%"}}, remove: [x-secret]}}
        response_headers: {{set: {{x-cluster: "%UPSTREAM_CLUSTER%"}}}}
        cors: {{origins: [https://shop], max_age: 60}}
      - {{match: {{template: "/items/{{id}}"}}, cluster: app, faults: [{{by_header: {{}}}}]}}
      - name: counted
        match: {{prefix: /counted}}
        cluster: app
        rate_limits: [{{requests: 2, per: 1h, by: ["header:x-tenant"]}}]
clusters:
  - {{name: app, endpoints: ["127.0.0.1:{upstream}"]}}
"""


class Rig:
    def __init__(self, directory: Path) -> None:
        self.upstream = Upstream(echo)
        self.port = free_port()
        self.sidecar = Sidecar(
            directory, CONFIG.format(port=self.port, upstream=self.upstream.port)
        )


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    rig = Rig(tmp_path_factory.mktemp("actions"))
    yield rig
    rig.upstream.close()
    rig.sidecar.end()


def test_answers_and_redirects(client: httpx.Client) -> None:
    closed = client.get("/closed")
    assert (closed.status_code, closed.text) == (503, "back at noon\n")
    assert closed.headers["retry-after"] == "60"
    old = client.get("/old/x?q")
    assert old.status_code == 308
    assert old.headers["location"] == "http://example.org/new/x?q"


def test_rewrites_edits_and_cors(client: httpx.Client) -> None:
    fields = {"Cookie": "a=2; beta=1", "X-Secret": "s", "Origin": "https://shop"}
    answer = client.get("/api/x?q", headers=fields)
    assert answer.text.startswith("GET /x?q HTTP/1.1\r\n")
    assert "internal" in answer.text
    assert "secret" not in answer.text.lower()
    assert "x-id: " in answer.text
    assert answer.headers["x-cluster"] == "app"
    assert answer.headers["access-control-allow-origin"] == "https://shop"
    preflight = client.options("/api/x", headers={**fields, "Access-Control-Request-Method": "PUT"})
    assert preflight.status_code == 200
    assert preflight.headers["access-control-max-age"] == "60"
    assert client.get("/api/x").status_code == 404  # without the cookie


def test_faults_by_header(client: httpx.Client) -> None:
    assert client.get("/items/7").status_code == 200
    aborted = client.get("/items/7", headers={"x-envoy-fault-abort-request": "418"})
    assert aborted.status_code == 418
    assert "code fault-abort, flag FI" in aborted.text
    began = time.monotonic()
    delayed = client.get("/items/7", headers={"x-envoy-fault-delay-request": "200"})
    assert delayed.status_code == 200
    assert time.monotonic() - began >= 0.2  # never earlier; how much later is the machine's affair


def test_slow_responses_by_header(client: httpx.Client) -> None:
    began = time.monotonic()
    fields = {"x-envoy-fault-throughput-response": "1", "x-long": "x" * 900}
    slow = client.get("/items/7", headers=fields)
    assert "x" * 900 in slow.text
    assert time.monotonic() - began >= 0.6  # its 1000 octets and more, without the first tenth


def test_quota(client: httpx.Client) -> None:
    tenant = {"x-tenant": uuid4().hex}
    statuses = [client.get("/counted", headers=tenant).status_code for _ in range(2)]
    refused = client.get("/counted", headers=tenant)
    assert (statuses, refused.status_code) == ([200, 200], 429)
    assert 1790 <= int(refused.headers["retry-after"]) <= 1800
    another = {"x-tenant": uuid4().hex}
    assert client.get("/counted", headers=another).status_code == 200


def fault(rig: Rig, *arguments: str) -> tuple[int, str, str]:
    """Return the exit code, output and complaints of `sidecar fault`."""
    admin = ("--admin", f"127.0.0.1:{rig.sidecar.admin}")
    command = [sys.executable, "-m", "sidecar", "fault", *arguments, *admin]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    return done.returncode, done.stdout, done.stderr


def test_faults_at_run_time(rig: Rig) -> None:
    url = f"http://127.0.0.1:{rig.port}/counted"

    def status() -> int:
        return httpx.get(url, headers={"x-tenant": uuid4().hex, "x-who": "me"}).status_code

    code, _, told = fault(rig, "add", "cuonted", "--abort", "500")
    assert (code, "no route is called 'cuonted'; there are: counted" in told) == (1, True)
    added = fault(rig, "add", "counted", "--abort", "418", "--header", "x-who", "me")
    assert added[:2] == (0, "fault 1 begins\n")
    wait_for(lambda: status() == 418)
    assert httpx.get(url, headers={"x-tenant": uuid4().hex}).status_code == 200
    (row,) = json.loads(fault(rig, "list")[1])
    assert (row["id"], row["route"], row["fault"]["abort"]["status"]) == (1, "counted", 418)
    assert fault(rig, "remove", "1")[:2] == (0, "fault 1 ends\n")
    wait_for(lambda: status() == 200)
    assert fault(rig, "remove", "1")[0] == 1
    fault(rig, "add", "counted", "--abort", "500", "--delay", "1ms", "--for", "1s")
    wait_for(lambda: json.loads(rig.sidecar.get("/faults")[1]) == [])
    wait_for(lambda: status() == 200)
    assert rig.sidecar.get("/faults/add")[0] == 405
    assert rig.sidecar.get("/faults/add", "POST")[0] == 400


def test_faults_of_tcp_at_run_time(tmp_path: Path) -> None:
    upstream, port = Upstream(echo), free_port()
    config = (
        f"workload: web\noutbound: [{{address: '127.0.0.1:{port}', protocol: tcp, cluster: db}}]\n"
        f"clusters: [{{name: db, endpoints: ['127.0.0.1:{upstream.port}']}}]\n"
    )
    sidecar = Sidecar(tmp_path, config)

    def run(*arguments: str) -> str:
        admin = ("--admin", f"127.0.0.1:{sidecar.admin}")
        command = [sys.executable, "-m", "sidecar", "fault", *arguments, *admin]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def outcome() -> str:
        try:
            with talk(port) as sock:  # the reset may come before connecting has returned
                sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
                return sock.recv(100)[:12].decode()
        except (ConnectionResetError, BrokenPipeError):
            return "reset"

    try:
        assert outcome() == "HTTP/1.1 200"
        run("add", "db", "--reset")
        wait_for(lambda: outcome() == "reset")
        run("remove", "1")
        wait_for(lambda: outcome() == "HTTP/1.1 200")
        run("add", "db", "--delay", "300ms", "--black-hole", "--percent", "0%")
        run("add", "db", "--delay", "300ms")

        def is_late() -> bool:
            began = time.monotonic()
            return outcome() == "HTTP/1.1 200" and time.monotonic() - began >= 0.3

        wait_for(is_late)
    finally:
        upstream.close()
        sidecar.end()
