"""What a route does besides sending on: answers, redirects, rewrites, edits, over both protocols."""

from collections.abc import Callable
from typing import Any

import pytest

from sidecar.telemetry.access_log import AccessLogSink
from tests.core.asking import HTTP1, HTTP2, PROTOCOLS, ask
from tests.core.harness import OK, REQUEST_ID, Harness
from tests.core.reading import Message, read_request

Make = Callable[..., Harness]

BOTH = pytest.mark.parametrize("protocol", PROTOCOLS)
PEER = "spiffe://cluster.local/ns/default/sa/api"


def sent_up(harness: Harness) -> Message:
    message = read_request(harness.connect().take())
    assert isinstance(message, Message)
    return message


def fields_of(message: Message) -> dict[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = {}
    for name, value in message.fields:
        found.setdefault(name.lower(), []).append(value)
    return found


# Answers:


@BOTH
def test_a_route_may_answer_by_itself(make: Make, protocol: str) -> None:
    respond = {"status": 503, "body": "closed\n", "headers": {"Retry-After": "60"}}
    harness = make(route={"cluster": "", "respond": respond})
    seen = ask(harness, protocol).answer()
    assert (seen.status, seen.body) == (503, b"closed\n")
    assert seen.fields == {
        b"content-type": b"text/plain; charset=utf-8",
        b"content-length": b"7",
        b"retry-after": b"60",
    }
    assert harness.dials == []
    assert harness.outcomes[0][:3] == (503, "direct-response", "")


@BOTH
@pytest.mark.parametrize(
    ("redirect", "location"),
    [
        ({"scheme": "https"}, b"https://shop/api/x?q=1"),
        ({"scheme": "https", "port": 8443}, b"https://shop:8443/api/x?q=1"),
        ({"scheme": "https", "port": 443}, b"https://shop/api/x?q=1"),
        ({"scheme": "http", "strip_query": True}, b"http://shop:8080/api/x"),
        ({"host": "new.example"}, b"http://new.example/api/x?q=1"),
        ({"path": "/there"}, b"http://shop:8080/there?q=1"),
        ({"prefix": "/v2"}, b"http://shop:8080/v2/x?q=1"),
        ({"regex": {"pattern": "/x$", "substitution": "/y"}}, b"http://shop:8080/api/y?q=1"),
    ],
)
def test_a_route_may_send_the_caller_elsewhere(
    make: Make, protocol: str, redirect: dict[str, Any], location: bytes
) -> None:
    match = {"prefix": "/api"}
    harness = make(route={"cluster": "", "match": match, "redirect": {"status": 308, **redirect}})
    seen = ask(harness, protocol, "/api/x?q=1", host="shop:8080").answer()
    assert seen == (308, {b"location": location, b"content-length": b"0"}, b"")
    assert harness.outcomes[0][:3] == (308, "redirect", "")


@pytest.mark.parametrize(
    ("request_line", "location"),
    [
        (b"GET /a HTTP/1.0\r\n\r\n", b"/b"),
        (b"GET /a HTTP/1.1\r\nHost: [::1]\r\n\r\n", b"http://[::1]/b"),
        (b"GET /a HTTP/1.1\r\nHost: [::1]:81\r\n\r\n", b"http://[::1]:81/b"),
        (b"GET /a HTTP/1.1\r\nHost: x:80\r\n\r\n", b"http://x/b"),
    ],
)
def test_a_redirect_names_the_host_as_the_caller_did(
    make: Make, request_line: bytes, location: bytes
) -> None:
    harness = make(route={"cluster": "", "redirect": {"path": "/b"}})
    caller = harness.open(request_line)
    assert b"Location: " + location + b"\r\n" in caller.take()


# Rewrites:


@BOTH
@pytest.mark.parametrize(
    ("match", "rewrite", "came", "goes"),
    [
        ({"prefix": "/api"}, {"prefix": "/"}, "/api/x?q", b"/x?q"),
        ({"prefix": "/api"}, {"prefix": "/"}, "/api?q", b"/?q"),
        ({"prefix": "/api/"}, {"prefix": "/v1/"}, "/api", b"/v1"),
        ({"path": "/api"}, {"prefix": "/v1"}, "/api?q", b"/v1?q"),
        ({"prefix": "/"}, {"prefix": "/v1"}, "/x", b"/v1/x"),
        ({}, {"path": "/index"}, "/a/b?q", b"/index?q"),
        ({}, {"regex": {"pattern": "^/u/([^/]+)/(x)?", "substitution": r"/\2\\\1/"}}, "/u/7/?q",
         b"/\\7/?q"),
        ({}, {"regex": {"pattern": "o", "substitution": "0"}}, "/foo?o", b"/f00?o"),
        ({}, {"regex": {"pattern": "^/a", "substitution": ""}}, "/ab", b"/b"),
    ],
)  # fmt: skip
def test_a_path_is_rewritten(
    make: Make, protocol: str, match: Any, rewrite: Any, came: str, goes: bytes
) -> None:
    harness = make(route={"match": match, "rewrite": rewrite})
    ask(harness, protocol, came)
    message = sent_up(harness)
    assert message.start[1] == goes
    assert fields_of(message)[b"x-envoy-original-path"] == [came.encode()]


@BOTH
@pytest.mark.parametrize(("path", "goes"), [("/x", b"/y"), ("/z", b"/z")])
def test_the_log_says_what_was_asked_for(make: Make, protocol: str, path: str, goes: bytes) -> None:
    lines: list[bytes] = []
    harness = make(route={"rewrite": {"regex": {"pattern": "x", "substitution": "y"}}})
    harness.engine.sinks = (*harness.engine.sinks, AccessLogSink(lines.append, "text"))
    ask(harness, protocol, path, ("X-Envoy-Original-Path", "/root"))
    upstream = harness.connect()
    assert upstream.take().startswith(b"GET " + goes)
    upstream.send(OK)
    (line,) = lines
    assert f'"GET {path} HTTP'.encode() in line


@BOTH
def test_a_host_is_rewritten(make: Make, protocol: str) -> None:
    harness = make(route={"rewrite": {"host": "Internal:81"}})
    ask(harness, protocol, "/x")
    message = sent_up(harness)
    fields = fields_of(message)
    assert fields[b"host"] == [b"internal:81"]
    assert b"x-envoy-original-path" not in fields
    assert message.start[1] == b"/x"


@pytest.mark.parametrize(("method", "target"), [("OPTIONS", "*"), ("GET", "/b")])
def test_a_target_that_stays_is_left_alone(make: Make, method: str, target: str) -> None:
    harness = make(route={"rewrite": {"regex": {"pattern": "a", "substitution": "b"}}})
    ask(harness, HTTP1, target, method=method)
    message = sent_up(harness)
    assert message.start[1] == target.encode()
    assert b"x-envoy-original-path" not in fields_of(message)


# Fields:


@BOTH
def test_fields_of_a_request_are_edited(make: Make, protocol: str) -> None:
    edits = {
        "set": {"X-Old": "new", "x-came": "%REQ(x-old)% by %REQ(:path)%", "X-Request-ID": "mine"},
        "add": {"x-more": "b", "x-id": "%REQUEST_ID%"},
        "remove": ["X-Gone", "traceparent"],
    }
    harness = make(route={"request_headers": edits})
    ask(harness, protocol, "/p", ("x-old", "1"), ("x-old", "2"), ("x-gone", "x"), ("x-more", "a"))
    fields = fields_of(sent_up(harness))
    assert fields == {
        b"host": [b"a"],
        b"x-old": [b"new"],
        b"x-came": [b"1, 2 by /p"],
        b"x-request-id": [b"mine"],
        b"x-more": [b"a", b"b"],
        b"x-id": [REQUEST_ID],
    }


@BOTH
def test_fields_of_a_response_are_edited(make: Make, protocol: str) -> None:
    edits = {
        "set": {"x-from": "%UPSTREAM_CLUSTER% %UPSTREAM_HOST%", "x-was": "%RESP(server)%"},
        "add": {"x-code": "%RESPONSE_CODE%"},
        "remove": ["server"],
    }
    harness = make(route={"response_headers": edits})
    asked = ask(harness, protocol)
    harness.connect().send(OK.replace(b"Content", b"Server: nginx\r\nContent", 1))
    seen = asked.answer()
    assert seen.fields == {
        b"content-length": b"2",
        b"x-from": b"app 10.0.0.1:80",
        b"x-was": b"nginx",
        b"x-code": b"200",
    }


@BOTH
def test_fields_of_our_own_replies_are_edited(make: Make, protocol: str) -> None:
    harness = make(
        route={
            "response_headers": {"set": {"x-why": "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESP(x)%"}}
        },
        retry={"attempts": 1},
    )
    asked = ask(harness, protocol)
    harness.fail()
    assert asked.answer().fields[b"x-why"] == b"503 UF -"


def test_values_name_the_peer(make: Make) -> None:
    edits = {"set": {"x-peer": "%PEER_IDENTITY%=%DOWNSTREAM_PEER_URI_SAN%"}}
    harness = make(role="inbound", route={"request_headers": edits})
    ask(harness, identity=PEER)
    assert fields_of(sent_up(harness))[b"x-peer"] == [f"{PEER}={PEER}".encode()]


# CORS:

CORS = {
    "origins": ["https://shop", {"suffix": ".example"}],
    "methods": ["GET", "PUT"],
    "headers": ["x-a", "x-b"],
    "expose": ["x-c"],
    "max_age": "10m",
    "credentials": True,
}
PREFLIGHT = ("Access-Control-Request-Method", "PUT")


@BOTH
@pytest.mark.parametrize("origin", ["https://shop", "https://x.example"])
def test_a_preflight_of_an_allowed_origin_is_answered(
    make: Make, protocol: str, origin: str
) -> None:
    harness = make(route={"cors": CORS})
    seen = ask(harness, protocol, "/", ("Origin", origin), PREFLIGHT, method="OPTIONS").answer()
    assert seen.status == 200
    assert seen.fields == {
        b"access-control-allow-origin": origin.encode(),
        b"access-control-allow-methods": b"GET, PUT",
        b"access-control-allow-headers": b"x-a, x-b",
        b"access-control-allow-credentials": b"true",
        b"access-control-expose-headers": b"x-c",
        b"access-control-max-age": b"600",
        b"vary": b"origin",
        b"content-length": b"0",
    }


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("OPTIONS", [("Origin", "https://other"), PREFLIGHT]),
        ("OPTIONS", [("Origin", "https://shop")]),
        ("OPTIONS", [PREFLIGHT]),
        ("GET", [("Origin", "https://shop"), PREFLIGHT]),
    ],
)
def test_whatever_else_goes_on(make: Make, method: str, fields: list[tuple[str, str]]) -> None:
    harness = make(route={"cors": CORS})
    ask(harness, HTTP1, "/", *fields, method=method)
    assert sent_up(harness).start[0] == method.encode()


@BOTH
@pytest.mark.parametrize(("origin", "is_allowed"), [("https://shop", True), ("https://x", False)])
def test_an_allowed_origin_may_read_the_answer(
    make: Make, protocol: str, origin: str, is_allowed: bool
) -> None:
    harness = make(route={"cors": {"origins": CORS["origins"]}})
    asked = ask(harness, protocol, "/", ("Origin", origin))
    harness.connect().send(OK.replace(b"Content", b"Vary: x\r\nContent", 1))
    fields = asked.answer().fields
    assert fields.get(b"access-control-allow-origin") == (origin.encode() if is_allowed else None)
    assert fields[b"vary"] == b"x, origin"
    assert b"access-control-allow-credentials" not in fields


# Subsets:

LABELLED = [
    {"address": "10.0.0.1:80", "labels": {"version": "v1", "zone": "a"}},
    {"address": "10.0.0.2:80", "labels": {"version": "v2"}},
    {"address": "10.0.0.3:80", "labels": {"version": "v1", "zone": "b"}},
]


@pytest.mark.parametrize(
    ("subset", "addresses"),
    [
        ({"version": "v1"}, {"10.0.0.1:80", "10.0.0.3:80"}),
        ({"version": "v1", "zone": "b"}, {"10.0.0.3:80"}),
        ({}, {"10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"}),
    ],
)
def test_a_route_uses_the_endpoints_with_its_labels(
    make: Make, subset: dict[str, str], addresses: set[str]
) -> None:
    harness = make(cluster={"endpoints": LABELLED}, route={"subset": subset})
    for _ in range(6):
        ask(harness, HTTP2)
    assert {dial.address for dial in harness.dials} == addresses
    assert harness.state().requests == 6  # one cluster, one count


def test_shares_of_a_cluster_have_subsets_of_their_own(make: Make) -> None:
    shares = [
        {"name": "app", "weight": 1, "subset": {"version": "v1"}},
        {"name": "app", "weight": 1, "subset": {"version": "v2"}},
    ]
    harness = make(cluster={"endpoints": LABELLED}, route={"cluster": "", "clusters": shares})
    for harness.chance in (0.1, 0.9, 0.2, 0.8):
        ask(harness)
    addresses = [dial.address for dial in harness.dials]
    assert sorted(addresses[::2]) == ["10.0.0.1:80", "10.0.0.3:80"]
    assert addresses[1::2] == ["10.0.0.2:80"] * 2
