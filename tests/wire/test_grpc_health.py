"""Health/Check in octets; the figures are those that protoc's own code writes."""

import pytest
from hypothesis import given, strategies as st

from sidecar.wire.grpc_health import decode_response, encode_request


@pytest.mark.parametrize(
    ("service", "message"),
    [("", b""), ("shop.Cart", b"\x0a\x09shop.Cart"), ("x" * 300, b"\x0a\xac\x02" + b"x" * 300)],
)
def test_a_request_names_the_service(service: str, message: bytes) -> None:
    assert encode_request(service) == b"\0" + len(message).to_bytes(4, "big") + message


@pytest.mark.parametrize(
    ("message", "status"),
    [
        (b"", 0),
        (b"\x08\x01", 1),
        (b"\x08\x02", 2),
        (b"\x08\xac\x02", 300),
        (b"\x12\x02ab\x08\x01", 1),  # fields that we do not know: text,
        (b"\x10\x07\x08\x01", 1),  # a number,
        (b"\x19" + b"\xff" * 8 + b"\x08\x01", 1),  # 64 bits
        (b"\x1d" + b"\xff" * 4 + b"\x08\x01", 1),  # and 32
        (b"\x08", None),
        (b"\x08\xff", None),
        (b"\x08" + b"\xff" * 10 + b"\x01", None),
        (b"\x12\x09ab", None),
        (b"\x0b", None),  # a group, which proto3 has not
    ],
)
def test_a_response_has_a_status_or_is_none(message: bytes, status: int | None) -> None:
    assert decode_response(b"\0" + len(message).to_bytes(4, "big") + message) == status


@pytest.mark.parametrize("body", [b"", b"\0\0\0\0", b"\1\0\0\0\0", b"\0\0\0\0\1", b"\0\0\0\0\0\0"])
def test_what_is_not_exactly_one_plain_message_is_none(body: bytes) -> None:
    assert decode_response(body) is None


@given(st.binary(max_size=40))
def test_any_message_is_read_or_refused(message: bytes) -> None:
    status = decode_response(b"\0" + len(message).to_bytes(4, "big") + message)
    assert status is None or status >= 0
