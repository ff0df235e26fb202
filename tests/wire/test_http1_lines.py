"""Lines of HTTP/1 heads: the grammar, and what is remembered of them."""

import pytest
from hypothesis import assume, given, strategies as st

from sidecar.errors import DownstreamError
from sidecar.wire.http1_head import HeadReader
from tests.wire.test_http1_head import GOOD, request


def test_a_line_that_came_before_says_the_same_again() -> None:
    reader = HeadReader()
    for _ in range(2):
        found = reader.request(GOOD)
        assert found is not None
        head = found[0]
        assert head.found[b"content-length"] == b"5"
        assert head.get(b"x-tenant") == b"one, two"
        assert head.spelled() == b"Host,X-Tenant,x-tenant,Content-Length,Accept"
        head.remove(b"accept")  # of this head alone
        head.add(b"X-New", b"1")
        assert head.as_pairs()[-2:] == [(b"content-length", b"5"), (b"x-new", b"1")]


@given(
    st.lists(st.sampled_from([b"", b" ", b"\t", b"a", b"\xff", b"\x7f", b"\0", b"\r", b"\n", b":"]))
)
def test_a_value_is_taken_as_the_grammar_has_it(octets: list[bytes]) -> None:
    value = b"".join(octets)
    data = b"HTTP/1.1 200 OK\r\nX:" + value + b"\r\n\r\n"
    assume(b"\r\n" not in value and value[-1:] != b"\r")  # another line, or a part of the line end
    if any(octet in value for octet in (b"\x7f", b"\0", b"\r", b"\n")):
        with pytest.raises(DownstreamError, match="bad-field"):
            HeadReader().response(data, b"GET")
        return
    found = HeadReader().response(data, b"GET")
    assert found is not None
    assert found[0].get(b"x") == value.strip(b" \t")


def test_how_another_sidecar_spells_is_nothing_that_goes_on() -> None:
    head = request(b"GET / HTTP/1.1\r\nHost: a\r\nX-Sidecar-Spelling: X\r\n\r\n")
    assert head.as_pairs() == [(b"host", b"a")]
