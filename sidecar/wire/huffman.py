"""What a Huffman-coded string of HPACK says, and how one is written (RFC 7541 §5.2 and appendix B).

Theory of operation.  HPACK's code is canonical, and so are the codes that a DEFLATE block brings
along, which zlib decodes at C speed.  Codes of at most 15 bits fit such a block; the one 15-bit
code that is left over, all ones, begins every longer code, and DEFLATE needs one for its end of
block.  So a decompressor is primed once with a block header that says HPACK's lengths, and each
string goes through a copy of it, the bits of every octet reversed, because DEFLATE counts from the
other end.

The padding is checked by what follows it.  After the string come fifteen ones and a zero.  If the
string ends as it must, in p ones (p at most 7), the end of block is found p bits before the string's
end and its last bit is 8 to 15 bits behind: all of it is consumed, or, where p is 7, all but one
octet.  Anything else (other padding, too much of it, a longer code) leaves more octets or finds no
end, and goes to the table-driven way, which is slower, always right, and says what is wrong.
"""

import zlib
from functools import cache
from itertools import accumulate
from typing import Final

from sidecar.errors import DownstreamError

# Bits of each octet's code, then of EOS; the codes themselves follow, being canonical.
LENGTHS: Final = bytes.fromhex(
    "0d171c1c1c1c1c1c1c181e1c1c1e1c1c1c1c1c1c1c1c1e1c1c1c1c1c1c1c1c1c"
    "060a0a0c0d06080b0a0a080b080606060505050606060606060607080f060c0a"
    "0d06070707070707070707070707070707070707070707070807080d130d0e06"
    "0f05060506050606060507070606060506070605050607070707070f0b0e0d1c"
    "1416141416161617161717171717181718181617181717171715161716171718"
    "1615141616171715171616181516171715151615171617171416161617161617"
    "1a1a1413161716191a1a1a1b1b1a181913151a1b1b1a1b1815151a1a1c1b1b1b"
    "14181415161515171616191918181a171a1b1a1a1b1b1b1b1b1c1b1b1b1b1b1a"
    "1e"
)
_EOS: Final = 256
_BITS_OF: Final = LENGTHS[:_EOS]
_LONGEST: Final = 15  # bits of a DEFLATE code


def _codes() -> list[tuple[int, int]]:
    """Return (bits, code) by symbol: canonical, that is counted up in order of length and symbol."""
    order = sorted(range(_EOS + 1), key=lambda symbol: (LENGTHS[symbol], symbol))
    codes = [(0, 0)] * len(order)
    code = bits = 0
    for symbol in order:
        code <<= LENGTHS[symbol] - bits
        bits = LENGTHS[symbol]
        codes[symbol] = bits, code
        code += 1
    return codes


_CODES: Final = _codes()
_REVERSE: Final = bytes(int(f"{octet:08b}"[::-1], 2) for octet in range(256))
_TAIL: Final = b"\xff\x7f"  # fifteen ones and a zero, reversed


def _primed() -> bytes:
    """Return what comes before the strings: a DEFLATE block's header (RFC 1951 §3.2.7)."""
    # Three empty blocks of the fixed codes (10 bits each) let the header end with an octet.
    bits = ["0100000000" * 3]

    def put(number: int, width: int) -> None:
        bits.append(f"{number:0{width}b}"[::-1])

    put(0b101, 3)  # the last block, with codes of its own
    put(0, 5)  # 257 literal symbols, the end of block being the last
    put(0, 5)  # one distance code, which is not used
    put(15, 4)  # 19 lengths of code lengths follow, in their own strange order:
    for length in (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15):
        put(4 if length <= _LONGEST else 0, 3)
    # With sixteen codes of four bits each, a length is its own code; and codes are sent from the
    # other end than numbers.
    lengths = (*_BITS_OF, _LONGEST, 0)
    bits.extend(f"{length if length <= _LONGEST else 0:04b}" for length in lengths)
    stream = "".join(bits)
    return bytes(int(stream[at : at + 8][::-1], 2) for at in range(0, len(stream), 8))


_stream: Final = zlib.decompressobj(-9)  # the smallest window: strings refer to nothing before them
_stream.decompress(_primed())
_begin: Final = _stream.copy


def decode(string: bytes) -> bytes:
    """Return the octets that `string` stands for.

    Raises:
        DownstreamError: `hpack-huffman`, for padding of 8 bits or more or of other bits than ones,
            for a cut code and for EOS.
    """
    stream = _begin()
    octets = stream.decompress(string.translate(_REVERSE) + _TAIL)
    if stream.eof:
        left = len(stream.unused_data)
        # One octet left: seven bits of padding, or eight and more?  The last octet tells, unless it
        # is all ones, and the code before it ended in one.
        if not left or (
            left == 1
            and (string[-1] != 0xFF or sum(octets.translate(_BITS_OF)) + 7 == 8 * len(string))
        ):
            return octets
    return _decode_by_table(string)


@cache
def _table() -> tuple[list[tuple[int, bytes]], frozenset[int]]:
    """Return the steps, four bits each, and the states in which a string may end.

    `steps[state * 16 + bits]` is (next state, what was decoded); a state is an inner node of the
    code's tree, 0 its root; -1 is EOS, which no string may hold.
    """
    tree: list[list[int]] = [[0, 0]]  # node -> child by bit; a leaf is ~symbol
    for symbol, (bits, code) in enumerate(_CODES):
        node = 0
        for at in range(bits - 1, 0, -1):
            bit = code >> at & 1
            if not tree[node][bit]:
                tree[node][bit] = len(tree)
                tree.append([0, 0])
            node = tree[node][bit]
        tree[node][code & 1] = ~symbol
    steps = []
    for state in range(len(tree)):
        for nibble in range(16):
            node, decoded = state, b""
            for at in (3, 2, 1, 0):
                node = tree[node][nibble >> at & 1]
                if node == ~_EOS:
                    break
                if node < 0:
                    decoded += bytes((~node,))
                    node = 0
            steps.append((-1 if node < 0 else node, decoded))
    # Padding is the beginning of EOS, at most seven bits of it.
    ends = accumulate(range(7), lambda node, _: tree[node][1], initial=0)
    return steps, frozenset(ends)


def _decode_by_table(string: bytes) -> bytes:
    """Decode what holds codes of more than 15 bits, or is wrong."""
    steps, ends = _table()
    state = 0
    decoded = []
    for octet in string:
        state, octets = steps[state << 4 | octet >> 4]
        decoded.append(octets)
        if state >= 0:
            state, octets = steps[state << 4 | octet & 15]
            decoded.append(octets)
        if state < 0:
            raise DownstreamError("hpack-huffman", "expected a string without EOS in it")
    if state not in ends:
        raise DownstreamError(
            "hpack-huffman", "expected padding of at most 7 bits, all ones, after the last code"
        )
    return b"".join(decoded)


_BITS: Final = tuple(f"{code:0{bits}b}" for bits, code in _CODES[:_EOS])


def encode(octets: bytes) -> bytes:
    """Return `octets` Huffman-coded, or as they are where that is not longer."""
    size = sum(octets.translate(_BITS_OF)) + 7 >> 3
    if size >= len(octets):
        return octets
    bits = "".join(map(_BITS.__getitem__, octets))
    return int(bits.ljust(size << 3, "1"), 2).to_bytes(size, "big")
