"""Where an HTTP/1 body ends, and what octets are in it (RFC 9112 §6 and §7).

Three readers with one interface: `feed` returns the body octets found; after `done`, `rest` is what
came behind the body and `trailers` the raw trailer lines, each with its CRLF.  Nothing is to be fed
to a reader that is done or has raised.
"""

import re
from typing import Final, final

from sidecar.errors import DownstreamError
from sidecar.wire.fields import Fields

MAX_CHUNK_DIGITS: Final = 16  # 64 bits
MAX_CHUNK_LINE: Final = 256  # octets of a chunk-size line; extensions are never needed
MAX_EXTENSIONS: Final = 16384  # octets of lines with extensions in one body: more is amplification
MAX_TRAILERS: Final = 8192  # octets
MAX_TRAILER_FIELDS: Final = 100  # as many as a head may have

LAST_CHUNK: Final = b"0\r\n\r\n"

FORBIDDEN_TRAILERS: Final = frozenset(
    # Where the message ends, and what the connection does next: smuggling.
    b"connection keep-alive te trailer transfer-encoding upgrade http2-settings expect"
    # Where it goes: routing.
    b" host forwarded via max-forwards x-real-ip x-rewrite-url x-http-method x-http-method-override"
    b" x-method-override"
    # Who sends it.
    b" authorization www-authenticate cookie cookie2 set-cookie set-cookie2 origin"
    # On what condition it holds, and how long: decided before the body (RFC 9110 §6.5.1).
    b" range cache-control pragma age date expires location retry-after vary warning"
    # Which trace and request it belongs to: peers believe us in that.
    b" x-request-id traceparent tracestate baggage b3".split()
)
"""Names that may not be trailers, in lower case with hyphens.

A peer that merges trailers into the head would be told what nobody checked.  Why this is no list of
names that may: docs/decisions/0008.
"""

FORBIDDEN_TRAILER_PREFIXES: Final = (
    b"content-",  # framing and format
    b"if-",  # conditions
    b"proxy-",  # authentication and routing
    b"sec-",  # what a browser vouches for
    b"x-b3-",
    b"x-envoy-",  # orders to the proxy
    b"x-forwarded-",  # the caller, as an edge has seen it
    b"x-original-",  # target and method, to some frameworks
    b"x-sidecar-",
)

_HEXDIG: Final = b"0123456789abcdefABCDEF"
_HEX_OCTETS: Final = frozenset(_HEXDIG)
_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})\r\n")  # what senders send: no extension
_EXTENSION: Final = re.compile(rb"[^\x00-\x08\n-\x1f\x7f]*+")
_TRAILER: Final = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]++):[^\x00-\x08\n-\x1f\x7f]*+\r\n"  # RFC 9110 §5.1, §5.5
)

# SIZE: a chunk-size line is awaited.  DATA: the octets of a chunk, then its CRLF.  TRAILERS: lines
# behind the last chunk, then an empty one.
SIZE, DATA, TRAILERS = range(3)


@final
class LengthReader:
    """A body of `remaining` octets."""

    __slots__ = ("done", "remaining", "rest", "trailers")

    def __init__(self, length: int) -> None:
        self.remaining = length
        self.done = length == 0
        self.rest = b""
        self.trailers = b""

    def feed(self, data: bytes) -> bytes:
        """Return the body octets of `data`."""
        left = self.remaining - len(data)
        if left > 0:
            self.remaining = left
            return data
        self.done = True
        if left == 0:
            self.remaining = 0
            return data
        piece = data[: self.remaining]
        self.rest = data[self.remaining :]
        self.remaining = 0
        return piece

    def eof(self) -> None:
        """The stream has ended.

        Raises:
            DownstreamError: `body-cut`, octets are missing.
        """
        if not self.done:
            raise DownstreamError("body-cut", f"{self.remaining} octets are missing")


@final
class CloseReader:
    """A body that ends when the connection does; also a tunnel's octets."""

    __slots__ = ("done", "rest", "trailers")

    def __init__(self) -> None:
        self.done = False
        self.rest = b""
        self.trailers = b""

    def feed(self, data: bytes) -> bytes:
        """Return `data`."""
        return data

    def eof(self) -> None:
        """The stream has ended, and so has the body."""
        self.done = True


@final
class ChunkedReader:
    """A chunked body (RFC 9112 §7.1)."""

    __slots__ = (
        "_extensions",
        "_fields",
        "_held",
        "_left",
        "_line",
        "_max_line",
        "_max_trailers",
        "_section",
        "_state",
        "done",
        "rest",
        "trailers",
    )

    def __init__(self, *, max_trailers: int = MAX_TRAILERS, max_line: int = MAX_CHUNK_LINE) -> None:
        self.done = False
        self.rest = b""
        self.trailers = b""
        self._max_trailers = max_trailers  # octets of all trailer lines with their CRLF
        self._max_line = max_line  # octets of a chunk-size line without its CRLF; 16 or more
        self._state = SIZE
        self._held = b""  # an unfinished chunk-size line, or the CR behind a chunk
        self._left = 0  # octets of the present chunk
        self._extensions = 0
        self._section = bytearray()  # of trailers, so far
        self._line = 0  # where in it the unfinished line begins
        self._fields = 0

    def feed(self, data: bytes) -> bytes:
        """Return the body octets of `data`.

        Raises:
            DownstreamError: bad-chunk, bad-chunk-size, chunk-extensions-too-large, bad-trailer,
                trailers-too-large.
        """
        if self._held:
            data = self._held + data
            self._held = b""
        pieces = []
        at = 0
        size = len(data)
        while at < size:
            if self._state == DATA:
                end = at + self._left
                if end + 2 > size:
                    pieces.append(self._part(data, at, end))
                    break
                if data[end : end + 2] != b"\r\n":
                    raise _unended(data[end : end + 2])
                pieces.append(data[at:end])
                at = end + 2
                self._state = SIZE
            elif self._state == SIZE:
                match = _SIZE_LINE.match(data, at)
                if match is None:
                    at = self._size_line(data, at)
                else:
                    at = match.end()
                    self._left = int(match[1], 16)
                    self._state = DATA if self._left else TRAILERS
            else:
                self._read_trailers(data[at:])
                break
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def eof(self) -> None:
        """The stream has ended.

        Raises:
            DownstreamError: `body-cut`, the last chunk has not come.
        """
        if not self.done:
            raise DownstreamError("body-cut", "the last chunk is missing")

    def _part(self, data: bytes, at: int, end: int) -> bytes:
        """Return what `data` has of a chunk whose CRLF, due at `end`, is not there yet."""
        held = data[end:]
        if held and held != b"\r":
            raise _unended(held)
        self._held = held
        piece = data[at:end]
        self._left -= len(piece)
        return piece

    def _size_line(self, data: bytes, at: int) -> int:
        """Read a chunk-size line that has an extension, is not whole or is bad; return its end."""
        end = data.find(b"\r\n", at, at + self._max_line + 2)
        if end < 0:
            line = data[at : at + self._max_line + 2]
            if len(line) > self._max_line + 1:
                raise DownstreamError("bad-chunk-size", f"no line end in {len(line)} octets")
            # What can become no good line is refused now, so that its sender is not waited for.
            if b"\n" in line or b"\r" in line[:-1] or line[0] not in _HEX_OCTETS:
                raise DownstreamError("bad-chunk-size", f"expected hex digits, got {line[:32]!r}")
            self._held = line
            return len(data)
        line = data[at:end]
        self._left = parse_chunk_size(line)
        self._state = DATA if self._left else TRAILERS
        if _EXTENSION.fullmatch(line) is None:
            raise DownstreamError("bad-chunk-size", f"control octet in {line[:32]!r}")
        self._extensions += len(line)
        if self._extensions > MAX_EXTENSIONS:
            raise DownstreamError(
                "chunk-extensions-too-large", f"more than {MAX_EXTENSIONS} octets in one body"
            )
        return end + 2

    def _read_trailers(self, data: bytes) -> None:
        """Read trailer lines; each octet is looked at once, however they are cut."""
        section = self._section
        searched = len(section)
        section += data
        while end := section.find(b"\n", searched) + 1:
            line = bytes(section[self._line : end])
            if line == b"\r\n":
                self.trailers = bytes(section[: self._line])
                self.rest = bytes(section[end:])
                self.done = True
                return
            if end > self._max_trailers:
                break
            self._check_trailer(line)
            self._line = searched = end
        if end or len(section) > self._max_trailers + 1:  # (room for the empty line's CR)
            raise DownstreamError("trailers-too-large", f"more than {self._max_trailers} octets")

    def _check_trailer(self, line: bytes) -> None:
        match = _TRAILER.fullmatch(line)
        if match is None:
            raise DownstreamError("bad-trailer", f"malformed trailer {line[:40]!r}")
        # To some peers `_` and `-` are the same (hazards of CGI's variables).
        name = match[1].lower().replace(b"_", b"-")
        if not may_be_trailer(name):
            raise DownstreamError("bad-trailer", f"{name[:40]!r} may not be a trailer")
        self._fields += 1
        if self._fields > MAX_TRAILER_FIELDS:
            raise DownstreamError("trailers-too-large", f"more than {MAX_TRAILER_FIELDS} fields")


def may_be_trailer(name: bytes) -> bool:
    """Say whether `name`, in lower case with hyphens, may follow a body."""
    return name not in FORBIDDEN_TRAILERS and not name.startswith(FORBIDDEN_TRAILER_PREFIXES)


def trailer_lines(trailers: Fields | None) -> bytes:
    """Return trailers as lines behind a last chunk, without those that HTTP/1 peers might merge."""
    if trailers is None:
        return b""
    if trailers.pairs is not None:
        trailers.pairs = [p for p in trailers.pairs if may_be_trailer(p[0].replace(b"_", b"-"))]
    return trailers.as_lines()


def parse_chunk_size(line: bytes) -> int:
    """Return the octets that a chunk-size line announces; `line` comes without its CRLF.

    Extensions are dropped, as RFC 9112 §7.1.1 lets a recipient do.

    Raises:
        DownstreamError: the size is not 1 to MAX_CHUNK_DIGITS hex digits.
    """
    digits, semicolon, _ = line.partition(b";")
    if semicolon:
        digits = digits.rstrip(b" \t")  # BWS, to be removed by the recipient (RFC 9110 §5.6.3)
    # Not int() alone: it takes "+5", "0x5" and "5_0", which a stricter peer would read as another
    # message.  That gap is request smuggling (RFC 9112 §11.2).
    if not 0 < len(digits) <= MAX_CHUNK_DIGITS or digits.strip(_HEXDIG):
        raise DownstreamError(
            "bad-chunk-size", f"expected 1 to {MAX_CHUNK_DIGITS} hex digits, got {line[:32]!r}"
        )
    return int(digits, 16)


def encode_chunk(data: bytes) -> bytes:
    """Return `data` as one chunk; nothing for no data, since an empty chunk would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


def encode_last_chunk(trailers: bytes) -> bytes:
    """Return the last chunk with a block of trailer lines."""
    return b"0\r\n" + trailers + b"\r\n"


def _unended(got: bytes) -> DownstreamError:
    return DownstreamError("bad-chunk", f"expected CRLF after a chunk, got {got!r}")
