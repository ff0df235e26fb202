"""Conditions of a match, on request heads as the reader makes them."""

import pytest

from sidecar.compiler.fields import conditions, text_test
from sidecar.core.types import Caller
from sidecar.errors import ConfigError
from sidecar.model.match import RouteMatch, StringMatch
from sidecar.wire.fields import RequestHead
from sidecar.wire.http1_head import HeadReader

IS_1 = StringMatch(exact="1")


def holds(
    match: RouteMatch,
    target: str,
    *fields: str,
    method: str = "GET",
    caller: Caller | None = None,
    draw: float = 0.5,
) -> bool:
    errors: list[ConfigError] = []
    tests = conditions(match, "m", errors, lambda: draw)
    assert errors == []
    lines = "".join(f"{line}\r\n" for line in (f"{method} {target} HTTP/1.1", "Host: h", *fields))
    result = HeadReader().request(lines.encode() + b"\r\n")
    assert result is not None
    return all(test(result[0], caller or Caller()) for test in tests)


TEXTS = [
    (StringMatch(exact="abc"), [b"abc"], [b"ab", b"abcd", b"ABC", None]),
    (StringMatch(prefix="ab"), [b"ab", b"abc"], [b"a", b"xab", None]),
    (StringMatch(suffix="bc"), [b"bc", b"abc"], [b"bcx", b"c", None]),
    (StringMatch(regex="a+b?"), [b"a", b"aab"], [b"b", b"aabb", b"", None]),
    (StringMatch(regex="\\xff."), [b"\xffa"], [b"a\xff"]),
    (StringMatch(present=True), [b"", b"x"], [None]),
    (StringMatch(present=False), [None], [b"", b"x"]),
    (StringMatch(exact="a", invert=True), [b"b", None], [b"a"]),
    (StringMatch(prefix="a", invert=True), [b"b", None], [b"ab"]),
    (StringMatch(present=True, invert=True), [None], [b"x"]),
]


@pytest.mark.parametrize(("match", "good", "bad"), TEXTS)
def test_a_text_is_matched_by_its_kind(
    match: StringMatch, good: list[bytes | None], bad: list[bytes | None]
) -> None:
    errors: list[ConfigError] = []
    test = text_test(match, "m", errors)
    assert errors == []
    assert [text for text in good if not test(text)] == []
    assert [text for text in bad if test(text)] == []


@pytest.mark.parametrize("match", [StringMatch(), StringMatch(exact="a", prefix="b")])
def test_a_text_needs_exactly_one_kind(match: StringMatch) -> None:
    errors: list[ConfigError] = []
    assert not text_test(match, "m.x", errors)(b"a")
    assert [(e.path, e.detail[:28]) for e in errors] == [("m.x", "expected exactly one of exac")]


def test_a_bad_pattern_is_told_at_its_path() -> None:
    errors: list[ConfigError] = []
    assert not text_test(StringMatch(regex="("), "m.x", errors)(b"(")
    assert [e.path for e in errors] == ["m.x.regex"]
    assert errors[0].detail.startswith("bad pattern '(': ")


HEADS = [
    (RouteMatch(), "/anything?x", True),
    (RouteMatch(path="/a"), "/a", True),
    (RouteMatch(path="/a"), "/a?x=/b", True),
    (RouteMatch(path="/a"), "/a/", False),
    (RouteMatch(path="/a"), "/A", False),
    (RouteMatch(prefix="/"), "/anything", True),
    (RouteMatch(prefix="/api"), "/api", True),
    (RouteMatch(prefix="/api"), "/api/", True),
    (RouteMatch(prefix="/api"), "/api/x", True),
    (RouteMatch(prefix="/api"), "/api?x", True),
    (RouteMatch(prefix="/api"), "/apix", False),
    (RouteMatch(prefix="/api"), "/x/api", False),
    (RouteMatch(prefix="/api/"), "/api/x", True),
    (RouteMatch(prefix="/api/"), "/apix", False),
    (RouteMatch(regex="/v[0-9]+/.*"), "/v12/x", True),
    (RouteMatch(regex="/v[0-9]+"), "/v12?q", True),
    (RouteMatch(regex="/v[0-9]+"), "/v12/x", False),
    (RouteMatch(template="/"), "/", True),
    (RouteMatch(template="/"), "/a", False),
    (RouteMatch(template="/users/{id}"), "/users/7?q", True),
    (RouteMatch(template="/users/{id=*}"), "/users/7", True),
    (RouteMatch(template="/users/*"), "/users/", False),
    (RouteMatch(template="/users/*"), "/users/7/x", False),
    (RouteMatch(template="/users/*/orders"), "/users/7/orders", True),
    (RouteMatch(template="/a.c/**"), "/a.c", True),
    (RouteMatch(template="/a.c/**"), "/abc/x", False),
    (RouteMatch(template="/a/{rest=**}"), "/a/b/c/", True),
    (RouteMatch(template="/a/{rest=**}"), "/ab", False),
    (RouteMatch(query={"a": IS_1}), "/?a=1", True),
    (RouteMatch(query={"a": IS_1}), "/?b=2&a=1", True),
    (RouteMatch(query={"a": IS_1}), "/?a=2&a=1", False),
    (RouteMatch(query={"a": IS_1}), "/?aa=1", False),
    (RouteMatch(query={"a": StringMatch(exact="x y")}), "/?a=x%20y", True),
    (RouteMatch(query={"a": StringMatch(exact="x y")}), "/?a=x+y", True),
    (RouteMatch(query={"a b": StringMatch(exact="1")}), "/?a%20b=1", True),
    (RouteMatch(query={"a": StringMatch(exact="")}), "/?a", True),
    (RouteMatch(query={"a": StringMatch(present=True)}), "/?a=", True),
    (RouteMatch(query={"a": StringMatch(present=True)}), "/", False),
    (RouteMatch(query={"a": StringMatch(present=False)}), "/?b", True),
]


@pytest.mark.parametrize(("match", "target", "taken"), HEADS)
def test_a_target_is_matched_by_path_and_query(match: RouteMatch, target: str, taken: bool) -> None:
    assert holds(match, target) is taken


@pytest.mark.parametrize(("method", "taken"), [("GET", True), ("PUT", True), ("POST", False)])
def test_any_of_the_methods_is_taken(method: str, taken: bool) -> None:
    match = RouteMatch(methods=("GET", "PUT"))
    assert holds(match, "/", "Content-Length: 0", method=method) is taken


@pytest.mark.parametrize(
    ("text", "fields", "taken"),
    [
        (StringMatch(exact="1"), ("X-A: 1",), True),
        (StringMatch(exact="1"), ("x-a: 1",), True),
        (StringMatch(exact="1"), ("X-A: 2",), False),
        (StringMatch(exact="1"), (), False),
        (StringMatch(exact="1, 2"), ("X-A: 1", "x-a: 2"), True),
        (StringMatch(present=False), (), True),
        (StringMatch(present=False), ("X-A: 1",), False),
        (StringMatch(exact="1", invert=True), (), True),
    ],
)
def test_a_field_is_matched_whatever_the_case_of_its_name(
    text: StringMatch, fields: tuple[str, ...], taken: bool
) -> None:
    assert holds(RouteMatch(headers={"x-A": text}), "/", *fields) is taken


@pytest.mark.parametrize(
    ("text", "fields", "taken"),
    [
        (IS_1, ("Cookie: b=2; a=1",), True),
        (IS_1, ('Cookie: a="1"; a=2',), True),
        (IS_1, ("Cookie: a=2; a=1",), False),
        (IS_1, ("Cookie: aa=1; a",), False),
        (IS_1, (), False),
        (StringMatch(exact="1,2"), ("Cookie: a=1,2",), True),
        (StringMatch(present=False), ("Cookie: b=1",), True),
    ],
)
def test_a_cookie_is_matched_by_its_name(
    text: StringMatch, fields: tuple[str, ...], taken: bool
) -> None:
    assert holds(RouteMatch(cookies={"a": text}), "/", *fields) is taken


def test_cookies_of_http2_may_come_in_pieces() -> None:
    (test,) = conditions(RouteMatch(cookies={"a": IS_1}), "m", [])
    pairs = [(b"cookie", b"b=2"), (b"x", b"a=3"), (b"cookie", b"a=1")]
    assert test(RequestHead(b"GET", b"/", 20, b"", {}, pairs), Caller())


@pytest.mark.parametrize(
    ("match", "taken"),
    [
        (RouteMatch(peer=StringMatch(prefix="spiffe://a/ns/shop/")), True),
        (RouteMatch(peer=StringMatch(exact="spiffe://a")), False),
        (RouteMatch(peer=StringMatch(present=False)), False),
        (RouteMatch(ports=(80, 15006)), True),
        (RouteMatch(ports=(80,)), False),
    ],
)
def test_a_caller_is_matched_by_identity_and_port(match: RouteMatch, taken: bool) -> None:
    caller = Caller("10.0.0.1", 5000, ("10.0.0.2", 15006))
    caller.identity = "spiffe://a/ns/shop/sa/web"
    assert holds(match, "/", caller=caller) is taken


def test_a_caller_without_identity_is_matched_by_its_absence() -> None:
    assert holds(RouteMatch(peer=StringMatch(present=False)), "/")


@pytest.mark.parametrize(("draw", "taken"), [(0.0, True), (0.00009, True), (0.0001, False)])
def test_a_percentage_takes_its_share(draw: float, taken: bool) -> None:
    assert holds(RouteMatch(percent=0.01), "/", draw=draw) is taken
    assert holds(RouteMatch(), "/", draw=draw)


def test_the_authority_is_matched_by_its_pseudo_field() -> None:
    assert holds(RouteMatch(headers={":authority": StringMatch(exact="h")}), "/")
    assert not holds(RouteMatch(headers={":authority": StringMatch(exact="x")}), "/")


def test_all_conditions_of_a_match_must_hold() -> None:
    match = RouteMatch(prefix="/a", methods=("GET",), headers={"x": IS_1})
    assert holds(match, "/a/b", "X: 1")
    assert not holds(match, "/b", "X: 1")
    assert not holds(match, "/a", "X: 2")
    assert not holds(match, "/a", "X: 1", method="HEAD")


@pytest.mark.parametrize(
    ("match", "path", "text"),
    [
        (RouteMatch(path="/a", prefix="/b"), "m", "expected one of path, prefix, regex, template"),
        (RouteMatch(path="a"), "m.path", "expected a leading /, got 'a'"),
        (RouteMatch(prefix="a"), "m.prefix", "expected a leading /, got 'a'"),
        (RouteMatch(path="/a?b"), "m.path", "expected a path without query, got '/a?b'"),
        (RouteMatch(prefix="/a#b"), "m.prefix", "expected a path without query, got '/a#b'"),
        (RouteMatch(methods=("GET", "put")), "m.methods[1]", "expected capitals, got 'put'"),
        (RouteMatch(methods=("",)), "m.methods[0]", "expected capitals, got ''"),
        (RouteMatch(headers={"a b": IS_1}), "m.headers.a b", "no field can be called 'a b'"),
        (RouteMatch(headers={":path": IS_1}), "m.headers.:path", "no field can be called ':path'"),
        (RouteMatch(template="a"), "m.template", "expected a leading /, got 'a'"),
        (RouteMatch(template="/a*"), "m.template", "expected a word, *, {name}, ** or"),
        (RouteMatch(template="/**/a"), "m.template", "** stands for the rest: put it last"),
        (RouteMatch(cookies={"a b": IS_1}), "m.cookies.a b", "no cookie can be called 'a b'"),
        (RouteMatch(cookies={":authority": IS_1}), "m.cookies.:authority", "no cookie can be"),
        (RouteMatch(peer=StringMatch()), "m.peer", "expected exactly one of"),
        (RouteMatch(regex="["), "m.regex", "bad pattern '['"),
        (RouteMatch(headers={"x": StringMatch()}), "m.headers.x", "expected exactly one of"),
        (RouteMatch(query={"q": StringMatch(regex="*")}), "m.query.q.regex", "bad pattern '*'"),
    ],
)
def test_a_wrong_match_is_told_at_its_path(match: RouteMatch, path: str, text: str) -> None:
    errors: list[ConfigError] = []
    conditions(match, "m", errors)
    assert [e.path for e in errors] == [path]
    assert errors[0].detail.startswith(text)
