"""What the WebSocket handshake needs where one side speaks HTTP/1.1 and the other HTTP/2."""

import base64
import hashlib
from collections.abc import Callable
from typing import Final

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §4.2.2


def new_key(random_bits: Callable[[int], int]) -> bytes:
    """Return a Sec-WebSocket-Key (RFC 6455 §4.1), which RFC 8441 does without."""
    return base64.b64encode(random_bits(128).to_bytes(16, "big"))


def accept(key: bytes) -> bytes:
    """Return the Sec-WebSocket-Accept that answers `key`."""
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
