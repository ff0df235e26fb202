"""A peer that speaks HTTP/2 frame by frame: what it sends is up to the test, what it gets is kept."""

from collections.abc import Iterable
from typing import Final, final

import hpack

from sidecar.wire.http2_frames import (
    ACK,
    CONTINUATION,
    DATA,
    ENABLE_CONNECT_PROTOCOL,
    END_HEADERS,
    END_STREAM,
    ERROR_NAMES,
    GOAWAY,
    HEADER,
    HEADERS,
    LARGEST_STREAM,
    LARGEST_WINDOW,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
    goaway,
    read_goaway,
    read_settings,
    reset,
    settings,
    window_update,
)
from tests.core.transport import FakeTransport

Head = list[tuple[bytes, bytes]]
CONNECT: Final = {ENABLE_CONNECT_PROTOCOL: 1}


@final
class Got:
    """What has come on one stream."""

    def __init__(self) -> None:
        self.heads: Final[list[Head]] = []  # interim ones, the head, trailers
        self.data = b""
        self.ended = False
        self.reset = ""  # the name of the code
        self.granted = 0  # by WINDOW_UPDATE

    @property
    def head(self) -> dict[bytes, bytes]:
        """The last head, of fields that come once."""
        return dict(self.heads[-1])

    @property
    def status(self) -> int:
        """Of the last head."""
        return int(self.head[b":status"])


@final
class Peer:
    """One end; with `caller`, of a connection that it has opened.

    While it is `polite` it acknowledges SETTINGS and PING and gives back every window at once.
    """

    def __init__(
        self,
        transport: FakeTransport,
        *,
        caller: bool,
        options: dict[int, int] | None = None,
        polite: bool = True,
        silent: bool = False,
    ) -> None:
        self.transport: Final = transport
        self.polite = polite
        self._encoder: Final = hpack.Encoder()
        self._decoder: Final = hpack.Decoder()
        self._buffer = b""
        self._preface = b"" if caller else PREFACE
        self.next = 1
        self.got: Final[dict[int, Got]] = {}
        self.order: Final[list[int]] = []  # streams in the order in which they began
        self.settings: Final[dict[int, int]] = {}
        self.goaways: Final[list[tuple[int, str]]] = []  # last stream, and the name of the code
        self.pings = 0
        self.pongs = 0
        self.granted = 0  # on the connection
        if not silent:
            hello = settings((options or {}).items())
            self.send((PREFACE if caller else b"") + hello)

    # Sending:

    def send(self, *octets: bytes) -> None:
        """Send octets in one piece."""
        self.transport.send(b"".join(octets))

    def settle(self, options: dict[int, int]) -> None:
        """Send SETTINGS."""
        self.send(settings(options.items()))

    def head(self, stream: int, fields: Iterable[tuple[bytes, bytes]], *, end: bool) -> bytes:
        """Return HEADERS, and CONTINUATION as need be; the encoder's table moves on."""
        block = self._encoder.encode(fields, huffman=False)
        pieces = [block[at : at + 16384] for at in range(0, len(block), 16384)] or [b""]
        parts = []
        for index, piece in enumerate(pieces):
            flags = END_HEADERS if index == len(pieces) - 1 else 0
            kind = CONTINUATION
            if not index:
                kind = HEADERS
                flags |= END_STREAM if end else 0
            parts.append(frame(kind, flags, stream, piece))
        return b"".join(parts)

    def ask(
        self,
        method: bytes = b"GET",
        path: bytes = b"/",
        fields: Iterable[tuple[bytes, bytes]] = (),
        *,
        end: bool = True,
        body: bytes = b"",
        authority: bytes = b"a",
    ) -> int:
        """Send a request; return its stream."""
        number = self.next
        self.next += 2
        first = [(b":method", method), (b":scheme", b"http"), (b":path", path)]
        octets = self.head(
            number, [*first, (b":authority", authority), *fields], end=end and not body
        )
        self.send(octets + (data(number, body, end=end) if body else b""))
        return number

    def open_tunnel(self, fields: Iterable[tuple[bytes, bytes]] = (), *, end: bool = False) -> int:
        """Ask for a WebSocket by extended CONNECT (RFC 8441); return its stream."""
        return self.ask(b"CONNECT", b"/ws", [(b":protocol", b"websocket"), *fields], end=end)

    def answer(
        self,
        stream: int,
        status: int = 200,
        fields: Iterable[tuple[bytes, bytes]] = (),
        body: bytes = b"",
        *,
        end: bool = True,
    ) -> None:
        """Send a response's head, and its body in one frame."""
        octets = self.head(stream, [(b":status", b"%d" % status), *fields], end=end and not body)
        self.send(octets + (data(stream, body, end=end) if body else b""))

    def say(self, stream: int, octets: bytes, *, end: bool = False) -> None:
        """Send DATA, in frames of the least size."""
        pieces = [octets[at : at + 16384] for at in range(0, len(octets), 16384)] or [b""]
        last = len(pieces) - 1
        self.send(*[data(stream, p, end=end and i == last) for i, p in enumerate(pieces)])

    def trail(self, stream: int, fields: Iterable[tuple[bytes, bytes]]) -> None:
        """Send trailers."""
        self.send(self.head(stream, fields, end=True))

    def reset(self, stream: int, code: int) -> None:
        """End both directions."""
        self.send(reset(stream, code))

    def grant(self, stream: int, octets: int) -> None:
        """Give a window back, the connection's too."""
        self.send(window_update(0, octets), window_update(stream, octets))

    def leave(self, last: int = LARGEST_STREAM, code: int = 0, text: bytes = b"") -> None:
        """Send GOAWAY."""
        self.send(goaway(last, code, text))

    # Receiving:

    def read(self) -> "Peer":
        """Take in what has come, and do what politeness asks; return itself."""
        while self._take():
            pass
        return self

    def __getitem__(self, stream: int) -> Got:
        """Return what has come on `stream` by now."""
        self.read()
        return self.got.get(stream) or Got()

    @property
    def last(self) -> Got:
        """What has come on the stream that began last."""
        self.read()
        return self.got[self.order[-1]]

    def _take(self) -> bool:
        data = self._buffer + self.transport.take()
        if self._preface:
            size = len(self._preface)
            assert data[:size] == self._preface[: len(data)]
            self._preface, data = self._preface[len(data) :], data[size:]
        answers: list[bytes] = []
        while len(data) >= 9:
            high, low, kind, flags, number = HEADER.unpack_from(data)
            size = 9 + (high << 16 | low)
            if len(data) < size:
                break
            self._frame(kind, flags, number, data[9:size], answers)
            data = data[size:]
        self._buffer = data
        if answers and self.polite:
            self.send(*answers)
        return bool(answers) and self.polite

    def _frame(
        self, kind: int, flags: int, number: int, payload: bytes, answers: list[bytes]
    ) -> None:
        if kind == SETTINGS and not flags & ACK:
            self.settings.update(read_settings(payload))
            answers.append(frame(SETTINGS, ACK, 0, b""))
        elif kind == PING and flags & ACK:
            self.pongs += 1
        elif kind == PING:
            self.pings += 1
            answers.append(frame(PING, ACK, 0, payload))
        elif kind == GOAWAY:
            last, code, _ = read_goaway(payload)
            self.goaways.append((last, ERROR_NAMES[code]))
        elif kind == WINDOW_UPDATE:
            increment = int.from_bytes(payload, "big") & LARGEST_WINDOW
            if number:
                self._of(number).granted += increment
            else:
                self.granted += increment
        elif number:
            self._of_stream(kind, flags, number, payload, answers)

    def _of(self, number: int) -> Got:
        if number not in self.got:
            self.got[number] = Got()
            self.order.append(number)
        return self.got[number]

    def _of_stream(
        self, kind: int, flags: int, number: int, payload: bytes, answers: list[bytes]
    ) -> None:
        got = self._of(number)
        assert not got.ended or kind == RST_STREAM
        assert not got.reset
        if kind == HEADERS:
            assert flags & END_HEADERS, "no test makes a head of 16 KiB"
            got.heads.append(list(self._decoder.decode(payload, raw=True)))
        elif kind == DATA:
            got.data += payload
            if payload:
                answers.append(window_update(0, len(payload)))
                if not flags & END_STREAM:
                    answers.append(window_update(number, len(payload)))
        else:
            assert kind == RST_STREAM
            got.reset = ERROR_NAMES[int.from_bytes(payload, "big")]
            return
        got.ended = flags & END_STREAM != 0


def data(stream: int, octets: bytes, *, end: bool = False) -> bytes:
    """Return one DATA frame."""
    return frame(DATA, END_STREAM if end else 0, stream, octets)
