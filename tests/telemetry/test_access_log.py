"""The access log's line says what happened, and nothing in it can be anything but text."""

import pytest

from sidecar.telemetry.access_log import VALUE_LIMIT, AccessLogSink
from tests.core.harness import OK, Harness


def line_of(head: bytes) -> str:
    """Return the line of the exchange that a request with `head` becomes."""
    lines: list[bytes] = []
    harness = Harness()
    harness.engine.sinks = (AccessLogSink(lines.append, "text"),)
    harness.open(head)
    harness.connect().send(OK)
    assert harness.bugs == []
    return lines[0].decode("ascii")


USUAL = (
    b"GET /a?b=c HTTP/1.1\r\nHost: Shop.example\r\nUser-Agent: curl/8\r\nX-Request-Id: r-1\r\n\r\n"
)


def test_a_line_has_envoy_s_fields_in_envoy_s_order() -> None:
    line = line_of(USUAL)
    begin, _, rest = line.partition("] ")
    assert begin.startswith("[20")
    assert rest.startswith('"GET /a?b=c HTTP/1.1" 200 - 0 2 0 0 "-" "curl/8" "r-1" "shop.example" ')
    assert rest.endswith("\n")


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (b'a "quoted" one', r"a \x22quoted\x22 one"),
        (b"back\\slash", r"back\x5cslash"),
        (b"caf\xe9", r"caf\xe9"),
        (b"a\tb", r"a\x09b"),
        (b"x" * (VALUE_LIMIT + 5), "x" * VALUE_LIMIT),
    ],
)
def test_a_value_of_the_caller_s_cannot_break_the_line(value: bytes, written: str) -> None:
    line = line_of(USUAL.replace(b"curl/8", value))
    assert f'"{written}" "r-1"' in line
    assert line.count("\n") == 1


def test_a_value_that_divides_lines_is_never_taken_for_two() -> None:
    lines: list[bytes] = []
    harness = Harness()
    harness.engine.sinks = (AccessLogSink(lines.append, "text"),)
    harness.open(USUAL)
    exchange = harness.callers[0].get_protocol()
    getattr(exchange, "exchange").request_id = b"a\nb"  # noqa: B009 - as a filter's bug might
    harness.connect().send(OK)
    assert b'"a\\x0ab"' in lines[0]
    assert lines[0].count(b"\n") == 1
