"""The table of local replies is complete: whatever code can be raised stands in it, and no other."""

import ast
import re
from pathlib import Path

import pytest

from sidecar.core.replies import REPLIES, reply_for

ROOT = Path(__file__).parents[2] / "sidecar"
# What a worker runs.  `compiler` and `model` are left out: words like these are the config file's
# there, and their errors are ConfigErrors, which answer nobody's request.
ROOMS = (
    "balancers", "core", "filters", "identity", "runtime", "telemetry", "traffic", "wire", "worker",
)  # fmt: skip
FILES = sorted(
    [path for room in ROOMS for path in (ROOT / room).rglob("*.py")] + [ROOT / "filter.py"]
)
TABLE = ROOT / "core" / "replies.py"
# Codes go through variables, tables and default values, so it is not looked at where one is raised:
# every text of this form is a code, unless it is listed below.
FORM = re.compile(r"[a-z0-9]+(-[a-z0-9]+)+")
# Codes that no caller is answered with: who catches the error says another code.
TRANSLATED = {
    "reused-closed",  # exchange: a retry, or upstream-closed
    "too-many-interim",  # http1_client: upstream-protocol
    "unasked-101",  # http1_client: upstream-protocol
    "call-bad-answer",  # unary: the filter that has asked says what it means
    "call-refused",  # the same
    "bad-key-material",  # the compiler: a ConfigError
    # hpack: the connection ends with COMPRESSION_ERROR
    "hpack-huffman",
    "hpack-index",
    "hpack-integer",
    "hpack-table-size",
    "hpack-truncated",
}
NO_CODES = {
    "access-log",  # a thread
    "body-too-large",  # why a mirror copies a request not, this one and the next
    "too-many",
    "consecutive-5xx",  # reasons of ejection, this one and the next four
    "consecutive-local-origin-failure",
    "local-origin-success-rate",
    "probe-failed",
    "success-rate",
    "deadline-exceeded",  # a retry condition
    "latin-1",  # an encoding
    "no-allow-rule",  # what stands in the place of a rule's name
    "resource-exhausted",  # a retry condition
    "sidecar-h2",  # an ALPN name
    "sidecar-key",  # a file in memory
}
# What a route was told to answer is no error.
ASKED_FOR = {"cors-preflight", "direct-response", "filter-answered", "redirect"}
# Where codes go in, so that one without a hyphen is found as well.
ROADS = {
    "DownstreamError", "UpstreamError", "OverloadError", "IdentityError", "reply_for", "own_reply",
    "fail", "downstream_lost", "_end", "_refuse", "_tell",
}  # fmt: skip


def words(path: Path) -> set[str]:
    """Return every text of `path` that has the form of a code, or goes where codes go."""
    tree = list(ast.walk(ast.parse(path.read_text())))
    found = {node.value for node in tree if isinstance(node, ast.Constant)}
    texts = {text for text in found if isinstance(text, str)}
    return {text for text in texts if FORM.fullmatch(text) or text in REPLIES} | {
        code.value
        for code in map(first_argument, tree)
        if isinstance(code, ast.Constant) and isinstance(code.value, str)
    }


def first_argument(node: ast.AST) -> ast.expr | None:
    """Return the code that a call of one of `ROADS` is given; None: it is no such call."""
    if not isinstance(node, ast.Call) or not node.args:
        return None
    name = getattr(node.func, "attr", getattr(node.func, "id", ""))
    return node.args[0] if name in ROADS else None


def composed(path: Path) -> list[int]:
    """Return the lines of `path` on which a code is put together, where nobody would find it."""
    codes = map(first_argument, ast.walk(ast.parse(path.read_text())))
    return [code.lineno for code in codes if isinstance(code, ast.JoinedStr | ast.BinOp)]


@pytest.mark.parametrize("path", FILES, ids=[str(p.relative_to(ROOT)) for p in FILES])
def test_every_code_has_a_reply_and_can_be_found(path: Path) -> None:
    assert words(path) - TRANSLATED - NO_CODES - set(REPLIES) == set()
    assert composed(path) == []


def test_every_reply_and_every_exception_above_is_needed() -> None:
    found = set().union(*(words(path) for path in FILES if path != TABLE))
    assert (set(REPLIES) | TRANSLATED | NO_CODES) - found == set()


def test_a_translated_code_has_no_reply() -> None:
    assert not TRANSLATED & set(REPLIES)


@pytest.mark.parametrize("code", sorted(ASKED_FOR))
def test_a_reply_that_was_asked_for_has_no_flag(code: str) -> None:
    assert (reply_for(code).status < 400, reply_for(code).flag) == (True, "")


@pytest.mark.parametrize("code", sorted(REPLIES.keys() - ASKED_FOR))
def test_a_reply_has_an_error_status_a_flag_and_a_sentence(code: str) -> None:
    reply = reply_for(code)
    assert 400 <= reply.status <= 599
    assert reply.flag.isupper()
    assert reply.sentence
    assert reply.sentence[-1] != "."


def test_an_unlisted_code_is_answered_as_our_own_error() -> None:
    assert reply_for("never-heard-of") == REPLIES["internal-error"]
