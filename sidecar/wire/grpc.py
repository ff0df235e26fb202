"""gRPC messages in a body: a flag octet, four of length, and the message (PROTOCOL-HTTP2)."""

from typing import Final, final

TRAILERS: Final = 0x80  # the flag of a gRPC-Web frame that holds trailers (PROTOCOL-WEB)


@final
class MessageCounter:
    """Counts the messages of one direction as their prefixes come by; keeps no message."""

    __slots__ = ("_left", "_prefix", "count")

    def __init__(self) -> None:
        self.count = 0
        self._left = 0  # octets of the present message still to come
        self._prefix = b""  # the part of a prefix that has come

    def feed(self, data: bytes) -> None:
        """Look at more of the body."""
        at, size = self._left, len(data)
        if (
            size >= 5
            and not at
            and not self._prefix
            and size - 5 == int.from_bytes(data[1:5], "big")
        ):
            self.count += 1  # one message, as a unary call has
            return
        while at < size:
            head = self._prefix + data[at : at + 5 - len(self._prefix)]
            at += len(head) - len(self._prefix)
            if len(head) < 5:
                self._prefix = head
                self._left = 0
                return
            self._prefix = b""
            self.count += 1
            at += int.from_bytes(head[1:], "big")
        self._left = at - size


def pack(message: bytes) -> bytes:
    """Return the body that carries one message."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def unpack(body: bytes) -> bytes | None:
    """Return the one message of a body; None for what is not exactly one, or compressed."""
    if len(body) < 5 or body[0] or int.from_bytes(body[1:5], "big") != len(body) - 5:
        return None
    return body[5:]


def web_trailers(lines: bytes) -> bytes:
    """Return the frame that carries trailer lines at the end of a gRPC-Web body."""
    return b"%c%b%b" % (TRAILERS, len(lines).to_bytes(4, "big"), lines)
