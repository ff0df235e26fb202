"""What a request has proved of who sends it, beyond its connection: a verified token, key or password."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

if TYPE_CHECKING:
    from sidecar.core.exchange import Exchange
    from sidecar.wire.fields import Fields, RequestHead

_NONE: Final[Mapping[str, Any]] = {}


@final
class Credential:
    """Set by filters that verify; never changed, since many requests share one."""

    __slots__ = ("claims", "user")

    def __init__(self, claims: Mapping[str, Any] = _NONE, user: str = "") -> None:
        self.claims: Final = claims  # of the token
        self.user: Final = user  # the name that a key or password was found under


USER: Final = "user"
"""The access log's field for the name that a key or password was found under."""

UNKNOWN: Final = Credential()


class Location(NamedTuple):
    """Where a token or key may stand in a request."""

    take: Callable[[RequestHead], bytes | None]
    strip: Callable[[RequestHead], None]


def credential_of(exchange: Exchange) -> Credential:
    """Return what is proved; the slot is empty where no filter has verified anything."""
    found: Credential = getattr(exchange, "credential", UNKNOWN)
    return found


def accept_user(exchange: Exchange, name: str, header: bytes) -> None:
    """Note that the request has shown to be of `name`, and tell the app in the field `header`."""
    exchange.credential = Credential(credential_of(exchange).claims, name)
    exchange.fields = {**(exchange.fields or {}), USER: name}
    if header:
        value = name.encode()
        exchange.extra.append((header, value))
        exchange.head.found[header] = value  # for who looks at fields after us


def claim_values(claims: Mapping[str, Any], name: str) -> list[bytes]:
    """Return the values of a claim as texts: elements of a list, and of a scope, each for itself.

    `name` is looked up whole, then with its dots as steps into objects.  What is no text is as JSON
    writes it; objects have no text.
    """
    value = claims.get(name)
    if value is None:
        value = claims
        for step in name.split("."):
            value = value.get(step) if isinstance(value, dict) else None
    if isinstance(value, str) and name in _SPLIT:
        value = value.split()
    return [
        text for item in (value if isinstance(value, list) else [value]) for text in _text(item)
    ]


_SPLIT: Final = ("scope", "scp")  # RFC 8693 §4.2: values between spaces


def _text(value: object) -> Iterable[bytes]:
    if isinstance(value, str):
        return (value.encode(errors="replace"),)
    if isinstance(value, bool):
        return (b"true" if value else b"false",)
    return (str(value).encode(),) if isinstance(value, int | float) else ()


def lookalikes(names: Iterable[bytes]) -> re.Pattern[bytes]:
    """Return what finds the names of fields that an app may take for one of `names`.

    Some servers read `_` as `-`: `x_user` would be a field that only we may set.
    """
    forms = [b"[-_]".join(map(re.escape, re.split(b"[-_]", name))) for name in names]
    # One literal, the line end, leads to the candidates, as in wire.http1_head.
    return re.compile(rb"\n((?i:" + b"|".join(forms) + rb")):")


def take_out(head: Fields, name: bytes) -> None:
    """Take field `name` out of `head`, as `remove` does; a value that was looked at says where it is.

    1.0 us where a pattern takes 4.8 to go through a head of ten fields (bench: access).
    """
    value = head.found.get(name)
    block = head.block
    if value and head.pairs is None:
        at = block.find(value)
        start, end = block.rfind(b"\n", 0, at) + 1, block.find(b"\n", at) + 1
        line = block[start:end]
        # The whole value of a line of this name: then there is no other, or they were joined.
        if line[: len(name) + 1].lower() == name + b":" and line[len(name) + 1 :].strip() == value:
            del head.found[name]
            head.block = block[:start] + block[end:]
            return
    head.remove(name)


def strip(head: Fields, pattern: re.Pattern[bytes]) -> None:
    """Take the fields out whose names `pattern` finds, as `lookalikes` has it."""
    if head.pairs is None:
        found = pattern.findall(b"\n" + head.block)
    else:
        found = pattern.findall(b"\n" + b":\n".join([n for n, _ in head.pairs]) + b":")
    for name in {name.lower() for name in found} if found else ():
        head.remove(name)
