"""Texts with values in them."""

from collections.abc import Callable

import pytest

from sidecar.core.exchange import Exchange
from sidecar.core.format import parse
from sidecar.core.replies import reply_for
from sidecar.core.types import Caller
from sidecar.wire.fields import RequestHead, ResponseHead
from tests.core.harness import Harness

Make = Callable[..., Harness]

HEAD = ResponseHead(404, b"", 11, b"X-A: 1\r\n", {})
PEER = "spiffe://a/ns/b/sa/c"


def exchange(harness: Harness, version: int = 11) -> Exchange:
    caller = Caller("10.0.0.1", 5000, ("10.0.0.2", 15006))
    caller.identity, caller.certificate_hash = PEER, "ab12"
    head = RequestHead(b"PUT", b"/p?q", version, b"X-T: t\r\n", {})
    head.authority = b"h:1"
    side = Harness().open()  # any will do: nothing is sent
    made = Exchange(harness.engine, harness.listener.plan, caller, side, head)  # type: ignore[arg-type]
    made.request_id, made.traceparent = b"r-1", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"
    return made


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("", b""),
        ("plain \xe9", "plain \xe9".encode()),
        ("100%%", b"100%"),
        ("%%REQUEST_ID%%", b"%REQUEST_ID%"),
        ("<%REQUEST_ID%>", b"<r-1>"),
        ("%TRACE_ID%", b"a" * 32),
        ("%START_TIME%", b"2023-11-14T22:30:00.000Z"),
        ("%PROTOCOL%", b"HTTP/1.1"),
        ("%PEER_IDENTITY%", PEER.encode()),
        ("%DOWNSTREAM_PEER_URI_SAN%", PEER.encode()),
        ("%DOWNSTREAM_PEER_FINGERPRINT_256%", b"ab12"),
        ("%DOWNSTREAM_LOCAL_URI_SAN%", b"spiffe://cluster.local/ns/default/sa/web"),
        ("%DOWNSTREAM_REMOTE_ADDRESS%", b"10.0.0.1:5000"),
        ("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", b"10.0.0.1"),
        ("%DOWNSTREAM_LOCAL_PORT%", b"15006"),
        ("%REQ(X-T)%/%REQ(x-no)%", b"t/-"),
        ("%REQ(:METHOD)% %REQ(:path)% %REQ(:authority)%", b"PUT /p?q h:1"),
        ("%ROUTE_NAME%", b"-"),
    ],
)
def test_a_request_s_values_are_filled_in(harness: Harness, text: str, filled: bytes) -> None:
    assert parse(text, response=False)(exchange(harness), None) == filled
    assert parse(text, response=True)(exchange(harness), HEAD) == filled


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("%RESP(X-A)%/%RESP(x-b)%", b"1/-"),
        ("%RESPONSE_CODE%", b"404"),
        ("%RESPONSE_FLAGS%", b"-"),
        ("%UPSTREAM_CLUSTER%", b"-"),
        ("%UPSTREAM_HOST%", b"-"),
    ],
)
def test_a_response_s_values_are_filled_in(harness: Harness, text: str, filled: bytes) -> None:
    assert parse(text, response=True)(exchange(harness), HEAD) == filled
    with pytest.raises(ValueError, match="is not known before the response"):
        parse(text, response=False)


def test_what_has_been_decided_is_named(make: Make) -> None:
    harness = make(route={"response_headers": {"set": {"x": "%ROUTE_NAME%"}}})
    caller = harness.open(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    harness.connect().send(b"HTTP/1.1 204 None\r\n\r\n")
    assert b"x: all\r\n" in caller.take()


def test_a_response_without_head_has_no_fields(harness: Harness) -> None:
    made = exchange(harness, version=20)
    made.flag = reply_for("no-route").flag
    text = "%RESP(x)% %RESPONSE_FLAGS% %PROTOCOL%"
    assert parse(text, response=True)(made, None) == b"- NR HTTP/2"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("50%", "a single % begins a value: write %% for the sign itself"),
        ("%REQUEST_IDD%", "no value is called %REQUEST_IDD% (did you mean %REQUEST_ID%?)"),
        ("%ZZZ%", "no value is called %ZZZ%"),
        ("%REQ%", "%REQ% needs a field: %REQ(x-tenant)%"),
        ("%REQUEST_ID(x)%", "%REQUEST_ID% takes nothing in parentheses"),
    ],
)
def test_what_is_no_value_is_told(text: str, told: str) -> None:
    with pytest.raises(ValueError, match="%") as caught:
        parse(text, response=True)
    assert str(caught.value) == told
