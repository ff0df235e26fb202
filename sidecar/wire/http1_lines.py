"""What a line of an HTTP/1 head says, remembered: most lines of a caller come again and again."""

import re
from collections.abc import Iterable
from typing import Final, final

from sidecar.errors import DownstreamError
from sidecar.wire.fields import FOUND, KINDS, LOOKALIKE, OURS, SPELLING, Part

TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"  # tchar, RFC 9110 §5.6.2
VALUE: Final = rb"[^\x00-\x08\n-\x1f\x7f]"  # field-vchar, SP, HTAB, obs-text: §5.5
# Some servers take `_` for `-`: `x_forwarded_for` would be a field that we should have set.
LOOKALIKES: Final = re.compile(
    rb"x[-_](?:forwarded|sidecar)[-_][a-z_-]++|x[-_]request[-_]id"
    rb"|content[-_]length|transfer[-_]encoding"
)

_NAME: Final = re.compile(TOKEN + rb"++")
_control: Final = re.compile(rb"[\x00-\x08\n-\x1f\x7f]").search
_MOST: Final = 500  # lines remembered, and as many names; a peer may make up any number
_LONG: Final = 256  # octets of a line that is still remembered
# Other in nearly every request, or secret: not worth remembering.
_FLEETING: Final = frozenset({
    b"authorization", b"cookie", b"proxy-authorization", b"set-cookie", b"traceparent",
    b"tracestate", b"x-api-key", b"x-forwarded-for", b"x-request-id",
})  # fmt: skip


@final
class Lines(dict[bytes, Part]):
    """Parts by line, without its end; one that is met for the first time is looked at.

    Raises:
        DownstreamError: by `[line]`, when it is malformed (RFC 9112 §5).
    """

    __slots__ = ("_is_request", "_looked_at", "_names")

    def __init__(self, looked_at: Iterable[bytes], *, is_request: bool) -> None:
        self._looked_at: Final = frozenset(looked_at)
        self._is_request: Final = is_request
        self._names: Final[dict[bytes, tuple[int, bytes, bool]]] = {}  # as they are spelled

    def __missing__(self, line: bytes) -> Part:
        name, colon, value = line.partition(b":")
        known = self._names.get(name)
        if known is None or not colon:
            if not colon or _NAME.fullmatch(name) is None:
                raise _malformed(line)
            known = self._learn(name)
        kind, lower, fleeting = known
        value = value.strip(b" \t")
        if _control(value) is not None:
            raise _malformed(line)
        part = kind, (lower, value), name
        if not fleeting and len(line) <= _LONG:
            if len(self) >= _MOST:
                self.clear()
            self[line] = part
        return part

    def _learn(self, name: bytes) -> tuple[int, bytes, bool]:
        lower = name.lower()
        kind = KINDS.get(lower, FOUND if lower in self._looked_at else 0)
        if lower == SPELLING:
            kind = OURS
        if self._is_request and b"_" in lower and LOOKALIKES.fullmatch(lower) is not None:
            kind = LOOKALIKE
        known = kind, lower, lower in _FLEETING
        if len(self._names) >= _MOST:
            self._names.clear()
        if len(name) <= _LONG:
            self._names[name] = known
        return known


def _malformed(line: bytes) -> DownstreamError:
    """Return what is said of `line`, which is none."""
    return DownstreamError("bad-field", f"malformed field line {line[:60]!r}")
