"""Protocol buffers by hand: as much of the encoding as a few small messages need.

A message is written by joining fields and read as a list of (number, value): an integer for a varint,
octets for all else.  Who reads one passes over what it does not know, as protocol buffers ask, and
refuses what is malformed (protobuf.dev, "Encoding").
"""

from typing import Final

Value = int | bytes

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT: Final = 10  # octets: 64 bits
_MASK: Final = (1 << 64) - 1
_LARGEST: Final = (1 << 29) - 1  # field number


class MalformedError(ValueError):
    """This is no message."""


def varint(number: int) -> bytes:
    """Return a number from 0 to 2**64 - 1."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def number(field: int, value: int) -> bytes:
    """Return a field that holds a number (int32, int64, uint32, bool, enum); 0 is not written."""
    return varint(field << 3 | _VARINT) + varint(value & _MASK) if value else b""


def message(field: int, value: bytes) -> bytes:
    """Return a field that holds a message, or one of several texts; written even if it is empty."""
    return varint(field << 3 | _LENGTH) + varint(len(value)) + value


def text(field: int, value: bytes) -> bytes:
    """Return a field that holds one text or octets; an empty one is not written."""
    return message(field, value) if value else b""


def pair(field: int, key: bytes, value: bytes) -> bytes:
    """Return one entry of a map of texts."""
    return message(field, message(1, key) + message(2, value))


def read(data: bytes) -> list[tuple[int, Value]]:
    """Return the fields of a message, in order.

    Raises:
        MalformedError: it is cut, too long a number, or no field.
    """
    found: list[tuple[int, Value]] = []
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        field, kind = key >> 3, key & 7
        if not 0 < field <= _LARGEST:
            raise MalformedError(f"field {field}")
        if kind == _VARINT:
            value, at = _varint(data, at)
            found.append((field, value))
            continue
        if kind == _LENGTH:
            size, at = _varint(data, at)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:  # groups: nobody writes them any more
            raise MalformedError(f"wire type {kind}")
        if size > end - at:
            raise MalformedError(f"field {field} is cut")
        if kind == _LENGTH:  # there is no fixed number in what we read: it is passed over
            found.append((field, data[at : at + size]))
        at += size
    return found


def texts(fields: list[tuple[int, Value]], field: int) -> list[bytes]:
    """Return all values of a field that holds texts or messages."""
    return [value for name, value in fields if name == field and isinstance(value, bytes)]


def merged(fields: list[tuple[int, Value]], field: int) -> bytes | None:
    """Return the one message of a field; if it is there in parts, they are one; None: it is not."""
    found = texts(fields, field)
    return b"".join(found) if found else None


def last_text(fields: list[tuple[int, Value]], field: int) -> bytes:
    """Return the one text of a field; of several the last counts.

    Raises:
        MalformedError: one is not UTF-8.
    """
    found = texts(fields, field)
    for value in found:
        check_text(value)
    return found[-1] if found else b""


def check_text(value: bytes) -> bytes:
    """Return `value`, which has to be UTF-8.

    Raises:
        MalformedError: it is not.
    """
    try:
        value.decode()
    except UnicodeDecodeError as error:
        raise MalformedError(f"no UTF-8: {value[:20]!r}") from error
    return value


def last_number(fields: list[tuple[int, Value]], field: int, bits: int = 32) -> int:
    """Return the one number of a field, cut to `bits` as an unsigned one; 0 if it is not there."""
    found = [value for name, value in fields if name == field and isinstance(value, int)]
    return found[-1] & (1 << bits) - 1 if found else 0


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = 0
    for index, octet in enumerate(data[at : at + _MAX_VARINT]):
        number |= (octet & 127) << 7 * index
        if octet < 128:
            return number & _MASK, at + index + 1
    raise MalformedError("a number is cut or too long")
