"""Field lists as heads: what RFC 9113 §8 calls malformed, what is looked at, what is left out."""

import pytest

from sidecar.errors import DownstreamError
from sidecar.wire.fields import SPELLING, Field, Fields, RequestHead, ResponseHead
from sidecar.wire.hpack import Decoder
from sidecar.wire.hpack_encoder import Encoder
from sidecar.wire.http2_fields import STATUS_FIELDS, FieldReader, request_fields

READER = FieldReader()
METHOD, SCHEME, AUTHORITY, PATH = (
    (b":method", b"GET"),
    (b":scheme", b"https"),
    (b":authority", b"A.example:80"),
    (b":path", b"/a?b=c"),
)
PSEUDO = [METHOD, SCHEME, AUTHORITY, PATH]


def request(*more: Field, end: bool = True, pseudo: list[Field] = PSEUDO) -> RequestHead:
    return READER.request([*pseudo, *more], end=end)


def response(*more: Field, status: bytes = b"200", method: bytes = b"GET") -> ResponseHead:
    return READER.response([(b":status", status), *more], method)


def test_a_usual_request() -> None:
    fields = [(b"x-tenant", b"t"), (b"x-other", b"o"), (b"user-agent", b"u"), (b"x-tenant", b"v")]
    for _ in range(2):  # the second time, its authority is known
        head = request(*fields)
        assert (head.method, head.target, head.version) == (b"GET", b"/a?b=c", 20)
        assert head.authority == b"a.example:80"
        assert head.pairs == fields
        assert head.found == {b"user-agent": b"u"}
        assert head.get(b"x-tenant") == b"t, v"
        assert (head.length, head.upgrade, head.expect, head.close) == (0, None, False, False)


@pytest.mark.parametrize(
    ("fields", "end", "length"),
    [
        ([], True, 0),
        ([], False, None),
        ([(b"content-length", b"5")], False, 5),
        ([(b"content-length", b"0")], True, 0),
    ],
)
def test_the_length_of_a_request_s_body(fields: list[Field], end: bool, length: int | None) -> None:
    assert request(*fields, end=end).length == length


@pytest.mark.parametrize(
    "pseudo",
    [
        [(b":method", b"BREW"), SCHEME, AUTHORITY, PATH],
        [(b":method", b"OPTIONS"), SCHEME, AUTHORITY, (b":path", b"*")],
        [SCHEME, PATH, AUTHORITY, METHOD],
        [METHOD, (b":scheme", b"made-up"), AUTHORITY, PATH],
        [METHOD, SCHEME, (b":authority", b"[::1]:80"), PATH],
        [METHOD, SCHEME, AUTHORITY, (b":path", b"/%00;..//")],
    ],
)
def test_requests_that_are_unusual_and_good(pseudo: list[Field]) -> None:
    head = request(pseudo=pseudo)
    assert (b":method", head.method) in pseudo
    assert (b":path", head.target) in pseudo


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ([SCHEME, AUTHORITY, PATH], "bad-field"),
        ([METHOD, AUTHORITY, PATH], "bad-field"),
        ([METHOD, SCHEME, AUTHORITY], "bad-target"),
        ([METHOD, SCHEME, PATH], "bad-host"),
        ([], "bad-field"),
        ([*PSEUDO, METHOD], "bad-field"),
        ([METHOD, METHOD, SCHEME, AUTHORITY], "bad-field"),
        ([*PSEUDO, (b":status", b"200")], "bad-field"),
        ([METHOD, SCHEME, AUTHORITY, (b":made-up", b"1")], "bad-field"),
        ([*PSEUDO, (b"a", b"b"), (b":made-up", b"1")], "bad-field"),
        ([METHOD, SCHEME, PATH, (b"a", b"b"), AUTHORITY], "bad-field"),
        ([(b":method", b"G T"), SCHEME, AUTHORITY, PATH], "bad-field"),
        ([(b":method", b""), SCHEME, AUTHORITY, PATH], "bad-field"),
        ([METHOD, SCHEME, AUTHORITY, (b":path", b"")], "bad-target"),
        ([METHOD, SCHEME, AUTHORITY, (b":path", b"*")], "bad-target"),
        ([METHOD, SCHEME, AUTHORITY, (b":path", b"a")], "bad-target"),
        ([METHOD, SCHEME, AUTHORITY, (b":path", b"/a b")], "bad-target"),
        ([METHOD, SCHEME, AUTHORITY, (b":path", b"/a#b")], "bad-target"),
        ([METHOD, SCHEME, AUTHORITY, (b":path", b"/\xe4")], "bad-target"),
        ([METHOD, SCHEME, (b":authority", b""), PATH], "bad-host"),
        ([METHOD, SCHEME, (b":authority", b"a@b"), PATH], "bad-host"),
        ([METHOD, SCHEME, (b":authority", b"a b"), PATH], "bad-host"),
        ([METHOD, SCHEME, (b":authority", b"a:b"), PATH], "bad-host"),
        ([*PSEUDO, (b"host", b"b")], "bad-host"),
        ([*PSEUDO, (b"host", b"a.example:80"), (b"host", b"a.example:80")], "bad-host"),
        ([(b":method", b"CONNECT"), SCHEME, AUTHORITY, PATH], "connect-refused"),
        ([(b":method", b"CONNECT"), AUTHORITY], "connect-refused"),
        ([*PSEUDO, (b":protocol", b"websocket")], "connect-refused"),
        (
            [(b":method", b"CONNECT"), (b":protocol", b"connect-udp"), SCHEME, AUTHORITY, PATH],
            "connect-refused",
        ),
        ([*PSEUDO, (b"connection", b"close")], "bad-field"),
        ([*PSEUDO, (b"keep-alive", b"1")], "bad-field"),
        ([*PSEUDO, (b"proxy-connection", b"close")], "bad-field"),
        ([*PSEUDO, (b"transfer-encoding", b"chunked")], "bad-field"),
        ([*PSEUDO, (b"upgrade", b"websocket")], "bad-field"),
        ([*PSEUDO, (b"te", b"gzip")], "bad-field"),
        ([*PSEUDO, (b"te", b"trailers, gzip")], "bad-field"),
        ([*PSEUDO, (b"content-length", b"+5")], "bad-content-length"),
        ([*PSEUDO, (b"content-length", b"5"), (b"content-length", b"5")], "bad-content-length"),
        ([*PSEUDO, (b"content-length", b"5")], "bad-framing"),
        ([*PSEUDO, (b"expect", b"miracles")], "bad-expectation"),
    ],
)
def test_a_request_that_is_refused(fields: list[Field], code: str) -> None:
    with pytest.raises(DownstreamError) as refused:
        READER.request(fields, end=True)
    assert refused.value.code == code


def test_a_host_instead_of_an_authority() -> None:
    head = request((b"host", b"A"), pseudo=[METHOD, SCHEME, PATH])
    assert (head.authority, head.pairs) == (b"a", [])
    both = request((b"host", b"a.EXAMPLE:80"))
    assert (both.authority, both.pairs) == (b"a.example:80", [])


def test_a_tunnel_for_websocket_is_the_get_that_it_would_be() -> None:
    # RFC 8441 §5
    connect = [(b":method", b"CONNECT"), (b":protocol", b"WebSocket"), SCHEME, AUTHORITY, PATH]
    head = request(pseudo=connect, end=False)
    assert (head.method, head.target, head.upgrade) == (b"GET", b"/a?b=c", b"WebSocket")
    assert request_fields(head, secure=True) == [
        (b":method", b"CONNECT"),
        (b":protocol", b"websocket"),
        SCHEME,
        (b":authority", b"a.example:80"),
        PATH,
    ]


def test_expect_is_of_no_use_without_a_body() -> None:
    assert request((b"expect", b"100-Continue"), end=False).expect
    assert not request((b"expect", b"100-continue")).expect


@pytest.mark.parametrize(
    "name",
    [
        b"x_forwarded_for",
        b"x-forwarded_for",
        b"x_request_id",
        b"x_sidecar_spelling",
        b"content_length",
        b"transfer_encoding",
    ],
)
def test_what_another_server_would_read_as_ours_is_dropped(name: bytes) -> None:
    for _ in range(2):
        assert request((name, b"1"), (b"x_a", b"2")).pairs == [(b"x_a", b"2")]


def test_te_trailers_is_kept() -> None:
    head = request((b"te", b"trailers"))
    assert head.pairs == [(b"te", b"trailers")]
    assert head.found == {b"te": b"trailers"}


def test_a_request_is_sent_with_its_pseudo_fields_first() -> None:
    head = request()
    assert request_fields(head, secure=True) == [
        METHOD,
        SCHEME,
        (b":authority", head.authority),
        PATH,
    ]
    head.authority = b""
    assert request_fields(head, secure=False) == [METHOD, (b":scheme", b"http"), PATH]


def test_how_names_were_spelled_is_read_and_not_forwarded() -> None:
    for head in (request((SPELLING, b"Host,X-A")), response((SPELLING, b"Host,X-A"))):
        assert (head.spelling, head.pairs) == (b"Host,X-A", [])
        assert SPELLING not in head.found


def test_a_usual_response() -> None:
    fields = [(b"content-type", b"a/b"), (b"content-length", b"5"), (b"x-tenant", b"t")]
    head = response(*fields)
    assert (head.status, head.reason, head.version, head.length) == (200, b"", 20, 5)
    assert head.pairs == fields
    assert head.found == {b"content-length": b"5"}
    assert response().length is None


@pytest.mark.parametrize(
    ("status", "method"), [(b"204", b"GET"), (b"304", b"GET"), (b"200", b"HEAD")]
)
def test_a_response_without_a_body_has_length_0(status: bytes, method: bytes) -> None:
    assert response((b"content-length", b"5"), status=status, method=method).length == 0


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ([], "bad-field"),
        ([(b"a", b"b"), (b":status", b"200")], "bad-field"),
        ([(b":status", b"20")], "bad-field"),
        ([(b":status", b"2000")], "bad-field"),
        ([(b":status", b"099")], "bad-field"),
        ([(b":status", b"+20")], "bad-field"),
        ([(b":status", b"101")], "bad-field"),
        ([(b":status", b"200"), (b":status", b"200")], "bad-field"),
        ([(b":status", b"200"), METHOD], "bad-field"),
        ([(b":status", b"200"), (b"connection", b"close")], "bad-field"),
        ([(b":status", b"200"), (b"content-length", b"1, 1")], "bad-content-length"),
    ],
)
def test_a_response_that_is_refused(fields: list[Field], code: str) -> None:
    with pytest.raises(DownstreamError) as refused:
        READER.response(fields, b"GET")
    assert refused.value.code == code


def test_trailers() -> None:
    fields = [(b"grpc-status", b"0"), (b"te", b"x"), (b"x-a", b"b")]
    trailers = READER.trailers(fields)
    assert trailers.pairs == fields
    assert trailers.get(b"grpc-status") == b"0"
    for bad in ((b":status", b"200"), (b"connection", b"close"), (b"transfer-encoding", b"a")):
        with pytest.raises(DownstreamError, match="bad-field"):
            READER.trailers([bad])


def test_every_status_can_be_said() -> None:
    assert [STATUS_FIELDS[n][1] for n in range(100, 1000)] == [b"%d" % n for n in range(100, 1000)]


def test_names_and_hosts_that_a_caller_makes_up_are_not_remembered_for_ever() -> None:
    reader = FieldReader()
    for number in range(2500):
        pseudo = [METHOD, SCHEME, PATH, (b":authority", b"a%d" % number)]
        head = reader.request([*pseudo, (b"x-%d" % number, b"1"), (b"y" * 65, b"1")], end=True)
        assert head.authority == b"a%d" % number
        assert head.pairs is not None
        assert len(head.pairs) == 2
    assert len(reader._requests) <= 2000
    assert len(reader._authorities) <= 2000


def test_a_block_that_comes_again_is_the_same_message_and_each_is_edited_alone() -> None:
    fields = [(b"x-tenant", b"t"), (b"content-length", b"5")]
    encoder, decoder, reader = Encoder(), Decoder(), FieldReader()
    lists = {
        "request": [*PSEUDO, *fields], "response": [(b":status", b"200"), *fields], "end": fields
    }  # fmt: skip

    def read(kind: str) -> Fields:
        listed = decoder.decode(encoder.encode(lists[kind]))
        if kind == "request":
            return reader.request(listed, end=False)
        return reader.response(listed, b"GET") if kind == "response" else reader.trailers(listed)

    for kind in lists:
        for _ in range(8):
            head = read(kind)
            assert list(head.as_pairs()) == fields
            assert head.found[b"content-length"] == b"5"
            head.remove(b"content-length")
            head.add(b"X-New", b"1")
            assert list(head.as_pairs()) == [fields[0], (b"x-new", b"1")]
        assert type(read(kind).pairs) is tuple
