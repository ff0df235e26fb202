"""The table of local replies is complete: whatever code can be raised stands in it."""

import ast
from pathlib import Path

import pytest

from sidecar.core.replies import REPLIES, reply_for

ROOT = Path(__file__).parents[2] / "sidecar"
ROOMS = ("core", "wire", "runtime", "identity", "compiler")
ERRORS = ("DownstreamError", "UpstreamError", "OverloadError")
# Codes that no caller is answered with: who catches the error says another code.
TRANSLATED = {
    "reused-closed",  # exchange: a retry, or upstream-closed
    "too-many-interim",  # http1_client: upstream-protocol
    "unasked-101",  # http1_client: upstream-protocol
    "bad-key-material",  # the compiler: a ConfigError
    # hpack: the connection ends with COMPRESSION_ERROR
    "hpack-huffman",
    "hpack-index",
    "hpack-integer",
    "hpack-table-size",
    "hpack-truncated",
}


def raised(path: Path) -> set[str]:
    """Return the codes that are written out where errors are made in `path`."""
    codes = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ERRORS
            and node.args
            and isinstance(node.args[0], ast.Constant)
            and isinstance(node.args[0].value, str)
        ):
            codes.add(node.args[0].value)
    return codes


FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=[str(p.relative_to(ROOT)) for p in FILES])
def test_every_code_that_is_raised_has_a_reply(path: Path) -> None:
    assert raised(path) - TRANSLATED - set(REPLIES) == set()


def test_the_scan_finds_codes_in_more_than_one_room() -> None:
    codes = set().union(*map(raised, FILES))
    assert {"bad-host", "pending-overflow", "connect-timeout"} <= codes


def test_a_translated_code_has_no_reply() -> None:
    assert not TRANSLATED & set(REPLIES)


@pytest.mark.parametrize("code", sorted(REPLIES))
def test_a_reply_has_an_error_status_a_flag_and_a_sentence(code: str) -> None:
    reply = reply_for(code)
    assert 400 <= reply.status <= 599
    assert reply.flag.isupper()
    assert reply.sentence
    assert reply.sentence[-1] != "."


def test_an_unlisted_code_is_answered_as_our_own_error() -> None:
    assert reply_for("never-heard-of") == REPLIES["internal-error"]
