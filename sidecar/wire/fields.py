"""The head of a message, as both versions of HTTP know it: what it says, and its fields in order.

Theory of operation.  A head that came as HTTP/1 keeps its lines as the slice they came in (`block`),
one that came as HTTP/2 keeps the decoded list (`pairs`); either is turned into the other only when
it leaves by the other protocol.  Whoever edits a head need not know which it is.  The reader of
HTTP/1 has looked at every line, and leaves what they say (`parts`); they hold for the block that
they were read from (`whole`), so that whoever puts another in its place has them read anew.
"""

import re
from http import HTTPStatus
from typing import Final, final

from sidecar.errors import DownstreamError

Field = tuple[bytes, bytes]
"""A field's name and value; from and to HTTP/2 the name is lower case."""

Pairs = list[Field] | tuple[Field, ...]
"""Fields of HTTP/2 in order; a tuple is one that came before and is known as a whole (see wire.hpack)."""

Part = tuple[int, Field, bytes]
"""What a line of HTTP/1 says: what kind of field it is, the field, and its name as it is spelled."""

Order = list[tuple[bytes, int]]
"""Names of lines, as they are spelled, each with the place of its value."""

Shape = tuple[bytes, bool, bool, tuple[bytes, ...]]
"""A spelling, whether there is a host and a coding, and the names of fields."""

REQUEST_NAMES: Final = (
    b"connection",
    b"content-length",
    b"content-type",
    b"expect",
    b"grpc-timeout",
    b"host",
    b"keep-alive",
    b"proxy-connection",
    b"te",
    b"traceparent",
    b"transfer-encoding",
    b"upgrade",
    b"user-agent",
    b"x-forwarded-client-cert",
    b"x-forwarded-for",
    b"x-forwarded-proto",
    b"x-request-id",
)
"""Names of a request's fields that the engine itself looks at, in lower case."""

RESPONSE_NAMES: Final = (
    b"connection",
    b"content-length",
    b"grpc-status",
    b"keep-alive",
    b"proxy-connection",
    b"retry-after",
    b"te",
    b"transfer-encoding",
    b"upgrade",
)
"""The same of a response."""

HOP_BY_HOP: Final = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"te", b"transfer-encoding", b"upgrade"}
)
"""Fields that end at the next hop (RFC 9110 §7.6.1, RFC 9113 §8.2.2)."""

LENGTH, CODING, CONNECTION, HOP, EXPECT, LOOKALIKE, OURS, HOST, FOUND = (
    1 << bit for bit in range(9)
)
"""What a field is to us; FOUND: no more than that somebody looks at it."""

KINDS: Final = {
    b"content-length": LENGTH,
    b"transfer-encoding": CODING,
    b"connection": CONNECTION,
    b"expect": EXPECT,
    b"host": HOST,
    **dict.fromkeys(HOP_BY_HOP - {b"connection", b"transfer-encoding"}, HOP),
}
"""By name, in lower case; other fields are none of these."""

MAX_LENGTH_DIGITS: Final = 18  # 10**18 octets; more digits would not fit 64 bits in many peers

SPELLING: Final = b"x-sidecar-spelling"
"""Between two sidecars over HTTP/2: the names of an HTTP/1 head as they came, in order, with commas."""

NOT_SENT: Final = CODING | CONNECTION | HOP | OURS
"""Kinds that are not sent by HTTP/2."""

_ENDS_HERE: Final = CONNECTION | HOP
_DIGITS: Final = b"0123456789"
_SPLIT: Final = re.compile(rb"([^:\r]++):[ \t]*+([^\r]*+)\r\n")
_ALWAYS_FOUND: Final = frozenset(REQUEST_NAMES) & frozenset(RESPONSE_NAMES)
_MAX_LINES: Final = 256  # heads of HTTP/2, each with its lines...
_LONG: Final = 2048  # ...of so many octets at most
_PATTERNS: Final = 1000  # kept at most: `Connection` lets callers choose names

_finders: dict[bytes, re.Pattern[bytes]] = {}
_REASONS: Final = {int(s): s.phrase.encode() for s in HTTPStatus} | {
    413: b"Content Too Large",  # RFC 9110 has renamed it
    499: b"Client Closed Request",
}
_lower: dict[bytes, bytes] = {}
_lines: dict[tuple[int, bytes, bytes, bool], tuple[Pairs, bytes]] = {}
_orders: dict[Shape, Order] = {}


class Fields:
    """Fields of a message, and `found`: those that somebody has looked at.

    The reader looks for what the engine asks of every head; anybody else calls `get`, so that what
    one route asks for costs the requests of no other.

    `block` holds whole HTTP/1 lines, each with its CRLF, as they came; `pairs` is None then.
    `found` maps lower-case names to values without surrounding white space; a repeated field is
    joined with `, `.  `spelling` is how the names of `pairs` were written before they crossed HTTP/2.
    """

    __slots__ = ("block", "found", "pairs", "parts", "spelling", "whole")

    def __init__(self, block: bytes, found: dict[bytes, bytes], pairs: Pairs | None = None) -> None:
        self.block = block
        self.found = found
        self.pairs = pairs
        self.spelling = b""
        self.parts: list[Part] | None = None
        self.whole = block

    def get(self, name: bytes) -> bytes | None:
        """Return the value of field `name` (lower case), whether or not it was looked for."""
        value = self.found.get(name)
        if value is None and name not in _ALWAYS_FOUND:
            if self.pairs is None:
                values = [field[1] for _, field, _ in self.lines() if field[0] == name]
            else:
                values = [v for n, v in self.pairs if n == name]
            if values:
                value = self.found[name] = b", ".join(values)
        return value

    def lines(self) -> list[Part]:
        """Return what the lines of `block` say."""
        parts = self.parts
        if parts is None or self.whole is not self.block:
            parts = self.parts = parts_of(self.block)
            self.whole = self.block
        return parts

    def remove(self, name: bytes) -> None:
        """Take every field called `name` (lower case) out."""
        self.found.pop(name, None)
        if self.pairs is None:
            parts = [part for part in self.lines() if part[1][0] != name]
            self.block = self.whole = without(self.block, name)
            self.parts = parts
        else:
            self.pairs = [pair for pair in self.pairs if pair[0] != name]

    def add(self, name: bytes, value: bytes) -> None:
        """Append one field; the caller vouches that both are valid octets."""
        lower = name.lower()
        old = self.get(lower)  # before the fields change
        if self.pairs is None:
            parts = self.lines()
            self.block = self.whole = self.block + name + b": " + value + b"\r\n"
            parts.append((_kind(lower, value), (lower, value), name))
        else:
            self.pairs = [*self.pairs, (lower, value)]
        self.found[lower] = value if old is None else old + b", " + value

    def set(self, name: bytes, value: bytes) -> None:
        """Replace all fields called `name` (lower case) by one."""
        if self.get(name) is not None:
            self.remove(name)
        self.add(name, value)

    def as_lines(self, *, host: bytes = b"", chunked: bool = False) -> bytes:
        """Return the fields as HTTP/1 lines, spelled as they were if that is known.

        Fields that came over HTTP/2 get a `host` line and chunked coding as asked for, and one line
        of `cookie` (RFC 9113 §8.2.3).
        """
        pairs = self.pairs
        if pairs is None:
            return self.block
        if type(pairs) is not tuple:
            return _written(pairs, self.spelling, host, chunked)
        way = id(pairs), self.spelling, host, chunked
        known = _lines.get(way)
        if known is None:
            # With the pairs themselves, so that nothing else can have their id.
            known = pairs, _written(pairs, self.spelling, host, chunked)
            if len(known[1]) <= _LONG:
                if len(_lines) >= _MAX_LINES:
                    _lines.clear()
                _lines[way] = known
        return known[1]

    def as_pairs(self, unsent: int = NOT_SENT) -> Pairs:
        """Return the fields for HTTP/2: names in lower case, nothing that ends at this hop."""
        if self.pairs is not None:
            return self.pairs
        return [field for kind, field, _ in self.lines() if not kind & unsent]

    def spelled(self) -> bytes:
        """Return the names as they came by HTTP/1, in order, joined with commas; else nothing."""
        if self.pairs is not None:
            return self.spelling
        return b",".join([name for kind, _, name in self.lines() if not kind & _ENDS_HERE])


@final
class RequestHead(Fields):
    """A request's head; `authority` is lower case, as the caller named it, with its port."""

    __slots__ = (
        "authority",
        "chunked",
        "close",
        "expect",
        "length",
        "method",
        "target",
        "upgrade",
        "version",
    )

    def __init__(
        self,
        method: bytes,
        target: bytes,
        version: int,
        block: bytes,
        found: dict[bytes, bytes],
        pairs: Pairs | None = None,
        parts: list[Part] | None = None,
    ) -> None:
        self.method = method  # of an extended CONNECT for WebSocket: GET, with `upgrade`
        self.target = target  # origin form, or the asterisk
        self.version = version  # 10, 11 or 20
        self.block = block
        self.found = found
        self.pairs = pairs
        self.spelling = b""
        self.parts = parts
        self.whole = block
        self.authority = b""
        self.length: int | None = 0  # None: unknown until the end (chunked, HTTP/2)
        self.chunked = False
        self.close = version == 10
        self.upgrade: bytes | None = None
        self.expect = False

    def copy(self) -> "RequestHead":
        """Return one that says the same; each may be edited without the other."""
        head = RequestHead(
            self.method, self.target, self.version, self.block, self.found.copy(), self.pairs
        )
        if type(self.pairs) is list:
            head.pairs = self.pairs.copy()
        elif self.pairs is None:
            head.parts = self.lines().copy()
        head.spelling = self.spelling
        head.authority = self.authority
        head.length = self.length
        head.chunked = self.chunked
        head.close = self.close
        head.upgrade = self.upgrade
        head.expect = self.expect
        return head

    @property
    def path(self) -> bytes:
        """The target without its query."""
        return self.target.partition(b"?")[0]


@final
class ResponseHead(Fields):
    """A response's head."""

    __slots__ = ("chunked", "close", "length", "reason", "status", "upgrade", "version")

    def __init__(
        self,
        status: int,
        reason: bytes,
        version: int,
        block: bytes,
        found: dict[bytes, bytes],
        pairs: Pairs | None = None,
        parts: list[Part] | None = None,
    ) -> None:
        self.status = status
        self.reason = reason  # empty from HTTP/2, which has none
        self.version = version
        self.block = block
        self.found = found
        self.pairs = pairs
        self.spelling = b""
        self.parts = parts
        self.whole = block
        self.length: int | None = None  # None with chunked False: until it ends
        self.chunked = False
        self.close = False
        self.upgrade: bytes | None = None

    def copy(self) -> "ResponseHead":
        """Return one that says the same; each may be edited without the other."""
        head = ResponseHead(
            self.status, self.reason, self.version, self.block, self.found.copy(), self.pairs
        )
        if type(self.pairs) is list:
            head.pairs = self.pairs.copy()
        elif self.pairs is None:
            head.parts = self.lines().copy()
        head.spelling = self.spelling
        head.length = self.length
        head.chunked = self.chunked
        head.close = self.close
        head.upgrade = self.upgrade
        return head


def parse_length(text: bytes) -> int:
    """Return the octets that a Content-Length announces (RFC 9110 §8.6).

    Raises:
        DownstreamError: not 1 to MAX_LENGTH_DIGITS digits; a list is refused even when its members
            agree, because a peer may read it otherwise.
    """
    # Not int() alone: it takes "+5", "5_0" and " 5", which a stricter peer reads otherwise.
    if not 0 < len(text) <= MAX_LENGTH_DIGITS or text.strip(_DIGITS):
        raise DownstreamError("bad-content-length", f"expected digits, got {text[:32]!r}")
    return int(text)


def reason_phrase(status: int) -> bytes:
    """Return the usual reason phrase, empty for a status that has none."""
    return _REASONS.get(status, b"")


def _written(pairs: Pairs, spelling: bytes, host: bytes, chunked: bool) -> bytes:
    names = [name for name, _ in pairs]
    if names.count(b"cookie") > 1:
        crumbs = b"; ".join([value for name, value in pairs if name == b"cookie"])
        pairs = [*[pair for pair in pairs if pair[0] != b"cookie"], (b"cookie", crumbs)]
        names = [name for name, _ in pairs]
    if spelling:
        order = _order((spelling, host != b"", chunked, tuple(names)))
        values = [*[value for _, value in pairs], host, b"chunked"]
        pairs = [(name, values[at]) for name, at in order]
    else:
        pairs = [(b"Host", host), *pairs] if host else list(pairs)
        if chunked:
            pairs.append((b"Transfer-Encoding", b"chunked"))
    return b"\r\n".join([*map(b": ".join, pairs), b""])


def parts_of(block: bytes) -> list[Part]:
    """Return what the lines of `block` say; the reader does so for the heads that come."""
    parts = []
    for name, value in _SPLIT.findall(block):
        small = _lower.get(name) or _lowered(name)
        value = value.rstrip(b" \t")
        parts.append((_kind(small, value), (small, value), name))
    return parts


def _kind(name: bytes, value: bytes) -> int:
    """Return what a field is that was let pass or that we have made."""
    if name == b"te" and value == b"trailers":
        return 0  # it says the same of the next hop (RFC 9113 §8.2.2)
    return OURS if name == SPELLING else KINDS.get(name, 0)


def without(block: bytes, name: bytes) -> bytes:
    """Return `block` without the lines called `name`."""
    return _finder(name).sub(b"", b"\n" + block)[1:]


def _finder(name: bytes) -> re.Pattern[bytes]:
    """Return the pattern of the lines called `name`, each behind the end of another.

    One literal, the line end, leads to the candidates: 0.5 us for a head of ten fields, against 3.1
    for a pattern anchored at `^` (bench: micro/head).
    """
    pattern = _finders.get(name)
    if pattern is None:
        pattern = re.compile(rb"\n(?i:" + re.escape(name) + rb"):[ \t]*+([^\r]*+)\r")
        if len(_finders) > _PATTERNS:  # filters may take names from anywhere
            _finders.clear()
        _finders[name] = pattern
    return pattern


def _lowered(name: bytes) -> bytes:
    small = name.lower()
    if len(_lower) > _PATTERNS:
        _lower.clear()
    if len(name) <= 64:  # so that no peer fills the memory with names
        _lower[name] = small
    return small


def _order(shape: Shape) -> Order:
    """Return the lines that fields of this shape make, each with the place of its value.

    The places of the fields' own values are theirs, that of the host is -2, that of the coding -1.
    """
    order = _orders.get(shape)
    if order is None:
        order = _respelled(*shape)
        if len(_orders) >= _PATTERNS:
            _orders.clear()
        if len(shape[0]) + sum(map(len, shape[3])) <= 4096:
            _orders[shape] = order
    return order


def _respelled(spelling: bytes, host: bool, coding: bool, names: tuple[bytes, ...]) -> Order:
    """Return the lines of fields called `names`, named as `spelling` has it, as far as both agree.

    What was removed on the way is passed over, what was added keeps its name; Host and the transfer
    coding, which HTTP/2 does not carry, come back where they stood.
    """
    spelled = [(name.lower(), name) for name in spelling.split(b",")]
    ours = {b"host": -2} if host else {}
    if coding:
        ours[b"transfer-encoding"] = -1
    found: list[tuple[bytes, int]] = []
    at = 0
    for place, name in enumerate(names):
        as_it_was = name
        for index in range(at, len(spelled)):
            if spelled[index][0] == name:
                found += [(was, ours.pop(low)) for low, was in spelled[at:index] if low in ours]
                as_it_was = spelled[index][1]
                at = index + 1
                break
        else:  # it was added, behind all that came
            while at < len(spelled) and spelled[at][0] in ours:
                found.append((spelled[at][1], ours.pop(spelled[at][0])))
                at += 1
        found.append((as_it_was, place))
    found += [(was, ours.pop(low)) for low, was in spelled[at:] if low in ours]
    if b"host" in ours:
        found.insert(0, (b"Host", -2))
    if b"transfer-encoding" in ours:
        found.append((b"Transfer-Encoding", -1))
    return found
