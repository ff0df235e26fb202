"""Where an HTTP/1 body ends, and what octets are in it (RFC 9112 §6 and §7).

Three readers with one interface: `feed` returns the body octets found; after `done`, `rest` is what
came behind the body and `trailers` the raw trailer lines, each with its CRLF.
"""

import re
from typing import Final, final

from sidecar.errors import DownstreamError

MAX_CHUNK_DIGITS: Final = 16  # 64 bits
MAX_CHUNK_LINE: Final = 256  # octets of a chunk-size line; extensions are never needed
MAX_EXTENSIONS: Final = 16384  # octets of extensions in one body: more is amplification
MAX_TRAILERS: Final = 8192  # octets
MAX_TRAILER_FIELDS: Final = 100

LAST_CHUNK: Final = b"0\r\n\r\n"

_HEXDIG: Final = b"0123456789abcdefABCDEF"
_EXTENSION: Final = re.compile(rb"[^\x00-\x08\n-\x1f\x7f]*+")
_TRAILERS: Final = re.compile(
    rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[^\x00-\x08\n-\x1f\x7f]*+\r\n)*+"
)
# Fields that say where a message ends, who sends it or where it goes: a peer that merges trailers
# into the head would be told something else than we checked (RFC 9110 §6.5.1).
_FORBIDDEN_TRAILER: Final = re.compile(
    rb"^(?i:transfer-encoding|content-[a-z-]+|host|te|trailer|connection|keep-alive|upgrade|expect"
    rb"|range|if-[a-z-]+|cache-control|max-forwards|authorization|www-authenticate|cookie"
    rb"|set-cookie|proxy-[a-z-]+|x-forwarded-[a-z-]+|x-request-id|x-sidecar-[a-z-]+|traceparent"
    rb"|tracestate):",
    re.MULTILINE,
)


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

    __slots__ = ("_extensions", "_held", "_left", "_state", "done", "rest", "trailers")

    def __init__(self) -> None:
        self.done = False
        self.rest = b""
        self.trailers = b""
        self._held = b""  # an unfinished line
        self._left = 0  # octets of the present chunk
        self._state = _SIZE
        self._extensions = 0

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
        while at < size and not self.done:
            if self._state == _DATA:
                piece = data[at : at + self._left]
                pieces.append(piece)
                at += len(piece)
                self._left -= len(piece)
                if not self._left:
                    self._state = _DATA_END
            elif self._state == _DATA_END:
                if size - at < 2:
                    if data[at:] != b"\r":
                        raise DownstreamError("bad-chunk", "expected CRLF after a chunk")
                    break
                if data[at : at + 2] != b"\r\n":
                    raise DownstreamError("bad-chunk", f"expected CRLF, got {data[at:at + 2]!r}")
                at += 2
                self._state = _SIZE
            elif self._state == _SIZE:
                end = data.find(b"\r\n", at, at + MAX_CHUNK_LINE + 2)
                if end < 0:
                    self._check_line(data[at:])
                    break
                self._size_line(data[at:end])
                at = end + 2
            else:
                end = self._trailer_end(data, at)
                if end < 0:
                    break
                self._read_trailers(data[at : end - 2])
                at = end
        if self.done:
            self.rest = data[at:]
        else:
            self._held = data[at:]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def eof(self) -> None:
        """The stream has ended.

        Raises:
            DownstreamError: `body-cut`, the last chunk has not come.
        """
        if not self.done:
            raise DownstreamError("body-cut", "the last chunk is missing")

    def _size_line(self, line: bytes) -> None:
        self._left = parse_chunk_size(line)
        self._state = _DATA if self._left else _TRAILER
        extension = line.find(b";")
        if extension >= 0:
            if _EXTENSION.fullmatch(line) is None:
                raise DownstreamError("bad-chunk-size", f"control octet in {line[:32]!r}")
            self._extensions += len(line) - extension
            if self._extensions > MAX_EXTENSIONS:
                raise DownstreamError("chunk-extensions-too-large", "more than 16 KiB in one body")

    def _check_line(self, line: bytes) -> None:
        """Refuse a line without its end early, when it cannot become a good one."""
        if len(line) > MAX_CHUNK_LINE:
            raise DownstreamError("bad-chunk-size", f"no line end in {len(line)} octets")
        if b"\n" in line or line[:1] not in _HEX_OCTETS:
            raise DownstreamError("bad-chunk-size", f"expected hex digits, got {line[:32]!r}")

    def _trailer_end(self, data: bytes, at: int) -> int:
        """Return where the trailer section ends, its empty line included; -1: not there yet."""
        if data[at : at + 2] == b"\r\n":
            return at + 2
        end = data.find(b"\r\n\r\n", at)
        if end < 0:
            if len(data) - at > MAX_TRAILERS:
                raise DownstreamError("trailers-too-large", f"more than {MAX_TRAILERS} octets")
            return -1
        return end + 4

    def _read_trailers(self, block: bytes) -> None:
        if len(block) > MAX_TRAILERS or block.count(b"\n") > MAX_TRAILER_FIELDS:
            raise DownstreamError("trailers-too-large", "too many trailer fields")
        if _TRAILERS.fullmatch(block) is None:
            raise DownstreamError("bad-trailer", f"malformed trailer in {block[:40]!r}")
        forbidden = _FORBIDDEN_TRAILER.search(block)
        if forbidden is not None:
            raise DownstreamError("bad-trailer", f"{forbidden[0][:40]!r} may not be a trailer")
        self.trailers = block
        self.done = True


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


_SIZE, _DATA, _DATA_END, _TRAILER = range(4)
_HEX_OCTETS: Final = frozenset(_HEXDIG[i : i + 1] for i in range(len(_HEXDIG)))
