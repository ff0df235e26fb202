"""Copies of requests: they are what the endpoint gets, and nobody waits for them."""

from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from tests.core.asking import HTTP1, PROTOCOLS, ask
from tests.core.harness import GET, OK, OWN, Harness
from tests.core.transport import FakeTransport

Make = Callable[..., Harness]

BOTH = pytest.mark.parametrize("protocol", PROTOCOLS)
APP: Final = "10.0.0.1:80"
SHADOW: Final = "10.0.0.9:80"
POST: Final = b"POST /a HTTP/1.1\r\nHost: a:8080\r\nX-Name: 1\r\nContent-Length: 6\r\n\r\n"


@pytest.fixture
def make(make: Make) -> Iterator[Make]:
    """Let the copies that nobody answers come to their end."""
    made: list[Harness] = []

    def new(**config: Any) -> Harness:
        made.append(make(**config))
        return made[-1]

    yield new
    for harness in made:
        harness.advance(20)


def mirrored(
    make: Make, *, cluster: dict[str, Any] | None = None, role: str = "outbound",
    route: dict[str, Any] | None = None, **mirror: Any,
) -> Harness:  # fmt: skip
    shadow = {"name": "shadow", "endpoints": [SHADOW], **(cluster or {})}
    harness = make(
        role=role,
        route={"mirror": [{"cluster": "shadow", **mirror}], **(route or {})},
        clusters=[shadow],
    )
    harness.connects_at_once = True
    return harness


def at(harness: Harness, address: str) -> list[FakeTransport]:
    """Return the connections to one endpoint, in the order in which they were made."""
    dialled = [dial.address for dial in harness.dials]
    pairs = zip(dialled, harness.upstreams, strict=True)
    return [transport for place, transport in pairs if place == address]


def skipped(harness: Harness) -> dict[str, float]:
    return {
        dict(labels)["reason"]: value
        for name, labels, (value,) in harness.engine.counts.rows()
        if name == "sidecar_mirror_skipped_total" and dict(labels)["cluster"] == "shadow"
    }


@BOTH
def test_a_request_is_copied_and_the_answer_thrown_away(make: Make, protocol: str) -> None:
    harness = mirrored(make)
    asked = ask(harness, protocol, "/a?b", ("x-name", "1"))
    (app,), (shadow,) = at(harness, APP), at(harness, SHADOW)
    assert [dial.address for dial in harness.dials] == [APP, SHADOW]
    assert shadow.take() == app.take().replace(b"Host: a\r\n", b"Host: a-shadow\r\n")
    shadow.send(b"HTTP/1.1 500 No\r\nX-S: 1\r\nContent-Length: 200000\r\n\r\n" + b"x" * 200_000)
    assert not asked.is_answered
    app.send(OK)
    seen = asked.answer()
    assert (seen.status, seen.body) == (200, b"ok")
    assert b"x-s" not in seen.fields
    assert shadow.fate == "open"  # the whole answer was read, so it is good for the next copy
    assert sorted((e.listener.role, e.status) for e in harness.sink.exchanges) == [
        ("call", 500), ("outbound", 200),
    ]  # fmt: skip


@BOTH
def test_a_copy_that_hangs_or_fails_is_nothing_to_the_caller(make: Make, protocol: str) -> None:
    harness = mirrored(make, timeout="2s")
    asked = ask(harness, protocol)
    at(harness, APP)[0].send(OK)
    assert asked.answer().status == 200
    harness.advance(2.1)
    assert [(o.status, o.flag) for o in harness.outcomes] == [(200, ""), (504, "UT")]
    assert at(harness, SHADOW)[0].fate == "closed"
    asked = ask(harness, protocol)
    at(harness, SHADOW)[1].lose()
    at(harness, APP)[0].send(OK)
    assert asked.answer().status == 200


def test_a_copy_is_what_the_routes_edits_make_of_it(make: Make) -> None:
    harness = mirrored(
        make,
        route={"rewrite": {"path": "/b"}, "request_headers": {"set": {"x-a": "%REQUEST_ID%"}}},
    )
    harness.open(b"GET /a HTTP/1.1\r\nHost: a\r\nUser-Agent: curl\r\n\r\n")
    app, shadow = at(harness, APP)[0].take(), at(harness, SHADOW)[0].take()
    assert app.startswith(b"GET /b HTTP/1.1\r\n")
    assert sorted(shadow.split(b"\r\n")) == sorted(
        app.replace(b": a\r\n", b": a-shadow\r\n").split(b"\r\n")
    )


@pytest.mark.parametrize(
    ("host", "suffix", "seen"),
    [
        ("a:8080", "-shadow", b"a-shadow:8080"),
        ("[::1]", "-shadow", b"[::1]-shadow"),
        ("a:8080", "", b"a:8080"),
        ("a", ".test", b"a.test"),
    ],
)
def test_the_host_tells_the_copy(make: Make, host: str, suffix: str, seen: bytes) -> None:
    harness = mirrored(make, host_suffix=suffix)
    ask(harness, host=host)
    assert b"\r\nHost: %b\r\n" % seen in at(harness, SHADOW)[0].take()


def test_who_called_is_told_by_us_alone(make: Make) -> None:
    harness = mirrored(make, role="inbound")
    peer = "spiffe://cluster.local/ns/default/sa/api"
    ask(harness, HTTP1, "/", ("x-forwarded-client-cert", "Hash=0;URI=spiffe://evil"), identity=peer)
    seen = at(harness, SHADOW)[0].take()
    assert seen == at(harness, APP)[0].take().replace(b"Host: a\r\n", b"Host: a-shadow\r\n")
    assert seen.count(b"x-forwarded-client-cert: ") == 1
    assert b";URI=" + peer.encode() in seen


# Bodies:


@pytest.mark.parametrize("pieces", [[b"123456"], [b"", b"123", b"456"], [b"123", b"456"]])
def test_a_copy_is_sent_when_the_request_is_whole(make: Make, pieces: list[bytes]) -> None:
    harness = mirrored(make, max_body=6)
    caller = harness.open(POST + pieces[0])
    for piece in pieces[1:]:
        assert at(harness, SHADOW) == []
        caller.send(piece)
    seen = at(harness, SHADOW)[0].take()
    assert seen == (
        b"POST /a HTTP/1.1\r\nHost: a-shadow:8080\r\nX-Name: 1\r\n" + OWN
        + b"Content-Length: 6\r\n\r\n123456"
    )  # fmt: skip
    at(harness, APP)[0].send(OK)
    assert caller.take() == OK
    assert skipped(harness) == {}


@pytest.mark.parametrize("pieces", [[b"123456"], [b"", b"123", b"456"]])
def test_a_body_over_the_limit_is_not_copied_but_counted(make: Make, pieces: list[bytes]) -> None:
    harness = mirrored(make, max_body=5)
    caller = harness.open(POST + pieces[0])
    for piece in pieces[1:]:
        caller.send(piece)
    assert at(harness, APP)[0].take().endswith(b"\r\n\r\n123456")
    at(harness, APP)[0].send(OK)
    assert caller.take() == OK
    assert at(harness, SHADOW) == []
    assert skipped(harness) == {"body-too-large": 1}


def test_a_request_that_never_ends_is_not_copied(make: Make) -> None:
    harness = mirrored(make)
    harness.open(POST + b"123").lose()
    assert at(harness, SHADOW) == []


def test_a_chunked_body_is_copied_with_its_length(make: Make) -> None:
    harness = mirrored(make)
    caller = harness.open(
        b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
    )
    caller.send(b"3\r\nabc\r\n0\r\n\r\n")
    seen = at(harness, SHADOW)[0].take()
    assert seen == (b"PUT / HTTP/1.1\r\nHost: a-shadow\r\n" + OWN + b"content-length: 3\r\n\r\nabc")


def test_a_copy_may_go_over_http2(make: Make) -> None:
    harness = mirrored(make, cluster={"protocol": "http2"})
    harness.connects_at_once = False
    caller = harness.open(POST + b"123456")
    harness.connect()
    peer = harness.serve()
    assert (peer[1].head[b":authority"], peer[1].head[b"x-name"]) == (b"a-shadow:8080", b"1")
    assert (peer[1].data, peer[1].ended) == (b"123456", True)
    caller.lose()
    assert peer[1].reset == ""  # whether the caller stays is nothing to the copy
    peer.answer(1)


# Which ones:


def test_a_share_is_copied(make: Make) -> None:
    harness = mirrored(make, percent="10%")
    harness.chance = 0.1
    ask(harness)
    assert at(harness, SHADOW) == []
    harness.chance = 0.09
    ask(harness)
    assert len(at(harness, SHADOW)) == 1


def test_only_so_many_are_under_way_at_once(make: Make) -> None:
    harness = mirrored(make, max_active=1)
    for _ in range(2):
        ask(harness)
    (shadow,) = at(harness, SHADOW)
    assert skipped(harness) == {"too-many": 1}
    shadow.take()
    shadow.send(OK)
    ask(harness)
    assert shadow.take().startswith(GET[:-2].replace(b": a", b": a-shadow"))
    assert skipped(harness) == {"too-many": 1}


def test_an_upgrade_is_not_copied(make: Make) -> None:
    harness = mirrored(make)
    harness.open(
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    assert at(harness, SHADOW) == []


def test_what_is_refused_here_is_not_copied(make: Make) -> None:
    harness = mirrored(make, route={"faults": [{"abort": {}}]})
    assert ask(harness).answer().status == 503
    assert harness.dials == []


def test_several_clusters_may_have_copies(make: Make) -> None:
    harness = make(
        route={"mirror": ["one", "two"]},
        clusters=[
            {"name": n, "endpoints": [f"10.0.1.{i}:80"]} for i, n in enumerate(("one", "two"))
        ],
    )
    harness.connects_at_once = True
    caller = harness.open(POST + b"123")
    caller.send(b"456")
    assert [dial.address for dial in harness.dials] == [APP, "10.0.1.0:80", "10.0.1.1:80"]
    assert all(upstream.take().endswith(b"123456") for upstream in harness.upstreams)
