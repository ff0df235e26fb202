"""A load at a fixed rate, whose latencies count from the moment at which a request was due.

`python -m benchmarks.load.open_loop PORT http1|http2|grpc PATH RATE SECONDS SEED` prints one JSON
object.  Arrivals are those of a Poisson process, the same for the same seed, so every proxy gets the
same ones.  h2load's `--rps` is not used: its clients tick together, and a client whose answer is late
asks late and counts from there, which hides just what a tail latency is asked for ("coordinated
omission").  How late the tool itself sent is told too (`late_p99_ms`): where that is not small, the
rate is beyond the tool's and not the proxy's means.
"""

import ctypes
import gc
import json
import random
import select
import socket
import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from typing import Final, final

from hpack import Encoder

from benchmarks.load.differing import (
    ACKNOWLEDGED,
    DATA,
    FRAME,
    GOAWAY,
    HEADERS,
    OK,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
)
from benchmarks.load.tools import FIELDS, GRPC_FIELDS, REPLY, percentile

CONNECTIONS: Final = {"http1": 10, "http2": 4, "grpc": 4}  # at the beginning
MOST_CONNECTIONS: Final = 500  # of HTTP/1.1, opened while all others wait for an answer
MOST_STREAMS: Final = 100  # of one connection: what proxies allow
GRACE: Final = 5.0  # seconds for the last answers
WINDOW_UPDATE: Final = 8
MESSAGE: Final = b"\x00" + REPLY.to_bytes(4, "big") + b"m" * REPLY
SLACK: Final = 29, 1  # PR_SET_TIMERSLACK, nanoseconds: the default lets a wait end 50 µs late


class Channel(ABC):
    """One connection; `room` is how many requests it would take now."""

    def __init__(self, port: int) -> None:
        self.socket: Final = socket.create_connection(("127.0.0.1", port), timeout=5)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.room = 1

    @abstractmethod
    def ask(self, number: int) -> None:
        """Send request `number`."""

    @abstractmethod
    def answered(self) -> list[tuple[int, bool]]:
        """Read what is there; return the numbers of the requests that ended, and whether well.

        Raises: ConnectionError, when the other side has closed.
        """

    def received(self) -> bytes:
        """Return what is there."""
        piece = self.socket.recv(262144)
        if not piece:
            raise ConnectionError("the proxy closed a connection under load")
        return piece


@final
class Http1(Channel):
    """HTTP/1.1, one request at a time; heads as in `heads.lua`."""

    def __init__(self, port: int, path: str) -> None:
        super().__init__(port)
        self._number = -1
        self._octets = b""
        ids = (b"x-request-id", b"traceparent", b"cookie")
        fixed = [(n.encode(), v.encode()) for n, v in FIELDS if n.encode() not in ids]
        rest = b"".join(b"%b: %b\r\n" % field for field in fixed)
        self._head: Final = (
            b"GET %b HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % (path.encode(), port)
            + rest
            + b"x-request-id: %08x-3b1d-4a53-9c7e-0a1b2c3d4e5f\r\n"
            b"traceparent: 00-4bf92f3577b34da6a3ce929d%08x-00f067aa0ba902b7-00\r\n"
            b"cookie: session=%08xabcdef0123456789abcdef; theme=dark\r\n\r\n"
        )

    def ask(self, number: int) -> None:
        self._number, self.room = number, 0
        unique = number + 1
        self.socket.sendall(self._head % (unique, unique, unique))

    def answered(self) -> list[tuple[int, bool]]:
        self._octets += self.received()
        head, end, body = self._octets.partition(b"\r\n\r\n")
        if not end or not self._is_whole(head.lower(), body):
            return []
        good = head[9:12] == b"200" and len(body) >= REPLY
        self._octets, self.room = b"", 1
        return [(self._number, good)]

    def _is_whole(self, head: bytes, body: bytes) -> bool:
        _, found, after = head.partition(b"\r\ncontent-length:")
        if found:
            return len(body) >= int(after.partition(b"\r\n")[0])
        return body.endswith(b"0\r\n\r\n")  # chunked; the bodies asked for hold no such octets


@final
class Http2(Channel):
    """HTTP/2 with fields that repeat: indexed from the second request on."""

    def __init__(self, port: int, path: str, *, grpc: bool) -> None:
        super().__init__(port)
        self.room = MOST_STREAMS
        self._rest = b""
        self._stream = 1
        self._window = 65535  # of ours to send, in the connection; a stream's is never used up
        self._open: Final[dict[int, int]] = {}
        self._got: Final[dict[int, int]] = {}
        self._bad: Final[set[int]] = set()
        self._grpc: Final = grpc
        encode = Encoder().encode
        pseudo = ((":method", "POST" if grpc else "GET"), (":scheme", "http"), (":path", path),
                  (":authority", "127.0.0.1"))  # fmt: skip
        fields = (*pseudo, *(GRPC_FIELDS if grpc else FIELDS))
        self._blocks: Final = encode(fields), encode(fields)
        self.socket.sendall(PREFACE)

    def ask(self, number: int) -> None:
        stream, self._stream = self._stream, self._stream + 2
        block = self._blocks[stream > 1]
        # END_HEADERS, and END_STREAM where no message follows
        frames = FRAME.pack(0, len(block), HEADERS, 4 if self._grpc else 5, stream) + block
        if self._grpc:
            frames += FRAME.pack(0, len(MESSAGE), DATA, 1, stream) + MESSAGE
            self._window -= len(MESSAGE)
        self._open[stream], self._got[stream] = number, 0
        self._measure()
        self.socket.sendall(frames)

    def _measure(self) -> None:
        self.room = MOST_STREAMS - len(self._open)
        if self._grpc:
            self.room = min(self.room, self._window // len(MESSAGE))

    def answered(self) -> list[tuple[int, bool]]:
        octets = self._rest + self.received()
        at, size = 0, len(octets)
        ended: list[tuple[int, bool]] = []
        while size - at >= 9:
            high, length, kind, flags, stream = FRAME.unpack_from(octets, at)
            end = at + 9 + (high << 16 | length)
            if end > size:
                break
            self._frame(kind, flags, stream, octets[at + 9 : end])
            if stream in self._open and (kind == RST_STREAM or (kind <= HEADERS and flags & 1)):
                whole = self._got.pop(stream) == REPLY + 5 * self._grpc
                ended.append((self._open.pop(stream), whole and stream not in self._bad))
            at = end
        self._rest = octets[at:]
        self._measure()
        return ended

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == DATA and stream in self._got:
            self._got[stream] += len(payload)
        elif kind == RST_STREAM or (
            kind == HEADERS and not self._got.get(stream) and payload[:1] != bytes([OK])
        ):
            self._bad.add(stream)
        elif kind == SETTINGS and not flags & 1:
            self.socket.sendall(ACKNOWLEDGED)
        elif kind == PING and not flags & 1:
            self.socket.sendall(FRAME.pack(0, 8, PING, 1, 0) + payload)
        elif kind == WINDOW_UPDATE and stream == 0:
            self._window += int.from_bytes(payload, "big")
        elif kind == GOAWAY:
            raise ConnectionError("the proxy sent GOAWAY under load")


def arrivals(rate: float, seconds: float, seed: int) -> list[float]:
    """Return when requests are due, in seconds from the beginning."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    due: list[float] = []
    at = chance.expovariate(rate)
    while at < seconds:
        due.append(at)
        at += chance.expovariate(rate)
    return due


@final
class Run:
    """The requests of one run."""

    def __init__(self, port: int, protocol: str, path: str, due: list[float]) -> None:
        self._port: Final = port
        self._protocol: Final = protocol
        self._path: Final = path
        self._due: Final = due
        self._channels: Final[dict[int, Channel]] = {}
        self._order: Final[deque[Channel]] = deque()
        self.sent: Final[list[float]] = [0.0] * len(due)
        self.ended: Final[list[float]] = [0.0] * len(due)
        self.errors = 0
        self._left = 0
        for _ in range(CONNECTIONS[protocol]):
            self._open()

    def _open(self) -> Channel:
        if self._protocol == "http1":
            made: Channel = Http1(self._port, self._path)
        else:
            made = Http2(self._port, self._path, grpc=self._protocol == "grpc")
        self._channels[made.socket.fileno()] = made
        self._order.append(made)
        return made

    def channels(self) -> list[Channel]:
        """Return the connections that are open."""
        return list(self._order)

    def warm(self) -> None:
        """Ask once on every connection, so that handshakes are over."""
        for channel in self.channels():
            channel.ask(-1)
            while not channel.answered():
                pass

    def _free(self) -> Channel | None:
        for _ in range(len(self._order)):
            channel = self._order[0]
            self._order.rotate(-1)
            if channel.room > 0:
                return channel
        if self._protocol == "http1" and len(self._order) < MOST_CONNECTIONS:
            return self._open()
        return None

    def go(self) -> None:
        """Ask each request when it is due, or as soon after as a connection takes it."""
        clock, due, number = time.perf_counter, self._due, 0
        begin = clock()
        end = due[-1] + GRACE
        while number < len(due) or (self._left and clock() - begin < end):
            now = clock() - begin
            while number < len(due) and due[number] <= now:
                channel = self._free()
                if channel is None:
                    break
                channel.ask(number)
                self.sent[number] = clock() - begin
                self._left += 1
                number += 1
            wait = due[number] - (clock() - begin) if number < len(due) else 0.1
            for descriptor in select.select(self._channels, (), (), max(0.0, min(wait, 0.1)))[0]:
                self._read(self._channels[descriptor], clock() - begin)
        self.errors += self._left

    def _read(self, channel: Channel, now: float) -> None:
        for number, good in channel.answered():
            self._left -= 1
            if good:
                self.ended[number] = now
            else:
                self.errors += 1

    def figures(self) -> dict[str, float]:
        """Return counts, percentiles from the due moment, and how late the tool was."""
        good = [n for n, end in enumerate(self.ended) if end]
        times = sorted((self.ended[n] - self._due[n]) * 1000 for n in good)
        late = sorted((self.sent[n] - self._due[n]) * 1000 for n in good)
        shares = (("p50_ms", 0.5), ("p90_ms", 0.9), ("p99_ms", 0.99), ("p999_ms", 0.999))
        return {
            "requests": len(good),
            "errors": self.errors,
            **{name: round(percentile(times, share), 3) for name, share in shares},
            "late_p99_ms": round(percentile(late, 0.99), 3),
        }


def main(port: str, protocol: str, path: str, rate: str, seconds: str, seed: str) -> None:
    """Run and print."""
    ctypes.CDLL(None).prctl(*SLACK)
    run = Run(int(port), protocol, path, arrivals(float(rate), float(seconds), int(seed)))
    run.warm()
    gc.disable()  # a collection would be told as the proxy's latency
    try:
        run.go()
    except (OSError, ConnectionError) as error:
        sys.stderr.write(f"open loop: {error}\n")
        run.errors += 1
    print(json.dumps(run.figures()))


if __name__ == "__main__":
    main(*sys.argv[1:])
