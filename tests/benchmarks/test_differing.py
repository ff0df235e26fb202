"""The load whose heads differ: every block decodes, in order, to heads of which none are alike."""

import hpack
import pytest

from benchmarks.load.differing import (
    FRAME,
    HEADS,
    PREFACE,
    REPEATED,
    following,
    integer,
    opening,
    tails,
)


@pytest.mark.parametrize("huffman", [False, True])
def test_blocks_decode_to_heads_of_which_none_are_alike(huffman: bool) -> None:
    decoder = hpack.Decoder()
    first, later = opening(huffman=huffman), following()
    heads = []
    for number, (path, rest) in enumerate(tails(huffman=huffman)):
        before, repeated = later if number else first
        heads.append(decoder.decode(before + path + repeated + rest, raw=True))

    for head in heads:
        names = [name for name, _ in head]
        assert names[:4] == [b":method", b":scheme", b":authority", b":path"]
        assert dict(head).items() >= {name: value for name, value, _ in REPEATED}.items()
        assert not any(name.startswith(b":") for name in names[4:])
    for name in (b":path", b"x-request-id", b"traceparent", b"cookie", b"x-tenant"):
        assert len({dict(head)[name] for head in heads}) == HEADS
    sampled = sum(dict(head)[b"traceparent"].endswith(b"-01") for head in heads)
    assert sampled == HEADS // 100


def test_huffman_coded_heads_are_shorter_and_the_same_in_every_run() -> None:
    plain, coded = tails(huffman=False), tails(huffman=True)

    assert sum(map(len, (rest for _, rest in coded))) < sum(map(len, (rest for _, rest in plain)))
    assert tails(huffman=True) == coded


@pytest.mark.parametrize(
    ("value", "bits", "octets"),
    [(10, 5, b"\x0a"), (1337, 5, b"\x1f\x9a\x0a"), (42, 8, b"\x2a")],
)
def test_integers_are_those_of_the_rfc(value: int, bits: int, octets: bytes) -> None:
    assert integer(value, bits, 0) == octets  # RFC 7541, appendix C.1


def test_a_frame_header_is_nine_octets() -> None:
    assert FRAME.pack(0, 5, 1, 5, 3) == b"\x00\x00\x05\x01\x05\x00\x00\x00\x03"
    assert PREFACE.startswith(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x0c\x04")
