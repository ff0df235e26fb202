"""gRPC messages are counted however they are cut."""

import struct

from hypothesis import given, strategies as st

from sidecar.wire.grpc import MessageCounter, web_trailers
from tests.wire.cutting import pieces


@given(st.data(), st.lists(st.binary(max_size=40), max_size=6))
def test_messages_are_counted_however_they_are_cut(
    data: st.DataObject, messages: list[bytes]
) -> None:
    body = b"".join(struct.pack(">BL", 0, len(message)) + message for message in messages)
    counter = MessageCounter()
    for piece in data.draw(pieces(body)):
        counter.feed(piece)
    assert counter.count == len(messages)


def test_a_message_is_counted_when_its_prefix_is_there() -> None:
    counter = MessageCounter()
    counter.feed(b"\x00\x00\x00\x01")
    assert counter.count == 0
    counter.feed(b"\x00")
    assert counter.count == 1
    counter.feed(b"x" * 255)
    assert counter.count == 1
    counter.feed(b"x\x00\x00\x00\x00\x00")
    assert counter.count == 2


def test_trailers_are_a_frame_of_their_own() -> None:
    assert web_trailers(b"grpc-status: 0\r\n") == b"\x80\x00\x00\x00\x10grpc-status: 0\r\n"
