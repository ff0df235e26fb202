"""An HTTP/2 load whose heads differ in every request, which h2load cannot send.

`python -m benchmarks.load.differing PORT plain|huffman CONNECTIONS STREAMS SECONDS` prints one JSON
object.  The first request of a connection puts the fields that repeat into the table; every head
after it refers to them by index and carries path, request id, traceparent, cookie and one more as
literals that are not put there.  So heads are octets made beforehand, and sending one is a join.
"""

import json
import random
import select
import socket
import struct
import sys
import time
from functools import cache
from typing import Final

from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

HEADS: Final = 4000
HUFFMAN: Final = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)
# Name, value, static index of the name (RFC 7541, appendix A) or 0.
REPEATED: Final = (
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36", 58),
    (b"accept", b"application/json", 19),
    (b"accept-encoding", b"gzip, deflate, br", 16),
    (b"accept-language", b"en-GB,en;q=0.9", 17),
    (b"cache-control", b"no-cache", 24),
)
AUTHORITY: Final = (b":authority", b"catalog.shop.internal:8443", 1)
STATIC: Final = 61
METHOD_AND_SCHEME: Final = b"\x82\x86"  # :method GET, :scheme http
FRAME: Final = struct.Struct(">BHBBL")  # length in two parts, type, flags, stream
PREFACE: Final = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    + bytes([0, 0, 12, 4, 0, 0, 0, 0, 0])
    + struct.pack(">HLHL", 2, 0, 4, 1 << 20)  # no push; windows of 1 MiB
    + bytes([0, 0, 4, 8, 0, 0, 0, 0, 0])
    + struct.pack(">L", (1 << 31) - 1 - 65535)  # the connection's window never fills
)
ACKNOWLEDGED: Final = bytes([0, 0, 0, 4, 1, 0, 0, 0, 0])
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 0, 1, 3, 4, 6, 7
OK: Final = 0x88  # :status 200, indexed


def text(value: bytes, *, huffman: bool) -> bytes:
    """Return an HPACK string (RFC 7541 §5.2)."""
    if huffman:
        value = HUFFMAN.encode(value)
    return integer(len(value), 7, 0x80 if huffman else 0) + value


def integer(value: int, bits: int, first: int) -> bytes:
    """Return an HPACK integer (RFC 7541 §5.1) behind the bits of `first`."""
    most = (1 << bits) - 1
    if value < most:
        return bytes([first | value])
    octets = [first | most]
    value -= most
    while value > 127:
        octets.append(value & 127 | 128)
        value >>= 7
    return bytes([*octets, value])


def differing(number: int, chance: random.Random) -> tuple[tuple[bytes, bytes, int], ...]:
    """Return the fields of head `number` that no other head has."""

    def digits(count: int) -> str:
        return f"{chance.getrandbits(4 * count):0{count}x}"

    sampled = "01" if number % 100 == 0 else "00"
    made = (
        (b":path", f"/api/v1/items/{digits(8)}?page=3&sort=asc", 4),
        (b"x-request-id", f"{digits(8)}-{digits(4)}-4{digits(3)}-{digits(4)}-{digits(12)}", 0),
        (b"traceparent", f"00-{digits(32)}-{digits(16)}-{sampled}", 0),
        (b"cookie", f"session={digits(32)}; theme=dark", 32),
        (b"x-tenant", f"tenant-{digits(8)}", 0),
    )
    return tuple((name, value.encode(), index) for name, value, index in made)


# Pseudo-fields come first (RFC 9113 §8.3), so a block is: `before`, the path, the repeated fields,
# the other differing ones.
Part = tuple[bytes, bytes]


def opening(*, huffman: bool) -> Part:
    """Return what stands before and behind the path in a connection's first head."""

    def added(value: bytes, index: int) -> bytes:
        return integer(index, 6, 0x40) + text(value, huffman=huffman)

    repeated = b"".join(added(value, index) for _, value, index in REPEATED)
    return METHOD_AND_SCHEME + added(AUTHORITY[1], AUTHORITY[2]), repeated


def following() -> Part:
    """Return the same for later heads, by index: what was put into the table last is the first."""
    count = len(REPEATED)
    places = [integer(STATIC + count - place, 7, 0x80) for place in range(count)]
    return METHOD_AND_SCHEME + integer(STATIC + 1 + count, 7, 0x80), b"".join(places)


def literals(number: int, chance: random.Random, *, huffman: bool) -> Part:
    """Return path and other differing fields of head `number`: never put into the table."""
    made = [
        (integer(index, 4, 0) if index else b"\x00" + text(name, huffman=huffman))
        + text(value, huffman=huffman)
        for name, value, index in differing(number, chance)
    ]
    return made[0], b"".join(made[1:])


@cache
def tails(*, huffman: bool) -> list[Part]:
    """Return the differing parts of all heads, the same in every run; made once."""
    chance = random.Random(7541)  # noqa: S311 - no secret
    return [literals(number, chance, huffman=huffman) for number in range(HEADS)]


class Connection:
    """One connection with a number of streams under way."""

    def __init__(self, port: int, head: Part, parts: list[Part], first: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.done = 0
        self.errors = 0
        self._opening = head
        self._following = following()
        self._parts = parts
        self._next = first
        self._stream = 1
        self._rest = b""
        self.socket.sendall(PREFACE)

    def ask(self, count: int) -> None:
        """Send `count` requests."""
        frames: list[bytes] = []
        parts, stream, number = self._parts, self._stream, self._next
        for _ in range(count):
            before, repeated = self._opening if stream == 1 else self._following
            path, rest = parts[number]
            block = before + path + repeated + rest
            # END_HEADERS and END_STREAM; a block is far shorter than 65536 octets
            frames += (FRAME.pack(0, len(block), HEADERS, 5, stream), block)
            stream += 2
            number = (number + 1) % HEADS
        self._stream, self._next = stream, number
        self.socket.sendall(b"".join(frames))

    def answered(self) -> int:
        """Read what is there; return how many answers ended."""
        piece = self.socket.recv(262144)
        if not piece:
            raise ConnectionError("the proxy closed a connection under load")
        octets = self._rest + piece
        at, size, ended = 0, len(octets), 0
        while size - at >= 9:
            length = octets[at] << 16 | octets[at + 1] << 8 | octets[at + 2]
            end = at + 9 + length
            if end > size:
                break
            kind, flags = octets[at + 3], octets[at + 4]
            if kind <= HEADERS:
                if kind == HEADERS and octets[at + 9] != OK:
                    self.errors += 1
                ended += flags & 1
            elif kind == SETTINGS and not flags & 1:
                self.socket.sendall(ACKNOWLEDGED)
            elif kind == PING and not flags & 1:
                self.socket.sendall(octets[at : at + 4] + b"\x01" + octets[at + 5 : end])
            elif kind in (RST_STREAM, GOAWAY):
                self.errors += 1
                ended += kind == RST_STREAM
            at = end
        self._rest = octets[at:]
        self.done += ended
        return ended


def run(port: int, coding: str, connections: int, streams: int, seconds: float) -> dict[str, int]:
    """Keep `streams` requests under way on each connection for `seconds`."""
    huffman = coding == "huffman"
    parts, head = tails(huffman=huffman), opening(huffman=huffman)
    # Each connection begins elsewhere in the list, so that no two send the same heads together.
    made = [
        Connection(port, head, parts, place * HEADS // connections) for place in range(connections)
    ]
    poll = select.epoll()
    by_descriptor = {connection.socket.fileno(): connection for connection in made}
    for descriptor, connection in by_descriptor.items():
        poll.register(descriptor, select.EPOLLIN)
        connection.ask(streams)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for descriptor, _ in poll.poll(0.1):
            connection = by_descriptor[descriptor]
            ended = connection.answered()
            if ended:
                connection.ask(ended)
    return {
        "requests": sum(connection.done for connection in made),
        "errors": sum(connection.errors for connection in made),
    }


if __name__ == "__main__":
    arguments = sys.argv[1:]
    print(
        json.dumps(
            run(int(arguments[0]), arguments[1], int(arguments[2]), int(arguments[3]),
                float(arguments[4]))
        )
    )  # fmt: skip
