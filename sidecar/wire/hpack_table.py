"""What both ends of HPACK share: the static table, integers, and the errors (RFC 7541 §5.1, A)."""

from typing import Final

from sidecar.errors import DownstreamError

_MAX_INTEGER: Final = 1 << 32
_MAX_CONTINUED: Final = 5  # octets of an integer after its prefix: enough for 32 bits

STATIC: Final[tuple[tuple[bytes, bytes], ...]] = tuple(
    (name, value)
    for name, _, value in (
        field.partition(b"=")
        for field in (
            b":authority|:method=GET|:method=POST|:path=/|:path=/index.html|:scheme=http|:scheme=https|"
            b":status=200|:status=204|:status=206|:status=304|:status=400|:status=404|:status=500|"
            b"accept-charset|accept-encoding=gzip, deflate|accept-language|accept-ranges|accept|"
            b"access-control-allow-origin|age|allow|authorization|cache-control|content-disposition|"
            b"content-encoding|content-language|content-length|content-location|content-range|"
            b"content-type|cookie|date|etag|expect|expires|from|host|if-match|if-modified-since|"
            b"if-none-match|if-range|if-unmodified-since|last-modified|link|location|max-forwards|"
            b"proxy-authenticate|proxy-authorization|range|referer|refresh|retry-after|server|set-cookie|"
            b"strict-transport-security|transfer-encoding|user-agent|vary|via|www-authenticate"
        ).split(b"|")
    )
)
"""RFC 7541 appendix A; the first has index 1."""

FIRST: Final = len(STATIC) + 1
"""Index of the newest entry of the dynamic table."""


def integer(block: bytes, at: int, value: int) -> tuple[int, int]:
    """Return the integer whose prefix, all ones, is `value` and goes on at `at`; and its end."""
    if at < len(block) and block[at] < 0x80:  # nearly always
        return value + block[at], at + 1
    octets = block[at : at + _MAX_CONTINUED]
    for count, octet in enumerate(octets):
        value += (octet & 0x7F) << 7 * count
        if octet < 0x80 and value < _MAX_INTEGER:
            return value, at + count + 1
        if value >= _MAX_INTEGER:
            break
    else:
        if len(octets) < _MAX_CONTINUED:
            raise cut_block("an integer")
    raise DownstreamError("hpack-integer", "expected an integer below 2^32 in 6 octets or less")


def integer_octets(value: int, bits: int, pattern: int) -> bytes:
    """Return `value` with a prefix of `bits` bits, below the bits of `pattern`."""
    most = (1 << bits) - 1
    if value < most:
        return bytes((pattern | value,))
    octets = bytearray((pattern | most,))
    value -= most
    while value > 0x7F:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    octets.append(value)
    return bytes(octets)


def cut_block(what: str) -> DownstreamError:
    """Return the error of a block that ends where `what` should be."""
    return DownstreamError("hpack-truncated", f"expected {what}, got the end of the block")


def no_entry() -> DownstreamError:
    """Return the error of an index that no table has."""
    return DownstreamError("hpack-index", "expected an index of the static or the dynamic table")
