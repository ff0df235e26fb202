"""What reading an HTTP/1.1 head costs: `python -m benchmarks.micro.head [CASE...]`."""

import random
import time
from typing import Final

from benchmarks.micro.exchange import HTTP1_ANSWER, http1_request
from benchmarks.micro.turns import Case, tell
from sidecar.wire.http1_head import HeadReader

ROUNDS: Final = 40
HEADS: Final = 1000  # a round
SMALL: Final = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
BROWSER: Final = (
    b"GET /cart HTTP/1.1\r\nHost: shop.example.org\r\n"
    + b"".join(b"X-Field-%d: %b\r\n" % (number, b"v" * 40) for number in range(30))
    + b"Cookie: "
    + b"c" * 2000
    + b"\r\n\r\n"
)
WANTED: Final = (b"x-tenant", b"cookie")  # by a route's match, as it were


def differing() -> list[bytes]:
    """Return the requests of the load, ten fields, five of them new in each."""
    chance = random.Random(7541)  # noqa: S311 - no secret
    return [http1_request(number, chance) for number in range(HEADS)]


def requests(heads: list[bytes], wanted: tuple[bytes, ...] = ()) -> Case:
    """Return a case that reads `heads` one after the other, and in each what a route asks for."""

    def run(count: int) -> float:
        read, size = HeadReader().request, len(heads)
        begin = time.process_time()
        for number in range(count):
            found = read(heads[number % size])
            assert found is not None
            for name in wanted:
                found[0].get(name)
        return time.process_time() - begin

    return run


def response(count: int) -> float:
    """Read nginx's answer."""
    read = HeadReader().response
    begin = time.process_time()
    for _ in range(count):
        read(HTTP1_ANSWER, b"GET")
    return time.process_time() - begin


def in_pieces(count: int) -> float:
    """Read a request that comes in four pieces, as a slow caller's does."""
    read = HeadReader().request
    head = differing()[0]
    ends = [len(head) * part // 4 for part in range(1, 5)]
    begin = time.process_time()
    for _ in range(count):
        searched = 0
        for end in ends:
            read(head[:end], searched)
            searched = end
    return time.process_time() - begin


CASES: Final[dict[str, Case]] = {
    "request, two fields": requests([SMALL]),
    "request, ten fields": requests(differing()),
    "request, two wanted as well": requests(differing(), WANTED),
    "request, 32 fields, 4 KiB": requests([BROWSER]),
    "request in four pieces": in_pieces,
    "response": response,
}

if __name__ == "__main__":
    tell(CASES, "a head", HEADS, ROUNDS)
