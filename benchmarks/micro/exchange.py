"""What a whole exchange costs in memory, without sockets: `python -m benchmarks.micro.exchange [CASE...]`.

The engine is the real one, with a real plan, metrics and timers; only the transports are not, so what
is left out is what the kernel and the event loop take.  Least and median of rounds in which the cases
take turns, in microseconds of CPU an exchange.
"""

import random
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, Final

from benchmarks.load.differing import (
    FRAME,
    HEADS,
    PREFACE,
    STATIC,
    Part,
    differing,
    following,
    integer,
    opening,
    tails,
    text,
)
from sidecar.compiler.snapshot import compile_snapshot
from sidecar.core.book import Book, Endpoint
from sidecar.core.plan import ClusterPlan, Dialled
from sidecar.core.timers import Wheel
from sidecar.core.types import Caller, Engine, ListenerState
from sidecar.model.identity import Secret
from sidecar.model.snapshot import Snapshot
from sidecar.runtime.clock import wall
from sidecar.runtime.listener import Front
from sidecar.sources.decode import decode
from sidecar.telemetry.access_log import AccessLogSink
from sidecar.telemetry.metrics import MetricsSink

ROUNDS: Final = 60
EXCHANGES: Final = 400  # a round: short ones, so that some meet no other work of the machine
TOGETHER: Final = 4  # streams whose frames come in one read, as under load
BODY: Final = b"x" * 100
ANSWER_FIELDS: Final = (
    (b"server", b"nginx/1.22.1", 54),
    (b"content-type", b"text/plain", 31),
    (b"content-length", b"100", 28),
    (b"last-modified", b"Mon, 30 Nov 2026 21:00:00 GMT", 44),
    (b"accept-ranges", b"bytes", 18),
)
HTTP1_ANSWER: Final = (
    b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Mon, 30 Nov 2026 21:00:00 GMT\r\n"
    b"Content-Type: text/plain\r\nContent-Length: 100\r\nConnection: keep-alive\r\n\r\n" + BODY
)
MESSAGE: Final = b"\x00\x00\x00\x00\x64" + BODY
SERVER_SETTINGS: Final = bytes([0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 1, 0])  # 256 streams
ACKNOWLEDGED: Final = bytes([0, 0, 0, 4, 1, 0, 0, 0, 0])
WIDE: Final = bytes([0, 0, 4, 8, 0, 0, 0, 0, 0, 0x7F, 0, 0, 0])


class Wire:
    """A transport that takes everything and keeps nothing but a count."""

    def __init__(self, alpn: str | None = None) -> None:
        self.protocol: Any = None
        self.writes = 0
        self.octets = 0
        self._alpn = alpn

    def write(self, data: bytes) -> None:
        """Count what is written."""
        self.writes += 1
        self.octets += len(data)

    def writelines(self, pieces: list[bytes]) -> None:
        """Count what is written."""
        self.write(b"".join(pieces))

    def set_protocol(self, protocol: Any) -> None:
        """Remember who is told of octets."""
        self.protocol = protocol

    def get_protocol(self) -> Any:
        """Return who is told of octets."""
        return self.protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Say who the far end is."""
        known = {"peername": ("10.9.9.9", 5000), "sockname": ("127.0.0.1", 15001)}
        return self._alpn if name == "alpn" else known.get(name, default)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Take any."""

    def get_write_buffer_size(self) -> int:
        """Say that all has gone out."""
        return 0

    def is_closing(self) -> bool:
        """Say that it is open."""
        return False

    def pause_reading(self) -> None:
        """Never happens: nothing is ever full."""

    def resume_reading(self) -> None:
        """Never happens either."""

    def close(self) -> None:
        """End."""

    abort = close


class Stand:
    """One listener, one cluster of one endpoint, and the loop's ready queue."""

    def __init__(
        self,
        *,
        upstream: str,
        full: bool = False,
        cluster: dict[str, Any] | None = None,
        log_format: str = "text",
        files: dict[str, bytes] | None = None,
        **listener: Any,
    ) -> None:
        self.ready: list[Callable[[], None]] = []
        self.upstreams: list[Wire] = []
        self.engine = Engine(
            time.monotonic, wall, Wheel(lambda when: None), later=self.ready.append
        )  # fmt: skip
        self.engine.batch = 32  # as a worker has it
        retry = {"attempts": 3, "on": ["connect-failure", "reset"]} if full else {}
        config = {
            "workload": "web",
            "outbound": [
                {
                    "protocol": "http",
                    "routes": [{"name": "all", "cluster": "app", "retry": retry}],
                    **listener,
                }
            ],
            "clusters": [
                {
                    "name": "app",
                    "endpoints": ["10.0.0.1:80"],
                    "protocol": upstream,
                    **(cluster or {}),
                }
            ],
        }
        secret = None if files is None else Secret(files=files)
        plan = compile_snapshot(decode(config, Snapshot), secret, Book(), self._dial)
        self.engine.identity = plan.identity
        lines: list[bytes] = []
        sinks: list[Any] = [MetricsSink("web", plan.identity, 2000)]
        if full:
            sinks.append(AccessLogSink(lambda line: lines.clear(), log_format))
        self.engine.sinks = tuple(sinks)
        (found,) = plan.listeners.values()
        self.listener = ListenerState(self.engine, found)

    def _dial(
        self, cluster: ClusterPlan, endpoint: Endpoint, protocol: Dialled, caller: Caller | None
    ) -> None:
        wire = Wire()
        self.upstreams.append(wire)
        wire.set_protocol(protocol)
        protocol.connection_made(wire)  # type: ignore[arg-type] # all of a transport that is used

    def open(self) -> Wire:
        """Accept a connection."""
        wire = Wire()
        front = Front(self.listener)
        wire.set_protocol(front)
        front.connection_made(wire)  # type: ignore[arg-type] # as above
        return wire

    def turn(self) -> None:
        """Run what was put off to the end of this turn of the loop."""
        ready = self.ready
        while ready:
            calls = ready.copy()
            ready.clear()
            for call in calls:
                call()


def http1_request(number: int, chance: random.Random) -> bytes:
    """Return a request of ten fields, five of them new every time."""
    path, *fields = [(name, value) for name, value, _ in differing(number, chance)]
    lines = b"".join([b"%b: %b\r\n" % field for field in fields])
    return (
        b"GET " + path[1] + b" HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n"
        b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\r\n"
        b"Accept: application/json\r\nAccept-Encoding: gzip, deflate, br\r\n"
        b"Accept-Language: en-GB,en;q=0.9\r\nCache-Control: no-cache\r\n" + lines + b"\r\n"
    )


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return one frame."""
    return FRAME.pack(0, len(payload), kind, flags, stream) + payload


def _added(field: tuple[bytes, bytes, int]) -> bytes:
    """Return `field` as a literal that is put into the table."""
    name, value, index = field
    known = integer(index, 6, 0x40) if index else b"\x40" + text(name, huffman=False)
    return known + text(value, huffman=False)


class Asking:
    """What a caller of HTTP/2 sends, a batch of streams at a time."""

    def __init__(self, coding: str, *, grpc: bool = False) -> None:
        huffman = coding == "huffman"
        self._parts = tails(huffman=huffman)
        self._repeats = coding == "repeat"
        self._opening, self._following = opening(huffman=huffman), following()
        self._grpc = grpc
        self._number = 0
        self._stream = 1
        if self._repeats:
            self._indexed()

    def _indexed(self) -> None:
        """Have all fields of one head put into the table, and refer to them from then on."""
        chance = random.Random(7541)  # noqa: S311 - no secret
        path, *others = differing(0, chance)
        if self._grpc:
            path = (b":path", b"/bench.Echo/Unary", 4)
            others = [
                (b"te", b"trailers", 0),
                (b"content-type", b"application/grpc", 31),
                others[1],
            ]
        before, repeated = self._opening
        start = b"\x83\x86" if self._grpc else before[:2]
        self._first = start + before[2:] + _added(path) + repeated + b"".join(map(_added, others))
        # In the order in which they went in, the last first: the others, five repeated ones, path
        # and authority.
        count = 5 + len(others)
        places = [count + 2, count + 1, *range(count, 0, -1)]
        self._again = start + b"".join([integer(STATIC + place, 7, 0x80) for place in places])

    def batch(self, count: int) -> bytes:
        """Return `count` requests."""
        frames = []
        for _ in range(count):
            block = self._block()
            if self._grpc:
                frames.append(frame(1, 4, self._stream, block))
                frames.append(frame(0, 1, self._stream, MESSAGE))
            else:
                frames.append(frame(1, 5, self._stream, block))
            self._stream += 2
            self._number = (self._number + 1) % HEADS
        return b"".join(frames)

    def _block(self) -> bytes:
        is_first = self._stream == 1
        if self._repeats:
            return self._first if is_first else self._again
        around: Part = self._opening if is_first else self._following
        path, rest = self._parts[self._number]
        return around[0] + path + around[1] + rest


class Answering:
    """What an endpoint of HTTP/2 sends: 200, five fields (a date that changes is among gRPC's not)."""

    def __init__(self, *, grpc: bool = False) -> None:
        fields: tuple[tuple[bytes, bytes, int], ...] = ANSWER_FIELDS
        if grpc:
            fields = ((b"content-type", b"application/grpc", 31), (b"server", b"grpc", 54))
        self._first = b"\x88" + b"".join(
            [integer(i, 6, 0x40) + text(value, huffman=False) for _, value, i in fields]
        )
        extra = 1 if grpc else 0
        self._later = b"\x88" + b"".join(
            [integer(STATIC + len(fields) + extra - at, 7, 0x80) for at in range(len(fields))]
        )
        self._tail_first = b"\x40" + text(b"grpc-status", huffman=False) + b"\x010"
        self._tail_later = integer(STATIC + 1, 7, 0x80)
        self._grpc = grpc
        self._stream = 1

    def batch(self, count: int) -> bytes:
        """Return `count` answers."""
        frames = []
        for _ in range(count):
            is_first, number = self._stream == 1, self._stream
            frames.append(frame(1, 4, number, self._first if is_first else self._later))
            if self._grpc:
                frames.append(frame(0, 0, number, MESSAGE))
                tail = self._tail_first if is_first else self._tail_later
                frames.append(frame(1, 5, number, tail))
            else:
                frames.append(frame(0, 1, number, BODY))
            self._stream += 2
        return b"".join(frames)


def http1_http1(count: int, *, full: bool = False) -> float:
    """Return seconds of CPU that `count` exchanges take, HTTP/1.1 on both sides."""
    stand = Stand(upstream="http1", full=full)
    caller = stand.open()
    chance = random.Random(7541)  # noqa: S311 - no secret
    requests = [http1_request(number, chance) for number in range(200)]
    begin = 0.0
    for number in range(count + 50):
        if number == 50:
            begin = time.process_time()
        caller.protocol.data_received(requests[number % 200])
        stand.upstreams[0].protocol.data_received(HTTP1_ANSWER)
    spent = time.process_time() - begin
    assert caller.writes == count + 50
    return spent


def http2(
    count: int, coding: str, *, upstream: str = "http2", grpc: bool = False, full: bool = False
) -> float:
    """Return the same for a caller of HTTP/2."""
    stand = Stand(upstream=upstream, full=full)
    caller = stand.open()
    asking, answering = Asking(coding, grpc=grpc), Answering(grpc=grpc)
    caller.protocol.data_received(PREFACE + ACKNOWLEDGED)
    rounds = count // TOGETHER
    asked = [asking.batch(TOGETHER) for _ in range(rounds + 10)]
    answers = [answering.batch(TOGETHER) for _ in range(rounds + 10)]
    begin = 0.0
    for at in range(rounds + 10):
        if at == 10:
            begin = time.process_time()
        if upstream == "http1":
            _http1_turn(stand, caller, asked[at])
            continue
        caller.protocol.data_received(asked[at])
        if at == 0:
            stand.turn()
            stand.upstreams[0].protocol.data_received(SERVER_SETTINGS + ACKNOWLEDGED + WIDE)
        stand.turn()
        stand.upstreams[0].protocol.data_received(answers[at])
        stand.turn()
    return time.process_time() - begin


def _http1_turn(stand: Stand, caller: Wire, asked: bytes) -> None:
    """One batch of streams to endpoints of HTTP/1.1, each on a connection of its own."""
    caller.protocol.data_received(asked)
    stand.turn()
    for wire in stand.upstreams:
        wire.protocol.data_received(HTTP1_ANSWER)
    stand.turn()


def http1_http2(count: int) -> float:
    """Return the same for a caller of HTTP/1.1 and an endpoint of HTTP/2."""
    stand = Stand(upstream="http2")
    callers = [stand.open() for _ in range(TOGETHER)]
    answering = Answering()
    chance = random.Random(7541)  # noqa: S311 - no secret
    requests = [http1_request(number, chance) for number in range(200)]
    rounds = count // TOGETHER
    answers = [answering.batch(TOGETHER) for _ in range(rounds + 10)]
    begin = 0.0
    for at in range(rounds + 10):
        if at == 10:
            begin = time.process_time()
        for place, caller in enumerate(callers):
            caller.protocol.data_received(requests[(at * TOGETHER + place) % 200])
        stand.turn()
        if at == 0:
            stand.upstreams[0].protocol.data_received(SERVER_SETTINGS + ACKNOWLEDGED + WIDE)
            stand.turn()
        stand.upstreams[0].protocol.data_received(answers[at])
        stand.turn()
    return time.process_time() - begin


CASES: Final[dict[str, Callable[[int], float]]] = {
    "h1-h1": http1_http1,
    "h1-h1-full": lambda count: http1_http1(count, full=True),
    "h2-h2-repeat": lambda count: http2(count, "repeat"),
    "h2-h2-plain": lambda count: http2(count, "plain"),
    "h2-h2-huffman": lambda count: http2(count, "huffman"),
    "h1-h2": http1_http2,
    "h2-h1": lambda count: http2(count, "repeat", upstream="http1"),
    "grpc": lambda count: http2(count, "repeat", grpc=True),
}


def main() -> None:
    """Measure and print."""
    names = sys.argv[1:] or list(CASES)
    spent: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(ROUNDS):
        for name in names:
            spent[name].append(CASES[name](EXCHANGES) / EXCHANGES * 1e6)
    print(f"Python {sys.version.split()[0]}, µs of CPU an exchange, least of {ROUNDS} (median)")
    for name, values in spent.items():
        print(f"  {name:16} {min(values):6.2f} ({statistics.median(values):.2f})")


if __name__ == "__main__":
    main()
