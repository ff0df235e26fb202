"""Real services decide about real requests: one by HTTP, and a grpcio server with Envoy's own messages."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from envoy.config.core.v3.base_pb2 import HeaderValue, HeaderValueOption
from envoy.service.auth.v3.external_auth_pb2 import (
    CheckResponse,
    DeniedHttpResponse,
    OkHttpResponse,
)
from envoy.service.auth.v3.external_auth_pb2_grpc import (
    AuthorizationServicer,
    add_AuthorizationServicer_to_server,
)
from envoy.type.v3.http_status_pb2 import HttpStatus
from google.rpc.status_pb2 import Status

from sidecar.issuers.ephemeral import Authority
from tests.e2e.stand import Sidecar, Upstream, echo, free_port

CONFIG = """\
workload: web
outbound:
  - address: 127.0.0.1:{port}
    external_authorization:
      grpc: {{cluster: grpc, context_extensions: {{tenant: shop}}}}
      timeout: 5s
      request_body: 100
    routes:
      - match: {{prefix: /http}}
        cluster: app
        external_authorization:
          http: {{cluster: http, path_prefix: /check, allowed_upstream_headers: [x-user], allowed_client_headers: [x-why]}}
          timeout: 5s
      - match: {{prefix: /absent}}
        cluster: app
        external_authorization: {{http: absent}}
      - match: {{prefix: /open}}
        cluster: app
        external_authorization: {{http: absent, failure_mode_allow: true}}
      - cluster: app
clusters:
  - {{name: app, endpoints: ["127.0.0.1:{app}"]}}
  - {{name: http, endpoints: ["127.0.0.1:{http}"]}}
  - {{name: grpc, endpoints: ["127.0.0.1:{grpc}"], protocol: http2}}
  - {{name: absent, endpoints: ["127.0.0.1:{absent}"]}}
"""


class Decides(BaseHTTPRequestHandler):
    """Lets `Bearer good` in, and says who that is."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        is_good = self.headers.get("authorization") == "Bearer good"
        body = b"" if is_good else b"who are you?"
        self.send_response(200 if is_good else 401)
        self.send_header("X-User", "me")
        self.send_header("X-Why", self.path)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *anything: Any) -> None:
        pass


class Authorizer(AuthorizationServicer):  # type: ignore[misc] # generated, without annotations
    """The same by Envoy's protocol; the body is looked at as well."""

    def Check(self, request: Any, context: Any) -> Any:  # noqa: N802 - the service's name
        attributes = request.attributes
        http = attributes.request.http
        assert http.headers[":path"] == http.path
        assert dict(attributes.context_extensions) == {"tenant": "shop"}
        if http.headers.get("authorization") == "Bearer good" and http.body != "evil":
            fields = [HeaderValueOption(header=HeaderValue(key="x-user", value="me"))]
            answers = [HeaderValueOption(header=HeaderValue(key="x-seen", value=http.method))]
            ok = OkHttpResponse(headers=fields, response_headers_to_add=answers)
            return CheckResponse(status=Status(code=0), ok_response=ok)
        denied = DeniedHttpResponse(status=HttpStatus(code=401), body="who are you?")
        return CheckResponse(status=Status(code=16), denied_response=denied)


class Rig:
    def __init__(self, directory: Path) -> None:
        self.app = Upstream(echo)
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Decides)
        self.thread = threading.Thread(target=self.http.serve_forever)
        self.thread.start()
        self.grpc = grpc.server(ThreadPoolExecutor(4))
        add_AuthorizationServicer_to_server(Authorizer(), self.grpc)
        self.grpc_port = self.grpc.add_insecure_port("127.0.0.1:0")
        self.grpc.start()
        self.port = free_port()
        self.sidecar = Sidecar(
            directory,
            CONFIG.format(
                port=self.port, app=self.app.port, http=self.http.server_port, grpc=self.grpc_port,
                absent=free_port(),
            ),
        )  # fmt: skip

    def close(self) -> None:
        self.sidecar.end()
        self.grpc.stop(0).wait()
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()
        self.app.close()


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    rig = Rig(tmp_path_factory.mktemp("authorization"))
    yield rig
    rig.close()


GOOD = {"Authorization": "Bearer good", "X-User": "root"}


def test_a_service_that_speaks_http_decides(client: httpx.Client) -> None:
    good = client.get("/http/a?b", headers=GOOD)
    assert good.status_code == 200
    assert "x-user: me\r\n" in good.text.lower()
    assert "root" not in good.text
    bad = client.get("/http/a?b", headers={"Authorization": "Bearer bad"})
    assert (bad.status_code, bad.text, bad.headers["x-why"]) == (
        401, "who are you?", "/check/http/a?b",
    )  # fmt: skip


def test_a_service_that_speaks_envoys_grpc_decides(client: httpx.Client, rig: Rig) -> None:
    before = rig.app.connections
    bad = client.post("/a", headers=GOOD, content="evil")
    assert (bad.status_code, bad.text) == (401, "who are you?")
    assert rig.app.connections == before
    good = client.post("/a", headers=GOOD, content="good")
    assert (good.status_code, good.headers["x-seen"]) == (200, "POST")
    assert "x-user: me\r\n" in good.text.lower()
    assert good.text.endswith("good")
    assert client.post("/a", headers=GOOD, content="x" * 101).status_code == 413


def test_a_service_that_is_not_there_lets_nobody_in_unless_it_may(
    client: httpx.Client, rig: Rig
) -> None:
    refused = client.get("/absent")
    assert refused.status_code == 403
    assert "code ext-authz-error, flag UAEX" in refused.text
    assert "connect-failed" in refused.text
    assert client.get("/open").status_code == 200
    metrics = rig.sidecar.get("/metrics")[1]
    assert 'sidecar_ext_authz_total{cluster="absent",result="error"}' in metrics
    assert 'sidecar_ext_authz_total{cluster="absent",result="failure_mode_allowed"}' in metrics


OURS = """\
workload: {{name: web, trust_domain: example.org}}
certificates: {pem}
outbound:
  - address: 127.0.0.1:{port}
    cluster: app
    external_authorization: {{grpc: {{cluster: authorizer, context_extensions: {{tenant: shop}}}}, timeout: 5s}}
clusters:
  - {{name: app, endpoints: ["127.0.0.1:{app}"]}}
  - name: authorizer
    endpoints: ["127.0.0.1:{service}"]
    tls: {{mode: mutual, identities: ["spiffe://example.org/ns/default/sa/{who}"]}}
"""
ITS = """\
workload: {{name: authorizer, trust_domain: example.org}}
certificates: {pem}
inbound:
  - {{address: "127.0.0.1:{service}", cluster: grpc, allow: ["spiffe://example.org/ns/default/sa/web"]}}
clusters:
  - {{name: grpc, endpoints: ["127.0.0.1:{grpc}"], protocol: http2}}
"""


@pytest.mark.parametrize("who", ["authorizer", "somebody"])
def test_a_service_in_the_mesh_is_asked_over_mutual_tls(rig: Rig, tmp_path: Path, who: str) -> None:
    authority = Authority("example.org")
    port, service = free_port(), free_port()

    def start(name: str, config: str, **values: Any) -> Sidecar:
        directory = tmp_path / name
        directory.mkdir()
        secret = authority.issue(f"spiffe://example.org/ns/default/sa/{name}")
        for part in ("certificate", "key", "roots"):
            (directory / part).write_bytes(getattr(secret, part))
        parts = [f"{part}: {directory / part}" for part in ("certificate", "key", "roots")]
        pem = "{" + ", ".join(parts) + "}"
        return Sidecar(directory, config.format(pem=pem, service=service, **values))

    its = start("authorizer", ITS, grpc=rig.grpc_port)
    ours = start("web", OURS, port=port, app=rig.app.port, who=who)
    answer = httpx.get(f"http://127.0.0.1:{port}/", headers=GOOD, timeout=20)
    if who == "authorizer":
        assert (answer.status_code, answer.headers["x-seen"]) == (200, "GET")
    else:  # whoever answers there is not who was expected, so its word counts for nothing
        assert answer.status_code == 403
        assert "upstream-identity" in answer.text
    ours.end()
    its.end()
