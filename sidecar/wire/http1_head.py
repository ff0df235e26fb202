"""What a request or response head says: one pattern validates it, a second finds what matters.

Theory of operation.  A whole head is matched at once by a pattern that takes nothing but RFC 9112's
grammar, so strictness costs no Python loop.  `findall` then visits only the fields a proxy must
look at (`KNOWN`) and those that routes and filters ask for.  All other lines stay in `block`, the
slice they came in, and are forwarded with their order and letter case.  Only a head that does not
match is looked at again, to say what is wrong with it.
"""

import re
from collections.abc import Iterable
from typing import Final, final

from sidecar.errors import DownstreamError, SidecarError

MAX_HEAD_SIZE: Final = 61440  # octets; Envoy's 60 KiB
MAX_FIELDS: Final = 100  # Envoy's figure
MAX_LENGTH_DIGITS: Final = 18  # 10**18 octets; more digits would not fit 64 bits in many peers

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"  # tchar, RFC 9110 §5.6.2
_VALUE: Final = rb"[^\x00-\x08\n-\x1f\x7f]"  # field-vchar, SP, HTAB, obs-text: §5.5
_LINES: Final = rb"((?:" + _TOKEN + rb"++:" + _VALUE + rb"*+\r\n)*+)\r\n"
# Possessive quantifiers: no class can match what follows it, so the match is one linear scan.
_REQUEST: Final = re.compile(
    rb"(?:\r\n)?+(" + _TOKEN + rb"++) ([!-~\x80-\xff]++) HTTP/1\.([01])\r\n" + _LINES
)  # one empty line before it is let pass (RFC 9112 §2.2)
_RESPONSE: Final = re.compile(
    rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: (" + _VALUE + rb"*+))?+\r\n" + _LINES
)

KNOWN: Final = (
    b"connection",
    b"content-length",
    b"expect",
    b"grpc-status",
    b"host",
    b"keep-alive",
    b"proxy-connection",
    b"retry-after",
    b"te",
    b"trailer",
    b"traceparent",
    b"transfer-encoding",
    b"upgrade",
    b"user-agent",
    b"x-forwarded-client-cert",
    b"x-forwarded-for",
    b"x-forwarded-proto",
    b"x-request-id",
)
"""Names that the engine itself looks at, in lower case."""

_HOP_BY_HOP: Final = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"te", b"transfer-encoding", b"upgrade"}
)
_PLAIN_LENGTH: Final = re.compile(rb"^(?i:content-length): (?:0|[1-9][0-9]*)\r$", re.MULTILINE)
_PLAIN_CODING: Final = re.compile(rb"^(?i:transfer-encoding): chunked\r$", re.MULTILINE)
# Some servers take `_` for `-`: `x_forwarded_for` would be a field that we should have set.
_LOOKALIKE: Final = re.compile(
    rb"^(?=[A-Za-z-]*_)(?i:x[-_]forwarded[-_][a-z_-]+|x[-_]request[-_]id|x[-_]sidecar[-_][a-z_-]+"
    rb"|content[-_]length|transfer[-_]encoding):[^\n]*+\n",
    re.MULTILINE,
)
_PLAIN_OPTIONS: Final = frozenset({b"keep-alive", b"Keep-Alive", b"close"})
# What nearly every `Connection` line says; these skip the general path (bench: http1).
_PROTECTED: Final = frozenset({b"host", b"content-length", b"authorization", b"cookie", b"close"})
# `Connection: host` must not take end-to-end fields away (the hop-by-hop abuse of 2019).

_DIGITS: Final = b"0123456789"


class Fields:
    """Field lines of a message: `block` as they came, `found` what the interest pattern saw.

    `block` holds whole lines, each with its CRLF.  `found` maps lower-case names to values without
    surrounding white space; a repeated field is joined with `, `.
    """

    __slots__ = ("block", "found")

    def __init__(self, block: bytes, found: dict[bytes, bytes]) -> None:
        self.block = block
        self.found = found

    def get(self, name: bytes) -> bytes | None:
        """Return the value of field `name` (lower case), whether or not it was asked for."""
        value = self.found.get(name)
        if value is None and name not in _KNOWN_SET:
            values = _finder(name).findall(self.block)
            if values:
                value = b", ".join(v.rstrip(b" \t") for v in values)
                self.found[name] = value
        return value

    def pairs(self) -> list[tuple[bytes, bytes]]:
        """Return all lines as (name as it came, value), in order."""
        lines = self.block.split(b"\r\n")
        lines.pop()
        return [(n, v.strip(b" \t")) for n, _, v in (line.partition(b":") for line in lines)]

    def remove(self, name: bytes) -> None:
        """Take every line called `name` (lower case) out."""
        self.block = _line(name).sub(b"", self.block)
        self.found.pop(name, None)

    def add(self, name: bytes, value: bytes) -> None:
        """Append one line; the caller vouches that both are valid octets."""
        old = self.get(name.lower())  # before the block changes
        self.block += name + b": " + value + b"\r\n"
        self.found[name.lower()] = value if old is None else old + b", " + value

    def set(self, name: bytes, value: bytes) -> None:
        """Replace all lines called `name` (lower case) by one."""
        if self.get(name) is not None:
            self.remove(name)
        self.add(name, value)


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
        self, method: bytes, target: bytes, version: int, block: bytes, found: dict[bytes, bytes]
    ) -> None:
        self.method = method
        self.target = target  # origin form, or the asterisk, or CONNECT's authority
        self.version = version  # 10, 11 or 20
        self.block = block
        self.found = found
        self.authority = b""
        self.length: int | None = 0  # None: unknown until the end (chunked)
        self.chunked = False
        self.close = version == 10
        self.upgrade: bytes | None = None
        self.expect = False

    @property
    def path(self) -> bytes:
        """The target without its query."""
        return self.target.partition(b"?")[0]


@final
class ResponseHead(Fields):
    """A response's head."""

    __slots__ = ("chunked", "close", "length", "reason", "status", "upgrade", "version")

    def __init__(
        self, status: int, reason: bytes, version: int, block: bytes, found: dict[bytes, bytes]
    ) -> None:
        self.status = status
        self.reason = reason
        self.version = version
        self.block = block
        self.found = found
        self.length: int | None = None  # None with chunked False: until the connection closes
        self.chunked = False
        self.close = False
        self.upgrade: bytes | None = None


@final
class HeadReader:
    """Reads heads; made once per plan, for the names that its routes and filters ask for."""

    __slots__ = ("_find", "max_fields", "max_size")

    def __init__(
        self,
        names: Iterable[bytes] = (),
        max_size: int = MAX_HEAD_SIZE,
        max_fields: int = MAX_FIELDS,
    ) -> None:
        wanted = b"|".join(re.escape(n) for n in sorted({*KNOWN, *names}))
        self._find: Final = re.compile(
            rb"^(?i:(" + wanted + rb")):[ \t]*+([^\r]*+)", re.MULTILINE
        ).findall
        self.max_size: Final = max_size
        self.max_fields: Final = max_fields

    def request(self, data: bytes, searched: int = 0) -> tuple[RequestHead, int] | None:
        """Return the request head at the start of `data`, and its length; None if not whole.

        `searched` octets are known to hold no end of head (a slowly arriving head costs one pass).

        Raises:
            DownstreamError: malformed, or larger than the limits.
        """
        if searched and data.find(b"\r\n\r\n", max(searched - 3, 0)) < 0:
            self._check_part(data, b"request")  # before the pattern, which begins anew every time
            return None
        match = _REQUEST.match(data)
        if match is None:
            self._explain(data, b"request")
            return None
        method, target, minor, block = match.groups()
        end = match.end()
        self._check_size(end, block)
        head = RequestHead(method, target, 11 if minor == b"1" else 10, block, self._found(block))
        _settle_request(head)
        return head, end

    def response(
        self, data: bytes, method: bytes, searched: int = 0
    ) -> tuple[ResponseHead, int] | None:
        """Return the head of the response to a `method` request, and its length; None if not whole.

        Raises:
            DownstreamError: malformed, or larger than the limits (the caller turns it into an
                UpstreamError: it alone knows what was sent).
        """
        if searched and data.find(b"\r\n\r\n", max(searched - 3, 0)) < 0:
            self._check_part(data, b"response")
            return None
        match = _RESPONSE.match(data)
        if match is None:
            self._explain(data, b"response")
            return None
        minor, status, reason, block = match.groups()
        end = match.end()
        self._check_size(end, block)
        head = ResponseHead(
            int(status), reason or b"", 11 if minor == b"1" else 10, block, self._found(block)
        )
        _settle_response(head, method)
        return head, end

    def _found(self, block: bytes) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        for name, value in self._find(block):
            name = name.lower()
            if value[-1:] in _BLANKS:
                value = value.rstrip(b" \t")
            old = found.get(name)
            found[name] = value if old is None else old + b", " + value
        return found

    def _check_size(self, size: int, block: bytes) -> None:
        if size > self.max_size:
            raise DownstreamError("head-too-large", f"more than {self.max_size} octets")
        if len(block) > 4 * self.max_fields and block.count(b"\n") > self.max_fields:
            # (a line has at least 4 octets, so a short block need not be counted)
            raise DownstreamError("too-many-fields", f"more than {self.max_fields} fields")

    def _explain(self, data: bytes, kind: bytes) -> None:
        """Raise what is wrong with `data`, which does not match; return if it may become a head."""
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self._check_part(data, kind)
            return
        if end + 4 > self.max_size:
            raise DownstreamError("head-too-large", f"more than {self.max_size} octets")
        raise _reason(data[:end], kind)

    def _check_part(self, data: bytes, kind: bytes) -> None:
        """Refuse `data`, which holds no end of a head, where it can become none."""
        if len(data) > self.max_size:
            if kind == b"request" and data.find(b"\r\n") < 0:
                raise DownstreamError("target-too-long", f"no line end in {len(data)} octets")
            raise DownstreamError("head-too-large", f"more than {self.max_size} octets")
        line_end = data.find(b"\r")
        if line_end < 0:
            line_end = len(data)
        if data.find(b"\n", 0, line_end) >= 0 or data.find(b"\x00", 0, line_end) >= 0:
            raise DownstreamError("bad-start-line", f"control octet in {data[:40]!r}")


_BLANKS: Final = (b" ", b"\t")
_KNOWN_SET: Final = frozenset(KNOWN)
_NAME: Final = re.compile(_TOKEN + rb"++")
_FIELD: Final = re.compile(_TOKEN + rb"++:" + _VALUE + rb"*+")
_VERSION: Final = re.compile(rb" HTTP/([0-9]+\.[0-9]+)$")
_REQUEST_LINE: Final = re.compile(_TOKEN + rb"++ [!-~\x80-\xff]++ HTTP/1\.[01]")
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] [1-9][0-9]{2}(?: " + _VALUE + rb"*+)?")
_AUTHORITY: Final = re.compile(
    rb"(?:[A-Za-z0-9._~!$&'()*+,;=%\-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?"
)
_ABSOLUTE: Final = re.compile(rb"(?i:https?)://([^/?#]+)(.*)", re.DOTALL)

_finders: dict[bytes, re.Pattern[bytes]] = {}
_lines: dict[bytes, re.Pattern[bytes]] = {}


def _finder(name: bytes) -> re.Pattern[bytes]:
    """Return the pattern of field `name`'s values; names come from plans, so there are few."""
    pattern = _finders.get(name)
    if pattern is None:
        pattern = re.compile(rb"^(?i:" + re.escape(name) + rb"):[ \t]*+([^\r]*+)", re.MULTILINE)
        _finders[name] = pattern
    return pattern


def _line(name: bytes) -> re.Pattern[bytes]:
    pattern = _lines.get(name)
    if pattern is None:
        pattern = re.compile(rb"^(?i:" + re.escape(name) + rb"):[^\n]*+\n", re.MULTILINE)
        if len(_lines) > 1000:  # `Connection` lets callers choose names: keep them bounded
            _lines.clear()
        _lines[name] = pattern
    return pattern


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


def _settle_request(head: RequestHead) -> None:
    """Fill in what framing, persistence and authority the fields say.

    Raises:
        DownstreamError: contradictory or forbidden framing, Host or target.
    """
    found = head.found
    host = found.get(b"host")
    if host is None:
        if head.version == 11:
            raise DownstreamError("bad-host", "an HTTP/1.1 request without Host")
        host = b""
    elif _AUTHORITY.fullmatch(host) is None:
        # Two Host lines were joined with a comma and a blank, which the pattern refuses as well.
        raise DownstreamError("bad-host", f"expected one host, got {host[:80]!r}")
    head.authority = host.lower()
    if head.target[:1] != b"/":
        _settle_target(head)
    length = found.get(b"content-length")
    if length is not None:
        head.length = parse_length(length)
    coding = found.get(b"transfer-encoding")
    if coding is not None:
        if length is not None:
            raise DownstreamError("bad-framing", "both Content-Length and Transfer-Encoding")
        if head.version == 10:
            raise DownstreamError("bad-framing", "Transfer-Encoding in an HTTP/1.0 request")
        if coding.lower() != b"chunked":
            raise DownstreamError("bad-transfer-coding", f"expected chunked, got {coding[:40]!r}")
        head.chunked = True
        head.length = None
    _remake_framing(head, length, coding)
    if b"_" in head.block:
        head.block = _LOOKALIKE.sub(b"", head.block)
    expect = found.get(b"expect")
    if expect is not None:
        if expect.lower() != b"100-continue":
            raise DownstreamError("bad-expectation", f"expected 100-continue, got {expect[:40]!r}")
        head.expect = head.length != 0 and head.version == 11
    if b"connection" in found or not _HOP_BY_HOP.isdisjoint(found):
        head.close, head.upgrade = _settle_connection(head, head.version)
    if head.method == b"CONNECT":
        raise DownstreamError("connect-refused", "CONNECT is not served here")


def _remake_framing(head: Fields, length: bytes | None, coding: bytes | None) -> None:
    """Write the framing line anew unless it is what we would write.

    A peer may read `Transfer-Encoding:CHUNKED` or `Content-Length: 007` otherwise than we do.
    """
    if length is not None and _PLAIN_LENGTH.search(head.block) is None:
        head.remove(b"content-length")
        head.add(b"Content-Length", b"%d" % int(length))
    elif coding is not None and _PLAIN_CODING.search(head.block) is None:
        head.remove(b"transfer-encoding")
        head.add(b"Transfer-Encoding", b"chunked")


def _settle_target(head: RequestHead) -> None:
    """Turn absolute form into origin form (RFC 9112 §3.2.2); take `*` only for OPTIONS."""
    target = head.target
    if head.method == b"CONNECT" or (target == b"*" and head.method == b"OPTIONS"):
        return
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        raise DownstreamError("bad-target", f"expected a path, got {target[:40]!r}")
    authority = match[1].lower()
    if _AUTHORITY.fullmatch(authority) is None:
        raise DownstreamError("bad-target", f"bad authority in {target[:80]!r}")
    # The target wins by the RFC, but peers that read Host would be sent elsewhere: refuse.
    if b"host" in head.found and head.authority != authority:
        raise DownstreamError("bad-host", "the target names one host and Host another")
    head.authority = authority
    rest = match[2]
    head.target = rest if rest[:1] == b"/" else b"/" + rest


def _settle_connection(head: Fields, version: int) -> tuple[bool, bytes | None]:
    """Take hop-by-hop lines out of `head`; return (close after this message, upgrade asked for)."""
    found = head.found
    connection = found.get(b"connection")
    if connection in _PLAIN_OPTIONS and len(_HOP_BY_HOP & found.keys()) == 1:
        head.block = _line(b"connection").sub(b"", head.block, 1)
        return connection == b"close", None
    options = [
        o.strip(b" \t").lower()
        for o in found.get(b"connection", b"").split(b",")
        if o.strip(b" \t")
    ]
    close = b"close" in options or (version == 10 and b"keep-alive" not in options)
    upgrade = found.get(b"upgrade") if b"upgrade" in options else None
    if upgrade is not None and upgrade.lower() != b"websocket":
        upgrade = None  # h2c would be a tunnel past routes and policy
    trailers = b"trailers" in found.get(b"te", b"").lower()
    for name in _HOP_BY_HOP:
        if name in found and name != b"transfer-encoding":
            head.block = _line(name).sub(b"", head.block)
    for name in options[:20]:
        # What is no token could match beyond a field's name: `host:a` the line `Host:a:80`.
        if name not in _HOP_BY_HOP and name not in _PROTECTED and _NAME.fullmatch(name) is not None:
            head.block = _line(name).sub(b"", head.block)
            found.pop(name, None)
    if trailers:  # gRPC servers insist on it; it says the same for our own hop
        head.block += b"TE: trailers\r\n"
    return close, upgrade


def _settle_response(head: ResponseHead, method: bytes) -> None:
    """Fill in framing and persistence (RFC 9112 §6.3).

    Raises:
        DownstreamError: contradictory framing.
    """
    found = head.found
    head.close = head.version == 10
    if not _HOP_BY_HOP.isdisjoint(found):
        head.close, head.upgrade = _settle_connection(head, head.version)
    status = head.status
    length = found.get(b"content-length")
    size = None if length is None else parse_length(length)
    coding = found.get(b"transfer-encoding")
    if coding is not None:
        if length is not None:
            raise DownstreamError("bad-framing", "both Content-Length and Transfer-Encoding")
        if head.version == 10 or coding.lower() != b"chunked":
            raise DownstreamError("bad-transfer-coding", f"expected chunked, got {coding[:40]!r}")
    _remake_framing(head, length, coding)
    if method == b"HEAD" or status == 304 or status == 204 or status < 200:
        head.length = 0
        if status == 204 or status < 200:
            for name in (b"content-length", b"transfer-encoding"):
                if name in found:  # must not be there (RFC 9110 §8.6, RFC 9112 §6.1)
                    head.remove(name)
    elif coding is not None:
        head.chunked = True
    else:
        head.length = size


def _reason(data: bytes, kind: bytes) -> SidecarError:
    """Say what is wrong with a head that did not match."""
    if data[:2] == b"\r\n":
        data = data[2:]
    start, *lines = data.split(b"\r\n")
    pattern = _REQUEST_LINE if kind == b"request" else _STATUS_LINE
    if pattern.fullmatch(start) is None:
        version = _VERSION.search(start)
        if kind == b"request" and version is not None and version[1] not in (b"1.0", b"1.1"):
            return DownstreamError("bad-version", f"expected HTTP/1.x, got {version[0][:20]!r}")
        return DownstreamError("bad-start-line", f"malformed {kind.decode()} line {start[:60]!r}")
    for line in lines:
        if _FIELD.fullmatch(line) is None:
            return DownstreamError("bad-field", f"malformed field line {line[:60]!r}")
    return DownstreamError("bad-field", "malformed head")
