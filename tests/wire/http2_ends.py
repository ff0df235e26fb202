"""Ends of HTTP/2 connections in memory: two joined, or one fed frames by hand; time stands still."""

from collections.abc import Callable, Iterable
from typing import Any

from sidecar.wire.fields import Field
from sidecar.wire.hpack_encoder import Encoder
from sidecar.wire.http2 import Link
from sidecar.wire.http2_frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADER,
    HEADERS,
    PREFACE,
    frame,
    settings,
)
from sidecar.wire.http2_reference import ReferenceLink
from sidecar.wire.http2_stream import Http2Link, Stream

Codec = type[Link] | type[ReferenceLink]
CODECS: list[Codec] = [Link, ReferenceLink]

REQUEST: list[Field] = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":authority", b"a"),
    (b":path", b"/"),
]
RESPONSE: list[Field] = [(b":status", b"200")]
TRAILERS: list[Field] = [(b"grpc-status", b"0")]
Told = tuple[Any, ...]


class Clock:
    """Time that moves only when it is told to."""

    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


class Recorder:
    """Notes every event; `on` may act on one at once, as an owner does."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        self.streams: dict[int, Stream] = {}
        self.on: Callable[[str, Stream], None] = lambda what, stream: None
        self.on_broken: Callable[[], None] = lambda: None

    def _note(self, stream: Stream, what: str, *more: object) -> None:
        self.streams[stream.id] = stream
        self.told.append((what, stream.id, *more))
        self.on(what, stream)

    def opened(self, stream: Stream, fields: list[Field], *, end: bool) -> None:
        self._note(stream, "opened", fields, end)

    def headers(self, stream: Stream, fields: list[Field], *, end: bool) -> None:
        self._note(stream, "headers", fields, end)

    def data(self, stream: Stream, data: bytes, *, end: bool) -> None:
        self._note(stream, "data", bytes(data), end)

    def ended_early(self, stream: Stream, code: int, detail: str) -> None:
        self._note(stream, "ended_early", code)

    def too_large(self, stream: Stream) -> None:
        self._note(stream, "too_large")

    def writable(self, stream: Stream) -> None:
        self._note(stream, "writable")

    def settled(self) -> None:
        self.told.append(("settled",))

    def going_away(self, last: int, code: int, text: bytes) -> None:
        self.told.append(("going_away", last, code, text))

    def pong(self) -> None:
        self.told.append(("pong",))

    def broken(self, code: int, detail: str) -> None:
        self.told.append(("broken", code))
        self.on_broken()

    def flush(self) -> None:
        self.told.append(("flush",))

    def names(self) -> list[str]:
        """Return what was told, in order."""
        return [told[0] for told in self.told]

    def body(self, number: int) -> bytes:
        """Return the octets that came on a stream."""
        return b"".join(told[2] for told in self.told if told[:2] == ("data", number))


class End:
    """One end, its events, and its clock."""

    def __init__(self, codec: Codec, *, client: bool, **options: Any) -> None:
        self.clock = Clock()
        self.events = Recorder()
        self.link: Http2Link = codec(self.events, self.clock, client=client, **options)

    @property
    def told(self) -> list[Told]:
        return self.events.told


class Fed(End):
    """One end whose peer is the test: it has seen the preface and SETTINGS unless `fresh`."""

    def __init__(
        self, codec: Codec = Link, *, client: bool = False, fresh: bool = False, **options: Any
    ) -> None:
        super().__init__(codec, client=client, **options)
        self.encoder = Encoder()
        if not fresh:
            self.link.receive((b"" if client else PREFACE) + settings([]))
            self.forget()

    def feed(self, *frames: bytes) -> "Fed":
        """Receive `frames` in one piece."""
        self.link.receive(b"".join(frames))
        return self

    def head(self, number: int, fields: Iterable[Field] = REQUEST, *, end: bool = False) -> bytes:
        """Return a HEADERS frame."""
        flags = END_HEADERS | END_STREAM if end else END_HEADERS
        return frame(HEADERS, flags, number, self.encoder.encode(fields))

    def request(
        self, number: int, fields: Iterable[Field] = REQUEST, *, end: bool = False
    ) -> "Fed":
        """Receive a request's head."""
        return self.feed(self.head(number, fields, end=end))

    def forget(self) -> None:
        """Forget what was said up to now."""
        self.link.take()
        self.events.told.clear()

    def sent(self) -> list[tuple[int, int, int, bytes]]:
        """Return the frames that are sent, once, as (type, flags, stream, payload)."""
        return frames_of(self.link.take())


class Pair:
    """A caller and a server, joined."""

    def __init__(
        self, codec: Codec = Link, other: Codec | None = None, *, cut: int = 0, **options: Any
    ) -> None:
        self.client = End(other or codec, client=True, **options)
        self.server = End(codec, client=False, **options)
        self.cut = cut
        self.pump()
        self.client.told.clear()
        self.server.told.clear()

    def pump(self) -> None:
        """Carry octets until neither says anything more."""
        ends = (self.client.link, self.server.link)
        while any(end.out for end in ends):
            for here, there in (ends, ends[::-1]):
                octets = here.take()
                size = self.cut or len(octets) or 1
                for at in range(0, len(octets), size):
                    there.receive(octets[at : at + size])

    def ask(self, fields: Iterable[Field] = REQUEST, *, end: bool = False) -> tuple[Stream, Stream]:
        """Open a stream; return it as the caller and as the server see it."""
        stream = self.client.link.open()
        self.client.link.send_headers(stream, fields, end=end)
        self.pump()
        return stream, self.server.events.streams[stream.id]


def frames_of(octets: bytes) -> list[tuple[int, int, int, bytes]]:
    """Return whole frames as (type, flags, stream, payload)."""
    found = []
    at = len(PREFACE) if octets.startswith(PREFACE) else 0
    while at < len(octets):
        high, low, kind, flags, number = HEADER.unpack_from(octets, at)
        end = at + 9 + (high << 16 | low)
        found.append((kind, flags, number, octets[at + 9 : end]))
        at = end
    return found


def data(number: int, octets: bytes = b"", *, end: bool = False, flags: int = 0) -> bytes:
    """Return a DATA frame."""
    return frame(DATA, flags | (END_STREAM if end else 0), number, octets)
