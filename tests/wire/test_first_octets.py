"""What a connection is, by its first octets: protocol, server name, PROXY header."""

import ssl

import pytest
from hypothesis import given, strategies as st

from sidecar.errors import DownstreamError
from sidecar.wire import sniff
from sidecar.wire.proxy_protocol import encode_v1, encode_v2, parse
from sidecar.wire.tls_hello import parse_hello


def hello(name: str | None = "Shop.example") -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.set_alpn_protocols(["h2", "http/1.1"])
    outgoing = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


HELLO = hello()


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"GET / HTTP/1.1\r\n", sniff.HTTP1),
        (b"POST ", sniff.HTTP1),
        (b"\r\nGET ", sniff.HTTP1),
        (b"BREW /pot HTTP/1.1\r\n", sniff.HTTP1),
        (b"PRIVATE /x HTTP/1.1\r\n", sniff.HTTP1),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00", sniff.HTTP2),
        (b"PRI * HT", sniff.NEED_MORE),
        (b"", sniff.NEED_MORE),
        (b"\r", sniff.NEED_MORE),
        (b"\r\n", sniff.NEED_MORE),
        (b"GE", sniff.NEED_MORE),
        (b"BREW /pot", sniff.NEED_MORE),
        (b"BREW /pot\r\n", sniff.OTHER),
        (b"BREW " + b"a" * 5000, sniff.OTHER),
        (b"\x16\x03", sniff.NEED_MORE),
        (b"\x16\x03\x01\x00\x05\x01", sniff.TLS),
        (b"\x16\x03\x01\x00\x05\x02", sniff.OTHER),
        (b"\x16\x02", sniff.OTHER),
        (b"SSH-2.0-x\r\n", sniff.OTHER),
        (b"\x00\x01", sniff.OTHER),
        (HELLO, sniff.TLS),
    ],
)
def test_the_protocol_is_recognised(data: bytes, kind: int) -> None:
    assert sniff.sniff(data) == kind


@given(st.integers(0, len(HELLO) - 1))
def test_a_hello_is_read_when_it_is_whole(cut: int) -> None:
    assert parse_hello(HELLO[:cut]) is None
    found = parse_hello(HELLO)
    assert found is not None
    assert found.server_name == "shop.example"
    assert found.alpn == (b"h2", b"http/1.1")


def test_a_hello_over_several_records_is_joined() -> None:
    body = HELLO[5:]
    pieces = [body[i : i + 100] for i in range(0, len(body), 100)]
    data = b"".join(b"\x16\x03\x01" + len(p).to_bytes(2, "big") + p for p in pieces)
    assert parse_hello(data) == parse_hello(HELLO)


def test_a_hello_may_name_nobody() -> None:
    found = parse_hello(hello(None))
    assert found is not None
    assert found.server_name == ""
    bare = b"\x03\x03" + bytes(32) + b"\x00" + b"\x00\x02\x13\x01" + b"\x01\x00"
    message = b"\x01" + len(bare).to_bytes(3, "big") + bare
    found = parse_hello(b"\x16\x03\x01" + len(message).to_bytes(2, "big") + message)
    assert found == ("", ())


def wrap(extension: bytes) -> bytes:
    bare = b"\x03\x03" + bytes(32) + b"\x00" + b"\x00\x02\x13\x01" + b"\x01\x00"
    bare += len(extension).to_bytes(2, "big") + extension
    message = b"\x01" + len(bare).to_bytes(3, "big") + bare
    return b"\x16\x03\x01" + len(message).to_bytes(2, "big") + message


@pytest.mark.parametrize(
    "data",
    [
        b"\x15\x03\x01\x00\x05hello",
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",
        wrap(b"\x00\x00\x00\x05\x00\x03\x01\x00\x00"),
        wrap(b"\x00\x00\x00\x06\x00\x04\x00\x00\x01/"),
        wrap(b"\x00\x00\x00\xff\x00"),
    ],
)
def test_a_malformed_hello_is_refused(data: bytes) -> None:
    with pytest.raises(DownstreamError, match="bad-tls-hello"):
        parse_hello(data)


def test_a_huge_hello_is_refused() -> None:
    with pytest.raises(DownstreamError, match="tls-hello-too-large"):
        parse_hello(b"\x16\x03\x01\x00\x04\x01\xff\xff\xff")
    with pytest.raises(DownstreamError, match="bad-tls-hello"):
        parse_hello(b"\x16\x03\x01\xff\xff\x01")


FOUR = (("192.0.2.7", 5555), ("192.0.2.1", 80))
SIX = (("2001:db8::7", 5555), ("2001:db8::1", 80))


@pytest.mark.parametrize("encode", [encode_v1, encode_v2])
@pytest.mark.parametrize("pair", [FOUR, SIX, (None, None)])
def test_a_proxy_header_is_read_as_written(encode, pair) -> None:  # type: ignore[no-untyped-def]
    data = encode(*pair)
    for cut in range(len(data)):
        assert parse(data[:cut]) is None
    found = parse(data + b"GET")
    assert found == (pair[0], pair[1], len(data))


def test_mixed_families_are_mapped() -> None:
    found = parse(encode_v2(FOUR[0], SIX[1]))
    assert found is not None
    assert found.source == ("::ffff:192.0.2.7", 5555)


def test_other_families_of_v2_name_nobody() -> None:
    data = b"\r\n\r\n\x00\r\nQUIT\n\x21\x31\x00\xd8" + bytes(216)
    assert parse(data) == (None, None, len(data))


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.1 5555\r\n",
        b"PROXY TCP9 192.0.2.7 192.0.2.1 5555 80\r\n",
        b"PROXY TCP4 192.0.2.7 2001:db8::1 5555 80\r\n",
        b"PROXY TCP4 x 192.0.2.1 5555 80\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.1 +555 80\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.1 65536 80\r\n",
        b"PROXY " + b"a" * 120,
        b"\r\n\r\n\x00\r\nQUIT\n\x11\x11\x00\x0c" + bytes(12),
        b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\xff\xff",
        b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x04abcd",
    ],
)
def test_a_malformed_proxy_header_is_refused(data: bytes) -> None:
    with pytest.raises(DownstreamError, match="bad-proxy-header"):
        parse(data)
