"""What an HTTP/2 field list says as a message (RFC 9113 §8), and a message as a field list."""

import re
from collections.abc import Iterable
from typing import Final, final

from sidecar.errors import DownstreamError
from sidecar.wire.fields import (
    REQUEST_NAMES,
    RESPONSE_NAMES,
    SPELLING,
    Field,
    Fields,
    RequestHead,
    ResponseHead,
    parse_length,
)
from sidecar.wire.hpack import Remembered

PLAIN, FOUND, TAKEN, FORBIDDEN, LOOKALIKE, TE, PSEUDO = range(7)
# PLAIN: forwarded unseen.  FOUND: forwarded and looked at.  TAKEN: looked at, not forwarded as it
# stands.  FORBIDDEN: makes the message malformed (§8.2.2).  LOOKALIKE: dropped.  PSEUDO: before all others.

_FORBIDDEN: Final = (
    b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade",
)  # fmt: skip
_LOOKALIKE: Final = re.compile(
    rb"x[-_](?:forwarded|sidecar)[-_].++|x[-_]request[-_]id|content[-_]length|transfer[-_]encoding"
)
_KINDS_KEPT: Final = 2000  # names remembered; a peer may make up any number
_REQUEST_PSEUDO: Final = frozenset({b":method", b":scheme", b":path", b":authority", b":protocol"})
_METHOD: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++")
# No blank and no `#`: RFC 3986 has neither, and both have split requests behind proxies.
_PATH: Final = re.compile(rb'/[!"$-~]*+')
_AUTHORITY: Final = re.compile(
    rb"(?:[A-Za-z0-9._~!$&'()*+,;=%\-]++|\[[0-9A-Fa-f:.]++\])(?::[0-9]{0,5})?+"
)
_STATUS: Final = re.compile(rb"[1-9][0-9]{2}")
STATUS_FIELDS: Final = {status: (b":status", b"%d" % status) for status in range(100, 1000)}
_STATUSES: Final = {octets: status for status, (_, octets) in STATUS_FIELDS.items()}
_TRAILERS: Final = object()  # what marks them among what is made of a block
_COMMON: Final = frozenset({b"GET", b"POST", b"PUT", b"DELETE", b"HEAD", b"OPTIONS", b"PATCH"})
_HTTP: Final = (b":scheme", b"http")
_HTTPS: Final = (b":scheme", b"https")


def _malformed(detail: str) -> DownstreamError:
    return DownstreamError("bad-field", detail)


@final
class FieldReader:
    """Reads field lists as heads; made once per plan, it remembers what callers write every time."""

    __slots__ = ("_authorities", "_requests", "_responses")

    def __init__(self) -> None:
        self._requests: Final = _kinds(REQUEST_NAMES)
        self._requests[b"host"] = TAKEN
        self._requests[b"te"] = TE
        self._requests.update(dict.fromkeys(_REQUEST_PSEUDO, PSEUDO))
        self._responses: Final = _kinds(RESPONSE_NAMES)
        self._responses[b"te"] = PLAIN
        self._responses[b":status"] = PSEUDO
        self._authorities: Final[dict[bytes, bytes]] = {}

    def request(self, fields: list[Field], *, end: bool) -> RequestHead:
        """Return the head that `fields` make; `end`: no body follows.

        An extended CONNECT for WebSocket (RFC 8441) is returned as the GET with `upgrade` that it
        would be in HTTP/1.1.

        Raises:
            DownstreamError: malformed (§8.1.1, §8.3.1), or a CONNECT, which is not served.
        """
        if type(fields) is Remembered:
            made = fields.made
            if made is not None and made[0] is self and made[1] == end:
                known: RequestHead = made[2]
                return known.copy()
            head = self._request(list(fields), end=end)
            head.pairs = tuple(head.pairs or ())
            fields.made = self, end, head.copy()
            return head
        return self._request(fields, end=end)

    def _request(self, fields: list[Field], *, end: bool) -> RequestHead:
        found: dict[bytes, bytes] = {}
        pairs: list[Field] = []
        pseudo = _sort(self._requests, fields, found, pairs)
        method = pseudo.get(b":method", b"")
        target = pseudo.get(b":path", b"")
        if (
            len(pseudo) != 4
            or b":scheme" not in pseudo
            or b":authority" not in pseudo
            or method not in _COMMON
            or _PATH.fullmatch(target) is None
        ):
            method, target = _settle_pseudo(pseudo, method, target)
        head = RequestHead(method, target, 20, b"", found, pairs)
        if b":protocol" in pseudo:
            head.method = b"GET"
            head.upgrade = pseudo[b":protocol"]
        authority = pseudo.get(b":authority")
        host = found.pop(b"host", None)
        if authority is None:
            if host is None:
                raise DownstreamError("bad-host", "neither :authority nor host")
            authority = host
        lower = self._authorities.get(authority)
        head.authority = lower if lower is not None else self._authority(authority)
        if host is not None and host.lower() != head.authority:
            raise DownstreamError("bad-host", ":authority names one host and host another")
        if SPELLING in found:
            head.spelling = found.pop(SPELLING)
        length = found.get(b"content-length")
        if length is None:
            head.length = 0 if end else None
        else:
            head.length = parse_length(length)
            if head.upgrade is not None and head.length:
                raise DownstreamError("bad-framing", "a tunnel with content-length")
            if end and head.length:
                raise DownstreamError("bad-framing", f"content-length {head.length} without DATA")
        expect = found.get(b"expect")
        if expect is not None:
            if expect.lower() != b"100-continue":
                raise DownstreamError("bad-expectation", f"expected 100-continue, got {expect!r}")
            head.expect = not end
        return head

    def response(self, fields: list[Field], method: bytes) -> ResponseHead:
        """Return the head of the response to a `method` request that `fields` make.

        Raises:
            DownstreamError: malformed (§8.3.2), or 101, which HTTP/2 does not have (§8.6).
        """
        if type(fields) is Remembered:
            made = fields.made
            if made is not None and made[0] is self and made[1] == method:
                known: ResponseHead = made[2]
                return known.copy()
            head = self._response(list(fields), method)
            head.pairs = tuple(head.pairs or ())
            fields.made = self, method, head.copy()
            return head
        return self._response(fields, method)

    def _response(self, fields: list[Field], method: bytes) -> ResponseHead:
        found: dict[bytes, bytes] = {}
        pairs: list[Field] = []
        pseudo = _sort(self._responses, fields, found, pairs)
        status = _STATUSES.get(pseudo.get(b":status", b""))
        if status is None:
            raise _malformed("expected one :status first")
        if status == 101:
            raise _malformed("status 101 in HTTP/2")
        head = ResponseHead(status, b"", 20, b"", found, pairs)
        length = found.get(b"content-length")
        if length is not None:
            head.length = parse_length(length)
        if method == b"HEAD" or status == 304 or status == 204:
            head.length = 0
        if SPELLING in found:
            head.spelling = found.pop(SPELLING)
        return head

    def trailers(self, fields: list[Field]) -> Fields:
        """Return trailers.

        Raises:
            DownstreamError: a pseudo-field, or one that belongs to the connection.
        """
        if type(fields) is Remembered and fields.made is not None and fields.made[0] is _TRAILERS:
            known: Fields = fields.made[1]
            return Fields(b"", known.found.copy(), known.pairs)
        found: dict[bytes, bytes] = {}
        pairs: list[Field] = []
        if _sort(self._responses, fields, found, pairs):
            raise _malformed("a pseudo-field in trailers")
        if type(fields) is Remembered:
            fields.made = _TRAILERS, Fields(b"", found.copy(), tuple(pairs))
        return Fields(b"", found, pairs)

    def _authority(self, authority: bytes) -> bytes:
        """Return `authority` in lower case, and remember that it is well-formed."""
        if _AUTHORITY.fullmatch(authority) is None:
            raise DownstreamError("bad-host", f"expected one host, got {authority[:80]!r}")
        if len(self._authorities) >= _KINDS_KEPT:
            self._authorities.clear()
        lower = self._authorities[authority] = authority.lower()
        return lower


def _sort(
    kinds: "_Kinds", fields: list[Field], found: dict[bytes, bytes], pairs: list[Field]
) -> dict[bytes, bytes]:
    """Divide `fields` into pseudo-fields, which are returned, what is looked at and what goes on.

    Raises:
        DownstreamError: a field that none may have, or a pseudo-field twice or behind others.
    """
    pseudo: dict[bytes, bytes] = {}
    append = pairs.append
    for field in fields:
        name, value = field
        kind = kinds[name]
        if kind == PLAIN:
            append(field)
            continue
        if kind == PSEUDO:
            if name in pseudo or fields[len(pseudo)] is not field:
                raise _malformed(f"{name[:20]!r} twice, or behind other fields")
            pseudo[name] = value
            continue
        if kind == FORBIDDEN or (kind == TE and value != b"trailers"):
            raise _malformed(f"{name[:40]!r} in HTTP/2")
        if kind == LOOKALIKE:
            continue
        if kind != TAKEN:
            append(field)
        if name in found:
            value = found[name] + b", " + value
        found[name] = value
    return pseudo


def request_fields(head: RequestHead, *, secure: bool) -> list[Field]:
    """Return the pseudo-fields of a request to be sent; its fields follow them."""
    scheme = _HTTPS if secure else _HTTP
    if head.upgrade is None:
        first = [(b":method", head.method), scheme]
    else:
        first = [(b":method", b"CONNECT"), (b":protocol", head.upgrade.lower()), scheme]
    if head.authority:
        first.append((b":authority", head.authority))
    first.append((b":path", head.target))
    return first


def _settle_pseudo(pseudo: dict[bytes, bytes], method: bytes, target: bytes) -> tuple[bytes, bytes]:
    """Return method and target of a request that is not the usual kind (§8.3.1, RFC 8441 §4)."""
    if _METHOD.fullmatch(method) is None:
        raise _malformed("no :method, or one that is no token")
    if b":protocol" in pseudo:
        if method != b"CONNECT" or pseudo[b":protocol"].lower() != b"websocket":
            raise DownstreamError("connect-refused", "only websocket is tunnelled")
    elif method == b"CONNECT":
        raise DownstreamError("connect-refused", "CONNECT is not served here")
    if b":scheme" not in pseudo:
        raise _malformed("no :scheme")
    if _PATH.fullmatch(target) is None and not (target == b"*" and method == b"OPTIONS"):
        raise DownstreamError("bad-target", f"expected a path, got {target[:40]!r}")
    return method, target


def _kinds(names: Iterable[bytes]) -> "_Kinds":
    kinds = _Kinds(dict.fromkeys(names, FOUND))
    kinds.update(dict.fromkeys(_FORBIDDEN, FORBIDDEN))
    kinds[SPELLING] = TAKEN
    return kinds


@final
class _Kinds(dict[bytes, int]):
    """Kinds by name; those that are met for the first time are found out."""

    __slots__ = ()

    def __missing__(self, name: bytes) -> int:
        if name[:1] == b":":
            raise _malformed(f"pseudo-field {name[:40]!r} is unknown here")
        kind = LOOKALIKE if b"_" in name and _LOOKALIKE.fullmatch(name) is not None else PLAIN
        if len(self) < _KINDS_KEPT and len(name) <= 64:
            self[name] = kind
        return kind
