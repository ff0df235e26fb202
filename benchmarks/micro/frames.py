"""What HTTP/2 costs without the engine: `python -m benchmarks.micro.frames [CASE...]`.

Two ends of a connection joined in memory; a unit is a request's head and the answer, a head and a
body of 100 octets, written, read and told on both ends.  "reference" is the h2 library, the other
codec that can be chosen.
"""

import time
from collections.abc import Callable
from typing import Any, Final

from benchmarks.micro.hpack import heads
from benchmarks.micro.turns import Case, tell
from sidecar.wire.hpack import Field
from sidecar.wire.http2 import Link
from sidecar.wire.http2_reference import ReferenceLink
from sidecar.wire.http2_stream import Stream

ROUNDS: Final = 25
UNITS: Final = 400  # a round
TOGETHER: Final = 4  # streams in one read
ANSWER: Final[list[Field]] = [
    (b":status", b"200"),
    (b"server", b"nginx/1.22.1"),
    (b"content-type", b"text/plain"),
    (b"content-length", b"100"),
]
BODY: Final = b"x" * 100


class End:
    """One end; it answers what is opened, and hears the rest without doing anything."""

    def __init__(self, make: Callable[..., Any], *, client: bool) -> None:
        self.link = make(self, time.monotonic, client=client)
        self.ended = 0

    def opened(self, stream: Stream, fields: list[Field], *, end: bool) -> None:
        """Answer."""
        self.link.send_headers(stream, ANSWER, end=False)
        self.link.send_data(stream, BODY, end=True)

    def headers(self, stream: Stream, fields: list[Field], *, end: bool) -> None:
        """See wire.http2_stream.Events."""

    def data(self, stream: Stream, data: bytes, *, end: bool) -> None:
        """Count what ended."""
        self.ended += end

    def ended_early(self, stream: Stream, code: int, detail: str) -> None:
        """Never: that would be another benchmark."""
        raise AssertionError(detail)

    def broken(self, code: int, detail: str) -> None:
        """Never either."""
        raise AssertionError(detail)

    def settled(self) -> None:
        """See wire.http2_stream.Events."""

    writable = too_large = going_away = pong = flush = settled


def joined(make: Callable[..., Any], source: list[list[Field]], *, huffman: bool = False) -> Case:
    """Return a case in which the client end asks with the heads of `source`."""

    def run(count: int) -> float:
        def link(*given: Any, **more: Any) -> Any:
            return make(*given, **more, huffman=huffman)

        near, far = End(link, client=True), End(link, client=False)
        begin = 0.0
        for number in range(0, count + 40, TOGETHER):
            if number == 40:
                begin = time.process_time()
            for place in range(TOGETHER):
                stream = near.link.open()
                near.link.send_headers(stream, source[(number + place) % len(source)], end=True)
            far.link.receive(near.link.take())
            near.link.receive(far.link.take())
        spent = time.process_time() - begin
        assert near.ended == count + 40
        return spent

    return run


DIFFERING: Final = heads()
SAME: Final = DIFFERING[:1]
CASES: Final[dict[str, Case]] = {
    "fields repeat": joined(Link, SAME),
    "fields differ": joined(Link, DIFFERING),
    "fields differ, Huffman": joined(Link, DIFFERING, huffman=True),
    "reference, fields repeat": joined(ReferenceLink, SAME),
    "reference, fields differ": joined(ReferenceLink, DIFFERING),
}

if __name__ == "__main__":
    tell(CASES, "a request with its answer", UNITS, ROUNDS)
