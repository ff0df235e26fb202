"""Answers through a proxy against the origin's: what voids a case."""

import http.server
import threading
from collections.abc import Callable, Iterator

import pytest

from benchmarks.load.answers import difference
from benchmarks.load.scenarios import Case, Load

CASE = Case("http1", "", "", Load("wrk"))
EXPECTED = (200, b"x" * 100, b"")


@pytest.fixture
def answering() -> Iterator[Callable[[int, bytes], int]]:
    made: list[http.server.HTTPServer] = []

    def make(status: int, body: bytes) -> int:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        made.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return int(server.server_address[1])

    yield make
    for server in made:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (200, b"x" * 100, ""),
        (200, b"y" * 100, "the body is another: 100 octets, the origin's 100"),
        (200, b"x" * 99, "the body is another: 99 octets, the origin's 100"),
        (503, b"x" * 100, "status 503"),
    ],
)
def test_only_the_origins_answer_is_one(
    status: int, body: bytes, said: str, answering: Callable[[int, bytes], int]
) -> None:
    assert difference(CASE, answering(status, body), EXPECTED) == said


def test_no_answer_is_told_as_such() -> None:
    assert difference(CASE, 1, EXPECTED).startswith("no answer: ConnectionRefusedError")


def test_what_speaks_another_protocol_gives_no_answer(
    answering: Callable[[int, bytes], int],
) -> None:
    case = Case("http2", "", "", Load("h2load", streams=16))

    assert difference(case, answering(200, b"x"), EXPECTED).startswith("no answer: ")
