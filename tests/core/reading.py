"""What a peer understands of the octets it gets: h11 reads them, as a second opinion."""

from typing import Any, Final, NamedTuple

import h11

Line = tuple[bytes, bytes]


class Message(NamedTuple):
    """One message, its body joined; `start` is (method, target) or (status,)."""

    start: tuple[Any, ...]
    fields: list[Line]
    body: bytes
    trailers: list[Line]
    interim: list[int]
    """The status of each 1xx before it."""


INCOMPLETE: Final = "incomplete"


def read_request(data: bytes) -> Message | str:
    """Return the request that `data` is, whole and with nothing behind it."""
    peer = h11.Connection(h11.SERVER)
    peer.receive_data(data)
    return _read(peer)


def read_response(data: bytes, method: bytes = b"GET", *, ended: bool = False) -> Message | str:
    """Return the response to a `method` request; `ended` says that the stream is over."""
    peer = h11.Connection(h11.CLIENT)
    peer.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    peer.send(h11.EndOfMessage())
    peer.receive_data(data)
    if ended:
        peer.receive_data(b"")
    return _read(peer)


def _read(peer: h11.Connection) -> Message | str:
    start: tuple[Any, ...] = ()
    fields: list[Line] = []
    interim = []
    body = b""
    while True:
        event = peer.next_event()
        if isinstance(event, h11.Request):
            start, fields = (event.method, event.target), event.headers.raw_items()
        elif isinstance(event, h11.InformationalResponse):
            interim.append(event.status_code)
        elif isinstance(event, h11.Response):
            start, fields = (event.status_code,), event.headers.raw_items()
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            assert peer.trailing_data[0] == b"", f"more came: {peer.trailing_data[0]!r}"
            trailers = event.headers.raw_items()
            return Message(start, _plain(fields), body, _plain(trailers), interim)
        else:
            return INCOMPLETE


def _plain(fields: Any) -> list[Line]:
    return [(bytes(name), bytes(value)) for name, value in fields]
