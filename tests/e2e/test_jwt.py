"""Tokens that joserfc signed, through real sockets: keys from files and from a server, and attacks."""

import hashlib
import hmac
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from sidecar.runtime.clock import wall
from tests import tokens
from tests.e2e.stand import Sidecar, Upstream, echo, free_port, read_head, wait_for
from tests.tokens import ISSUER, claims, forged, part, sign

RSA, EC, NEXT = tokens.rsa("first"), tokens.ec("fetched"), tokens.ec("next")
SECRET = b"0123456789abcdef0123456789abcdef"

CONFIG = """\
workload: web
inbound:
  - address: 127.0.0.1:{port}
    mtls: "off"
    protocol: http
    routes:
      - name: admin
        match: {{prefix: /admin}}
        cluster: app
        authorization: [{{name: admins, action: allow, match: {{claims: {{roles: admin}}}}}}]
      - {{name: rest, cluster: app}}
    jwt:
      locations: ["header:authorization", "query:access_token", "cookie:session"]
      issuers:
        - {{issuer: "{issuer}", audiences: [shop], jwks_file: "{directory}/jwks.json"}}
        - {{issuer: remote, audiences: [shop], jwks: {{url: "http://keys.test/jwks", cluster: keys}}}}
        - {{issuer: legacy, audiences: ["*"], secret_file: "{directory}/secret"}}
      claims_to_headers: {{x-user: sub}}
clusters:
  - {{name: app, endpoints: ["127.0.0.1:{upstream}"]}}
  - {{name: keys, endpoints: ["127.0.0.1:{keys}"]}}
"""


class Rig:
    """A sidecar before an app that echoes, and a server of keys."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.asked: list[bytes] = []
        self.upstream, self.keys = Upstream(echo), Upstream(self.serve_keys)
        self.port = free_port()
        self.write_keys(RSA)
        (directory / "secret").write_bytes(SECRET + b"\n")
        config = CONFIG.format(
            port=self.port, issuer=ISSUER, directory=directory,
            upstream=self.upstream.port, keys=self.keys.port,
        )  # fmt: skip
        self.sidecar = Sidecar(directory, config)

    def write_keys(self, *keys: tokens.AnyKey) -> None:
        spare = self.directory / "jwks.new"
        spare.write_bytes(tokens.public(*keys))
        spare.rename(self.directory / "jwks.json")

    def serve_keys(self, connection: socket.socket, number: int) -> None:
        rest = b""
        while True:
            head, rest = read_head(connection, rest)
            self.asked.append(head)
            body = tokens.public(EC)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    rig = Rig(tmp_path_factory.mktemp("jwt"))
    yield rig
    rig.sidecar.end()
    rig.upstream.close()
    rig.keys.close()


def ask(client: httpx.Client, text: str, path: str = "/") -> httpx.Response:
    return client.get(path, headers={"Authorization": f"Bearer {text}", "x-user": "mallory"})


def test_tokens_of_every_issuer_pass(client: httpx.Client, rig: Rig) -> None:
    now = wall()
    legacy = tokens.shared(SECRET)
    good = [
        sign(RSA, claims(now), alg="RS256"),
        sign(RSA, claims(now), alg="PS512"),
        sign(EC, claims(now, iss="remote")),
        sign(legacy, claims(now, iss="legacy", aud=None), alg="HS256", kid=None),
    ]
    for text in good * 2:
        answer = ask(client, text)
        assert answer.status_code == 200
        assert "x-user: alice\r\n" in answer.text
        assert "mallory" not in answer.text
        assert text not in answer.text
    assert len(rig.asked) == 1  # by both protocols together
    assert b"GET /jwks HTTP/1.1\r\nHost: keys.test\r\n" in rig.asked[0]


def test_tokens_elsewhere(client: httpx.Client) -> None:
    text = sign(RSA, claims(wall()), alg="RS256")
    answer = client.get(f"/x?a=1&access_token={text}")
    assert answer.text.startswith("GET /x?a=1 HTTP/1.1\r\n")
    answer = client.get("/x", headers={"Cookie": f"a=1; session={text}"})
    assert answer.status_code == 200
    assert "cookie: a=1\r\n" in answer.text.lower()
    assert client.get("/x").headers["www-authenticate"] == 'Bearer realm="sidecar"'


def attacks(now: float) -> dict[str, str]:
    body = part(claims(now))
    confused = f"{part({'alg': 'HS256', 'kid': 'first'})}.{body}"
    mac = hmac.digest(RSA.as_pem(private=False), confused.encode(), hashlib.sha256)
    good = sign(RSA, claims(now), alg="RS256")
    stranger = tokens.rsa("first")
    return {
        "none": forged({"alg": "none", "kid": "first"}, claims(now)),
        "nOnE": forged({"alg": "nOnE"}, claims(now), b"x"),
        "no signature": good.rpartition(".")[0] + ".",
        "the public key as a secret": f"{confused}.{part(mac)}",
        "a kid that is a path": sign(stranger, claims(now), alg="RS256", kid="../../dev/null"),
        "a kid of ours, a key of theirs": sign(stranger, claims(now), alg="RS256", kid="first"),
        "a key in the header": sign(
            stranger, claims(now), alg="RS256", header={"jwk": stranger.as_dict(private=False)}
        ),
        "expired": sign(RSA, claims(now, exp=now - 3600), alg="RS256"),
        "another audience": sign(RSA, claims(now, aud="till"), alg="RS256"),
        "another issuer": sign(RSA, claims(now, iss="https://evil"), alg="RS256"),
        "an issuer of ours, the key of another": sign(RSA, claims(now, iss="remote"), alg="RS256"),
        "other claims": f"{good.split('.')[0]}.{part(claims(now, sub='root'))}.{good.split('.')[2]}",
        "huge": sign(RSA, claims(now, pad="x" * 20_000), alg="RS256"),
        "deep": forged(b'{"alg": "RS256"}', b'{"iss": ' + b"[" * 8000),
    }


def test_attacks_are_refused(client: httpx.Client) -> None:
    for name, text in attacks(wall()).items():
        answer = ask(client, text)
        assert (name, answer.status_code) == (name, 401)
        assert answer.headers["www-authenticate"].startswith('Bearer realm="sidecar", error="inv')


def test_claims_decide_and_the_log_names_whom(client: httpx.Client, rig: Rig) -> None:
    now = wall()
    plain = sign(RSA, claims(now, sub="bob"), alg="RS256")
    admin = sign(RSA, claims(now, sub="carol", roles=["dev", "admin"]), alg="RS256")
    assert [ask(client, t, "/admin/x").status_code for t in (plain, admin)] == [403, 200]
    assert ask(client, plain, "/%61dmin/x").status_code == 400
    wait_for(lambda: 'authorization_denied="no-allow-rule"' in rig.sidecar.log.read_text())
    lines = rig.sidecar.log.read_text().splitlines()
    denied = next(line for line in lines if "authorization_denied" in line)
    assert 'jwt_sub="bob"' in denied


def test_keys_are_changed_under_way(client: httpx.Client, rig: Rig) -> None:
    new, old = (sign(k, claims(wall()), alg=a) for k, a in ((NEXT, "ES256"), (RSA, "RS256")))
    assert ask(client, old).status_code == 200
    rig.write_keys(RSA, NEXT)
    wait_for(lambda: ask(client, new).status_code == 200)
    rig.write_keys(NEXT)
    wait_for(lambda: ask(client, old).status_code == 401)
    assert ask(client, new).status_code == 200
    (rig.directory / "jwks.json").write_text("broken")
    wait_for(lambda: "expected a JWKS" in str(rig.sidecar.info()["last_error"]))
    assert ask(client, new).status_code == 200  # the last good ones
    rig.write_keys(RSA)
    wait_for(lambda: ask(client, old).status_code == 200)


def test_no_file_shows_what_the_secret_is(rig: Rig) -> None:
    shown = [rig.sidecar.get(path)[1] for path in ("/config_dump", "/certs", "/server_info")]
    shown.append(rig.sidecar.log.read_text())
    kept = [p.read_bytes() for p in rig.directory.rglob("*") if p.is_file() and p.name != "secret"]
    assert not [text for text in shown if SECRET.decode() in text]
    assert not [data for data in kept if SECRET in data]
    assert json.loads(shown[1]) == []
