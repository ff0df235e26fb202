"""Any valid exchange arrives unchanged; and what we send, another parser frames as we framed it."""

from hypothesis import given, settings, strategies as st

from tests.core.harness import OWN, Harness
from tests.core.reading import Line, Message, read_request, read_response
from tests.wire.cutting import cut

TCHAR = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
# A prefix keeps names apart from those that mean something to a proxy.
names = st.text(TCHAR, max_size=12).map(lambda text: b"N-" + text.encode())
values = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=20
).map(lambda text: text.encode("latin-1").strip(b" \t"))
fields = st.lists(st.tuples(names, values), max_size=6)
bodies = st.binary(max_size=300)
targets = st.text(TCHAR.replace("#", "") + "/?=%:@", max_size=20).map(
    lambda text: b"/" + text.replace("%", "%25").encode()
)
places = st.lists(st.integers(0, 2000), max_size=8)
trailers = st.lists(st.tuples(names, values), max_size=3)
statuses = st.sampled_from([200, 201, 302, 404, 418, 500, 599])


def lines(found: list[Line]) -> bytes:
    return b"".join(b"%b: %b\r\n" % field for field in found)


def framed(head: bytes, body: bytes, at: list[int], last: list[Line] | None) -> bytes:
    """Return a message: with a length, or in chunks where there are trailers, empty or not."""
    if last is None:
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in split(body, at))
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n" + lines(last) + b"\r\n"


def split(data: bytes, at: list[int]) -> list[bytes]:
    inner = sorted({place for place in at if 0 < place < len(data)})
    return [piece for piece in cut(data, inner) if piece]


def read(message: Message | str) -> Message:
    assert isinstance(message, Message)
    return message


@given(
    method=st.sampled_from([b"GET", b"POST", b"PUT", b"M-SEARCH"]),
    target=targets,
    request_fields=fields,
    request_body=bodies,
    request_trailers=st.none() | trailers,
    status=statuses,
    response_fields=fields,
    response_body=bodies,
    response_trailers=st.none() | trailers,
    at=places,
)
def test_any_exchange_arrives_unchanged(
    method: bytes,
    target: bytes,
    request_fields: list[Line],
    request_body: bytes,
    request_trailers: list[Line] | None,
    status: int,
    response_fields: list[Line],
    response_body: bytes,
    response_trailers: list[Line] | None,
    at: list[int],
) -> None:
    start = method + b" " + target + b" HTTP/1.1\r\nHost: a\r\n"
    request = framed(start + lines(request_fields), request_body, at, request_trailers)
    response = framed(
        b"HTTP/1.1 %d Why\r\n" % status + lines(response_fields),
        response_body,
        at,
        response_trailers,
    )
    harness = Harness()
    caller = harness.open()
    for piece in split(request, at):
        caller.send(piece)
    upstream = harness.connect()
    for piece in split(response, at):
        upstream.send(piece)

    sent, came = read(read_request(request)), read(read_request(upstream.take()))
    own = [line.split(b": ") for line in OWN.split(b"\r\n")[:-1]]
    assert came == sent._replace(fields=sent.fields + [(name, value) for name, value in own])
    expected = read_response(response, method)
    assert read_response(caller.take(), method) == expected
    (outcome,) = harness.outcomes
    assert outcome[:6] == (status, "", "", 1, len(request_body), len(response_body))
    harness.check()


# Pieces of requests, whole and broken, that a smuggler would put together.
STARTS = st.sampled_from([b"GET / HTTP/1.1\r\nHost: a\r\n", b"POST / HTTP/1.1\r\nHost: a\r\n"])
LINES = st.sampled_from(
    [
        b"Content-Length: 3\r\n", b"Content-Length: 0\r\n", b"Content-Length: 5, 5\r\n",
        b"Content-Length: +3\r\n", b"Content-Length : 3\r\n", b"content-length:3\r\n",
        b"Content_Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: x\r\n",
        b"transfer-encoding:chunked\r\n", b"Transfer-Encoding: chunked, chunked\r\n",
        b"Transfer-Encoding : chunked\r\n", b"Connection: content-length\r\n",
        b"Connection: transfer-encoding\r\n", b"Connection: close\r\n", b"Host: b\r\n",
        b"Expect: 100-continue\r\n", b"X: 1\r\n", b" folded\r\n", b"X: \r2\r\n",
    ]
)  # fmt: skip
BODIES = st.sampled_from(
    [
        b"abc", b"3\r\nabc\r\n", b"0\r\n\r\n", b"3;x=y\r\nabc\r\n", b"03\r\nabc\r\n",
        b"0x3\r\nabc\r\n", b"0\r\nContent-Length: 3\r\n\r\n", b"0\r\nN: 1\r\n\r\n", b"\r\n",
        b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n", b"POST /next HTTP/1.1\r\nHost: a\r\n",
    ]
)  # fmt: skip


@settings(max_examples=300)
@given(
    start=STARTS,
    head=st.lists(LINES, max_size=2),
    body=st.lists(BODIES, max_size=5),
    at=places,
)
def test_an_origin_frames_what_we_forward_as_we_do(
    start: bytes, head: list[bytes], body: list[bytes], at: list[int]
) -> None:
    """Each exchange goes up on its own: an origin must find one request, whole, nothing behind."""
    harness = Harness()
    caller = harness.open()
    for piece in split(b"".join((start, *head, b"\r\n", *body)), at):
        caller.send(piece)
    caller.end()
    seen = 0
    while harness.begun or (harness.upstreams and harness.upstreams[-1].got):
        upstream = harness.connect() if harness.begun else harness.upstreams[-1]
        data = upstream.take()
        if not data:
            break  # its request broke before the connection was there
        message = read_request(data)  # fails on octets behind it
        seen += 1
        if isinstance(message, str):
            break  # cut off by the caller: nothing may follow
        assert harness.state().requests == 1
        upstream.send(b"HTTP/1.1 204 None\r\n\r\n")
    assert harness.state().requests == 0
    good = [outcome for outcome in harness.outcomes if outcome.status == 204]
    assert len(good) <= seen <= len(harness.outcomes)
    harness.check()
