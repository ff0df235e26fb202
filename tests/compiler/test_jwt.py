"""What can be said wrongly about tokens, told with its path, and which files a snapshot names."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sidecar.agent.config import key_material, watched
from sidecar.compiler.access import named_files
from sidecar.compiler.snapshot import check
from sidecar.errors import ConfigErrors
from sidecar.model.identity import Secret
from sidecar.model.snapshot import Snapshot
from sidecar.sources.decode import decode
from tests import tokens
from tests.core.harness import tree

HERE = "inbound[0].routes[0].jwt"
FILES = {"/keys": tokens.public(tokens.ec()), "/secret": b"s" * 32, "/bad": b"no"}
ONE: dict[str, Any] = {"issuer": "x", "audiences": ["a"], "jwks_file": "/keys"}
CLUSTERS = [
    {"name": "idp", "endpoints": ["10.0.0.9:80"]},
    {"name": "tls", "endpoints": ["10.0.0.9:443"], "tls": "simple"},
]


def told(files: dict[str, bytes] = FILES, **config: Any) -> list[tuple[str, str]]:
    """Return what is wrong."""
    snapshot = decode(tree(role="inbound", clusters=CLUSTERS, **config), Snapshot)
    try:
        check(snapshot, Secret(files=files))
    except ConfigErrors as errors:
        return [(e.path, e.detail) for e in errors.errors]
    return []


def remote(**changes: Any) -> dict[str, Any]:
    jwks = {"url": "https://idp/keys", "cluster": "tls", **changes}
    return {"issuer": "x", "audiences": ["a"], "jwks": jwks}


KINDS = "expected exactly one of jwks, jwks_file, secret_file"
WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"issuers": []}, ".issuers", "expected at least one"),
    ({"issuers": [{**ONE, "issuer": ""}]}, ".issuers[0].issuer", "expected a text, got an empty one"),
    ({"issuers": [ONE, ONE]}, ".issuers[1].issuer", "'x' is there twice"),
    ({"issuers": [{**ONE, "audiences": []}]}, ".issuers[0].audiences", 'expected those whom tokens must be for, or ["*"] alone'),
    ({"issuers": [{**ONE, "audiences": ["a", "*"]}]}, ".issuers[0].audiences",
     'expected those whom tokens must be for, or ["*"] alone'),
    ({"issuers": [{"issuer": "x", "audiences": ["a"]}]}, ".issuers[0]", KINDS),
    ({"issuers": [{**ONE, "secret_file": "/secret"}]}, ".issuers[0]", KINDS),
    ({"issuers": [{**ONE, "jwks_file": "/none"}]}, ".issuers[0].jwks_file", "the file '/none' was not read"),
    ({"issuers": [{**ONE, "jwks_file": "/bad"}]}, ".issuers[0].jwks_file", "expected a JWKS: an object with a list of `keys`"),
    ({"issuers": [{**ONE, "algorithms": ["RS256"]}]}, ".issuers[0].algorithms[0]", "no key of this issuer is for RS256"),
    ({"issuers": [{**ONE, "algorithms": ["HS256"]}]}, ".issuers[0].algorithms[0]", "no key of this issuer is for HS256"),
    ({"issuers": [remote(cluster="ipd")]}, ".issuers[0].jwks.cluster", "no cluster is named 'ipd' (did you mean 'idp'?)"),
    ({"issuers": [remote(cluster="idp")]}, ".issuers[0].jwks.cluster", "https needs a cluster with `tls`, 'idp' has none"),
    ({"issuers": [remote(url="idp/keys")]}, ".issuers[0].jwks.url",
     "expected http:// or https:// with a host, without a fragment; got 'idp/keys'"),
    ({"issuers": [remote(timeout=0)]}, ".issuers[0].jwks.timeout", "expected more than 0"),
    ({"issuers": [ONE], "locations": []}, ".locations", "expected at least one"),
    ({"issuers": [ONE], "locations": ["body:x"]}, ".locations[0]",
     "expected header:NAME, query:NAME or cookie:NAME, got 'body:x'"),
    ({"issuers": [ONE], "locations": ["header:Host"]}, ".locations[0]", "Host frames the message"),
    ({"issuers": [ONE], "claims_to_headers": {"a b": "sub"}}, ".claims_to_headers.a b", "no field of ours can be called 'a b'"),
    ({"issuers": [ONE], "claims_to_headers": {"TE": "sub"}}, ".claims_to_headers.TE", "no field of ours can be called 'TE'"),
]  # fmt: skip


@pytest.mark.parametrize(("jwt", "below", "detail"), WRONG)
def test_what_is_wrong_about_tokens(jwt: dict[str, Any], below: str, detail: str) -> None:
    assert told(route={"jwt": jwt}) == [(HERE + below, detail)]


@pytest.mark.parametrize(
    "issuer",
    [
        ONE,
        {**ONE, "audiences": ["*"], "algorithms": ["ES256"]},
        {"issuer": "x", "audiences": ["a"], "secret_file": "/secret"},
        remote(),
        remote(url="http://idp:8080", cluster="idp"),
        remote(url="http://[::1]:80/keys?x=1", cluster="idp"),
    ],
)
def test_what_is_right(issuer: dict[str, Any]) -> None:
    assert told(route={"jwt": {"issuers": [issuer]}}) == []


def test_a_route_gets_no_token_that_the_listener_has_taken_out() -> None:
    jwt = {"issuers": [ONE]}
    detail = "comes too late: the listener's `jwt` takes it out (set its `forward`)"
    assert told(route={"jwt": jwt}, listener={"jwt": jwt}) == [(HERE, detail)]
    assert told(route={"jwt": jwt}, listener={"jwt": {**jwt, "forward": True}}) == []


def test_a_tcp_listener_sees_no_tokens() -> None:
    jwt = {"issuers": [ONE]}
    found = told(protocol="tcp", route={"jwt": jwt}, listener={"jwt": jwt})
    detail = "a tcp listener sees no requests"
    assert set(found) >= {("inbound[0].jwt", detail), (HERE, detail)}


def test_rules_on_claims_need_tokens() -> None:
    rule = {"action": "deny", "match": {"claims": {"sub": "x"}}}
    place = ".authorization[0].match.claims"
    route = {"authorization": [rule]}
    needs = "needs `jwt` here or on the listener"
    assert told(route=route) == [(f"inbound[0].routes[0]{place}", needs)]
    assert told(route=route, listener={"jwt": {"issuers": [ONE]}}) == []
    assert told(route={**route, "jwt": {"issuers": [ONE]}}) == []
    assert told(listener=route) == [(f"inbound[0]{place}", needs)]


def test_without_the_library_it_is_said_what_to_install() -> None:
    # In an interpreter of its own, where the library cannot be found.
    code = (
        "import sys; sys.modules['jwt'] = None\n"
        "from tests.compiler.test_jwt import ONE, told\n"
        "print(told(route={'jwt': {'issuers': [ONE]}}))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "needs PyJWT (pip install 'sidecar[jwt]')" in done.stdout


# The files:


def snapshot(directory: Path, **changes: Any) -> Snapshot:
    issuer = {"issuer": "x", "audiences": ["a"]}
    jwt = {"issuers": [{**issuer, "jwks_file": f"{directory}/keys"}, {**issuer, "issuer": "y",
           "secret_file": f"{directory}/secret"}]}  # fmt: skip
    return decode(
        tree(role="inbound", route={"jwt": jwt}, listener={"jwt": jwt}, **changes), Snapshot
    )


def test_the_files_that_policies_name_are_read_and_watched(tmp_path: Path) -> None:
    (tmp_path / "keys").write_bytes(FILES["/keys"])
    (tmp_path / "secret").write_bytes(b"s" * 32)
    found = snapshot(tmp_path)
    files = {f"{tmp_path}/keys": FILES["/keys"], f"{tmp_path}/secret": b"s" * 32}
    assert {file for _, file in named_files(found)} == set(files)
    secret = key_material(found)
    assert secret == Secret(files=files)
    assert repr(secret) == "Secret(0 + 0 octets, 2 files)"
    assert set(watched(found)) == set(files)


def test_files_that_cannot_be_read_are_told_with_their_place(tmp_path: Path) -> None:
    (tmp_path / "keys").write_bytes(b"x" * (1 << 20 | 1))
    with pytest.raises(ConfigErrors) as caught:
        key_material(snapshot(tmp_path))
    found = {e.path: e.detail for e in caught.value.errors}
    assert found["inbound[0].jwt.issuers[1].secret_file"] == (
        f"cannot read '{tmp_path}/secret': No such file or directory"
    )
    assert (
        found[f"{HERE}.issuers[0].jwks_file"] == f"'{tmp_path}/keys' has more than 1048576 octets"
    )


def test_without_any_there_is_no_secret() -> None:
    plain = decode(tree(), Snapshot)
    assert (key_material(plain), watched(plain)) == (None, ())


def test_without_certificates_files_make_no_mutual_tls(tmp_path: Path) -> None:
    assert ("inbound[0].mtls", True) in [
        (path, detail.startswith("strict needs the workload's certificates"))
        for path, detail in told(listener={"mtls": "strict"})
    ]
    needs = "mutual needs the workload's certificates: set `certificates`"
    assert told(cluster={"tls": "mutual"}) == [("clusters[0].tls", needs)]
