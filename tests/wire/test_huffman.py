import pytest
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hypothesis import example, given, strategies as st

from sidecar.errors import DownstreamError
from sidecar.wire import huffman

REFERENCE = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)
# Codes of at most 15 bits, which zlib takes, and all others.
SHORT = bytes(octet for octet in range(256) if REQUEST_CODES_LENGTH[octet] <= 15)
LONG = bytes(octet for octet in range(256) if REQUEST_CODES_LENGTH[octet] > 15)
TEXT = st.lists(st.sampled_from(SHORT), max_size=120).map(bytes)
MIXED = st.lists(st.sampled_from(SHORT * 2 + LONG), max_size=120).map(bytes)


def packed(bits: str) -> bytes:
    """Return `bits`, a multiple of eight, as octets."""
    return bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits), 8))


def bits_of(octets: bytes) -> str:
    """Return the codes of `octets`, without padding."""
    return "".join(f"{REQUEST_CODES[o]:0{REQUEST_CODES_LENGTH[o]}b}" for o in octets)


@given(st.one_of(TEXT, MIXED, st.binary(max_size=60)))
@example(b"")
@example(SHORT)
@example(LONG)
@example(bytes(range(256)))
def test_what_the_reference_writes_is_read(octets: bytes) -> None:
    assert huffman.decode(REFERENCE.encode(octets)) == octets


@given(st.one_of(TEXT, MIXED, st.binary(max_size=60)))
@example(b"")
@example(b"0")
@example(b"00000")
@example(bytes(range(256)))
def test_what_is_written_is_the_references_where_that_is_shorter(octets: bytes) -> None:
    reference = REFERENCE.encode(octets)
    assert huffman.encode(octets) == (reference if len(reference) < len(octets) else octets)


@given(TEXT, st.integers(0, 40))
def test_only_ones_to_the_end_of_the_octet_are_padding(octets: bytes, ones: int) -> None:
    bits = bits_of(octets)
    bits += "1" * ones + "1" * (-(len(bits) + ones) % 8)
    if len(bits) - len(bits_of(octets)) < 8:
        assert huffman.decode(packed(bits)) == octets
    else:
        with pytest.raises(DownstreamError, match="hpack-huffman"):
            huffman.decode(packed(bits))


def test_every_pair_of_short_codes_with_its_padding_and_with_an_octet_more() -> None:
    for first in SHORT:
        for second in SHORT:
            octets = bytes((first, second))
            string = REFERENCE.encode(octets)
            assert huffman.decode(string) == octets
            with pytest.raises(DownstreamError, match="hpack-huffman"):
                huffman.decode(string + b"\xff")


# A code of each length, so that every number of padding bits comes.
@pytest.mark.parametrize(
    "octets", [b"0", b"00", b"000", b"0a ", b" ", b":", b"&", b"!", b"#", b"\xc3"]
)
def test_every_other_padding_is_refused(octets: bytes) -> None:
    code = bits_of(octets)
    room = -len(code) % 8
    for number in range(2**room - 1):
        padding = f"{number:0{room}b}" if room else ""
        if any(padding.startswith(bits_of(bytes((o,)))) for o in SHORT):
            continue  # it is a code itself
        with pytest.raises(DownstreamError, match="hpack-huffman: expected padding"):
            huffman.decode(packed(code + padding))
    for more in (b"\xff", b"\xff\xff"):
        with pytest.raises(DownstreamError, match="hpack-huffman: expected padding"):
            huffman.decode(packed(code + "1" * room) + more)


def reference_or_none(string: bytes) -> bytes | None:
    """Decode by trying every code in turn: slow and plainly right."""
    bits = "".join(f"{octet:08b}" for octet in string)
    decoded = bytearray()
    codes = {f"{REQUEST_CODES[o]:0{REQUEST_CODES_LENGTH[o]}b}": o for o in range(256)}
    start = 0
    for end in range(1, len(bits) + 1):
        octet = codes.get(bits[start:end])
        if octet is not None:
            decoded.append(octet)
            start = end
    rest = bits[start:]
    return bytes(decoded) if len(rest) < 8 and "0" not in rest else None


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=4),
            st.sampled_from(
                [b"\xff", b"\x7f", b"\x3f", b"\xfe", b"\xff\xff\xfe", b"\xff\xff\xff\xfc"]
            ),
        ),
        max_size=6,
    ).map(b"".join)
)
@example(b"\xff\xff\xff\xff")  # 30 ones and more: EOS
@example(b"\x1f\xff\xff\xff\xff\x1f")  # "a", EOS, "a"
@example(b"\xff\xff\xff\xfc")  # EOS and two zeros
@example(b"\xff\xff\xff\xf0")  # cut in the middle of a code
def test_any_octets_are_read_as_by_the_tree_or_refused(string: bytes) -> None:
    expected = reference_or_none(string)
    if expected is None:
        with pytest.raises(DownstreamError, match="hpack-huffman"):
            huffman.decode(string)
    else:
        assert huffman.decode(string) == expected


def test_eos_in_either_half_of_an_octet_is_named() -> None:
    for before in (b"", b"0", b"a", b" ", b":", b"&", b"!0", b"\xff"):
        bits = bits_of(before) + "1" * 30
        with pytest.raises(DownstreamError, match="hpack-huffman: expected a string without EOS"):
            huffman.decode(packed(bits + "0" * (-len(bits) % 8)))
