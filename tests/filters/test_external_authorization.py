"""A service decides whether a request may pass, by HTTP and by gRPC; what becomes of it if it is silent."""

from collections.abc import Callable
from typing import Any, Final

import pytest
from envoy.config.core.v3.base_pb2 import HeaderValue, HeaderValueOption
from envoy.service.auth.v3.external_auth_pb2 import (
    CheckRequest,
    CheckResponse,
    DeniedHttpResponse,
    OkHttpResponse,
)
from envoy.type.v3.http_status_pb2 import HttpStatus
from google.protobuf.wrappers_pb2 import BoolValue
from google.rpc.status_pb2 import Status

from sidecar.compiler.snapshot import check
from sidecar.errors import ConfigErrors
from sidecar.model.snapshot import Snapshot
from sidecar.sources.decode import decode
from sidecar.wire.grpc import pack, unpack
from tests.core.asking import HTTP1, PROTOCOLS, Asked, ask
from tests.core.harness import OK, OWN, Harness, forwarded, tree
from tests.core.http2_peer import Peer
from tests.core.transport import FakeTransport

Make = Callable[..., Harness]

BOTH = pytest.mark.parametrize("protocol", PROTOCOLS)
APP: Final = "10.0.0.1:80"
ASKED: Final = "10.0.0.9:80"
PEER: Final = "spiffe://cluster.local/ns/default/sa/api"
GRPC: Final = ("content-type", "application/grpc")
ALLOWED: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
DENIED: Final = (
    b"HTTP/1.1 401 No\r\nX-Why: no\r\nWWW-Authenticate: Basic\r\nContent-Length: 4\r\n\r\nnope"
)


def guarded(
    make: Make, kind: str = "http", *, role: str = "outbound", cluster: dict[str, Any] | None = None,
    more: dict[str, Any] | None = None, listener: dict[str, Any] | None = None, **service: Any,
) -> Harness:  # fmt: skip
    auth = {"name": "auth", "endpoints": [ASKED], **(cluster or {})}
    if kind == "grpc":
        auth["protocol"] = "http2"
    harness = make(
        role=role,
        listener=listener,
        route={"external_authorization": {kind: {"cluster": "auth", **service}, **(more or {})}},
        clusters=[auth],
    )
    harness.connects_at_once = kind == "http"
    return harness


def at(harness: Harness, address: str) -> list[FakeTransport]:
    dialled = [dial.address for dial in harness.dials if dial not in harness.begun]
    pairs = zip(dialled, harness.upstreams, strict=True)
    return [transport for place, transport in pairs if place == address]


def counted(harness: Harness) -> dict[str, float]:
    return {
        dict(labels)["result"]: value
        for name, labels, (value,) in harness.engine.counts.rows()
        if name == "sidecar_ext_authz_total"
    }


def passes(harness: Harness, asked: Asked) -> bytes:
    """Answer what has reached the endpoint; return what that was."""
    (app,) = at(harness, APP)
    seen = app.take()
    app.send(OK)
    assert (asked.answer().status, harness.outcomes[-1].flag) == (200, "")
    return seen


# By HTTP:


@BOTH
def test_a_request_passes_when_the_service_says_200(make: Make, protocol: str) -> None:
    harness = guarded(make)
    asked = ask(
        harness, protocol, "/a?b", ("authorization", "Bearer x"), ("cookie", "c"), method="DELETE"
    )
    (auth,) = at(harness, ASKED)
    assert auth.take() == (
        b"DELETE /a?b HTTP/1.1\r\nHost: a\r\nauthorization: Bearer x\r\n" + OWN + b"\r\n"
    )
    assert at(harness, APP) == []
    auth.send(b"HTTP/1.1 200 OK\r\nX-User: me\r\nContent-Length: 2\r\n\r\nok")
    seen = passes(harness, asked)
    assert b"authorization: Bearer x\r\n" in seen
    assert b"x-user" not in seen.lower()
    assert counted(harness) == {"ok": 1}


@BOTH
def test_a_request_is_refused_as_the_service_says(make: Make, protocol: str) -> None:
    harness = guarded(make, allowed_client_headers=["X-Why"])
    asked = ask(harness, protocol)
    at(harness, ASKED)[0].send(DENIED)
    seen = asked.answer()
    assert (seen.status, seen.body) == (401, b"nope")
    assert seen.fields[b"www-authenticate"] == b"Basic"
    assert seen.fields[b"x-why"] == b"no"
    assert at(harness, APP) == []
    outcome = harness.outcomes[-1]
    assert outcome[:3] == (401, "ext-authz-denied", "UAEX")
    assert harness.sink.exchanges[-1].detail == "status 401"
    assert counted(harness) == {"denied": 1}


def test_what_is_not_allowed_is_not_told(make: Make) -> None:
    harness = guarded(make)
    asked = ask(harness)
    at(harness, ASKED)[0].send(b"HTTP/1.1 403 No\r\nX-Why: no\r\nContent-Length: 0\r\n\r\n")
    seen = asked.answer()
    assert b"x-why" not in seen.fields
    assert seen.body.startswith(b"sidecar: the authorization service refuses the request (")


def test_a_grpc_caller_that_is_refused_has_no_permission(make: Make) -> None:
    harness = guarded(make)
    asked = ask(harness, HTTP1, "/s/m", GRPC, method="POST")
    (auth,) = at(harness, ASKED)
    assert b"application/grpc" not in auth.take()
    auth.send(DENIED.replace(b"401", b"403"))
    seen = asked.answer()
    assert (seen.status, seen.fields[b"grpc-status"], seen.fields[b"grpc-message"]) == (
        200, b"7", b"nope",
    )  # fmt: skip


def test_only_the_service_says_what_it_is_to_say(make: Make) -> None:
    harness = guarded(
        make,
        allowed_upstream_headers=["X-User", {"prefix": "X-Role-"}],
        allowed_client_headers_on_success=["set-cookie", "x-left"],
    )
    asked = ask(harness, HTTP1, "/", ("X-User", "root"), ("x-role-admin", "1"), ("x-other", "1"))
    at(harness, ASKED)[0].send(
        b"HTTP/1.1 200 OK\r\nX-User: me\r\nX-Other: 2\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n"
        b"Content-Length: 0\r\n\r\n"
    )
    (app,) = at(harness, APP)
    assert app.take() == (
        b"GET / HTTP/1.1\r\nHost: a\r\nx-other: 1\r\nx-user: me\r\n" + OWN + b"\r\n"
    )
    app.send(OK)
    seen = asked.answer()
    assert seen.fields[b"set-cookie"] == b"a, b"
    assert b"x-left" not in seen.fields


def test_the_question_is_as_the_config_has_it(make: Make) -> None:
    harness = guarded(
        make,
        path_prefix="/check/",
        headers_to_add={"X-Proxy": "s"},
        more={"allowed_headers": ["x-a", {"regex": "x-b.*"}, {"suffix": "-C", "invert": False}]},
    )
    fields = [("x-a", "1"), ("x-bb", "2"), ("y-c", "3"), ("x-d", "4"), ("x-proxy", "evil")]
    asked = ask(harness, HTTP1, "/p", *fields)
    (auth,) = at(harness, ASKED)
    assert auth.take() == (
        b"GET /check/p HTTP/1.1\r\nHost: a\r\nx-a: 1\r\nx-bb: 2\r\ny-c: 3\r\nx-proxy: s\r\n"
        + OWN + b"\r\n"
    )  # fmt: skip
    auth.send(ALLOWED)
    passes(harness, asked)


# When it does not decide:


@pytest.mark.parametrize(("is_open", "status"), [(False, 403), (False, 503), (True, 403)])
@pytest.mark.parametrize("how", ["timeout", "5xx", "gone"])
@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_silence_is_a_no_unless_the_config_says_otherwise(
    make: Make, is_open: bool, status: int, how: str, kind: str
) -> None:
    more = {"failure_mode_allow": is_open, "status_on_error": status, "timeout": "500ms"}
    harness = guarded(make, kind, more=more)
    asked = ask(harness)
    peer = harness.serve() if kind == "grpc" else None
    harness.connects_at_once = True
    (auth,) = at(harness, ASKED)
    if how == "timeout":
        harness.advance(0.52)
    elif how == "5xx" and peer is not None:
        peer.answer(1, 503)
    elif how == "5xx":
        auth.send(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
    else:
        for _ in range(3):  # it is tried again: asking twice does no harm
            at(harness, ASKED)[-1].lose()
            harness.advance(0.15)
    if is_open:
        passes(harness, asked)
        assert counted(harness) == {"failure_mode_allowed": 1}
        fields = harness.sink.exchanges[-1].fields
        assert fields is not None
        assert fields["ext_authz"] != ""
    else:
        assert asked.answer().status == status
        assert harness.outcomes[-1][:3] == (status, "ext-authz-error", "UAEX")
        assert counted(harness) == {"error": 1}


def test_a_caller_that_goes_away_need_not_be_decided_about(make: Make) -> None:
    harness = guarded(make)
    asked = ask(harness)
    asked.transport.lose()
    assert at(harness, ASKED)[0].fate == "closed"
    assert counted(harness) == {}


# With the body:

POST: Final = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Type: text/x\r\nContent-Length: 6\r\n\r\n"


@pytest.mark.parametrize("pieces", [[b"123456"], [b"", b"123", b"456"]])
def test_the_service_may_see_the_body(make: Make, pieces: list[bytes]) -> None:
    harness = guarded(make, more={"request_body": 6})
    caller = harness.open(POST + pieces[0])
    for piece in pieces[1:]:
        assert harness.dials == []
        caller.send(piece)
    (auth,) = at(harness, ASKED)
    assert auth.take() == (
        b"POST /a HTTP/1.1\r\nHost: a\r\ncontent-type: text/x\r\n" + OWN
        + b"content-length: 6\r\n\r\n123456"
    )  # fmt: skip
    auth.send(ALLOWED)
    (app,) = at(harness, APP)
    assert app.take() == forwarded(POST + b"123456")
    app.send(OK)
    assert caller.take() == OK


def test_without_an_idle_timeout_it_is(make: Make) -> None:
    harness = guarded(make, more={"request_body": 6}, listener={"stream_idle_timeout": 0})
    caller = harness.open(POST + b"123")
    harness.advance(1e6)
    caller.send(b"456")
    at(harness, ASKED)[0].send(ALLOWED)
    at(harness, APP)[0].send(OK)
    assert caller.take() == OK


@pytest.mark.parametrize("pieces", [[b"123456"], [b"12", b"3456"]])
@pytest.mark.parametrize("is_partial", [True, False])
def test_of_a_longer_body_it_sees_the_beginning_or_nothing(
    make: Make, is_partial: bool, pieces: list[bytes]
) -> None:
    body = {"max_request_bytes": 4, "allow_partial_message": is_partial}
    harness = guarded(make, more={"request_body": body})
    caller = harness.open(POST)
    for piece in pieces:
        caller.send(piece)
    if not is_partial:
        assert caller.take().startswith(b"HTTP/1.1 413 ")
        assert harness.outcomes[0][:3] == (413, "ext-authz-body-too-large", "UAEX")
        return
    (auth,) = at(harness, ASKED)
    seen = auth.take()
    assert b"x-envoy-auth-partial-body: true\r\n" in seen
    assert seen.endswith(b"\r\n\r\n1234")
    auth.send(ALLOWED)
    (app,) = at(harness, APP)
    assert app.take() == forwarded(POST + b"123456")
    app.send(OK)
    assert caller.take() == OK


def test_a_body_that_does_not_come_is_not_waited_for_for_ever(make: Make) -> None:
    harness = guarded(make, more={"request_body": 6})
    caller = harness.open(POST + b"123")
    harness.advance(299)
    assert caller.take() == b""
    harness.advance(2)
    assert caller.take().startswith(b"HTTP/1.1 408 ")
    assert harness.outcomes[0][:3] == (408, "stream-idle", "SI")


# By gRPC:


def option(key: str, value: str, **how: Any) -> Any:
    return HeaderValueOption(header=HeaderValue(key=key, value=value), **how)


def answer(peer: Peer, message: Any, stream: int = 1) -> Any:
    """Answer a Check; return what was asked."""
    got = peer[stream]
    assert got.head[b":path"] == b"/envoy.service.auth.v3.Authorization/Check"
    octets = unpack(got.data)
    assert octets is not None
    octets_back = message if isinstance(message, bytes) else message.SerializeToString()
    peer.answer(stream, 200, [(b"content-type", b"application/grpc")], pack(octets_back), end=False)
    peer.trail(stream, [(b"grpc-status", b"0")])
    return CheckRequest.FromString(octets).attributes


def asks_grpc(make: Make, *fields: tuple[str, str], **config: Any) -> tuple[Harness, Asked, Peer]:
    harness = guarded(make, "grpc", **config)
    asked = ask(harness, HTTP1, "/a?b", *fields)
    peer = harness.serve()
    harness.connects_at_once = True
    return harness, asked, peer


def test_the_service_is_told_who_asks_for_what(make: Make) -> None:
    harness = guarded(make, "grpc", role="inbound", context_extensions={"tenant": "shop"})
    fields = [("Cookie", "a=1"), ("Cookie", "b=2"), ("x-a", "1"), ("x-a", "2")]
    asked = ask(harness, HTTP1, "/a?b", *fields, identity=PEER)
    peer = harness.serve()
    harness.connects_at_once = True
    assert peer[1].head[b":authority"] == b"auth"
    assert peer[1].head[b"grpc-timeout"] == b"200000u"
    seen = answer(peer, CheckResponse())
    assert seen.source.principal == PEER
    assert seen.source.address.socket_address.address == "10.9.9.9"
    assert seen.destination.principal == harness.engine.identity
    assert seen.destination.address.socket_address.port_value == 15006
    assert seen.request.time.seconds == 1_700_001_000
    http = seen.request.http
    assert (http.method, http.path, http.host, http.scheme, http.protocol, http.size) == (
        "GET", "/a?b", "a", "https", "HTTP/1.1", 0,
    )  # fmt: skip
    assert http.id == peer[1].head[b"x-request-id"].decode()
    headers = dict(http.headers)
    assert (headers["cookie"], headers["x-a"], headers[":path"]) == ("a=1; b=2", "1,2", "/a?b")
    assert headers["x-forwarded-client-cert"].endswith(f"URI={PEER}")
    assert "host" not in headers
    assert dict(seen.context_extensions) == {"tenant": "shop"}
    passes(harness, asked)


def test_it_is_told_no_more_than_is_allowed(make: Make) -> None:
    more = {"allowed_headers": ["x-a"]}
    harness, asked, peer = asks_grpc(make, ("x-a", "1"), ("x-b", "2"), more=more, authority="z")
    assert peer[1].head[b":authority"] == b"z"
    seen = answer(peer, CheckResponse())
    assert [n for n in seen.request.http.headers if not n.startswith(":")] == ["x-a"]
    passes(harness, asked)


def test_it_may_change_the_request_and_the_response(make: Make) -> None:
    harness, asked, peer = asks_grpc(
        make, ("x-set", "0"), ("x-more", "0"), ("x-gone", "0"), ("x-there", "0")
    )
    ok = OkHttpResponse(
        headers=[
            option("X-Set", "1"),
            option("x-request-id", "mine"),
            option("x-more", "1", append=BoolValue(value=True)),
            option("x-there", "1", append_action=1),
            option("x-absent", "1", append_action=1),
            option("x-there", "2", append_action=3),
            option("x-not", "2", append_action=3),
            option("host", "evil"),
        ],
        headers_to_remove=["X-Gone", "content-length", "traceparent"],
        response_headers_to_add=[option("x-said", "1")],
    )
    answer(peer, CheckResponse(ok_response=ok))
    (app,) = at(harness, APP)
    lines = app.take().split(b"\r\n\r\n")[0].split(b"\r\n")
    assert sorted(lines) == sorted(
        [
            b"GET /a?b HTTP/1.1", b"Host: a", b"x-more: 0", b"x-more: 1", b"x-set: 1",
            b"x-request-id: mine", b"x-absent: 1", b"x-there: 2",
        ]
    )  # fmt: skip
    app.send(OK)
    assert asked.answer().fields[b"x-said"] == b"1"
    assert counted(harness) == {"ok": 1}


def test_it_may_refuse_with_an_answer_of_its_own(make: Make) -> None:
    harness, asked, peer = asks_grpc(make)
    denied = DeniedHttpResponse(
        status=HttpStatus(code=402), headers=[option("X-Why", "no")], body="pay"
    )
    status = Status(code=7, message="no money")
    answer(peer, CheckResponse(status=status, denied_response=denied))
    seen = asked.answer()
    assert (seen.status, seen.fields[b"x-why"], seen.body) == (402, b"no", b"pay")
    assert harness.sink.exchanges[-1].detail == "code 7 no money"
    assert harness.outcomes[-1][:3] == (402, "ext-authz-denied", "UAEX")


def test_a_bare_no_is_403(make: Make) -> None:
    harness, asked, peer = asks_grpc(make)
    answer(peer, CheckResponse(status=Status(code=16)))
    seen = asked.answer()
    assert (seen.status, harness.outcomes[-1].flag) == (403, "UAEX")
    assert b"code 16" in seen.body


@pytest.mark.parametrize("body", ["text", "\xff"])
def test_it_may_see_the_body(make: Make, body: str) -> None:
    more = {"request_body": {"max_request_bytes": 4, "allow_partial_message": True}}
    harness = guarded(make, "grpc", more=more)
    octets = body.encode("latin-1")
    harness.open(
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(octets), octets)
    )
    http = answer(harness.serve(), CheckResponse(status=Status(code=7))).request.http
    assert (http.body or http.raw_body.decode("latin-1")) == body
    assert http.size == len(body)
    assert "x-envoy-auth-partial-body" not in http.headers


def test_it_is_told_when_it_sees_a_part_of_the_body(make: Make) -> None:
    more = {"request_body": {"max_request_bytes": 4, "allow_partial_message": True}}
    harness = guarded(make, "grpc", more=more)
    harness.open(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n123456\r\n")
    http = answer(harness.serve(), CheckResponse(status=Status(code=7))).request.http
    assert (http.body, http.size) == ("1234", -1)
    assert http.headers["x-envoy-auth-partial-body"] == "true"


@pytest.mark.parametrize(
    "message",
    [
        b"\x0a",
        CheckResponse(ok_response=OkHttpResponse(headers=[option("a b", "1")])),
        CheckResponse(
            ok_response=OkHttpResponse(response_headers_to_add=[option("a", "1\r\nb: c")])
        ),
        CheckResponse(
            status=Status(code=7),
            denied_response=DeniedHttpResponse(status=HttpStatus(code=100)),
        ),
    ],
)
def test_an_answer_that_makes_no_sense_is_none(make: Make, message: Any) -> None:
    harness, asked, peer = asks_grpc(make)
    answer(peer, message)
    assert asked.answer().status == 403
    assert harness.outcomes[-1].code == "ext-authz-error"
    assert harness.sink.exchanges[-1].detail.startswith("bad answer: ")


# Where it is asked:


def test_a_listeners_service_is_asked_on_every_route_that_does_not_say_otherwise(
    make: Make,
) -> None:
    routes = [
        {
            "match": {"path": "/open"},
            "cluster": "app",
            "external_authorization": {"enabled": False},
        },
        {"match": {"path": "/own"}, "cluster": "app", "external_authorization": {"http": "own"}},
        {"cluster": "app"},
    ]
    harness = make(
        listener={"external_authorization": {"http": "auth"}, "routes": routes},
        clusters=[
            {"name": "auth", "endpoints": [ASKED]}, {"name": "own", "endpoints": ["10.0.0.8:80"]}
        ],
    )  # fmt: skip
    harness.connects_at_once = True
    for path in ("/open", "/own", "/x"):
        ask(harness, HTTP1, path)
    assert [dial.address for dial in harness.dials] == [APP, "10.0.0.8:80", ASKED]
    harness.advance(20)


HERE: Final = "outbound[0].routes[0].external_authorization"
WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({}, "", "expected exactly one of http and grpc"),
    ({"http": "app", "grpc": "app"}, "", "expected exactly one of http and grpc"),
    ({"http": "ap"}, ".http.cluster", "no cluster is named 'ap' (did you mean 'app'?)"),
    ({"grpc": "app"}, ".grpc.cluster", "gRPC needs HTTP/2: set `protocol: http2` for cluster 'app'"),
    ({"http": {"cluster": "app", "path_prefix": "x"}}, ".http.path_prefix",
     "expected a path without query, with a leading /; got 'x'"),
    ({"http": {"cluster": "app", "headers_to_add": {"host": "x"}}}, ".http.headers_to_add.host",
     "host frames the message and is the sidecar's; `rewrite.host` changes it"),
    ({"http": {"cluster": "app", "allowed_upstream_headers": ["Host"]}},
     ".http.allowed_upstream_headers[0]", "Host is the sidecar's"),
    ({"http": "app", "allowed_headers": [{}]}, ".allowed_headers[0]",
     "expected exactly one of exact, prefix, suffix, regex, present; got []"),
]  # fmt: skip


@pytest.mark.parametrize(("said", "path", "text"), WRONG)
def test_what_is_wrong_is_told_with_its_path(said: dict[str, Any], path: str, text: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        check(decode(tree(route={"external_authorization": said}), Snapshot), None)
    assert [(e.path, e.detail) for e in caught.value.errors] == [(HERE + path, text)]


def test_opaque_sessions_cannot_be_asked_about(make: Make) -> None:
    with pytest.raises(ConfigErrors, match="a tcp listener sees no requests"):
        check(
            decode(
                tree(protocol="tcp", listener={"external_authorization": {"http": "app"}}), Snapshot
            ),
            None,
        )
    for config in (
        {"listener": {"external_authorization": {"http": "app"}}},
        {"route": {"external_authorization": {"http": "app"}}},
    ):
        harness = make(protocol="auto", **config)
        caller = harness.open(b"\x00\x01\x02 no HTTP")
        assert caller.fate != "open"
        assert harness.dials == []
