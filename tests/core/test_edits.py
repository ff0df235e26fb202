"""What is set on a request's head, kept from a trusted caller and taken from the others."""

from collections.abc import Callable

import pytest

from tests.core.harness import GET, OK, OWN, REQUEST_ID, Harness, forwarded
from tests.core.reading import Message, read_request

Make = Callable[..., Harness]

PEER = "spiffe://cluster.local/ns/default/sa/web"
TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def fields(harness: Harness, *lines: bytes, identity: str | None = None) -> dict[bytes, bytes]:
    """Return the fields that go up of a request with `lines`."""
    harness.open(b"\r\n".join((GET[:-4], *lines, b"", b"")), identity=identity)
    message = read_request(harness.connect().take())
    assert isinstance(message, Message)
    found = [(name.lower(), value) for name, value in message.fields]
    assert len(dict(found)) == len(found), "a field is repeated"
    return dict(found)


@pytest.fixture
def inbound(make: Make) -> Harness:
    return make(role="inbound")


def test_a_known_caller_is_named(inbound: Harness) -> None:
    found = fields(inbound, identity=PEER)
    assert found[b"x-forwarded-client-cert"] == (
        f"By=spiffe://cluster.local/ns/default/sa/web;Hash=ab12;URI={PEER}".encode()
    )
    assert found[b"x-forwarded-for"] == b"10.9.9.9"
    assert found[b"x-forwarded-proto"] == b"https"


def test_a_caller_is_named_in_every_request_of_its_connection(inbound: Harness) -> None:
    caller = inbound.open(GET, identity=PEER)
    endpoint = inbound.connect()
    first = endpoint.take()
    endpoint.send(OK)
    caller.send(GET)
    assert endpoint.take() == first
    assert b"URI=" + PEER.encode() in first


def test_an_unknown_caller_is_not(inbound: Harness) -> None:
    found = fields(inbound)
    assert b"x-forwarded-client-cert" not in found
    assert found[b"x-forwarded-for"] == b"10.9.9.9"
    assert found[b"x-forwarded-proto"] == b"http"


SAID = (
    b"X-Forwarded-For: 1.2.3.4",
    b"X-Forwarded-Proto: ftp",
    b"X-Request-ID: mine",
    b"X-Forwarded-Client-Cert: URI=root",
    b"Traceparent: " + TRACE,
)


def test_what_a_known_caller_says_is_kept_but_for_the_certificate(inbound: Harness) -> None:
    found = fields(inbound, *SAID, identity=PEER)
    assert found[b"x-forwarded-for"] == b"1.2.3.4, 10.9.9.9"
    assert found[b"x-forwarded-proto"] == b"ftp"
    assert found[b"x-request-id"] == b"mine"
    assert b"root" not in found[b"x-forwarded-client-cert"]
    assert found[b"traceparent"] == TRACE


def test_what_an_unknown_caller_says_is_not(inbound: Harness) -> None:
    found = fields(inbound, *SAID)
    assert found[b"x-forwarded-for"] == b"10.9.9.9"
    assert found[b"x-forwarded-proto"] == b"http"
    assert found[b"x-request-id"] == REQUEST_ID
    assert b"x-forwarded-client-cert" not in found
    assert found[b"traceparent"] == TRACE  # says nothing of who it is


def test_a_caller_on_a_unix_socket_has_no_address(make: Make) -> None:
    harness = make(role="inbound")
    caller = harness.open(GET, host="")
    found = harness.connect().take()
    assert b"x-forwarded-for" not in found
    assert b"x-forwarded-proto: http\r\n" in found
    caller.send(b"nonsense\r\n\r\n")


def test_our_own_app_is_trusted_on_the_way_out(harness: Harness) -> None:
    found = fields(harness, *SAID)
    assert found[b"x-forwarded-for"] == b"1.2.3.4"
    assert found[b"x-forwarded-proto"] == b"ftp"
    assert found[b"x-request-id"] == b"mine"
    assert found[b"traceparent"] == TRACE
    assert b"x-forwarded-client-cert" not in found


def test_a_head_that_has_all_is_not_changed(harness: Harness) -> None:
    request = GET[:-2] + b"x-request-id: a\r\ntraceparent: " + TRACE + b"\r\n\r\n"
    harness.open(request)
    assert harness.connect().take() == request


@pytest.mark.parametrize("value", [b"a b", b"\xe9", b"x" * 129, b""])
def test_a_strange_request_id_is_replaced(harness: Harness, value: bytes) -> None:
    harness.open(GET[:-2] + b"x-request-id: " + value + b"\r\n\r\n")
    assert harness.connect().take() == forwarded(GET)


@pytest.mark.parametrize(
    "value",
    [
        TRACE[:-1],
        TRACE.upper(),
        b"00-" + b"0" * 32 + TRACE[35:],
        TRACE[:36] + b"0" * 16 + b"-01",
        TRACE + b", " + TRACE,
    ],
)
def test_a_broken_trace_is_begun_anew(harness: Harness, value: bytes) -> None:
    harness.open(GET[:-2] + b"traceparent: " + value + b"\r\n\r\n")
    assert harness.connect().take() == forwarded(GET)


def test_some_traces_are_marked_as_sampled(harness: Harness) -> None:
    harness.chance = 0.001
    harness.open(GET)
    assert harness.connect().take() == forwarded(GET, OWN.replace(b"-00\r\n", b"-01\r\n"))


def test_random_bits_are_all_used(harness: Harness) -> None:
    harness.bits = -1
    harness.open(GET)
    found = harness.connect().take()
    assert b"x-request-id: ffffffff-ffff-4fff-bfff-ffffffffffff\r\n" in found
    assert b"traceparent: 00-" + b"f" * 32 + b"-" + b"f" * 16 + b"-00\r\n" in found
