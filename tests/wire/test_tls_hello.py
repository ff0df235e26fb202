import ssl

import pytest
from hypothesis import given, strategies as st

from sidecar.errors import DownstreamError
from sidecar.wire.tls_hello import MAX_HELLO, MAX_RECORDS, Hello, parse_hello
from tests.wire.cutting import cut

PLAIN_START = b"\x03\x03" + b"r" * 32


def vector(width: int, content: bytes) -> bytes:
    return len(content).to_bytes(width) + content


def extension(kind: int, content: bytes) -> bytes:
    return kind.to_bytes(2) + vector(2, content)


def server_name(name: bytes, kind: int = 0) -> bytes:
    return extension(0, vector(2, bytes((kind,)) + vector(2, name)))


def alpn(*names: bytes) -> bytes:
    return extension(16, vector(2, b"".join(vector(1, name) for name in names)))


def body(
    *extensions: bytes,
    session: bytes = b"",
    suites: bytes = b"\x13\x01",
    methods: bytes = b"\x00",
) -> bytes:
    start = PLAIN_START + vector(1, session) + vector(2, suites) + vector(1, methods)
    return start + vector(2, b"".join(extensions))


def handshake(content: bytes, kind: int = 1) -> bytes:
    return bytes((kind,)) + vector(3, content)


def records(message: bytes, *sizes: int) -> bytes:
    """Return `message` in records of `sizes` octets, the last one holding what is left."""
    stream = b""
    for size in sizes:
        stream += b"\x16\x03\x01" + vector(2, message[:size])
        message = message[size:]
    return stream + b"\x16\x03\x01" + vector(2, message)


def refusal(data: bytes) -> str:
    """Return the code with which `data` is refused; empty if it is not."""
    try:
        parse_hello(data)
    except DownstreamError as error:
        return error.code
    return ""


def openssl_hello(name: str | None, protocols: list[str]) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if protocols:
        context.set_alpn_protocols(protocols)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def test_a_hello_of_openssl_tells_its_name_and_protocols() -> None:
    data = openssl_hello("Carts.Example.ORG", ["h2", "http/1.1"])

    assert parse_hello(data) == Hello("carts.example.org", (b"h2", b"http/1.1"))
    assert {parse_hello(data[:end]) for end in range(len(data))} == {None}


def test_a_hello_may_name_nobody() -> None:
    assert parse_hello(openssl_hello(None, [])) == Hello("", ())


def test_a_hello_may_have_no_extensions_at_all() -> None:
    assert parse_hello(records(handshake(body()[:-2]))) == Hello("", ())


def test_unknown_extensions_are_passed_over() -> None:
    data = records(handshake(body(extension(0x1A1A, b""), server_name(b"a"), extension(51, b"xy"))))

    assert parse_hello(data) == Hello("a", ())


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (b"a", "a"),
        (b"A.B.", "a.b"),  # forbidden by RFC 6066 §3, and sent all the same
        (b"my_service.shop", "my_service.shop"),
        (b"xn--bcher-kva.example", "xn--bcher-kva.example"),
        (b".".join([b"a" * 63] * 3 + [b"a" * 61]), ".".join(["a" * 63] * 3 + ["a" * 61])),
    ],
)
def test_a_server_name_is_told_in_lower_case(sent: bytes, told: str) -> None:
    assert parse_hello(records(handshake(body(server_name(sent))))) == Hello(told, ())


MESSAGE = handshake(body(server_name(b"carts"), alpn(b"h2"), session=b"s" * 32))


@given(
    st.lists(st.integers(1, 40), max_size=5).filter(lambda sizes: sum(sizes) < len(MESSAGE)),
    st.binary(max_size=20),
)
def test_records_and_cuts_do_not_change_a_hello(sizes: list[int], behind: bytes) -> None:
    data = records(MESSAGE, *sizes)

    assert parse_hello(data + behind) == Hello("carts", (b"h2",))
    assert {parse_hello(data[:end]) for end in range(len(data))} == {None}


MALFORMED = {
    "no record of a handshake": b"\x17\x03\x01\x00\x05hello",
    "SSL 2": b"\x80\x2e\x01\x03\x01",
    "another major version": b"\x16\x02\x00\x00\x01\x01",
    "an empty record": b"\x16\x03\x01\x00\x00",
    "a record too long": b"\x16\x03\x01\x40\x01",
    "an alert in between": records(MESSAGE, 10)[:15] + b"\x15\x03\x01\x00\x02\x01\x00",
    "a server's hello": records(handshake(body(), kind=2)),
    "nothing in it": records(handshake(b"")),
    "version 2": records(handshake(b"\x02" + body()[1:])),
    "only the random": records(handshake(PLAIN_START)),
    "a session too long": records(handshake(body(session=b"s" * 33))),
    "no cipher suites": records(handshake(body(suites=b""))),
    "half a cipher suite": records(handshake(body(suites=b"\x13\x01\x13"))),
    "no compression methods": records(handshake(body(methods=b""))),
    "half a length": records(handshake(body()[:-1])),
    "extensions beyond the end": records(handshake(body()[:-2] + b"\x00\x01")),
    "octets behind the extensions": records(handshake(body() + b"x")),
    "half an extension": records(handshake(body(b"\x00"))),
    "an extension beyond the end": records(handshake(body(b"\x00\x00\x00\x05abc"))),
    "two server names": records(handshake(body(server_name(b"a"), server_name(b"b")))),
    "an unknown extension twice": records(handshake(body(extension(9, b""), extension(9, b"")))),
    "an empty server name extension": records(handshake(body(extension(0, b"")))),
    "an empty list of names": records(handshake(body(extension(0, b"\x00\x00")))),
    "another type of name": records(handshake(body(server_name(b"a", kind=1)))),
    "two names in a list": records(
        handshake(body(extension(0, vector(2, b"\x00\x00\x01a\x00\x00\x01b"))))
    ),
    "octets behind the names": records(handshake(body(extension(0, b"\x00\x04\x00\x00\x01ax")))),
    "a name beyond the end": records(handshake(body(extension(0, vector(2, b"\x00\x00\x09a"))))),
    "an empty protocol extension": records(handshake(body(extension(16, b"")))),
    "no protocols": records(handshake(body(alpn()))),
    "an empty protocol": records(handshake(body(alpn(b"h2", b"")))),
    "a protocol beyond the end": records(handshake(body(extension(16, vector(2, b"\x09h2"))))),
    "octets behind the protocols": records(handshake(body(extension(16, b"\x00\x03\x02h2x")))),
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_hello_is_refused_whole_or_in_pieces(data: bytes) -> None:
    assert refusal(data) == "bad-tls-hello"
    said = [refusal(data[:end]) for end in range(len(data) + 1)]
    assert set(said) == {"", "bad-tls-hello"}
    assert said == sorted(said)  # once refused, always refused


@pytest.mark.parametrize(
    "name",
    [
        b"",
        b".",
        b"a..b",
        b".a",
        b"a b",
        b"a\x00b",
        b"a/b",
        b"*.a",
        b"a:443",
        b"\xc3\xa4",
        b"a.b\n",
        b"a" * 64,
        b".".join([b"a" * 63] * 4),
    ],
)
def test_a_malformed_server_name_is_refused(name: bytes) -> None:
    assert refusal(records(handshake(body(server_name(name))))) == "bad-tls-hello"


def test_a_hello_that_announces_too_much_is_refused_at_once() -> None:
    assert (
        refusal(b"\x16\x03\x01\x40\x00\x01" + (MAX_HELLO + 1).to_bytes(3)) == "tls-hello-too-large"
    )


def test_a_hello_as_large_as_allowed_is_read() -> None:
    padding = extension(21, b"\x00" * (MAX_HELLO - len(body(server_name(b"a"))) - 4))
    message = handshake(body(server_name(b"a"), padding))
    assert len(message) == 4 + MAX_HELLO

    assert parse_hello(records(message, 16384)) == Hello("a", ())


def test_a_hello_may_not_be_spread_over_too_many_records() -> None:
    ones = [1] * (MAX_RECORDS - 1)

    assert parse_hello(records(MESSAGE, *ones)) == Hello("carts", (b"h2",))
    assert refusal(records(MESSAGE, *ones, 1)) == "tls-hello-too-large"


@given(st.lists(st.integers(0, len(MESSAGE)), max_size=4, unique=True).map(sorted), st.binary())
def test_no_octets_raise_anything_but_our_own_errors(at: list[int], junk: bytes) -> None:
    data = records(junk.join(cut(MESSAGE, at)))

    assert refusal(data) in ("", "bad-tls-hello", "tls-hello-too-large")
    assert refusal(b"\x16\x03\x01" + junk) in ("", "bad-tls-hello", "tls-hello-too-large")
