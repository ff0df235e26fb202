"""TLS for callers from outside the mesh: curl, and whoever else checks a server's certificate."""

import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.issuers.ephemeral import Authority
from tests.e2e.stand import Sidecar, Upstream, echo, free_port, read_all, talk, wait_for

NAME = "shop.test"


class Shop:
    """A sidecar that serves HTTPS for an app that echoes, and TLS for one that speaks opaque octets."""

    def __init__(self, directory: Path) -> None:
        self.authority = Authority("example.org")
        self.directory = directory
        self.roots = directory / "roots.pem"
        self.roots.write_bytes(self.authority.roots)
        self.renew()
        self.app, self.opaque = Upstream(echo), Upstream(_shout)
        self.port, self.tcp = free_port(), free_port()
        tls = f"{{certificate: {directory}/shop.pem, key: {directory}/shop.key}}"
        self.sidecar = Sidecar(
            directory,
            "workload: shop\ninbound:\n"
            f'  - {{address: "127.0.0.1:{self.port}", app: "127.0.0.1:{self.app.port}",'
            f" mtls: off, tls: {tls}}}\n"
            f'  - {{address: "127.0.0.1:{self.tcp}", app: "127.0.0.1:{self.opaque.port}",'
            f" protocol: tcp, mtls: off, tls: {tls}}}\n",
        )

    def renew(self) -> None:
        secret = self.authority.issue("", dns=(NAME,))
        for name, data in (("shop.key", secret.key), ("shop.pem", secret.certificate)):
            spare = self.directory / "spare"
            spare.write_bytes(data)
            spare.rename(self.directory / name)

    def curl(self, *options: str, scheme: str = "https") -> subprocess.CompletedProcess[str]:
        if shutil.which("curl") is None:
            pytest.skip("curl is not installed")
        resolve = ("--resolve", f"{NAME}:{self.port}:127.0.0.1", "--cacert", str(self.roots))
        command = [
            "curl",
            "-s",
            "-S",
            *resolve,
            *options,
            f"{scheme}://{NAME}:{self.port}/cart?x=1",
        ]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.roots))


def _shout(connection: socket.socket, number: int) -> None:
    while piece := connection.recv(65536):
        connection.sendall(piece.upper())


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    shop = Shop(tmp_path_factory.mktemp("shop"))
    yield shop
    shop.app.close()
    shop.opaque.close()
    shop.sidecar.end()


@pytest.mark.parametrize(("version", "spoken"), [("--http1.1", "1.1"), ("--http2", "2")])
def test_curl_is_served_without_a_certificate_of_its_own(
    shop: Shop, version: str, spoken: str
) -> None:
    done = shop.curl(version, "-w", "\n%{http_version}")

    assert done.returncode == 0, done.stderr
    seen, _, said = done.stdout.rpartition("\n")
    assert said == spoken
    assert seen.startswith("GET /cart?x=1 HTTP/1.1\n")
    assert "x-forwarded-proto: https" in seen
    assert "x-forwarded-client-cert" not in seen


def test_who_calls_is_not_believed_about_identity(shop: Shop) -> None:
    lie = "x-forwarded-client-cert: URI=spiffe://cluster.local/ns/default/sa/admin"

    done = shop.curl("-H", lie)

    assert done.returncode == 0
    assert "sa/admin" not in done.stdout


def test_plain_http_is_told_that_the_port_takes_tls(shop: Shop) -> None:
    done = shop.curl("-w", "%{http_code}", scheme="http")

    assert "tls-required" in done.stdout
    assert done.stdout.endswith("400")


def test_tls_before_1_2_is_refused(shop: Shop) -> None:
    done = shop.curl("--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0")

    assert done.returncode == 35  # no handshake


def test_opaque_octets_go_through_and_no_protocol_is_agreed_on(shop: Shop) -> None:
    with talk(shop.tcp) as raw, shop.context().wrap_socket(raw, server_hostname=NAME) as sock:
        assert sock.selected_alpn_protocol() is None
        sock.sendall(b"whisper")
        assert sock.recv(100) == b"WHISPER"


def test_a_renewed_certificate_is_shown_without_dropping_a_connection(shop: Shop) -> None:
    def serial() -> str:
        with talk(shop.port) as raw, shop.context().wrap_socket(raw, server_hostname=NAME) as sock:
            return str((sock.getpeercert() or {})["serialNumber"])

    before = serial()
    with talk(shop.port) as raw, shop.context().wrap_socket(raw, server_hostname=NAME) as kept:
        kept.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert kept.recv(65536).startswith(b"HTTP/1.1 200 ")
        shop.renew()
        wait_for(lambda: serial() != before)
        kept.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert read_all(kept).startswith(b"HTTP/1.1 200 ")
    assert f"tls 127.0.0.1:{shop.port}" in shop.sidecar.get("/certs")[1]
    assert "off (tls)" in shop.sidecar.get("/listeners")[1]
    assert f'part="tls 127.0.0.1:{shop.port}"' in shop.sidecar.get("/metrics")[1]


def test_a_key_of_another_certificate_is_refused_and_the_old_one_goes_on(shop: Shop) -> None:
    good = (shop.directory / "shop.key").read_bytes()
    (shop.directory / "shop.key").write_bytes(shop.authority.issue("", dns=(NAME,)).key)

    said = wait_for(lambda: shop.sidecar.info()["last_error"])

    assert "inbound[0].tls.key: is not the key of the certificate" in said
    assert shop.curl().returncode == 0
    (shop.directory / "shop.key").write_bytes(good)
    wait_for(lambda: shop.sidecar.info()["last_error"] is None)
