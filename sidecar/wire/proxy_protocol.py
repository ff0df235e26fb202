"""Who a connection really comes from: HAProxy's PROXY protocol, versions 1 and 2, both ways."""

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, NamedTuple

from sidecar.errors import DownstreamError

MAX_V1: Final = 107  # octets with CRLF; the specification's worst case
MAX_V2: Final = 2048  # octets of addresses and TLVs behind the fixed 16

_V1_START: Final = b"PROXY "
_V2_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_V2_FIXED: Final = 16  # octets: signature, command, family, length
_LOCAL: Final = 0x20  # version in the high half octet, command in the low one
_PROXY: Final = 0x21
_TCP4: Final = 0x11  # address family, transport
_TCP6: Final = 0x21
# Octets of both addresses, and of the ports where there are some, by family and transport: not
# specified, TCP and UDP over IPv4, over IPv6, stream and datagram over AF_UNIX.  No others exist.
_V2_SIZES: Final = {0x00: 0, 0x11: 12, 0x12: 12, 0x21: 36, 0x22: 36, 0x31: 216, 0x32: 216}

_V1_LINE: Final = re.compile(
    rb"PROXY (?:UNKNOWN(?: [ -~]*+)?|TCP([46]) ([0-9A-Fa-f.:]++) ([0-9A-Fa-f.:]++)"
    # No leading zeros: some would read them as octal (the specification, §2.1).
    rb" (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4}))"
)

Address = tuple[str, int]


class Header(NamedTuple):
    """A PROXY header; the addresses are None where the sender speaks for itself or of no TCP."""

    source: Address | None
    destination: Address | None
    length: int
    """Octets that the header took."""


def parse(data: bytes) -> Header | None:
    """Return the header at the start of `data`; None: it is not whole yet.

    Raises:
        DownstreamError: `bad-proxy-header`.
    """
    if data[:12] == _V2_SIGNATURE[: len(data)]:
        return _parse_v2(data)
    if data[:6] == _V1_START[: len(data)]:
        return _parse_v1(data)
    raise _bad(f"expected a PROXY header, got {data[:16]!r}")


def encode_v1(source: Address | None, destination: Address | None) -> bytes:
    """Return a version 1 header; UNKNOWN where an address is missing.

    Raises:
        ValueError: a host is not an IP address.
    """
    if source is None or destination is None:
        return b"PROXY UNKNOWN\r\n"
    family, first, second = _same_family(source[0], destination[0])
    texts = f"{_text(first)} {_text(second)}"
    return f"PROXY TCP{family} {texts} {source[1]} {destination[1]}\r\n".encode()


def encode_v2(source: Address | None, destination: Address | None) -> bytes:
    """Return a version 2 header; LOCAL where an address is missing.

    Raises:
        ValueError: a host is not an IP address.
    """
    if source is None or destination is None:
        return _V2_SIGNATURE + bytes((_LOCAL, 0, 0, 0))
    family, first, second = _same_family(source[0], destination[0])
    body = first.packed + second.packed + source[1].to_bytes(2) + destination[1].to_bytes(2)
    start = bytes((_PROXY, _TCP4 if family == 4 else _TCP6, 0, len(body)))
    return _V2_SIGNATURE + start + body


def _same_family(
    first: str, second: str
) -> tuple[int, IPv4Address | IPv6Address, IPv4Address | IPv6Address]:
    """Return 4 or 6 and both addresses; IPv4 is mapped where only the other one is IPv6."""
    # Kernels name the zone of a link-local address; a header has no place for it.
    one, two = ip_address(first.partition("%")[0]), ip_address(second.partition("%")[0])
    if one.version == two.version:
        return one.version, one, two
    return 6, _mapped(one), _mapped(two)


def _mapped(address: IPv4Address | IPv6Address) -> IPv6Address:
    if isinstance(address, IPv6Address):
        return address
    return IPv6Address(b"\x00" * 10 + b"\xff\xff" + address.packed)


def _text(address: IPv4Address | IPv6Address) -> str:
    """Return `address` in one form whatever the Python: 3.13 writes mapped ones another way.

    RFC 5952 §5: with a dotted quad, where it is known that an IPv4 address is inside.
    """
    inner = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(address) if inner is None else f"::ffff:{inner}"


def _parse_v1(data: bytes) -> Header | None:
    end = data.find(b"\n", 0, MAX_V1) + 1
    if not end:
        if len(data) >= MAX_V1:
            raise _bad(f"no line end in {MAX_V1} octets")
        return None
    line = data[: end - 2]
    match = _V1_LINE.fullmatch(line)
    if match is None or data[end - 2] != 13:
        raise _bad(f"malformed line {data[:end]!r}")
    version, *texts = match.groups()
    if version is None:
        return Header(None, None, end)
    first, second = (_parse_ip(text, int(version)) for text in texts[:2])
    one, two = (_parse_port(text) for text in texts[2:])
    return Header((first, one), (second, two), end)


def _parse_v2(data: bytes) -> Header | None:
    if len(data) < _V2_FIXED:
        return None
    command, family = data[12], data[13]
    size = int.from_bytes(data[14:16])
    if command not in (_LOCAL, _PROXY) or size > MAX_V2:
        raise _bad(f"version and command {command:#x}, {size} octets")
    end = _V2_FIXED + size
    if command == _PROXY:
        least = _V2_SIZES.get(family)
        if least is None or size < least:
            raise _bad(f"family {family:#x} with {size} octets")
    if len(data) < end:
        return None
    if command == _LOCAL or family not in (_TCP4, _TCP6):
        return Header(None, None, end)
    width = 4 if family == _TCP4 else 16
    ports = _V2_FIXED + 2 * width
    first, second = data[_V2_FIXED : _V2_FIXED + width], data[_V2_FIXED + width : ports]
    return Header(
        (_text(ip_address(first)), int.from_bytes(data[ports : ports + 2])),
        (_text(ip_address(second)), int.from_bytes(data[ports + 2 : ports + 4])),
        end,
    )


def _parse_ip(text: bytes, version: int) -> str:
    try:
        address = ip_address(text.decode("ascii"))
    except ValueError:
        raise _bad(f"malformed address {text[:50]!r}") from None
    if address.version != version:
        raise _bad(f"expected an address of version {version}, got {text[:50]!r}")
    return _text(address)


def _parse_port(text: bytes) -> int:
    port = int(text)
    if port > 65535:
        raise _bad(f"expected a port up to 65535, got {port}")
    return port


def _bad(detail: str) -> DownstreamError:
    return DownstreamError("bad-proxy-header", detail)
