"""A service of Envoy's rate limit protocol says whether there is room; what becomes of requests if it is silent."""

from collections.abc import Callable
from typing import Any, Final

import pytest
from envoy.config.core.v3.base_pb2 import HeaderValue
from envoy.service.ratelimit.v3.rls_pb2 import RateLimitRequest, RateLimitResponse
from google.protobuf.duration_pb2 import Duration

from sidecar.compiler.snapshot import check
from sidecar.errors import ConfigErrors
from sidecar.model.snapshot import Snapshot
from sidecar.sources.decode import decode
from sidecar.wire.grpc import pack, unpack
from tests.core.asking import HTTP1, Asked, ask
from tests.core.harness import OK, Harness, tree
from tests.core.http2_peer import Peer

Make = Callable[..., Harness]

PEER: Final = "spiffe://cluster.local/ns/default/sa/api"
LIMITS: Final = "10.0.0.9:80"
SERVICE: Final = {"cluster": "limits", "domain": "shop"}
ROOM: Final = RateLimitResponse(overall_code=1)
FULL: Final = RateLimitResponse(overall_code=2)


def limited(make: Make, role: str = "outbound", **rule: Any) -> Harness:
    service = {**SERVICE, **rule.pop("service", {})}
    return make(
        role=role,
        route={"rate_limits": [{"name": "one", **rule, "service": service}]},
        clusters=[{"name": "limits", "endpoints": [LIMITS], "protocol": "http2"}],
    )


def asks(harness: Harness, *request: Any, **more: Any) -> tuple[Asked, Peer]:
    asked = ask(harness, *request, **more)
    peer = harness.serve()
    harness.connects_at_once = True
    return asked, peer


def answer(peer: Peer, message: Any) -> Any:
    """Answer the question; return what it was."""
    got = peer[1]
    assert got.head[b":path"] == b"/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
    octets = unpack(got.data)
    assert octets is not None
    back = message if isinstance(message, bytes) else message.SerializeToString()
    peer.answer(1, 200, [(b"content-type", b"application/grpc")], pack(back), end=False)
    peer.trail(1, [(b"grpc-status", b"0")])
    return RateLimitRequest.FromString(octets)


def entries(question: Any) -> list[tuple[str, str]]:
    (descriptor,) = question.descriptors
    return [(entry.key, entry.value) for entry in descriptor.entries]


def passes(harness: Harness, asked: Asked) -> bytes:
    app = next(
        u for d, u in zip(harness.dials, harness.upstreams, strict=True) if d.address != LIMITS
    )
    seen = app.take()
    app.send(OK)
    assert asked.answer().status == 200
    return seen


def counted(harness: Harness) -> dict[str, float]:
    return {
        dict(labels)["result"]: value
        for name, labels, (value,) in harness.engine.counts.rows()
        if name == "sidecar_rate_limit_service_total" and dict(labels)["limit"] == "one"
    }


def test_the_service_is_told_domain_and_descriptor(make: Make) -> None:
    by = ["peer", "source", "path", "method", "host", "header:X-Tenant"]
    harness = limited(make, "inbound", by=by, service={"keys": {"method": "verb"}})
    asked, peer = asks(harness, HTTP1, "/a?b", ("x-tenant", "t1"), method="DELETE", identity=PEER)
    assert peer[1].head[b":authority"] == b"limits"
    assert peer[1].head[b"grpc-timeout"] == b"20000u"
    question = answer(peer, ROOM)
    assert question.domain == "shop"
    assert entries(question) == [
        ("peer", PEER), ("remote_address", "10.9.9.9"), ("path", "/a"), ("verb", "DELETE"),
        ("host", "a"), ("x-tenant", "t1"),
    ]  # fmt: skip
    passes(harness, asked)
    assert counted(harness) == {"ok": 1}


def test_without_parts_the_rule_is_the_descriptor(make: Make) -> None:
    harness = limited(make, service={"authority": "z"})
    asked, peer = asks(harness)
    assert peer[1].head[b":authority"] == b"z"
    assert entries(answer(peer, ROOM)) == [("generic_key", "one")]
    passes(harness, asked)


def test_a_request_that_lacks_a_part_is_not_asked_about(make: Make) -> None:
    harness = limited(make, by=["header:x-tenant"])
    harness.connects_at_once = True
    passes(harness, ask(harness))
    assert counted(harness) == {}


def test_only_what_matches_is_asked_about(make: Make) -> None:
    harness = limited(make, match={"methods": ["DELETE"]})
    harness.connects_at_once = True
    passes(harness, ask(harness))
    assert counted(harness) == {}


def test_what_matches_is_asked_about(make: Make) -> None:
    harness = limited(make, match={"methods": ["DELETE"]})
    asked, peer = asks(harness, method="DELETE")
    answer(peer, ROOM)
    passes(harness, asked)


def test_what_the_service_adds_goes_where_it_says(make: Make) -> None:
    harness = limited(make)
    asked, peer = asks(harness)
    message = RateLimitResponse(
        overall_code=1,
        request_headers_to_add=[HeaderValue(key="X-To-App", value="1"), HeaderValue(key="host")],
        response_headers_to_add=[HeaderValue(key="x-left", value="9")],
    )
    answer(peer, message)
    app = harness.upstreams[1]
    assert b"\r\nx-to-app: 1\r\n" in app.take()
    app.send(OK)
    assert asked.answer().fields[b"x-left"] == b"9"


def test_what_is_over_the_limit_is_refused_and_told_when_to_come_again(make: Make) -> None:
    harness = limited(make)
    asked, peer = asks(harness)

    def status(requests: int, unit: int, left: int) -> Any:
        return RateLimitResponse.DescriptorStatus(
            code=2,
            current_limit=RateLimitResponse.RateLimit(
                requests_per_unit=requests,
                unit=unit,  # type: ignore[arg-type, unused-ignore]
            ),
            limit_remaining=left,
            duration_until_reset=Duration(seconds=7),
        )

    message = RateLimitResponse(
        overall_code=2,
        statuses=[status(1000, 3, 3), status(10, 2, 0)],
        response_headers_to_add=[HeaderValue(key="Retry-After", value="8")],
        raw_body=b"enough",
    )
    answer(peer, message)
    seen = asked.answer()
    assert (seen.status, seen.body) == (429, b"enough")
    assert {n: v for n, v in seen.fields.items() if not n.startswith(b"content")} == {
        b"x-envoy-ratelimited": b"true",
        b"retry-after": b"8",
        b"ratelimit-limit": b"10",
        b"ratelimit-remaining": b"0",
        b"ratelimit-reset": b"7",
        b"ratelimit-policy": b"10;w=60",
    }
    assert harness.outcomes[-1][:3] == (429, "rate-limited", "RL")
    assert counted(harness) == {"over_limit": 1}


def test_a_service_that_says_no_more_is_understood(make: Make) -> None:
    harness = limited(make)
    asked, peer = asks(harness, HTTP1, "/s/m", ("content-type", "application/grpc"), method="POST")
    answer(peer, FULL)
    seen = asked.answer()
    assert (seen.status, seen.fields[b"grpc-status"]) == (200, b"8")
    assert b"ratelimit-limit" not in seen.fields


def test_a_shadow_rule_only_tells(make: Make) -> None:
    harness = limited(make, shadow=True)
    asked, peer = asks(harness)
    answer(peer, FULL)
    passes(harness, asked)
    assert harness.sink.exchanges[-1].fields == {"rate_limit_shadow": "one"}
    assert counted(harness) == {"over_limit": 1}


@pytest.mark.parametrize(
    "rule", [{}, {"on_failure": "closed"}, {"shadow": True, "on_failure": "closed"}]
)
@pytest.mark.parametrize("how", ["timeout", "status", "rubbish", "field"])
def test_silence_is_decided_by_the_config(make: Make, rule: dict[str, Any], how: str) -> None:
    is_shadow = rule.get("shadow", False)
    service = {name: value for name, value in rule.items() if name != "shadow"}
    harness = limited(make, shadow=is_shadow, service=service)
    asked, peer = asks(harness)
    if how == "timeout":
        harness.advance(0.04)
    elif how == "status":
        peer.answer(1, 200, [(b"grpc-status", b"14")])
    elif how == "rubbish":
        answer(peer, b"\x08\x00")
    else:
        fields = [HeaderValue(key="a", value="b\r\nc: d")]
        answer(peer, RateLimitResponse(overall_code=1, response_headers_to_add=fields))
    if service and not is_shadow:
        assert asked.answer().status == 503
        assert harness.outcomes[-1][:3] == (503, "rate-limit-unavailable", "RLSE")
        assert counted(harness) == {"error": 1}
    else:
        passes(harness, asked)
        assert harness.sink.exchanges[-1].fields == {"rate_limit_unasked": "one"}
        assert counted(harness) == {"failure_mode_allowed": 1}


def test_a_caller_that_goes_away_need_not_be_decided_about(make: Make) -> None:
    harness = limited(make)
    asked, peer = asks(harness)
    asked.transport.lose()
    assert peer[1].reset == "CANCEL"
    assert counted(harness) == {}


HERE: Final = "outbound[0].routes[0].rate_limits[0]"
HTTP2: Final = [{"name": "limits", "endpoints": [LIMITS], "protocol": "http2"}]
WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"requests": 5, "service": SERVICE}, ".requests", "is the service's to say"),
    ({"shared": {}, "service": SERVICE}, ".shared", "is the service's to say"),
    ({"service": {**SERVICE, "keys": {"path": "p"}}}, ".service.keys.path", "is not among `by`"),
    ({"service": {**SERVICE, "cluster": "limit"}}, ".service.cluster",
     "no cluster is named 'limit' (did you mean 'limits'?)"),
    ({"service": {**SERVICE, "cluster": "app"}}, ".service.cluster",
     "gRPC needs HTTP/2: set `protocol: http2` for cluster 'app'"),
    ({}, ".requests", "expected 1 or more"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "path", "text"), WRONG)
def test_what_is_wrong_is_told_with_its_path(rule: dict[str, Any], path: str, text: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        check(decode(tree(route={"rate_limits": [rule]}, clusters=HTTP2), Snapshot), None)
    assert [(e.path, e.detail) for e in caught.value.errors] == [(HERE + path, text)]
