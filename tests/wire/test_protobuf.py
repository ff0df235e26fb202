"""Fields of protocol buffers, as the specification writes them, and what is none."""

import pytest
from hypothesis import given, strategies as st

from sidecar.wire import protobuf
from sidecar.wire.protobuf import MalformedError, read

NUMBERS = st.integers(0, (1 << 64) - 1)
FIELDS = st.integers(1, (1 << 29) - 1)


@given(FIELDS, NUMBERS)
def test_a_number_is_read_as_it_was_written(field: int, value: int) -> None:
    written = protobuf.number(field, value)
    assert read(written) == ([(field, value)] if value else [])


@given(FIELDS, st.binary(max_size=300))
def test_octets_are_read_as_they_were_written(field: int, value: bytes) -> None:
    assert read(protobuf.message(field, value)) == [(field, value)]
    assert protobuf.text(field, value) == (protobuf.message(field, value) if value else b"")


def test_a_negative_number_is_ten_octets() -> None:
    written = protobuf.number(1, -1)
    assert len(written) == 11
    assert protobuf.last_number(read(written), 1) == 0xFFFFFFFF
    assert protobuf.last_number(read(written), 1, 64) == (1 << 64) - 1


def test_of_several_the_last_counts_and_messages_are_joined() -> None:
    fields = read(protobuf.number(1, 5) + protobuf.number(1, 7) + b"\x12\x01a\x12\x01b")
    assert protobuf.last_number(fields, 1) == 7
    assert protobuf.last_text(fields, 2) == b"b"
    assert protobuf.merged(fields, 2) == b"ab"
    assert protobuf.texts(fields, 2) == [b"a", b"b"]


def test_what_is_not_there_is_nothing() -> None:
    assert protobuf.last_number([], 1) == 0
    assert protobuf.last_text([], 1) == b""
    assert protobuf.merged([], 1) is None


def test_a_field_of_another_type_is_passed_over() -> None:
    fields = read(protobuf.number(2, 5) + protobuf.message(1, b"a"))
    assert protobuf.last_number(fields, 1) == 0
    assert protobuf.last_text(fields, 2) == b""


def test_fixed_numbers_are_passed_over() -> None:
    assert read(b"\x0d\1\2\3\4\x11\1\2\3\4\5\6\7\x08\x18\x01") == [(3, 1)]


def test_a_map_is_its_entries() -> None:
    assert read(protobuf.pair(3, b"k", b"")) == [(3, b"\x0a\x01k\x12\x00")]


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x01",  # field 0
        b"\x08",  # no number
        b"\x08\x80",  # a number that is cut
        b"\x08" + b"\x80" * 10 + b"\x01",  # one of eleven octets
        b"\x80\x80\x80\x80\x10\x01",  # field 2**29
        b"\x0a\x02a",  # octets that are cut
        b"\x0a",
        b"\x0d\1\2\3",  # a fixed number that is cut
        b"\x0b\x0c",  # a group
        b"\x0e",  # no such type
    ],
)
def test_what_is_malformed_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedError):
        read(data)


def test_a_text_is_utf8() -> None:
    with pytest.raises(MalformedError, match="no UTF-8"):
        protobuf.last_text(read(b"\x0a\x01\xff"), 1)


@given(st.binary(max_size=60))
def test_any_octets_are_read_or_refused(data: bytes) -> None:
    try:
        fields = read(data)
    except MalformedError:
        return
    assert all(0 < field < 1 << 29 for field, _ in fields)
