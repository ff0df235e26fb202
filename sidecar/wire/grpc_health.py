"""The messages of `grpc.health.v1.Health/Check`, as they lie in a body (grpc/health/v1/health.proto)."""

from typing import Final

from sidecar.wire.grpc import pack, unpack

PATH: Final = b"/grpc.health.v1.Health/Check"
SERVING: Final = 1
NAMES: Final = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")  # of ServingStatus

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5  # wire types of protocol buffers
_MAX_VARINT: Final = 10  # octets: 64 bits


def encode_request(service: str) -> bytes:
    """Return the body that asks about `service`; empty asks about the server as a whole."""
    name = service.encode()
    message = b"\x0a" + _varint(len(name)) + name if name else b""  # HealthCheckRequest.service = 1
    return pack(message)


def decode_response(body: bytes) -> int | None:
    """Return the ServingStatus in `body`, 0 if it holds none; None if it is no such message."""
    message = unpack(body)
    if message is None:
        return None
    body, at, status = message, 0, 0
    while at < len(body):
        key, at = _read(body, at)
        value, at = _read(body, at) if key & 7 in (_VARINT, _LENGTH) else (0, at)
        if key == 1 << 3 | _VARINT:  # HealthCheckResponse.status
            status = value
        elif key & 7 != _VARINT:  # a field that we do not know
            at += {_FIXED64: 8, _FIXED32: 4, _LENGTH: value}.get(key & 7, len(body))
        if at > len(body):
            return None
    return status


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _read(body: bytes, at: int) -> tuple[int, int]:
    """Return the varint at `at` and where it ends; past the body's end if it does not."""
    number = 0
    for index in range(_MAX_VARINT):
        if at + index >= len(body):
            break
        octet = body[at + index]
        number |= (octet & 127) << 7 * index
        if octet < 128:
            return number, at + index + 1
    return 0, len(body) + 1
