"""Fields: the same questions and edits, whichever version of HTTP they came by."""

import pytest

from sidecar.errors import DownstreamError
from sidecar.wire.fields import (
    Field,
    Fields,
    Pairs,
    RequestHead,
    ResponseHead,
    _finders,
    _lines,
    _orders,
    parse_length,
    reason_phrase,
    without,
)
from sidecar.wire.http1_head import HeadReader

PAIRS: list[Field] = [(b"a", b"1"), (b"b", b"2"), (b"a", b"3"), (b"c", b"4")]
BLOCK = b"A: 1\r\nb:2\r\na: 3 \t\r\nC: 4\r\n"


@pytest.fixture(params=["http1", "http2"])
def fields(request: pytest.FixtureRequest) -> Fields:
    return Fields(BLOCK, {}) if request.param == "http1" else Fields(b"", {}, list(PAIRS))


def test_a_value_is_found_though_nobody_has_looked_for_it(fields: Fields) -> None:
    assert fields.get(b"a") == b"1, 3"
    assert fields.get(b"absent") is None
    assert fields.get(b"connection") is None


def test_fields_are_the_same_list(fields: Fields) -> None:
    assert fields.as_pairs() == PAIRS


def test_a_field_is_removed_whole(fields: Fields) -> None:
    fields.remove(b"a")
    assert fields.get(b"a") is None
    assert fields.as_pairs() == [(b"b", b"2"), (b"c", b"4")]


def test_a_field_is_added_after_its_like(fields: Fields) -> None:
    fields.add(b"B", b"5")
    fields.add(b"D", b"6")
    assert (fields.get(b"b"), fields.get(b"d")) == (b"2, 5", b"6")
    assert fields.as_pairs()[4:] == [(b"b", b"5"), (b"d", b"6")]


def test_a_field_is_set_in_place_of_its_like(fields: Fields) -> None:
    fields.set(b"a", b"7")
    fields.set(b"e", b"8")
    assert fields.as_pairs() == [(b"b", b"2"), (b"c", b"4"), (b"a", b"7"), (b"e", b"8")]


def test_lines_stay_as_they_came() -> None:
    assert Fields(BLOCK, {}).as_lines() == BLOCK
    assert Fields(BLOCK, {}).spelled() == b"A,b,a,C"
    assert Fields(b"", {}, list(PAIRS)).spelled() == b""


def test_a_list_becomes_lines() -> None:
    fields = Fields(b"", {}, list(PAIRS))
    assert fields.as_lines() == b"a: 1\r\nb: 2\r\na: 3\r\nc: 4\r\n"


def test_crumbs_of_a_cookie_become_one_line() -> None:
    # RFC 9113 §8.2.3
    fields = Fields(b"", {}, [(b"cookie", b"a=1"), (b"x", b"y"), (b"cookie", b"b=2")])
    assert fields.as_lines() == b"x: y\r\ncookie: a=1; b=2\r\n"
    assert Fields(b"", {}, [(b"cookie", b"a=1")]).as_lines() == b"cookie: a=1\r\n"


def test_what_ends_at_this_hop_does_not_become_http2() -> None:
    block = b"Keep-Alive: 5\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\nA: 1\r\n"
    assert Fields(block, {}).as_pairs() == [(b"te", b"trailers"), (b"a", b"1")]
    assert Fields(b"TE: gzip\r\n", {}).as_pairs() == []


def test_names_that_a_caller_makes_up_are_not_remembered_for_ever() -> None:
    for index in range(3000):
        name = b"x-%d" % index
        assert without(name + b": 1\r\na: 1\r\n", name) == b"a: 1\r\n"
        assert Fields(name.upper() + b": 1\r\n", {}).as_pairs() == [(name, b"1")]
    long = b"X" * 65
    assert Fields(long + b": 1\r\n", {}).as_pairs() == [(long.lower(), b"1")]


def test_a_line_is_named_only_by_what_stands_before_the_colon() -> None:
    found = HeadReader().response(
        b"HTTP/1.1 200 OK\r\nX: Connection: keep-alive\r\nContent-Length: 1\r\n"
        b"Connection: keep-alive\r\n\r\n",
        b"GET",
    )
    assert found is not None
    assert found[0].block == b"X: Connection: keep-alive\r\nContent-Length: 1\r\n"


def spelled(
    pairs: list[Field], spelling: bytes, host: bytes = b"", *, chunked: bool = False
) -> bytes:
    fields = Fields(b"", {}, pairs)
    fields.spelling = spelling
    assert fields.spelled() == spelling
    return fields.as_lines(host=host, chunked=chunked)


def test_what_http2_does_not_carry_is_made_again() -> None:
    fields = Fields(b"", {}, [(b"a", b"1")])
    assert fields.as_lines(host=b"h", chunked=True) == (
        b"Host: h\r\na: 1\r\nTransfer-Encoding: chunked\r\n"
    )


@pytest.mark.parametrize(
    ("pairs", "spelling", "host", "chunked", "lines"),
    [
        # As it came, with Host and the coding where they stood.
        (
            [(b"x-a", b"1"), (b"x-b", b"2")],
            b"X-A,HOST,X-B,transfer-Encoding",
            b"h",
            True,
            b"X-A: 1\r\nHOST: h\r\nX-B: 2\r\ntransfer-Encoding: chunked\r\n",
        ),
        # One was removed, one added on the way.
        ([(b"x-b", b"2"), (b"x-c", b"3")], b"X-A,X-B", b"", False, b"X-B: 2\r\nx-c: 3\r\n"),
        # They may stand in another order, and come again.
        (
            [(b"x-b", b"2"), (b"x-a", b"1"), (b"x-b", b"3")],
            b"X-A,X-B,X-b",
            b"",
            False,
            b"X-B: 2\r\nx-a: 1\r\nX-b: 3\r\n",
        ),
        # Host and the coding are there though the spelling does not know them, or nothing of it fits.
        (
            [(b"a", b"1")],
            b"X",
            b"h",
            True,
            b"Host: h\r\na: 1\r\nTransfer-Encoding: chunked\r\n",
        ),
        # And are not there where there is nothing to say.
        ([(b"a", b"1")], b"Host,Transfer-Encoding,A", b"", False, b"A: 1\r\n"),
        # What was added stands behind Host, which stood at the begin.
        (
            [(b"x-new", b"1"), (b"a", b"2")],
            b"Host,A",
            b"h",
            False,
            b"Host: h\r\nx-new: 1\r\nA: 2\r\n",
        ),
        # No name but the one that is there can be smuggled in.
        ([(b"a", b"1")], b"A: x,evil,,Host ", b"h", False, b"Host: h\r\na: 1\r\n"),
    ],
)
def test_names_are_written_as_they_were_before_http2(
    pairs: list[Field], spelling: bytes, host: bytes, chunked: bool, lines: bytes
) -> None:
    for _ in range(2):  # the second time, the spelling is known
        assert spelled(list(pairs), spelling, host, chunked=chunked) == lines


def test_spellings_that_a_caller_makes_up_are_not_remembered_for_ever() -> None:
    for number in range(1500):
        name = b"X-%d" % number
        assert spelled([(name.lower(), b"1")], name) == name + b": 1\r\n"
    for long in (b"A," * 2000 + b"X-Last", b"A," * 3000 + b"X-Last"):
        assert spelled([(b"x-last", b"1")], long) == b"X-Last: 1\r\n"
    assert len(_orders) <= 1000
    assert (long, False, False, (b"x-last",)) not in _orders


def test_lines_of_heads_that_come_again_are_remembered_within_bounds() -> None:
    for number in range(600):
        again: Pairs = ((b"x-a", b"%d" % number),)
        for host in (b"", b"h"):
            for _ in range(2):
                lines = Fields(b"", {}, again).as_lines(host=host)
                assert lines == (b"Host: h\r\n" if host else b"") + b"x-a: %d\r\n" % number
    assert len(_lines) <= 256
    long: Pairs = ((b"x-a", b"v" * 3000),)
    for _ in range(2):
        assert Fields(b"", {}, long).as_lines() == b"x-a: " + b"v" * 3000 + b"\r\n"
    assert all(len(lines) <= 2048 for _, lines in _lines.values())


def test_a_reason_is_the_usual_one() -> None:
    assert [reason_phrase(s) for s in (200, 413, 299)] == [b"OK", b"Content Too Large", b""]


@pytest.mark.parametrize("text", [b"", b"+5", b"5_0", b" 5", b"5, 5", b"0x5", b"-1", b"9" * 19])
def test_a_length_is_digits_and_few(text: bytes) -> None:
    with pytest.raises(DownstreamError, match="bad-content-length"):
        parse_length(text)
    assert parse_length(b"9" * 18) == 10**18 - 1


def test_the_path_is_the_target_without_its_query() -> None:
    assert RequestHead(b"GET", b"/a?b?c", 11, b"", {}).path == b"/a"


def test_names_from_anywhere_take_no_more_memory_than_their_room() -> None:
    fields = Fields(BLOCK, {})
    for number in range(1200):
        assert fields.get(b"x-%d" % number) is None
    assert fields.get(b"a") == b"1, 3"
    assert len(_finders) <= 1001


def test_a_copy_says_the_same_and_is_edited_alone() -> None:
    heads = [
        head
        for block, pairs in ((b"A: 1\r\n", None), (b"", [(b"a", b"1")]))
        for head in (
            RequestHead(b"GET", b"/", 11, block, {}, pairs),
            ResponseHead(200, b"OK", 11, block, {}, pairs),
        )
    ]
    for head in heads:
        like = head.copy()
        assert type(like) is type(head)
        slots = (*Fields.__slots__, *type(head).__slots__)
        assert [getattr(like, name) for name in slots] == [getattr(head, name) for name in slots]
        like.add(b"b", b"2")
        assert head.get(b"b") is None
