"""The load at a fixed rate: its arrivals, what it takes for an answer, and whose delay it tells."""

import socket
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise

import h2.config
import h2.connection
import h2.events
import pytest

from benchmarks.load.open_loop import MESSAGE, MOST_STREAMS, Http2, Run, arrivals
from benchmarks.load.tools import REPLY

BODY = b"x" * REPLY
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % REPLY + BODY
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n64\r\n" + BODY + b"\r\n0\r\n\r\n"
# RFC 9112 §4: the reason phrase may be empty, and with it the space, as HAProxy writes it.
NO_REASON = GOOD.replace(b" OK", b"")


class Server:
    """Accepts connections, and gives each to `serve` in a thread."""

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        self._serve = serve
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listening.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._one, args=(sock,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def _one(self, sock: socket.socket) -> None:
        with sock:
            self._serve(sock)

    def close(self) -> None:
        self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()
        self._accepting.join(5)


@pytest.fixture
def serving() -> Iterator[Callable[[Callable[[socket.socket], None]], Server]]:
    made: list[Server] = []

    def make(serve: Callable[[socket.socket], None]) -> Server:
        made.append(Server(serve))
        return made[-1]

    yield make
    for server in made:
        server.close()


def heads(sock: socket.socket) -> Iterator[bytes]:
    octets = b""
    while piece := sock.recv(65536):
        octets += piece
        while b"\r\n\r\n" in octets:
            head, _, octets = octets.partition(b"\r\n\r\n")
            yield head


def closed(run: Run) -> dict[str, float]:
    run.warm()
    run.go()
    for channel in run.channels():
        channel.socket.close()
    return run.figures()


def test_arrivals_come_at_the_rate_and_are_the_same_for_a_seed() -> None:
    due = arrivals(1000, 20, seed=3)

    assert due == arrivals(1000, 20, seed=3)
    assert due != arrivals(1000, 20, seed=4)
    assert len(due) == pytest.approx(20_000, rel=0.03)
    gaps = [after - before for before, after in pairwise(due)]
    assert min(gaps) > 0
    # Of a Poisson process: the gaps' standard deviation is their mean.
    mean = sum(gaps) / len(gaps)
    assert (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5 == pytest.approx(
        mean, rel=0.05
    )


@pytest.mark.parametrize(
    ("answer", "errors"),
    [
        (GOOD, 0),
        (CHUNKED, 0),
        (NO_REASON, 0),
        (GOOD.replace(b"200", b"503"), 20),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nshort", 20),
    ],
    ids=["length", "chunked", "no reason phrase", "503", "short body"],
)
def test_what_counts_as_an_answer(
    answer: bytes, errors: int, serving: Callable[[Callable[[socket.socket], None]], Server]
) -> None:
    def serve(sock: socket.socket) -> None:
        for _ in heads(sock):
            sock.sendall(answer)

    run = Run(serving(serve).port, "http1", "/", [n / 1000 for n in range(20)])

    told = closed(run)

    assert told["errors"] == errors
    assert told["requests"] == 20 - errors


def test_a_stalled_proxy_is_told_by_all_who_were_due_meanwhile(
    serving: Callable[[Callable[[socket.socket], None]], Server],
) -> None:
    going = threading.Event()

    def serve(sock: socket.socket) -> None:
        for _ in heads(sock):
            going.wait(5)
            sock.sendall(GOOD)

    going.set()
    run = Run(serving(serve).port, "http1", "/", [0.01 * n for n in range(16)])
    run.warm()
    going.clear()
    threading.Timer(0.3, going.set).start()
    run.go()
    for channel in run.channels():
        channel.socket.close()

    told = run.figures()

    # Due at 0, 10, ... 150 ms, answered at 300 ms: a tool that counts from when it could ask again
    # would tell one long answer and fifteen short ones.
    assert told["errors"] == 0
    assert told["p50_ms"] > 150
    assert len(run.channels()) >= 16


def http2(grpc: bool, bad: bool) -> Callable[[socket.socket], None]:
    def serve(sock: socket.socket) -> None:
        codec = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False, header_encoding=None)
        )
        codec.initiate_connection()
        sock.sendall(codec.data_to_send())
        while piece := sock.recv(65536):
            for event in codec.receive_data(piece):
                if isinstance(event, h2.events.DataReceived):
                    codec.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                if not isinstance(event, h2.events.StreamEnded):
                    continue
                codec.send_headers(event.stream_id, [(":status", "503" if bad else "200")])
                codec.send_data(event.stream_id, MESSAGE if grpc else BODY, end_stream=not grpc)
                if grpc:
                    codec.send_headers(event.stream_id, [("grpc-status", "0")], end_stream=True)
            sock.sendall(codec.data_to_send())

    return serve


@pytest.mark.parametrize("protocol", ["http2", "grpc"])
@pytest.mark.parametrize("bad", [False, True])
def test_http2_and_grpc(
    protocol: str, bad: bool, serving: Callable[[Callable[[socket.socket], None]], Server]
) -> None:
    # More messages than fit a connection's first window, so that its updates are needed.
    count = 10 if bad else 3000
    server = serving(http2(protocol == "grpc", bad))
    run = Run(server.port, protocol, "/bench.Echo/Unary", [n / 10000 for n in range(count)])

    told = closed(run)

    assert (told["requests"], told["errors"]) == ((0, 10) if bad else (3000, 0))
    assert told["p50_ms"] <= told["p90_ms"] <= told["p99_ms"] <= told["p999_ms"]


def test_a_connection_takes_no_more_streams_than_proxies_allow(
    serving: Callable[[Callable[[socket.socket], None]], Server],
) -> None:
    def serve(sock: socket.socket) -> None:
        while sock.recv(65536):
            pass

    channel = Http2(serving(serve).port, "/", grpc=False)
    for number in range(MOST_STREAMS):
        assert channel.room == MOST_STREAMS - number
        channel.ask(number)

    assert channel.room == 0
    channel.socket.close()
