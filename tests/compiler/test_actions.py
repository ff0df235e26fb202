"""What a route can say wrongly about what it does, told with its path."""

from typing import Any

import pytest

from sidecar.compiler.snapshot import check, compile_snapshot, no_dial
from sidecar.core.book import Book
from sidecar.errors import ConfigErrors
from sidecar.filters.local_rate_limit import LocalRateLimit
from sidecar.model.snapshot import Snapshot
from sidecar.sources.decode import decode
from tests.core.harness import tree

HERE = "outbound[0].routes[0]"
# What the route says besides `cluster: app`, the path below the route, and what is told.
WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"redirect": {"path": "/x"}}, "", "expected exactly one of cluster, clusters, redirect and respond"),
    ({"cluster": "", "respond": {}, "subset": {"a": "b"}}, ".subset", "needs `cluster`; each of `clusters` has its own"),
    ({"subset": {"version": "v9", "a": "b"}}, ".subset", "no endpoint of cluster 'app' has the labels version: v9, a: b"),
    ({"cluster": "", "clusters": [{"name": "app", "weight": 1, "subset": {"a": "b"}}]}, ".clusters[0].subset",
     "no endpoint of cluster 'app' has the labels a: b"),
    ({"cluster": "", "redirect": {}}, ".redirect", "leads to where the request came"),
    ({"cluster": "", "redirect": {"host": "a:80"}}, ".redirect.host", "expected a host without port; got 'a:80'"),
    ({"cluster": "", "redirect": {"path": "/a", "prefix": "/b"}, "match": {"prefix": "/"}}, ".redirect",
     "expected one of path, prefix, regex; got ['path', 'prefix']"),
    ({"cluster": "", "respond": {"status": 204, "body": "x"}}, ".respond.body", "a 204 has none"),
    ({"cluster": "", "respond": {"headers": {"a b": "c"}}}, ".respond.headers.a b", "no field can be called 'a b'"),
    ({"cluster": "", "respond": {"headers": {"a": "b\r\nc: d"}}},
     ".respond.headers.a", "no field can have the value 'b\\r\\nc: d'"),
    ({"cluster": "", "respond": {}, "rewrite": {"path": "/x"}}, ".rewrite", "nothing is sent on by this route"),
    ({"rewrite": {"host": "a b"}}, ".rewrite.host", "expected a host, and a port if need be; got 'a b'"),
    ({"rewrite": {"path": "x"}}, ".rewrite.path", "expected a path without query, with a leading /; got 'x'"),
    ({"rewrite": {"path": "/x?y"}}, ".rewrite.path", "expected a path without query, with a leading /; got '/x?y'"),
    ({"rewrite": {"path": "/a b"}}, ".rewrite.path", "expected a path without query, with a leading /; got '/a b'"),
    ({"rewrite": {"prefix": "/x"}}, ".rewrite.prefix", "needs a match by `prefix` or `path`"),
    ({"rewrite": {"regex": {"pattern": "(a)", "substitution": r"\2"}}}, ".rewrite.regex.substitution",
     r"\2 is no group: the pattern has 1"),
    ({"rewrite": {"regex": {"pattern": "a", "substitution": "b\\"}}}, ".rewrite.regex.substitution",
     "\\ is no group: the pattern has 0"),
    ({"rewrite": {"regex": {"pattern": "a", "substitution": "b c"}}}, ".rewrite.regex.substitution",
     "expected part of a path, got 'b c'"),
    ({"rewrite": {"regex": {"pattern": "a", "substitution": "b?c"}}}, ".rewrite.regex.substitution",
     "expected part of a path, got 'b?c'"),
    ({"request_headers": {"set": {"Content-Length": "1"}}}, ".request_headers.set.Content-Length",
     "Content-Length frames the message and is the sidecar's"),
    ({"request_headers": {"set": {"Host": "a"}}}, ".request_headers.set.Host",
     "Host frames the message and is the sidecar's; `rewrite.host` changes it"),
    ({"request_headers": {"remove": ["a", ":path"]}}, ".request_headers.remove[1]", "no field can be called ':path'"),
    ({"request_headers": {"add": {"a": "%RESPONSE_CODE%"}}}, ".request_headers.add.a",
     "%RESPONSE_CODE% is not known before the response"),
    ({"response_headers": {"add": {"a": "%NO%"}}}, ".response_headers.add.a", "no value is called %NO%"),
    ({"faults": [{}]}, ".faults[0]", "does nothing: expected delay, abort, throughput or by_header"),
    ({"faults": [{"throughput": 0}]}, ".faults[0].throughput.rate", "expected 1 or more, got 0"),
    ({"faults": [{"abort": {"reset": True, "black_hole": True}}]}, ".faults[0].abort",
     "expected at most one of reset and black_hole"),
    ({"faults": [{"delay": {}}]}, ".faults[0].delay", "expected exactly one of fixed and mean"),
    ({"faults": [{"delay": {"fixed": 1, "mean": 1}}]}, ".faults[0].delay", "expected exactly one of fixed and mean"),
    ({"faults": [{"delay": 1, "match": {"hosts": ["a"]}}]}, ".faults[0].match.hosts", "is looked at by the route's match only"),
    ({"faults": [{"delay": 1, "match": {"path": "a"}}]}, ".faults[0].match.path", "expected a leading /, got 'a'"),
    ({"rate_limits": [{"requests": 1, "per": 0}]}, ".rate_limits[0].per", "expected more than 0"),
    ({"rate_limits": [{"requests": 1, "match": {"sni": ["a"]}}]}, ".rate_limits[0].match.sni",
     "is looked at by the route's match only"),
    ({"rate_limits": [{"requests": 1, "by": ["path", "header:a b"]}]}, ".rate_limits[0].by[1]",
     "expected one of peer, source, path, method, host, user, header:NAME, claim:NAME; got 'header:a b'"),
    ({"mirror": ["ap"]}, ".mirror[0].cluster", "no cluster is named 'ap' (did you mean 'app'?)"),
    ({"mirror": [{"cluster": "app", "host_suffix": " b"}]}, ".mirror[0].host_suffix",
     "expected part of a host name, got ' b'"),
    ({"mirror": ["app"], "cluster": "", "respond": {}}, ".mirror", "nothing is sent on by this route"),
    ({"mirror": ["app"], "cluster": "", "redirect": {"path": "/x"}}, ".mirror", "nothing is sent on by this route"),
    ({"cors": {"origins": []}}, ".cors.origins", "expected at least one"),
    ({"cors": {"origins": ["a"], "methods": ["GET,"]}}, ".cors.methods[0]", "expected a name, got 'GET,'"),
    ({"cors": {"origins": [{}]}}, ".cors.origins[0]", "expected exactly one of exact, prefix, suffix, regex, present; got []"),
]  # fmt: skip


def told(route: dict[str, Any], protocol: str = "http") -> list[tuple[str, str]]:
    with pytest.raises(ConfigErrors) as caught:
        check(decode(tree(route=route, protocol=protocol), Snapshot), None)
    return [(e.path, e.detail) for e in caught.value.errors]


@pytest.mark.parametrize(("route", "path", "text"), WRONG)
def test_what_is_wrong_is_told_with_its_path(route: dict[str, Any], path: str, text: str) -> None:
    assert told(route) == [(HERE + path, text)]


def test_a_bad_pattern_of_a_rewrite_is_told_with_its_path() -> None:
    route = {"rewrite": {"regex": {"pattern": "(", "substitution": ""}}}
    ((path, text),) = told(route)
    assert path == f"{HERE}.rewrite.regex.pattern"
    assert text.startswith("bad pattern '(': ")


@pytest.mark.parametrize(
    "action",
    [
        {"rewrite": {"path": "/"}},
        {"cors": {"origins": ["a"]}},
        {"rate_limits": [{"requests": 1}]},
        {"mirror": ["app"]},
        {"request_headers": {"remove": ["a"]}},
        {"response_headers": {"remove": ["a"]}},
    ],
)
def test_a_tcp_listener_sees_no_requests(action: dict[str, Any]) -> None:
    assert told(action, "tcp") == [
        (f"{HERE}.{next(iter(action))}", "a tcp listener sees no requests")
    ]


def test_workers_share_a_rate() -> None:
    quota = {"rate_limits": [{"requests": 8, "per": 1, "burst": 3}]}
    said = {**tree(route=quota), "process": {"workers": 4}}
    plan = compile_snapshot(decode(said, Snapshot), None, Book(), no_dial)
    route = plan.listeners["127.0.0.1:15001"].routes.find_name("")
    assert route is not None
    (limit,) = route.on_request
    assert isinstance(limit, LocalRateLimit)
    first, full_at = limit.settings.rate.take(0.0, 0.0)
    second, _ = limit.settings.rate.take(full_at, 0.0)
    assert (first.allowed, first.reset) == (True, 0.5)  # 2 a second, and no more than one at once
    assert not second.allowed


def test_what_is_remembered_goes_with_the_rule() -> None:
    book = Book()
    for route, count in (({"faults": [{"delay": 1}]}, 1), ({}, 0)):
        compile_snapshot(decode(tree(route=route), Snapshot), None, book, no_dial)
        assert len(book.kept) == count
