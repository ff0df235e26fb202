"""Who a connection really comes from: HAProxy's PROXY protocol, versions 1 and 2, both ways."""

import ipaddress
from typing import Final, NamedTuple

from sidecar.errors import DownstreamError

MAX_V1: Final = 107  # octets with CRLF; the specification's worst case
MAX_V2: Final = 2048  # octets of addresses and TLVs behind the fixed 16

_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_DIGITS: Final = b"0123456789"

Address = tuple[str, int]


class Header(NamedTuple):
    """A PROXY header; the addresses are None where the sender speaks for itself or of no IP."""

    source: Address | None
    destination: Address | None
    length: int
    """Octets that the header took."""


def parse(data: bytes) -> Header | None:
    """Return the header at the start of `data`; None: it is not whole yet.

    Raises:
        DownstreamError: `bad-proxy-header`.
    """
    if data[:12] == _SIGNATURE[: len(data)]:
        return _parse_v2(data)
    if data[:6] == b"PROXY "[: len(data)]:
        return _parse_v1(data)
    raise _bad(f"expected a PROXY header, got {data[:16]!r}")


def encode_v1(source: Address | None, destination: Address | None) -> bytes:
    """Return a version 1 header; UNKNOWN where an address is missing."""
    if source is None or destination is None:
        return b"PROXY UNKNOWN\r\n"
    ours, theirs = _pair(source[0], destination[0])
    family = "TCP4" if ours.version == 4 else "TCP6"
    return f"PROXY {family} {ours} {theirs} {source[1]} {destination[1]}\r\n".encode()


def encode_v2(source: Address | None, destination: Address | None) -> bytes:
    """Return a version 2 header; LOCAL where an address is missing."""
    if source is None or destination is None:
        return _SIGNATURE + b"\x20\x00\x00\x00"
    ours, theirs = _pair(source[0], destination[0])
    body = ours.packed + theirs.packed + source[1].to_bytes(2) + destination[1].to_bytes(2)
    family = b"\x11" if ours.version == 4 else b"\x21"
    return _SIGNATURE + b"\x21" + family + len(body).to_bytes(2) + body


def _pair(
    first: str, second: str
) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, ...]:
    """Return both addresses in one family: IPv4 is mapped where the other one is IPv6."""
    pair = (ipaddress.ip_address(first.partition("%")[0]),
            ipaddress.ip_address(second.partition("%")[0]))
    if pair[0].version == pair[1].version:
        return pair
    return tuple(
        ipaddress.ip_address(f"::ffff:{address}") if address.version == 4 else address
        for address in pair
    )


def _parse_v1(data: bytes) -> Header | None:
    end = data.find(b"\r\n", 0, MAX_V1)
    if end < 0:
        if len(data) >= MAX_V1:
            raise _bad(f"no line end in {MAX_V1} octets")
        return None
    words = data[:end].split(b" ")
    if words[1] == b"UNKNOWN":
        return Header(None, None, end + 2)
    if len(words) != 6 or words[1] not in (b"TCP4", b"TCP6"):
        raise _bad(f"malformed line {data[:end]!r}")
    version = 4 if words[1] == b"TCP4" else 6
    source = (_ip(words[2], version), _port(words[4]))
    destination = (_ip(words[3], version), _port(words[5]))
    return Header(source, destination, end + 2)


def _parse_v2(data: bytes) -> Header | None:
    if len(data) < 16:
        return None
    command, family = data[12], data[13]
    size = int.from_bytes(data[14:16])
    if command not in (0x20, 0x21) or size > MAX_V2:
        raise _bad(f"version and command {command:#x}, {size} octets")
    if len(data) < 16 + size:
        return None
    body = data[16 : 16 + size]
    width = {0x11: 4, 0x21: 16}.get(family)
    if command == 0x20 or width is None:
        return Header(None, None, 16 + size)
    if size < 2 * width + 4:
        raise _bad(f"{size} octets are too few for family {family:#x}")
    ports = body[2 * width :]
    source = (str(ipaddress.ip_address(body[:width])), int.from_bytes(ports[:2]))
    destination = (
        str(ipaddress.ip_address(body[width : 2 * width])),
        int.from_bytes(ports[2:4]),
    )
    return Header(source, destination, 16 + size)


def _ip(text: bytes, version: int) -> str:
    try:
        address = ipaddress.ip_address(text.decode("ascii"))
    except ValueError:
        raise _bad(f"bad address {text[:50]!r}") from None
    if address.version != version:
        raise _bad(f"address {address} is not of version {version}")
    return str(address)


def _port(text: bytes) -> int:
    if not 0 < len(text) <= 5 or text.strip(_DIGITS) or int(text) > 65535:
        raise _bad(f"bad port {text[:10]!r}")
    return int(text)


def _bad(detail: str) -> DownstreamError:
    return DownstreamError("bad-proxy-header", detail)
