"""Check as Envoy's own protobufs have it."""

from dataclasses import replace
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
from hypothesis import given, strategies as st

from sidecar.wire.ext_authz import (
    ADD,
    SET,
    Edit,
    Request,
    Verdict,
    decode_response,
    encode_request,
)
from sidecar.wire.protobuf import MalformedError, message
from tests.wire.envoy_messages import OCTETS, TEXT, check_damaged

ASKED: Final = Request(
    source=("10.0.0.1", 5000),
    destination=("10.0.0.2", 15006),
    source_principal=b"spiffe://example.org/a",
    destination_principal=b"spiffe://example.org/b",
    seconds=1_700_000_000.25,
    id=b"77",
    method=b"POST",
    path=b"/a?b",
    host=b"a:8080",
    scheme=b"https",
    protocol=b"HTTP/2",
    size=5,
    headers={b"x-a": b"1", b"x-b": b""}.items(),
    body=b"hello",
)


def parsed(request: Request, *extensions: tuple[bytes, bytes]) -> Any:
    return CheckRequest.FromString(encode_request(request, extensions)).attributes


def test_the_service_is_told_both_ends_and_the_request() -> None:
    seen = parsed(ASKED, (b"tenant", b"shop"))
    assert seen.source.address.socket_address.address == "10.0.0.1"
    assert seen.source.address.socket_address.port_value == 5000
    assert seen.source.principal == "spiffe://example.org/a"
    assert seen.destination.address.socket_address.port_value == 15006
    assert seen.destination.principal == "spiffe://example.org/b"
    assert (seen.request.time.seconds, seen.request.time.nanos) == (1_700_000_000, 250_000_000)
    http = seen.request.http
    assert (http.id, http.method, http.path, http.host) == ("77", "POST", "/a?b", "a:8080")
    assert (http.scheme, http.protocol, http.size, http.body) == ("https", "HTTP/2", 5, "hello")
    assert dict(http.headers) == {"x-a": "1", "x-b": ""}
    assert dict(seen.context_extensions) == {"tenant": "shop"}


def test_what_is_not_known_is_not_said() -> None:
    asked = Request(
        source=("", 0), destination=("", 0), source_principal=b"", destination_principal=b"",
        seconds=0.0, id=b"", method=b"GET", path=b"/", host=b"", scheme=b"http",
        protocol=b"HTTP/1.1", size=-1, headers=(), body=b"",
    )  # fmt: skip
    seen = parsed(asked)
    assert not seen.source.HasField("address")
    assert seen.request.http.size == -1
    assert (seen.request.http.body, seen.request.http.raw_body) == ("", b"")


@given(OCTETS, OCTETS, OCTETS)
def test_whatever_a_caller_sends_is_text_in_the_end(path: bytes, value: bytes, body: bytes) -> None:
    seen = parsed(replace(ASKED, path=path, headers=[(b"x", value)], body=body)).request.http
    assert seen.path in (path.decode("latin-1"), path.decode("utf-8", "replace"))
    assert seen.headers["x"] in (value.decode("latin-1"), value.decode("utf-8", "replace"))
    assert (seen.raw_body or seen.body.encode()) == body


@pytest.mark.parametrize(
    ("octets", "seen"), [(b"a", "a"), (b"\xc3\xa4", "\xe4"), (b"\xe4", "\xe4"), (b"", "")]
)
def test_a_value_is_utf8_or_latin_1(octets: bytes, seen: str) -> None:
    http = parsed(replace(ASKED, path=octets, headers=[(b"x", octets)])).request.http
    assert (http.path, http.headers["x"]) == (seen, seen)


# Answers:

OPTIONS = st.builds(
    HeaderValueOption,
    header=st.builds(HeaderValue, key=TEXT, value=TEXT)
    | st.builds(HeaderValue, key=TEXT, raw_value=OCTETS),
    append=st.none() | st.builds(BoolValue, value=st.booleans()),
    append_action=st.integers(0, 3),
)
MANY = st.lists(OPTIONS, max_size=3)
STATUSES = st.none() | st.builds(Status, code=st.integers(-3, 16), message=TEXT)
RESPONSES = st.one_of(
    st.builds(CheckResponse, status=STATUSES),
    st.builds(
        CheckResponse,
        status=STATUSES,
        ok_response=st.builds(
            OkHttpResponse,
            headers=MANY,
            headers_to_remove=st.lists(TEXT, max_size=3),
            response_headers_to_add=MANY,
        ),
    ),
    st.builds(
        CheckResponse,
        status=STATUSES,
        denied_response=st.builds(
            DeniedHttpResponse,
            status=st.none() | st.builds(HttpStatus, code=st.sampled_from([0, 401, 403, 503])),
            headers=MANY,
            body=TEXT,
        ),
    ),
)


def edits(options: Any) -> tuple[Edit, ...]:
    found = []
    for option in options:
        how = option.append_action or SET
        if option.HasField("append"):
            how = ADD if option.append.value else SET
        value = option.header.raw_value or option.header.value.encode()
        found.append(Edit(how, option.header.key.encode(), value))
    return tuple(found)


def expected(response: Any) -> Verdict:
    """Return what Envoy's message says, in our form."""
    denied, allowed = response.denied_response, response.ok_response
    return Verdict(
        response.status.code & 0xFFFFFFFF,
        response.status.message.encode(),
        denied.status.code & 0xFFFFFFFF,
        denied.body.encode(),
        edits(denied.headers) or edits(allowed.headers),
        tuple(name.encode() for name in allowed.headers_to_remove),
        edits(allowed.response_headers_to_add),
    )


@given(RESPONSES)
def test_an_answer_says_what_envoy_would_read(response: Any) -> None:
    assert decode_response(response.SerializeToString()) == expected(response)


@given(st.data(), RESPONSES)
def test_what_is_damaged_is_refused_or_read_as_envoy_would(data: Any, response: Any) -> None:
    check_damaged(data, response, decode_response, expected)


def test_an_empty_answer_allows_as_it_does_for_envoy() -> None:
    assert decode_response(b"") == Verdict(0, b"", 0, b"", (), (), ())


@pytest.mark.parametrize(
    "octets",
    [
        CheckResponse(error_response=DeniedHttpResponse(body="x")).SerializeToString(),
        message(3, message(2, message(1, message(1, b"a")) + b"\x18\x04")),  # append action 4
        message(3, message(5, b"\xff")),
        b"\x0a\x05a",
    ],
)
def test_what_decides_nothing_is_refused(octets: bytes) -> None:
    with pytest.raises(MalformedError):
        decode_response(octets)


def test_of_two_kinds_of_answer_the_last_counts() -> None:
    one = message(2, message(3, b"one"))
    two = message(2, message(3, b"two"))
    other = message(3, b"")
    assert decode_response(one + two).body == b"two"
    assert decode_response(one + other).body == b""
    assert decode_response(one + other + message(2, b"")).body == b""
