"""Rules on who may do what, between real sidecars over mutual TLS."""

import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from sidecar.issuers.ephemeral import Authority
from tests.e2e.stand import Sidecar, Upstream, echo, free_port, read_all, talk, wait_for
from tests.e2e.test_mesh import context, write

DOMAIN = "example.org"
WEB = f"spiffe://{DOMAIN}/ns/shop/sa/web"
BATCH = f"spiffe://{DOMAIN}/ns/jobs/sa/batch"
PARTNER = "spiffe://partner.org/ns/shop/sa/web"

INBOUND = """\
workload: {{name: catalog, trust_domain: {domain}}}
inbound:
  - address: 127.0.0.1:{http}
    allow: ["spiffe://{domain}/*", "spiffe://partner.org/*"]
    routes:
      - name: admin
        match: {{prefix: /admin}}
        cluster: app
        authorization: [{{name: only-jobs, action: allow, match: {{namespaces: [jobs]}}}}]
      - {{name: rest, cluster: app}}
    authorization:
      - {{name: ours, action: allow, match: {{trust_domains: [{domain}]}}}}
      - {{name: partners, action: allow, match: {{trust_domains: [partner.org], paths: [{{prefix: /public}}], methods: [GET]}}}}
      - {{name: no-deletes, action: deny, match: {{methods: [DELETE]}}, unless: {{identities: [{{prefix: "spiffe://{domain}/ns/jobs/"}}]}}}}
      - {{name: soon, action: deny, shadow: true, match: {{paths: [/old]}}}}
  - address: 127.0.0.1:{tcp}
    protocol: tcp
    cluster: app
    authorization:
      - {{name: db-only, action: allow, match: {{server_names: [db.internal], namespaces: [jobs]}}}}
clusters: [{{name: app, endpoints: ["127.0.0.1:{upstream}"]}}]
"""


class Mesh:
    """Callers of three kinds, and catalog's sidecar before an app that echoes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ours, self.theirs = Authority(DOMAIN), Authority("partner.org")
        self.upstream = Upstream(echo)
        self.http, self.tcp, self.outbound = free_port(), free_port(), free_port()
        config = INBOUND.format(
            domain=DOMAIN, http=self.http, tcp=self.tcp, upstream=self.upstream.port
        )
        secret = self.ours.issue(f"spiffe://{DOMAIN}/ns/default/sa/catalog")
        (directory / "catalog").mkdir()
        (directory / "web").mkdir()
        pem = write(directory / "catalog" / "pem", secret)
        roots = directory / "catalog" / "pem" / "roots.pem"
        roots.write_bytes(secret.roots + b"\n" + self.theirs.roots)
        self.catalog = Sidecar(directory / "catalog", config + pem)
        self.web = Sidecar(
            directory / "web",
            f"workload: {{name: web, namespace: shop, trust_domain: {DOMAIN}}}\n"
            + write(directory / "web" / "pem", self.ours.issue(WEB))
            + f'outbound: [{{address: "127.0.0.1:{self.outbound}", cluster: catalog}}]\n'
            f'clusters: [{{name: catalog, endpoints: ["127.0.0.1:{self.http}"], tls: mutual}}]\n',
        )

    def tls(self, identity: str) -> ssl.SSLContext:
        authority = self.theirs if "partner" in identity else self.ours
        return context(authority.issue(identity), self.ours.roots, self.directory)

    def ask(self, identity: str, target: str, method: str = "GET") -> bytes:
        """Ask as `identity`, without a sidecar; the octets of the answer."""
        with talk(self.http) as raw, self.tls(identity).wrap_socket(raw) as sock:
            line = f"{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            sock.sendall(line.encode())
            return read_all(sock)


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    mesh = Mesh(tmp_path_factory.mktemp("authorization"))
    yield mesh
    mesh.upstream.close()
    for sidecar in (mesh.web, mesh.catalog):
        sidecar.end()


def test_a_sidecars_caller_is_held_to_the_rules_and_told_which(mesh: Mesh) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{mesh.outbound}") as client:
        assert client.get("/x").status_code == 200
        denied = client.delete("/x")
        assert denied.status_code == 403
        assert f"rule no-deletes, peer {WEB}" in denied.text
        admin = client.get("/admin/users")
        assert admin.status_code == 403
        assert f"rule no-allow-rule, peer {WEB}" in admin.text
        assert client.get("/old").status_code == 200


@pytest.mark.parametrize(
    "target", ["/%61dmin/users", "/x/..%2fadmin", "/x/%2e%2e/admin", "/admin;x"]
)
def test_no_spelling_leads_around_them(mesh: Mesh, target: str) -> None:
    assert mesh.ask(WEB, target).startswith(b"HTTP/1.1 400 ")
    assert b"code ambiguous-path" in mesh.ask(WEB, target)


def test_name_spaces_and_trust_domains_decide(mesh: Mesh) -> None:
    assert mesh.ask(BATCH, "/admin/users").startswith(b"HTTP/1.1 200 ")
    assert mesh.ask(BATCH, "/x", "DELETE").startswith(b"HTTP/1.1 200 ")
    assert mesh.ask(PARTNER, "/public/x").startswith(b"HTTP/1.1 200 ")
    assert mesh.ask(PARTNER, "/public/x", "PUT").startswith(b"HTTP/1.1 403 ")
    assert mesh.ask(PARTNER, "/other").startswith(b"HTTP/1.1 403 ")


def session(mesh: Mesh, identity: str, name: str) -> bytes:
    with talk(mesh.tcp) as raw:
        try:
            with mesh.tls(identity).wrap_socket(raw, server_hostname=name) as sock:
                sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                return sock.recv(65536)
        except (TimeoutError, ConnectionError, ssl.SSLError):
            return b""


def test_opaque_sessions_are_told_by_identity_and_server_name(mesh: Mesh) -> None:
    assert session(mesh, BATCH, "db.internal").startswith(b"HTTP/1.1 200 ")
    assert session(mesh, BATCH, "other.internal") == b""
    assert session(mesh, WEB, "db.internal") == b""


def test_log_and_metrics_name_rule_and_identity(mesh: Mesh) -> None:
    mesh.ask(PARTNER, "/other")
    session(mesh, WEB, "db.internal")

    def logged() -> str:
        lines = mesh.catalog.log.read_text().splitlines(keepends=True)
        found = [x for x in lines if f'peer="{PARTNER}"' in x and '"GET /other' in x and "\n" in x]
        return found[0].rstrip() if found else ""

    denied = wait_for(logged)  # lines are written a moment later
    assert " 403 RBAC " in denied
    assert denied.endswith('authorization_denied="no-allow-rule"')

    def counted(name: str, *labels: str) -> bool:
        text = mesh.catalog.get("/metrics")[1]
        rows = [line for line in text.splitlines() if line.startswith(name + "{")]
        return any(all(label in row for label in labels) for row in rows)

    name = "sidecar_authorization_denied_total"
    wait_for(lambda: counted(name, 'rule="no-allow-rule"', f'source_principal="{PARTNER}"'))
    wait_for(lambda: counted(name, 'rule="no-allow-rule"', f'source_principal="{WEB}"'))
    httpx.get(f"http://127.0.0.1:{mesh.outbound}/old")
    shadow = "sidecar_authorization_shadow_total"
    wait_for(lambda: counted(shadow, 'decision="deny"', 'rule="soon"', f'"{WEB}"'))
