"""Actions, faults and quota through real sockets, over both protocols."""

import time
from collections.abc import Iterator
from uuid import uuid4

import httpx
import pytest

from tests.e2e.stand import Sidecar, Upstream, echo, free_port

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


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    upstream, port = Upstream(echo), free_port()
    config = CONFIG.format(port=port, upstream=upstream.port)
    sidecar = Sidecar(tmp_path_factory.mktemp("actions"), config)
    yield port
    upstream.close()
    assert sidecar.stop() == 0
    assert "msg=bug" not in sidecar.log.read_text()


@pytest.fixture(params=["HTTP/1.1", "HTTP/2"])
def client(request: pytest.FixtureRequest, port: int) -> Iterator[httpx.Client]:
    is_2 = request.param == "HTTP/2"
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", http1=not is_2, http2=is_2) as client:
        yield client


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


def test_quota(client: httpx.Client) -> None:
    tenant = {"x-tenant": uuid4().hex}
    statuses = [client.get("/counted", headers=tenant).status_code for _ in range(2)]
    refused = client.get("/counted", headers=tenant)
    assert (statuses, refused.status_code) == ([200, 200], 429)
    assert 1790 <= int(refused.headers["retry-after"]) <= 1800
    another = {"x-tenant": uuid4().hex}
    assert client.get("/counted", headers=another).status_code == 200
