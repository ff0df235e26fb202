"""How the tests write HPACK by hand, and what fields they send."""

from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hypothesis import strategies as st

from sidecar.errors import DownstreamError
from sidecar.wire.hpack import Decoder, Sensitive
from sidecar.wire.hpack_table import STATIC, integer_octets

HUFFMAN = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)

NAMES = st.sampled_from(
    [
        b":path",
        b"cookie",
        b"authorization",
        b"x-a",
        b"x-b",
        b"content-length",
        b"accept",
        b"x" * 130,
    ]
)
VALUES = st.one_of(
    st.sampled_from(
        [b"", b"a", b"/", b"gzip, deflate", b"v" * 126, b"v" * 127, b"v" * 300, b"w" * 1500]
    ),
    st.text("abc/-_.=; 019", max_size=30).map(lambda text: text.strip().encode()),
    st.binary(max_size=20).map(bytes.hex).map(str.encode),
)
FIELDS = st.tuples(
    st.one_of(NAMES, st.text("abcdxyz-", min_size=1, max_size=12).map(str.encode)), VALUES
)
ANY_FIELDS = st.one_of(FIELDS, st.sampled_from(STATIC), FIELDS.map(Sensitive))


def plain(name: bytes, value: bytes, *, kind: int = 0) -> bytes:
    """Return a literal of `kind` with a name of its own, both without Huffman."""
    return bytes((kind, len(name))) + name + bytes((len(value),)) + value


def literal(name: bytes, value: bytes, kind: int, coded: bool) -> bytes:
    """Return a literal of `kind`, both strings Huffman-coded by the reference if `coded`."""
    if not coded:
        return plain(name, value, kind=kind)
    name, value = HUFFMAN.encode(name), HUFFMAN.encode(value)
    return bytes((kind, 0x80 | len(name))) + name + bytes((0x80 | len(value),)) + value


def size_update(size: int) -> bytes:
    """Return a size update."""
    return integer_octets(size, 5, 0x20)


def table_octets(decoder: Decoder) -> int:
    """Return the size of the dynamic table, found by asking for entry after entry."""
    octets = 0
    for index in range(62, 4096):
        try:
            [(name, value)] = decoder.decode(integer_octets(index, 7, 0x80))
        except DownstreamError:
            break
        octets += len(name) + len(value) + 32
    return octets
