import h11
import pytest
from hypothesis import given, strategies as st

from sidecar.errors import DownstreamError
from sidecar.wire.http1_body import (
    FORBIDDEN_TRAILER_PREFIXES,
    FORBIDDEN_TRAILERS,
    LAST_CHUNK,
    MAX_CHUNK_LINE,
    MAX_EXTENSIONS,
    MAX_TRAILER_FIELDS,
    ChunkedReader,
    CloseReader,
    LengthReader,
    encode_chunk,
    encode_last_chunk,
    parse_chunk_size,
)
from tests.wire.cutting import octets, pieces

Reader = LengthReader | ChunkedReader | CloseReader

CHUNKED = (
    b"5\r\nhello\r\n"
    b'1;a=b ; c="d"\r\n \r\n'
    b"00000000000000A \t;x\r\n0123456789\r\n"
    b"2\r\n\r\n\r\n"
    b"0;last\r\n"
    b"grpc-status: 0\r\nX-Check:\tabc \r\nempty:\r\n\r\n"
)
CHUNKED_BODY = b"hello 0123456789\r\n"
CHUNKED_TRAILERS = b"grpc-status: 0\r\nX-Check:\tabc \r\nempty:\r\n"


def read(reader: Reader, parts: list[bytes]) -> tuple[bytes, bytes]:
    """Feed `parts` until the body is over; return it and what came behind it."""
    body = b""
    for number, part in enumerate(parts):
        body += reader.feed(part)
        if reader.done:
            return body, reader.rest + b"".join(parts[number + 1 :])
    return body, b""


def refusal(parts: list[bytes], *, max_trailers: int = 8192) -> str:
    """Return the code with which a chunked body is refused; empty if it is not."""
    reader = ChunkedReader(max_trailers=max_trailers)
    try:
        read(reader, parts)
    except DownstreamError as error:
        return error.code
    return ""


# --- a body of known length


def test_a_chunked_body_that_is_whole_may_end() -> None:
    reader = ChunkedReader()
    assert reader.feed(b"2\r\nok\r\n0\r\n\r\n") == b"ok"
    reader.eof()
    assert reader.done


def test_a_body_of_no_octets_is_over_at_once() -> None:
    reader = LengthReader(0)

    assert reader.done
    assert reader.feed(b"GET") == b""
    assert reader.rest == b"GET"
    reader.eof()


def test_a_length_is_counted_down() -> None:
    reader = LengthReader(5)

    assert reader.feed(b"ab") == b"ab"
    assert (reader.remaining, reader.done) == (3, False)
    assert reader.feed(b"cde") == b"cde"
    assert (reader.remaining, reader.done, reader.rest, reader.trailers) == (0, True, b"", b"")


@given(pieces(b"0123456789GET / HTTP/1.1"))
def test_cuts_do_not_change_a_body_of_known_length(parts: list[bytes]) -> None:
    assert read(LengthReader(10), parts) == (b"0123456789", b"GET / HTTP/1.1")


def test_a_stream_that_ends_before_the_length_is_a_cut_body() -> None:
    reader = LengthReader(5)
    reader.feed(b"abc")

    with pytest.raises(DownstreamError, match="body-cut: 2 octets"):
        reader.eof()


# --- a body that ends with the connection


def test_a_body_without_length_ends_with_the_stream() -> None:
    reader = CloseReader()

    assert (reader.feed(b"abc"), reader.done) == (b"abc", False)
    reader.eof()
    assert (reader.done, reader.rest, reader.trailers) == (True, b"", b"")


# --- a chunked body


@given(pieces(CHUNKED + b"GET / HTTP/1.1\r\n"))
def test_cuts_do_not_change_a_chunked_body(parts: list[bytes]) -> None:
    reader = ChunkedReader()

    assert read(reader, parts) == (CHUNKED_BODY, b"GET / HTTP/1.1\r\n")
    assert reader.trailers == CHUNKED_TRAILERS
    reader.eof()


def test_one_chunk_is_not_copied() -> None:
    reader = ChunkedReader()
    reader.feed(b"100000\r\n")
    part = b"x" * 65536

    assert reader.feed(part) is part


@given(st.lists(st.binary(max_size=50)), st.data())
def test_what_is_encoded_is_read_again(chunks: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(map(encode_chunk, chunks)) + encode_last_chunk(b"a: b\r\n") + b"rest"
    reader = ChunkedReader()

    assert read(reader, data.draw(pieces(stream))) == (b"".join(chunks), b"rest")
    assert reader.trailers == b"a: b\r\n"


def test_an_empty_chunk_is_never_written_since_it_would_end_the_body() -> None:
    assert encode_chunk(b"") == b""
    assert encode_chunk(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"


def test_a_last_chunk_without_trailers_is_the_constant() -> None:
    assert encode_last_chunk(b"") == LAST_CHUNK


@pytest.mark.parametrize(
    "stream", [b"", b"5", b"5\r\nhel", b"5\r\nhello\r\n", b"0\r\n", b"0\r\na: b\r\n"]
)
def test_a_stream_that_ends_before_the_last_chunk_is_a_cut_body(stream: bytes) -> None:
    reader = ChunkedReader()
    reader.feed(stream)

    with pytest.raises(DownstreamError, match="body-cut"):
        reader.eof()


def test_the_largest_size_is_sixteen_digits() -> None:
    reader = ChunkedReader()

    assert reader.feed(b"fFFFffffFFFFffff\r\nabc") == b"abc"
    assert not reader.done


MALFORMED = {
    # Sizes that int() takes, or that a lenient peer reads otherwise than a strict one.
    b"+5\r\nhello\r\n": "bad-chunk-size",
    b"-5\r\nhello\r\n": "bad-chunk-size",
    b"0x5\r\nhello\r\n": "bad-chunk-size",
    b"5_0\r\nhello\r\n": "bad-chunk-size",
    b" 5\r\nhello\r\n": "bad-chunk-size",
    b"\t5\r\nhello\r\n": "bad-chunk-size",
    b"5 \r\nhello\r\n": "bad-chunk-size",
    b"5\t\r\nhello\r\n": "bad-chunk-size",
    b"5 5\r\nhello\r\n": "bad-chunk-size",
    b"5\x00\r\nhello\r\n": "bad-chunk-size",
    b"5,5\r\nhello\r\n": "bad-chunk-size",
    b"g\r\nhello\r\n": "bad-chunk-size",
    b"5g\r\nhello\r\n": "bad-chunk-size",
    b"\xd9\xa5\r\nhello\r\n": "bad-chunk-size",  # an Arabic five
    b"00000000000000005\r\nhello\r\n": "bad-chunk-size",
    b"10000000000000000\r\nhello\r\n": "bad-chunk-size",
    b"\r\n": "bad-chunk-size",
    b";a\r\nhello\r\n": "bad-chunk-size",
    b"\r\n5\r\nhello\r\n": "bad-chunk-size",
    # Line ends.
    b"5\nhello\n0\n\n": "bad-chunk-size",
    b"5\rhello\r\n": "bad-chunk-size",
    b"5\r\r\nhello\r\n": "bad-chunk-size",
    b"5\n\r\nhello\r\n": "bad-chunk-size",
    b"5;a\nhello\r\n": "bad-chunk-size",
    b"5;a\rb\r\nhello\r\n": "bad-chunk-size",
    # Extensions.
    b"5;\x00\r\nhello\r\n": "bad-chunk-size",
    b"5;a=\x1b[2J\r\nhello\r\n": "bad-chunk-size",
    b"5;\x7f\r\nhello\r\n": "bad-chunk-size",
    b"5;" + b"a" * MAX_CHUNK_LINE + b"\r\nhello\r\n": "bad-chunk-size",
    # What ends a chunk.
    b"5\r\nhello\n0\r\n\r\n": "bad-chunk",
    b"5\r\nhello\r0\r\n\r\n": "bad-chunk",
    b"5\r\nhello0\r\n\r\n": "bad-chunk",
    b"5\r\nhello!\r\n0\r\n\r\n": "bad-chunk",
    b"5\r\nhello \r\n0\r\n\r\n": "bad-chunk",
    b"5\r\nhello\n": "bad-chunk",
    # Trailers.
    b"0\r\na: b\n\r\n": "bad-trailer",
    b"0\r\n\n": "bad-trailer",
    b"0\r\n\r\r\n\r\n": "bad-trailer",
    b"0\r\na: b\r\n folded\r\n\r\n": "bad-trailer",
    b"0\r\n a: b\r\n\r\n": "bad-trailer",
    b"0\r\na : b\r\n\r\n": "bad-trailer",
    b"0\r\n: b\r\n\r\n": "bad-trailer",
    b"0\r\na\r\n\r\n": "bad-trailer",
    b"0\r\na: b\x00\r\n\r\n": "bad-trailer",
    b"0\r\na: b\rc: d\r\n\r\n": "bad-trailer",
    b"0\r\na\xe4: b\r\n\r\n": "bad-trailer",
    b"0\r\nGET /admin HTTP/1.1\r\nhost: a\r\n\r\n": "bad-trailer",
}


@pytest.mark.parametrize(("stream", "code"), MALFORMED.items())
def test_a_malformed_chunked_body_is_refused_however_it_is_cut(stream: bytes, code: str) -> None:
    assert refusal([stream]) == code
    assert refusal(octets(stream)) == code
    assert {refusal([stream[:i], stream[i:]]) for i in range(1, len(stream))} == {code}


@given(
    st.lists(st.sampled_from([b"5", b"0", b"a", b"\r\n", b"\r", b"\n", b";", b" ", b"x: y"])),
    st.data(),
)
def test_cuts_never_change_whether_a_body_is_taken(parts: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(parts)
    reader = ChunkedReader()
    whole = refusal([stream])

    cut = data.draw(pieces(stream))

    assert refusal(cut) == whole
    if not whole:
        read(reader, [stream])
        other = ChunkedReader()
        assert read(other, cut) == read(ChunkedReader(), [stream])
        assert (other.done, other.trailers) == (reader.done, reader.trailers)


@pytest.mark.parametrize("octet", [b"\n", b"x", b"5\n", b"5\r\nhello\n", b"0\r\nx\n", b"5;a\rb"])
def test_what_cannot_become_good_is_refused_without_waiting_for_more(octet: bytes) -> None:
    assert refusal([octet]) != ""


def test_a_size_line_as_long_as_allowed_is_read_however_it_is_cut() -> None:
    line = b"1;" + b"a" * (MAX_CHUNK_LINE - 2) + b"\r\n"
    stream = line + b"x\r\n" + LAST_CHUNK

    assert read(ChunkedReader(), [stream]) == (b"x", b"")
    assert read(ChunkedReader(), octets(stream)) == (b"x", b"")


def test_the_length_of_a_size_line_can_be_set() -> None:
    reader = ChunkedReader(max_line=20)
    assert reader.feed(b"1;" + b"a" * 18 + b"\r\nx\r\n") == b"x"

    with pytest.raises(DownstreamError, match="bad-chunk-size: no line end in 22 octets"):
        reader.feed(b"1;" + b"a" * 20)


@pytest.mark.parametrize("padding", [b";" + b"a" * 199, b" " * 199 + b";"])
def test_all_extensions_of_a_body_are_counted_together(padding: bytes) -> None:
    reader = ChunkedReader()
    chunk = b"1" + padding + b"\r\nx\r\n"
    allowed = MAX_EXTENSIONS // 201

    assert reader.feed(chunk * allowed) == b"x" * allowed
    with pytest.raises(DownstreamError, match="chunk-extensions-too-large"):
        reader.feed(chunk)


@pytest.mark.parametrize("name", sorted(FORBIDDEN_TRAILERS))
def test_a_trailer_may_not_be_named_like_a_field_that_heads_are_judged_by(name: bytes) -> None:
    assert refusal([b"0\r\n" + name.upper() + b": x\r\n\r\n"]) == "bad-trailer"
    assert refusal([b"0\r\na: b\r\n" + name.replace(b"-", b"_") + b": x\r\n"]) == "bad-trailer"


@pytest.mark.parametrize("prefix", FORBIDDEN_TRAILER_PREFIXES)
def test_whole_families_of_names_may_not_be_trailers(prefix: bytes) -> None:
    assert refusal([b"0\r\n" + prefix + b"md5_2: x\r\n\r\n"]) == "bad-trailer"


@pytest.mark.parametrize("name", [b"grpc-status", b"grpc-message", b"etag", b"digest", b"hostess"])
def test_what_belongs_behind_a_body_may_be_a_trailer(name: bytes) -> None:
    assert refusal([b"0\r\n" + name + b": x\r\n\r\n"]) == ""


def test_trailers_have_a_cap_in_octets_that_cuts_do_not_move() -> None:
    fits = b"0\r\na: 3456\r\nb: 3456\r\n\r\n"
    over = b"0\r\na: 3456\r\nb: 34567\r\n\r\n"

    assert refusal([fits], max_trailers=18) == refusal(octets(fits), max_trailers=18) == ""
    for parts in ([over], octets(over), [over[:-2], over[-2:]], [over[:-5]]):
        code = refusal(parts, max_trailers=18)
        assert code == ("trailers-too-large" if len(parts[0]) != len(over) - 5 else "")
    assert refusal([b"0\r\n" + b"a" * 20], max_trailers=18) == "trailers-too-large"


def test_trailers_have_a_cap_in_number() -> None:
    fits = b"0\r\n" + b"a: b\r\n" * MAX_TRAILER_FIELDS
    reader = ChunkedReader()
    reader.feed(fits)

    with pytest.raises(DownstreamError, match="trailers-too-large: more than 100 fields"):
        reader.feed(b"a: b\r\n")


def test_a_chunk_size_loses_its_extension() -> None:
    assert parse_chunk_size(b"1F \t;name=value;other") == 31


def test_the_error_says_what_was_expected_and_what_came() -> None:
    with pytest.raises(DownstreamError) as caught:
        parse_chunk_size(b"+5")

    assert str(caught.value) == "bad-chunk-size: expected 1 to 16 hex digits, got b'+5'"


# --- against h11


def h11_body(stream: bytes) -> bytes | None:
    """Return the body that h11 reads from a chunked stream; None if it refuses or waits."""
    peer = h11.Connection(h11.SERVER)
    peer.receive_data(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n" + stream)
    body = b""
    try:
        while True:
            event = peer.next_event()
            if isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return body
            elif event is h11.NEED_DATA:
                return None
    except h11.RemoteProtocolError:
        return None


CHUNK_PARTS = st.sampled_from(
    [
        b"5\r\nhello\r\n",
        b"0\r\n",
        b"\r\n",
        b"5;a=b\r\nhello\r\n",
        b"a: b\r\n",
        b"01\r\nx\r\n",
        b" ",
        b"\n",
        b";x",
        b"5\r\nhello",
        b"0\r\n\r\n",
    ]
)


@given(st.lists(CHUNK_PARTS, max_size=8))
def test_what_we_take_as_a_chunked_body_h11_takes_for_the_same(parts: list[bytes]) -> None:
    reader = ChunkedReader()
    stream = b"".join(parts)
    try:
        body, _ = read(reader, [stream])
    except DownstreamError:
        return
    if reader.done:
        assert h11_body(stream) == body
    else:
        assert h11_body(stream) is None
