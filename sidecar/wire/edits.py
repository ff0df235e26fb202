"""Which fields a service may set on messages that are not its own."""

import re
from collections.abc import Iterable
from typing import Final

from sidecar.wire.fields import HOP_BY_HOP, Field
from sidecar.wire.protobuf import MalformedError

FRAMING: Final = HOP_BY_HOP | {b"content-length", b"expect", b"host", b"trailer"}
"""Fields that frame a message, or say where it goes: they are the sidecar's."""

_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 §5.1
_VALUE: Final = re.compile(rb"(?:[!-~\x80-\xff](?:[ \t!-~\x80-\xff]*[!-~\x80-\xff])?)?")


def settable(fields: Iterable[Field]) -> list[Field]:
    """Return `fields` with names in lower case, without those that frame a message.

    Raises:
        MalformedError: one is no field, so what it would do to a message is anybody's guess.
    """
    found = []
    for name, value in fields:
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise MalformedError(f"no field: {name[:40]!r}: {value[:40]!r}")
        lower = name.lower()
        if lower not in FRAMING:
            found.append((lower, value))
    return found
