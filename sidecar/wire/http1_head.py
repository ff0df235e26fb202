"""What a request or response head says: a line that came before is known, any other is looked at.

Theory of operation.  A head is cut into its lines.  What most of them say is remembered from a head
before (`http1_lines`), so strictness costs little: only what is new is held against RFC 9112's grammar.
All lines stay in `block`, the slice they came in, and are forwarded with their order and letter
case.  Only a head that is refused is looked at again, to say what is wrong with it.
"""

import re
from typing import Final, final

from sidecar.errors import DownstreamError, SidecarError
from sidecar.wire.fields import (
    CODING,
    CONNECTION,
    EXPECT,
    HOP,
    HOP_BY_HOP,
    LENGTH,
    LOOKALIKE,
    REQUEST_NAMES,
    RESPONSE_NAMES,
    Fields,
    Part,
    RequestHead,
    ResponseHead,
    parse_length,
    without,
)
from sidecar.wire.http1_lines import LOOKALIKES, TOKEN, VALUE, Lines

MAX_HEAD_SIZE: Final = 61440  # octets; Envoy's 60 KiB
MAX_FIELDS: Final = 100  # Envoy's figure
MAX_OPTIONS: Final = 20  # of `Connection`; each costs a look through the head, and real ones say 2

# VCHAR but `#`: a URI has no other octets, and a target no fragment (RFC 3986 §2, RFC 9112 §3.2).
# nginx takes both; Envoy and HAProxy refuse them, and so do we: where one peer cuts at `#`, or decodes
# octets above 0x7f, and another does not, a policy by path is walked around (CVE-2021-32779).
_TARGET: Final = rb'[!"$-~]'
_REQUEST_LINE: Final = re.compile(rb"(" + TOKEN + rb"++) (" + _TARGET + rb"++) HTTP/1\.([01])")
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: (" + VALUE + rb"*+))?+")

_PLAIN_LENGTH: Final = re.compile(rb"^(?i:content-length): (?:0|[1-9][0-9]*)\r$", re.MULTILINE)
_PLAIN_CODING: Final = re.compile(rb"^(?i:transfer-encoding): chunked\r$", re.MULTILINE)
_PLAIN_OPTIONS: Final = frozenset({b"keep-alive", b"Keep-Alive", b"close"})
# What nearly every `Connection` line says; these skip the general path (bench: http1).
_PROTECTED: Final = frozenset({b"host", b"content-length", b"authorization", b"cookie", b"close"})
# `Connection: host` must not take end-to-end fields away (the hop-by-hop abuse of 2019).


_MAX_REMEMBERED: Final = 1000  # hosts, and status lines; a peer may make up any number
_LONG: Final = 256  # octets; longer ones are looked at every time


@final
class HeadReader:
    """Reads heads within limits; made once per plan, it remembers what callers write every time."""

    __slots__ = (
        "_authorities", "_most", "_requests", "_responses", "_statuses", "max_fields", "max_size",
    )  # fmt: skip

    def __init__(self, max_size: int = MAX_HEAD_SIZE, max_fields: int = MAX_FIELDS) -> None:
        self.max_size: Final = max_size
        self.max_fields: Final = max_fields
        self._most: Final = max_fields + 1  # lines; cut no further, however many there are
        self._requests: Final = Lines(REQUEST_NAMES, is_request=True)
        self._responses: Final = Lines(RESPONSE_NAMES, is_request=False)
        self._statuses: Final[dict[bytes, tuple[int, int, bytes]]] = {}
        self._authorities: Final[dict[bytes, bytes]] = {}

    def request(self, data: bytes, searched: int = 0) -> tuple[RequestHead, int] | None:
        """Return the request head at the start of `data`, and its length; None if not whole.

        `searched` octets are known to hold no end of head (a slowly arriving head costs one pass).

        Raises:
            DownstreamError: malformed, or larger than the limits.
        """
        end = data.find(b"\r\n\r\n", searched - 3 if searched > 3 else 0)
        if end < 0:
            self._check_part(data, b"request")
            return None
        if end + 4 > self.max_size:
            raise self._too_large(data, b"request")
        begin = 2 if data[:2] == b"\r\n" else 0  # one empty line before it (RFC 9112 §2.2)
        lines = data[begin:end].split(b"\r\n", self._most)
        start = lines[0]
        match = _REQUEST_LINE.fullmatch(start)
        if match is None or len(lines) > self._most:
            raise self._refusal(match, start, b"request")
        method, target, minor = match.groups()
        del lines[0]
        known = self._requests
        parts = [known[line] for line in lines]
        block = data[begin + len(start) + 2 : end + 2]
        found: dict[bytes, bytes] = {}
        flags = _look(parts, found)
        head = RequestHead(method, target, 11 if minor == b"1" else 10, block, found, None, parts)
        host = found.get(b"host", b"")
        authority = self._authorities.get(host)
        head.authority = self._authority(head, host) if authority is None else authority
        if target[:1] != b"/" or method == b"CONNECT":
            _settle_target(head)
        if flags & _SETTLED:
            _settle_request(head, flags)
        return head, end + 4

    def response(
        self, data: bytes, method: bytes, searched: int = 0
    ) -> tuple[ResponseHead, int] | None:
        """Return the head of the response to a `method` request, and its length; None if not whole.

        Raises:
            DownstreamError: malformed, or larger than the limits (the caller turns it into an
                UpstreamError: it alone knows what was sent).
        """
        end = data.find(b"\r\n\r\n", searched - 3 if searched > 3 else 0)
        if end < 0:
            self._check_part(data, b"response")
            return None
        if end + 4 > self.max_size:
            raise self._too_large(data, b"response")
        lines = data[:end].split(b"\r\n", self._most)
        start = lines[0]
        status = self._statuses.get(start) or self._status(start)
        if status is None or len(lines) > self._most:
            raise self._refusal(status, start, b"response")
        del lines[0]
        known = self._responses
        parts = [known[line] for line in lines]
        block = data[len(start) + 2 : end + 2]
        found: dict[bytes, bytes] = {}
        flags = _look(parts, found)
        head = ResponseHead(status[1], status[2], status[0], block, found, None, parts)
        _settle_response(head, method, flags)
        return head, end + 4

    def _status(self, start: bytes) -> tuple[int, int, bytes] | None:
        """Return version, status and reason of a status line, and remember them; None if it is none."""
        match = _STATUS_LINE.fullmatch(start)
        if match is None:
            return None
        if len(self._statuses) >= _MAX_REMEMBERED:
            self._statuses.clear()
        known = 11 if match[1] == b"1" else 10, int(match[2]), match[3] or b""
        if len(start) <= _LONG:
            self._statuses[start] = known
        return known

    def _authority(self, head: RequestHead, host: bytes) -> bytes:
        """Return `host` in lower case, and remember that it is well-formed.

        Raises:
            DownstreamError: none where there must be one, or no single host.
        """
        if not host and b"host" not in head.found and head.version == 11:
            raise DownstreamError("bad-host", "an HTTP/1.1 request without Host")
        if _AUTHORITY.fullmatch(host) is None:
            # Two Host lines were joined with a comma and a blank, which the pattern refuses as well.
            raise DownstreamError("bad-host", f"expected one host, got {host[:80]!r}")
        lower = host.lower()
        if host and len(host) <= _LONG:  # nothing at all is for HTTP/1.0 alone
            if len(self._authorities) >= _MAX_REMEMBERED:
                self._authorities.clear()
            self._authorities[host] = lower
        return lower

    def _too_large(self, data: bytes, kind: bytes) -> SidecarError:
        """Return what is too large: it depends on nothing but the first `max_size` octets."""
        if kind == b"request" and data.find(b"\r\n", 1, self.max_size) < 0:
            # (from 1: an empty line may come before the request line)
            return DownstreamError("target-too-long", f"no line end in {self.max_size} octets")
        return DownstreamError("head-too-large", f"more than {self.max_size} octets")

    def _refusal(self, read: object, start: bytes, kind: bytes) -> SidecarError:
        """Return what is wrong with a head whose first line, as it was `read`, or number of fields is."""
        if read is None:
            return _reason(start, kind)
        return DownstreamError("too-many-fields", f"more than {self.max_fields} fields")

    def _check_part(self, data: bytes, kind: bytes) -> None:
        """Refuse `data`, which holds no end of a head, where it can become none."""
        if len(data) > self.max_size:
            raise self._too_large(data, kind)
        line_end = data.find(b"\r")
        if line_end < 0:
            line_end = len(data)
        if data.find(b"\n", 0, line_end) >= 0 or data.find(b"\x00", 0, line_end) >= 0:
            raise DownstreamError("bad-start-line", f"control octet in {data[:40]!r}")


_NAME: Final = re.compile(TOKEN + rb"++")
_VERSION: Final = re.compile(rb" HTTP/([0-9]+\.[0-9]+)$")
_LOOSE_LINE: Final = re.compile(TOKEN + rb"++ [!-~\x80-\xff]++ HTTP/1\.[01]")
_AUTHORITY: Final = re.compile(
    rb"(?:[A-Za-z0-9._~!$&'()*+,;=%\-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?"
)
_ABSOLUTE: Final = re.compile(rb"(?i:https?)://([^/?#]+)(.*)", re.DOTALL)


_SETTLED: Final = LENGTH | CODING | CONNECTION | HOP | EXPECT | LOOKALIKE


def _look(parts: list[Part], found: dict[bytes, bytes]) -> int:
    """Fill `found` with the fields that the engine looks at; return the kinds of them all."""
    flags = 0
    for kind, field, _ in parts:
        if kind:
            flags |= kind
            name, value = field
            if name in found:
                value = found[name] + b", " + value
            found[name] = value
    return flags


def _settle_request(head: RequestHead, flags: int) -> None:
    """Fill in what framing and persistence the fields say; `flags` are the kinds of all of them.

    Raises:
        DownstreamError: contradictory or forbidden framing.
    """
    found = head.found
    if flags & LOOKALIKE:
        _drop_lookalikes(head)
    length = coding = None
    if flags & LENGTH:
        length = found[b"content-length"]
        head.length = parse_length(length)
    if flags & CODING:
        coding = found[b"transfer-encoding"]
        if length is not None:
            raise DownstreamError("bad-framing", "both Content-Length and Transfer-Encoding")
        if head.version == 10:
            raise DownstreamError("bad-framing", "Transfer-Encoding in an HTTP/1.0 request")
        if coding.lower() != b"chunked":
            raise DownstreamError("bad-transfer-coding", f"expected chunked, got {coding[:40]!r}")
        head.chunked = True
        head.length = None
    if flags & (LENGTH | CODING):
        _remake_framing(head, length, coding)
    if flags & (CONNECTION | HOP | CODING):
        head.close, head.upgrade = _settle_connection(head, flags)
        if head.length != 0:
            head.upgrade = None  # behind a body nobody could tell the tunnel from the rest of it
    expect = found.get(b"expect")  # behind `Connection`, which may have taken it away
    if expect is not None:
        if expect.lower() != b"100-continue":
            raise DownstreamError("bad-expectation", f"expected 100-continue, got {expect[:40]!r}")
        head.expect = head.length != 0 and head.version == 11


def _drop_lookalikes(head: Fields) -> None:
    """Take fields out that some servers would take for ours (`_` for `-`)."""
    for name in [n for n in head.found if b"_" in n and LOOKALIKES.fullmatch(n) is not None]:
        head.remove(name)


def _remake_framing(head: Fields, length: bytes | None, coding: bytes | None) -> None:
    """Write the framing line anew unless it is what we would write.

    A peer may read `Transfer-Encoding:CHUNKED` or `Content-Length: 007` otherwise than we do.
    """
    block = head.block
    if length is not None:
        # The usual spelling first: `in` costs a tenth of the pattern (bench: micro/head).
        line = b"ontent-Length: " + length + b"\r\n"
        if (b"\nC" + line not in block or length[:1] == b"0") and (
            _PLAIN_LENGTH.search(block) is None
        ):
            head.remove(b"content-length")
            head.add(b"Content-Length", b"%d" % int(length))
    elif (
        coding is not None
        and b"\nTransfer-Encoding: chunked\r\n" not in block
        and _PLAIN_CODING.search(block) is None
    ):
        head.remove(b"transfer-encoding")
        head.add(b"Transfer-Encoding", b"chunked")


def _settle_target(head: RequestHead) -> None:
    """Turn absolute form into origin form (RFC 9112 §3.2.2); take `*` only for OPTIONS.

    A caller of HTTP/1.0 may name its host in the target alone: then it gets a Host field.
    """
    target = head.target
    if head.method == b"CONNECT":
        raise DownstreamError("connect-refused", "CONNECT is not served here")
    if target == b"*" and head.method == b"OPTIONS":
        return
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        raise DownstreamError("bad-target", f"expected a path, got {target[:40]!r}")
    authority = match[1].lower()
    if _AUTHORITY.fullmatch(authority) is None:
        raise DownstreamError("bad-target", f"bad authority in {target[:80]!r}")
    if b"host" not in head.found:
        head.add(b"Host", match[1])
    elif head.authority != authority:
        # The target wins by the RFC, but peers that read Host would be sent elsewhere: refuse.
        raise DownstreamError("bad-host", "the target names one host and Host another")
    head.authority = authority
    rest = match[2]
    if not rest and head.method == b"OPTIONS":
        head.target = b"*"  # it asks about the server, not about `/` (RFC 9112 §3.2.4)
    else:
        head.target = rest if rest[:1] == b"/" else b"/" + rest


def _settle_connection(head: RequestHead | ResponseHead, flags: int) -> tuple[bool, bytes | None]:
    """Take hop-by-hop lines out of `head`; return (close after this message, upgrade asked for)."""
    found = head.found
    version = head.version
    connection = found.get(b"connection")
    if connection in _PLAIN_OPTIONS and not flags & (HOP | CODING):
        block = head.block
        # As nearly every server writes it; `replace` costs a fifth of the pattern.
        head.block = block.replace(b"\r\nConnection: keep-alive\r\n", b"\r\n", 1)
        if head.block is block or len(head.block) == len(block):
            head.block = without(block, b"connection")
        head.whole = head.block  # of `parts`, what ends here does not count
        return connection == b"close", None
    options = [
        o.strip(b" \t").lower()
        for o in found.get(b"connection", b"").split(b",")
        if o.strip(b" \t")
    ]
    if len(options) > MAX_OPTIONS:
        # Those beyond would be passed on, though the caller says that they end here.
        raise DownstreamError("bad-field", f"more than {MAX_OPTIONS} connection options")
    close = b"close" in options or (version == 10 and b"keep-alive" not in options)
    # HTTP/1.0 knows no upgrade: ignored there (RFC 9110 §7.8).
    upgrade = found.get(b"upgrade") if b"upgrade" in options and version == 11 else None
    if upgrade is not None and upgrade.lower() != b"websocket":
        upgrade = None  # h2c would be a tunnel past routes and policy
    trailers = b"trailers" in found.get(b"te", b"").lower()
    for name in HOP_BY_HOP:
        if name in found and name != b"transfer-encoding":
            head.block = without(head.block, name)
    for name in options:
        # What is no token could match beyond a field's name: `host:a` the line `Host:a:80`.
        if name not in HOP_BY_HOP and name not in _PROTECTED and _NAME.fullmatch(name) is not None:
            head.block = without(head.block, name)
            found.pop(name, None)
    if trailers:  # gRPC servers insist on it; it says the same for our own hop
        head.block += b"TE: trailers\r\n"
    return close, upgrade


def _settle_response(head: ResponseHead, method: bytes, flags: int) -> None:
    """Fill in framing and persistence (RFC 9112 §6.3); `flags` are the kinds of all fields.

    Raises:
        DownstreamError: contradictory framing.
    """
    found = head.found
    head.close = head.version == 10
    if flags & (CONNECTION | HOP | CODING):
        head.close, head.upgrade = _settle_connection(head, flags)
    status = head.status
    length = coding = None
    if flags & LENGTH:
        length = found[b"content-length"]
        head.length = parse_length(length)
    if flags & CODING:
        coding = found[b"transfer-encoding"]
        if length is not None:
            raise DownstreamError("bad-framing", "both Content-Length and Transfer-Encoding")
        if head.version == 10 or coding.lower() != b"chunked":
            raise DownstreamError("bad-transfer-coding", f"expected chunked, got {coding[:40]!r}")
        head.chunked = True
    if flags & (LENGTH | CODING):
        _remake_framing(head, length, coding)
    if method == b"HEAD" or status == 304 or status == 204 or status < 200:
        head.length = 0
        head.chunked = False
        if status == 204 or status < 200:
            for name in (b"content-length", b"transfer-encoding"):
                if name in found:  # must not be there (RFC 9110 §8.6, RFC 9112 §6.1)
                    head.remove(name)


def _reason(start: bytes, kind: bytes) -> SidecarError:
    """Say what is wrong with a first line that is none."""
    version = _VERSION.search(start)
    if kind == b"request" and version is not None and version[1] not in (b"1.0", b"1.1"):
        return DownstreamError("bad-version", f"expected HTTP/1.x, got {version[0][:20]!r}")
    if kind == b"request" and _LOOSE_LINE.fullmatch(start) is not None:
        return DownstreamError("bad-target", f"expected ASCII without #, got {start[:60]!r}")
    return DownstreamError("bad-start-line", f"malformed {kind.decode()} line {start[:60]!r}")
