"""What can be said wrongly about who may do what, told with its path."""

from typing import Any

import pytest

from sidecar.compiler.access import notes_names
from sidecar.compiler.snapshot import check
from sidecar.errors import ConfigErrors
from sidecar.model.snapshot import Snapshot
from sidecar.sources.decode import decode
from tests.core.harness import tree

CERTIFICATES = {"certificate": "c", "key": "k", "roots": "r"}
HERE = "inbound[0].authorization[0]"


def told(**config: Any) -> list[tuple[str, str]]:
    """Return what is wrong."""
    try:
        check(decode(tree(**config), Snapshot), None)
    except ConfigErrors as errors:
        return [(e.path, e.detail) for e in errors.errors]
    return []


def ruled(*rules: dict[str, Any], **listener: Any) -> list[tuple[str, str]]:
    listener = {"mtls": "permissive", "authorization": list(rules), **listener}
    return told(role="inbound", listener=listener, certificates=CERTIFICATES)


# A match, the path below it, and what is told.
WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"identities": ["web"]}, ".identities[0]", "no SPIFFE ID: 'web'"),
    ({"identities": [{}]}, ".identities[0]",
     "expected exactly one of exact, prefix, suffix, regex, present; got []"),
    ({"namespaces": ["a/b"]}, ".namespaces[0]", "expected one label of a SPIFFE ID, got 'a/b'"),
    ({"trust_domains": [""]}, ".trust_domains[0]", "expected one label of a SPIFFE ID, got ''"),
    ({"sources": ["10.0.0.1/8"]}, ".sources[0]",
     "expected a network like 10.0.0.0/8, or an address: 10.0.0.1/8 has host bits set"),
    ({"server_names": ["a:443"]}, ".server_names[0]", "expected a name or *.name, without port or path; got 'a:443'"),
    ({"hosts": ["*"]}, ".hosts[0]", "expected a name or *.name, without port or path; got '*'"),
    ({"methods": ["get"]}, ".methods[0]", "expected capitals, got 'get'"),
    ({"headers": {"a b": "c"}}, ".headers.a b", "no field can be called 'a b'"),
    ({"paths": [{}]}, ".paths[0]", "expected one of path, prefix, regex, template"),
    ({"paths": ["a"]}, ".paths[0].path", "expected a leading /, got 'a'"),
    ({"paths": [{"path": "/a", "prefix": "/b"}]}, ".paths[0]",
     "expected one of path, prefix, regex, template; got ['path', 'prefix']"),
    ({"paths": ["/a?b"]}, ".paths[0].path", "expected a path without query, got '/a?b'"),
    ({"paths": ["/a//b"]}, ".paths[0].path", "no path of a request is read as '/a//b' (see `ambiguous_paths`)"),
    ({"paths": [{"prefix": "/a;b"}]}, ".paths[0].prefix",
     "no path of a request is read as '/a;b' (see `ambiguous_paths`)"),
    ({"paths": [{"regex": "("}]}, ".paths[0].regex", "bad pattern '(': missing ): ("),
    ({"paths": [{"template": "/a*"}]}, ".paths[0].template",
     "expected a word, *, {name}, ** or {name=**} between slashes, got 'a*'"),
]  # fmt: skip


@pytest.mark.parametrize(("match", "below", "detail"), WRONG)
@pytest.mark.parametrize("part", ["match", "unless"])
def test_what_is_wrong_with_a_rule(
    part: str, match: dict[str, Any], below: str, detail: str
) -> None:
    assert ruled({"action": "deny", part: match}) == [(f"{HERE}.{part}{below}", detail)]


def test_an_exception_of_everything_is_a_mistake() -> None:
    detail = "excepts everything: expected a condition"
    assert ruled({"action": "deny", "unless": {}}) == [(f"{HERE}.unless", detail)]


def test_two_rules_may_not_share_a_name() -> None:
    found = ruled({"name": "a", "action": "deny"}, {"name": "a", "action": "allow"})
    assert found == [("inbound[0].authorization[1].name", "two rules are called 'a'")]


def test_an_odd_path_is_no_mistake_where_it_is_read_so() -> None:
    rule = {"action": "deny", "match": {"paths": ["/a//b", "/é", {"template": "/u/{id=**}"}]}}
    assert ruled(rule, ambiguous_paths="keep") == []


def test_without_mtls_nobody_has_an_identity() -> None:
    match = {"identities": [{"prefix": "spiffe://"}], "namespaces": ["a"], "trust_domains": ["b"]}
    rule = {"action": "deny", "match": match}
    detail = "needs mtls: without it nobody has an identity"
    for role in ("inbound", "outbound"):
        found = told(role=role, route={"authorization": [rule]})
        place = f"{role}[0].routes[0].authorization[0].match"
        assert found == [(f"{place}.{kind}", detail) for kind in match]


def test_a_tcp_listener_sees_no_requests() -> None:
    match = {"hosts": ["a"], "methods": ["GET"], "paths": ["/"], "headers": {"a": "b"}}
    found = ruled({"action": "deny", "match": match}, protocol="tcp")
    assert found == [(f"{HERE}.match.{kind}", "a tcp listener sees no requests") for kind in match]
    route = {"authorization": [{"action": "deny"}]}
    found = told(role="inbound", protocol="tcp", route=route)
    assert found == [("inbound[0].routes[0].authorization", "a tcp listener sees no requests")]


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ({"match": {"server_names": ["a"]}}, True),
        ({"unless": {"server_names": ["a"]}}, True),
        ({"match": {"hosts": ["a"]}}, False),
    ],
)
def test_server_names_are_noted_only_for_who_looks_at_them(
    rule: dict[str, Any], wanted: bool
) -> None:
    rules = [{"action": "deny", **rule}]
    parts: tuple[dict[str, Any], ...] = (
        {"listener": {"authorization": rules}},
        {"route": {"authorization": rules}},
    )
    for part in parts:
        assert notes_names(decode(tree(role="inbound", **part), Snapshot)) is wanted
        assert not notes_names(decode(tree(role="outbound", **part), Snapshot))
