"""Heads are read as others read them: where we take one, h11 and httptools do, and say the same."""

import re
from collections.abc import Callable, Sequence

import h11
import httptools
from hypothesis import example, given, settings, strategies as st

from sidecar.errors import DownstreamError
from sidecar.wire.fields import RequestHead
from tests.wire.cutting import READER, pieces, read_request, say_the_same

LINE = b"GET / HTTP/1.1\r\n"
Said = tuple[bytes, bytes, list[tuple[bytes, bytes]]]

WORDS = [
    *(
        b"GET",
        b"POST",
        b"OPTIONS",
        b"get",
        b"PURGE",
        b" ",
        b"  ",
        b"/",
        b"/a?b#c",
        b"*",
        b"http://a",
    ),
    *(
        b"http://a/b",
        b"/\xe4",
        b"/%00",
        b"HTTP/1.1",
        b"HTTP/1.0",
        b"HTTP/1.2",
        b"\r\n",
        b"\n",
        b"\r",
    ),
    *(b"Host", b"Content-Length", b"Transfer-Encoding", b"Connection", b"Upgrade", b"TE", b"X-A"),
    *(b":", b": ", b"\t", b" :", b",", b"a", b"a:80", b"5", b"05", b"+5", b"5, 5", b"chunked"),
    *(b"close", b"keep-alive", b"upgrade", b"x-a", b"trailers", b"\x00", b"\x7f", b"\xff", b"_"),
]
METHODS = st.sampled_from([b"GET", b"POST", b"OPTIONS", b"PUT", b"get", b"BREW"])
TARGETS = st.sampled_from(
    [
        b"/",
        b"/a?b=c",
        b"/a%2f..;x#y",
        b"*",
        b"http://a",
        b"HTTP://a:80/b?c",
        b'/"<>|',
        b"/\xe4",
        b"a",
    ]
)
VERSIONS = st.sampled_from([b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0"])
LINES = st.one_of(
    st.sampled_from(
        [b"Host: a", b"Host: a", b"host:a:80", b"Content-Length: 5", b"X-A: b", b"X-A:"]
    )
    | st.sampled_from([b"content-length: 05\t", b"Transfer-Encoding: chunked", b"TE: trailers"])
    | st.sampled_from([b"Connection: close", b"Connection: x-a, Upgrade", b"Upgrade: h2c"])
    | st.sampled_from(
        [b"Expect: 100-continue", b"Keep-Alive: 5", b"Cookie: a=b; c", b"x_a: \xff\t."]
    ),
    st.builds(
        lambda name, value: name + b":" + value,
        st.text("aX-_!#~.0", min_size=1, max_size=5).map(str.encode),
        st.binary(max_size=6),
    ),
)


def join(method: bytes, target: bytes, version: bytes, lines: list[bytes]) -> bytes:
    return b"\r\n".join([b" ".join([method, target, version]), *lines, b"", b""])


GRAMMATICAL = st.builds(
    lambda method, target, version, lines: join(method, target, version, [b"Host: a", *lines]),
    METHODS,
    TARGETS,
    VERSIONS,
    st.lists(LINES, max_size=5),
)
BROKEN = st.builds(
    lambda data, at, length, word: data[: at % len(data)] + word + data[at % len(data) + length :],
    GRAMMATICAL,
    st.integers(0, 400),
    st.integers(0, 3),
    st.sampled_from(WORDS),
)
HEADS = st.one_of(
    GRAMMATICAL,
    BROKEN,
    st.lists(st.sampled_from(WORDS), max_size=20).map(lambda w: b"".join([*w, b"\r\n\r\n"])),
)


def ask_h11(data: bytes) -> Said | None:
    """Return what h11 reads; None if it refuses."""
    peer = h11.Connection(h11.SERVER, max_incomplete_event_size=100_000)
    peer.receive_data(data)
    try:
        event = peer.next_event()
    except h11.RemoteProtocolError:
        return None
    assert isinstance(event, h11.Request)
    return event.method, event.target, event.headers.raw_items()


class Listener:
    """Notes what httptools tells."""

    def __init__(self) -> None:
        self.target = b""
        self.fields: list[tuple[bytes, bytes]] = []
        self.whole = False

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        self.whole = True


def ask_httptools(data: bytes) -> Said | None:
    """Return what httptools (llhttp) reads; None if it refuses."""
    listener = Listener()
    parser = httptools.HttpRequestParser(listener)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError:
        return None
    assert listener.whole
    return parser.get_method(), listener.target, listener.fields


def forwarded(said: Said) -> Said:
    """Return what a proxy that was told `said` has to pass on (RFC 9110 §7.6.1, RFC 9112 §3.2)."""
    method, target, fields = said
    absolute = re.fullmatch(rb"(?i:https?)://([^/?]*)(.*)", target)
    if absolute is not None:
        host, rest = absolute.groups()
        target = rest if rest[:1] == b"/" else b"/" + rest
        if method == b"OPTIONS" and not rest:
            target = b"*"
        if all(name.lower() != b"host" for name, _ in fields):
            fields = [*fields, (b"Host", host)]

    def values(name: bytes) -> bytes:
        return b",".join(v for n, v in fields if n.lower() == name).lower()

    gone = {option.strip(b" \t") for option in values(b"connection").split(b",")}
    gone -= {
        b"host",
        b"content-length",
        b"authorization",
        b"cookie",
        b"close",
        b"transfer-encoding",
    }
    gone |= {b"connection", b"keep-alive", b"proxy-connection", b"te", b"upgrade"}
    kept = [(n, v) for n, v in fields if n.lower() not in gone]
    return method, target, kept + ([(b"TE", b"trailers")] if b"trailers" in values(b"te") else [])


def plain(said: Said) -> Said:
    """Return `said` without what h11 changes, the case of codings, and framing as we re-make it."""
    method, target, fields = said
    framing = {b"content-length", b"transfer-encoding"}
    rest = [(n, v.lower()) for n, v in fields if n.lower() not in framing]
    rest += [
        (n.lower(), v.lstrip(b"0") or b"0" if v.isdigit() else v.lower())
        for n, v in fields
        if n.lower() in framing
    ]
    return method, target, rest


KNOWN_TO_HTTPTOOLS = {b"GET", b"POST", b"OPTIONS", b"PUT", b"PURGE"}

# What we take and a peer refuses, and why we take it.
WHERE_H11_IS_STRICTER = [
    # RFC 9112 §2.2 asks servers to let one empty line pass: old clients sent one behind a POST.
    lambda data, head: data.startswith(b"\r\n"),
]
WHERE_HTTPTOOLS_IS_STRICTER = [
    # It knows a fixed list of methods; RFC 9110 §9.1 lets anybody define more, and a proxy has
    # nothing to do with their meaning.
    lambda data, head: head.method not in KNOWN_TO_HTTPTOOLS,
]

Stricter = Sequence[Callable[[bytes, RequestHead], bool]]


def lines_of(head: RequestHead) -> list[tuple[bytes, bytes]]:
    """Return the fields as (name as it came, value)."""
    lines = [line.partition(b":") for line in head.block.split(b"\r\n")[:-1]]
    return [(name, value.strip(b" \t")) for name, _, value in lines]


def compare(data: bytes, ask: Callable[[bytes], Said | None], stricter: Stricter) -> None:
    """Check that a peer reads `data` as we do, if we take it."""
    try:
        found = READER.request(data)
    except DownstreamError:
        return
    if found is None:
        return
    head, end = found
    said = ask(data[:end])
    if said is None:
        assert any(is_why(data, head) for is_why in stricter)
    else:
        assert plain((head.method, head.target, lines_of(head))) == plain(forwarded(said))


@settings(max_examples=400)
@given(HEADS)
@example(LINE + b"Host: a\r\nX-A: \x80\tb \r\n\r\n")
@example(b"GET http://A:1?b HTTP/1.0\r\nX-A: b\r\n\r\n")
@example(b"OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n")
def test_what_we_take_h11_takes_and_reads_the_same(data: bytes) -> None:
    compare(data, ask_h11, WHERE_H11_IS_STRICTER)


@settings(max_examples=400)
@given(HEADS)
@example(b"\r\n" + LINE + b"Host: a\r\n\r\n")
def test_what_we_take_httptools_takes_and_reads_the_same(data: bytes) -> None:
    compare(data, ask_httptools, WHERE_HTTPTOOLS_IS_STRICTER)


@settings(max_examples=400)
@given(HEADS)
def test_h11_ends_the_message_where_we_do(data: bytes) -> None:
    try:
        found = READER.request(data)
    except DownstreamError:
        return
    if found is None or ask_h11(data[: found[1]]) is None:
        return
    head, end = found
    if head.length is not None and head.length > 1000:
        return
    body = b"1\r\nx\r\n0\r\n\r\n" if head.chunked else b"x" * (head.length or 0)
    behind = b"GET /behind HTTP/1.1\r\n"
    peer = h11.Connection(h11.SERVER)
    peer.receive_data(data[:end] + body + behind)
    while not isinstance(peer.next_event(), h11.EndOfMessage):
        pass
    assert peer.trailing_data[0] == behind


@settings(max_examples=400)
@given(HEADS, st.data())
def test_cuts_do_not_change_whether_and_how_a_head_is_read(data: bytes, how: st.DataObject) -> None:
    assert say_the_same(read_request(how.draw(pieces(data))), read_request([data]))
