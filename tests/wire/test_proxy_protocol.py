from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given, strategies as st

from sidecar.errors import DownstreamError
from sidecar.wire.proxy_protocol import MAX_V1, MAX_V2, Address, encode_v1, encode_v2, parse

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
V1 = b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n"
V4_BODY = bytes((192, 0, 2, 1, 198, 51, 100, 2)) + b"\xdc\x04\x01\xbb"
V2 = SIGNATURE + b"\x21\x11\x00\x0c" + V4_BODY
SOURCE, DESTINATION = ("192.0.2.1", 56324), ("198.51.100.2", 443)


def v2(command: int, family: int, body: bytes = b"") -> bytes:
    return SIGNATURE + bytes((command, family)) + len(body).to_bytes(2) + body


def refusal(data: bytes) -> str:
    """Return the code with which `data` is refused; empty if it is not."""
    try:
        parse(data)
    except DownstreamError as error:
        return error.code
    return ""


GOOD = [
    (V1, SOURCE, DESTINATION),
    (
        b"PROXY TCP6 2001:DB8::1 ::ffff:192.0.2.1 0 65535\r\n",
        ("2001:db8::1", 0),
        ("::ffff:192.0.2.1", 65535),
    ),
    (V2, SOURCE, DESTINATION),
    (
        v2(
            0x21,
            0x21,
            b"\x20\x01\x0d\xb8" + b"\x00" * 11 + b"\x01" + b"\x00" * 15 + b"\x01\x00\x01\x00\x02",
        ),
        ("2001:db8::1", 1),
        ("::1", 2),
    ),
    (v2(0x21, 0x11, V4_BODY + b"\x04\x00\x01\x00"), SOURCE, DESTINATION),  # with a TLV
    (v2(0x21, 0x11, V4_BODY + b"\x00" * (MAX_V2 - 12)), SOURCE, DESTINATION),
]


@pytest.mark.parametrize(("header", "source", "destination"), GOOD)
def test_a_header_names_both_ends(header: bytes, source: Address, destination: Address) -> None:
    parsed = parse(header + b"GET / HTTP/1.1\r\n")

    assert parsed is not None
    assert parsed == (source, destination, len(header))


NAMELESS = [
    b"PROXY UNKNOWN\r\n",
    b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n",
    v2(0x20, 0x00),
    v2(0x20, 0x11, V4_BODY),  # LOCAL: the family is not looked at
    v2(0x20, 0x99, b"abc"),
    v2(0x21, 0x00),
    v2(0x21, 0x00, b"\x04\x00\x01\x00"),
    v2(0x21, 0x12, V4_BODY),  # UDP
    v2(0x21, 0x22, b"\x00" * 36),
    v2(0x21, 0x31, b"\x00" * 216),  # AF_UNIX
    v2(0x21, 0x32, b"\x00" * 216),
]


@pytest.mark.parametrize("header", NAMELESS)
def test_a_header_may_name_nobody(header: bytes) -> None:
    assert parse(header + b"x") == (None, None, len(header))


@pytest.mark.parametrize("header", [h for h, _, _ in GOOD] + NAMELESS)
def test_any_shorter_piece_of_a_header_asks_for_more(header: bytes) -> None:
    assert {parse(header[:end]) for end in range(len(header))} == {None}


BAD = [
    b"GET / HTTP/1.1\r\n",
    b"proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
    b"PROXY\r\n",
    b"PROXY \r\n",
    b"PROXY \n",
    b"PROXY UNKNOWNS\r\n",
    b"PROXY UNKNOWN \x1b[2J\r\n",
    b"PROXY UNKNOWN\n",
    b"PROXY UNKNOWN\r\r\n",
    b"PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n",
    b"PROXY  TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n",
    b"PROXY TCP4 192.0.2.1\t192.0.2.2 1 2\r\n",
    b"PROXY TCP4 192.0.2.256 192.0.2.2 1 2\r\n",
    b"PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n",
    b"PROXY TCP4 192.0.2 192.0.2.2 1 2\r\n",
    b"PROXY TCP4 ::1 ::2 1 2\r\n",
    b"PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
    b"PROXY TCP6 fe80::1%eth0 fe80::2 1 2\r\n",
    b"PROXY TCP6 [::1] [::2] 1 2\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 100000\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n",  # octal to some
    b"PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1_0 2\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 -1 2\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2  2\r\n",
    b"PROXY UNKNOWN " + b"x" * (MAX_V1 - 15) + b"\r\n",
    b"PROXY UNKNOWN " + b"x" * MAX_V1,
    SIGNATURE[:-1] + b"\r\x21\x11\x00\x0c" + V4_BODY,
    v2(0x11, 0x11, V4_BODY),  # version 1 in version 2's clothes
    v2(0x22, 0x11, V4_BODY),  # no such command
    v2(0x21, 0x11, V4_BODY[:-1]),
    v2(0x21, 0x21, V4_BODY),
    v2(0x21, 0x31, V4_BODY),
    v2(0x21, 0x13, V4_BODY),  # no such transport
    v2(0x21, 0x41, b"\x00" * 216),  # no such family
    v2(0x21, 0x11, V4_BODY + b"\x00" * (MAX_V2 - 11)),
    v2(0x20, 0x00, b"\x00" * (MAX_V2 + 1)),
]


@pytest.mark.parametrize("header", BAD)
def test_what_is_no_header_is_refused_whole_or_in_pieces(header: bytes) -> None:
    said = [refusal(header[:end]) for end in range(len(header) + 1)]

    assert said[-1] == "bad-proxy-header"
    assert said == sorted(said)  # once refused, always refused


def test_the_longest_line_of_version_one_is_taken() -> None:
    line = b"PROXY UNKNOWN " + b"x" * (MAX_V1 - 16) + b"\r\n"

    assert parse(line) == (None, None, MAX_V1)


PORTS = st.integers(0, 65535)
ENDS = st.one_of(
    *(st.lists(st.tuples(st.ip_addresses(v=v), PORTS), min_size=2, max_size=2) for v in (4, 6))
)


@given(ENDS)
def test_what_is_encoded_is_read_again(ends: list[tuple[IPv4Address | IPv6Address, int]]) -> None:
    one, two = ((str(host), port) for host, port in ends)
    for header in (encode_v1(one, two), encode_v2(one, two)):
        parsed = parse(header)
        assert parsed is not None
        assert parsed.length == len(header)
        found = (parsed.source, parsed.destination)
        # An address has several texts; ours does not depend on the version of Python.
        assert [(ip_address(end[0]), end[1]) for end in found if end is not None] == ends


def test_the_two_versions_look_as_specified() -> None:
    assert encode_v1(SOURCE, DESTINATION) == V1
    assert encode_v2(SOURCE, DESTINATION) == V2


@pytest.mark.parametrize(
    ("source", "destination"), [(None, DESTINATION), (SOURCE, None), (None, None)]
)
def test_where_an_address_is_missing_none_is_told(
    source: Address | None, destination: Address | None
) -> None:
    assert encode_v1(source, destination) == b"PROXY UNKNOWN\r\n"
    assert encode_v2(source, destination) == v2(0x20, 0x00)


def test_an_ipv4_end_is_mapped_where_the_other_one_is_ipv6() -> None:
    mapped = bytes(10) + b"\xff\xff"
    other = ("2001:db8::1", 1)

    body = encode_v2(SOURCE, other)[16:]
    assert body[:16] == mapped + bytes((192, 0, 2, 1))
    body = encode_v2(other, SOURCE)[16:]
    assert body[16:32] == mapped + bytes((192, 0, 2, 1))
    line = b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::1 56324 1\r\n"
    assert encode_v1(SOURCE, other) == line
    first, second = parse(encode_v1(SOURCE, other)), parse(encode_v2(SOURCE, other))
    assert first is not None
    assert second is not None
    assert first[:2] == second[:2]


def test_the_zone_of_a_link_local_address_is_left_out() -> None:
    header = encode_v1(("fe80::1%eth0", 1), ("fe80::2%eth0", 2))

    assert header == b"PROXY TCP6 fe80::1 fe80::2 1 2\r\n"


@pytest.mark.parametrize("encode", [encode_v1, encode_v2])
def test_a_host_that_is_no_address_cannot_be_told(
    encode: Callable[[Address | None, Address | None], bytes],
) -> None:
    with pytest.raises(ValueError, match="example"):
        encode(("example.org", 1), DESTINATION)
