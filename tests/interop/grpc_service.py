"""The service of the gRPC suite: what it answers, with no gRPC library in it.

Every request is one line of JSON, then padding; every reply is padding, or a number. So no code is
generated, and one service runs on every library's server.
"""

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

# method -> (callers stream, servers stream)
METHODS: Final = {
    "Unary": (False, False),
    "Gather": (True, False),  # answers with the octets of padding it got
    "Scatter": (False, True),
    "Chat": (True, True),
    "Seen": (False, False),  # how an earlier call went, by its interop-id
}
SERVICE: Final = "interop.Test"
ECHO_INITIAL: Final = "x-grpc-test-echo-initial"
ECHO_TRAILING: Final = "x-grpc-test-echo-trailing-bin"
ID: Final = "interop-id"

Metadata = Sequence[tuple[str, str | bytes]]


def ask(
    *sizes: int, pad: int = 0, code: int = 0, text: str = "", hold: bool = False, seen: str = ""
) -> bytes:
    """Make a request.

    It asks for a reply of each of `sizes`, then for the status `code` with `text`, or to `hold`
    until the call is over; `seen` asks how the call of that id went.
    """
    wish = {"sizes": sizes, "code": code, "text": text, "hold": hold, "seen": seen}
    return json.dumps(wish).encode() + b"\n" + bytes(pad)


@dataclass
class Record:
    """What the server saw of one call."""

    metadata: list[tuple[str, str]]
    """As they came; the values of -bin keys in hexadecimal."""

    remaining: float | None
    """Seconds to the deadline when the call began."""

    holds: bool = False
    """Whether it waits for the call to be over."""

    end: str = ""
    """Empty while it runs; then `done` or `cancelled`."""


@dataclass
class Call:
    """One call on the server: requests in, replies out."""

    method: str
    metadata: Metadata
    remaining: float | None
    code: int = 0
    text: str = ""
    padding: int = 0
    wanted: str = ""
    record: Record = field(init=False)
    _hold: bool = False

    def __post_init__(self) -> None:
        plain = [
            (key, value.hex() if isinstance(value, bytes) else value)
            for key, value in self.metadata
        ]
        self.record = Record(plain, self.remaining)
        for key, value in plain:
            if key == ID:
                RECORDS[value] = self.record

    def take(self, request: bytes) -> list[bytes]:
        """Take one request; the replies to it."""
        line, _, padding = request.partition(b"\n")
        wish = json.loads(line)
        self.padding += len(padding)
        self.code, self.text, self.wanted = wish["code"], wish["text"], wish["seen"]
        self._hold = wish["hold"]
        return [bytes(size) for size in wish["sizes"]]

    def holds(self) -> bool:
        """Is the server to wait now, all replies to the last request sent?"""
        self.record.holds = self._hold
        return self._hold

    def finish(self) -> list[bytes]:
        """The replies that are due once the caller has sent all."""
        return [b"%d" % self.padding] if self.method == "Gather" else []

    def initial(self) -> Metadata:
        return [(key, value) for key, value in self.metadata if key == ECHO_INITIAL]

    @contextlib.contextmanager
    def recorded(self) -> Iterator[None]:
        """Record how the call ended: `cancelled` unless it got as far as `done`."""
        try:
            yield
        finally:
            self.record.end = self.record.end or "cancelled"

    def done(self) -> None:
        self.record.end = "done"

    def trailing(self) -> Metadata:
        return [(key, value) for key, value in self.metadata if key == ECHO_TRAILING]


# interop-id -> what was seen of that call; one process serves one suite.
RECORDS: Final[dict[str, Record]] = {}


def told(wanted: str) -> bytes | None:
    """What was seen of a call, `ID/holds` or `ID/end`; None before that."""
    id_, _, state = wanted.partition("/")
    record = RECORDS.get(id_)
    if record is None or not getattr(record, state):
        return None
    return json.dumps(vars(record)).encode()


def read_record(data: bytes) -> Record:
    found: dict[str, Any] = json.loads(data)
    return Record([(k, v) for k, v in found.pop("metadata")], **found)
