"""HTTP/2 frames as octets: numbers of RFC 9113 and how frames are written."""

import struct
from collections.abc import Iterable
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # RFC 9113 §3.4

ALPN_SIDECAR: Final = "sidecar-h2"
"""HTTP/2 between two sidecars: the peer understands `x-sidecar-spelling`."""

# Frame types, §6.
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = range(5)
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(5, 10)

# Flags.
END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITIZED: Final = 0x20

# Error codes, §7.
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, SETTINGS_TIMEOUT = range(5)
STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR = range(5, 10)
CONNECT_ERROR, ENHANCE_YOUR_CALM, INADEQUATE_SECURITY, HTTP_1_1_REQUIRED = range(10, 14)

ERROR_NAMES: Final = (
    "NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT",
    "STREAM_CLOSED", "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR",
    "CONNECT_ERROR", "ENHANCE_YOUR_CALM", "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
)  # fmt: skip

# Settings, §6.5.2 and RFC 8441.
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = range(1, 5)
MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 5, 6
ENABLE_CONNECT_PROTOCOL: Final = 8

DEFAULT_WINDOW: Final = 65535
DEFAULT_FRAME: Final = 16384  # also the smallest MAX_FRAME_SIZE
LARGEST_FRAME: Final = 16777215
LARGEST_WINDOW: Final = 2**31 - 1
LARGEST_STREAM: Final = 2**31 - 1

HEADER: Final = struct.Struct(">BHBBL")  # length in 1 + 2 octets, type, flags, stream
_SETTING: Final = struct.Struct(">HL")
_WINDOW: Final = struct.Struct(">BHBBLL")
_GOAWAY: Final = struct.Struct(">LL")

pack_header = HEADER.pack


def error_name(code: int) -> str:
    """Return the name of an error code; an unknown one is shown as its number (§7)."""
    return ERROR_NAMES[code] if code < len(ERROR_NAMES) else f"error {code}"


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return one whole frame."""
    size = len(payload)
    return pack_header(size >> 16, size & 0xFFFF, kind, flags, stream) + payload


def settings(values: Iterable[tuple[int, int]]) -> bytes:
    """Return a SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join([_SETTING.pack(k, v) for k, v in values]))


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """Return the (identifier, value) pairs of a SETTINGS payload, a multiple of 6 octets."""
    return list(_SETTING.iter_unpack(payload))


def reset(stream: int, code: int) -> bytes:
    """Return a RST_STREAM frame."""
    return _WINDOW.pack(0, 4, RST_STREAM, 0, stream, code)


def window_update(stream: int, increment: int) -> bytes:
    """Return a WINDOW_UPDATE frame."""
    return _WINDOW.pack(0, 4, WINDOW_UPDATE, 0, stream, increment)


def goaway(last: int, code: int, text: bytes = b"") -> bytes:
    """Return a GOAWAY frame."""
    return frame(GOAWAY, 0, 0, _GOAWAY.pack(last, code) + text)


def read_goaway(payload: bytes) -> tuple[int, int, bytes]:
    """Return (last stream, error code, debug text) of a GOAWAY payload of 8 octets or more."""
    last, code = _GOAWAY.unpack_from(payload)
    return last & LARGEST_STREAM, code, payload[8:]
