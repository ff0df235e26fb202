"""Where a request carries what it proves, and the fields in which the app is told."""

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote_plus

from sidecar.core.credential import Location, take_out
from sidecar.errors import ConfigError
from sidecar.wire.edits import FRAMING
from sidecar.wire.fields import RequestHead

_LOCATION: Final = re.compile(r"(header|query|cookie):([!#$%&'*+.^_`|~0-9A-Za-z-]+)")
_FIELD: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 §5.1
_BEARER: Final = re.compile(rb"(?i:bearer)[ ]+(.*)", re.DOTALL)  # RFC 9110 §11.1, RFC 6750 §2.1


def location(word: str, path: str, errors: list[ConfigError]) -> Location:
    """Return where `word` says that a token or key stands."""
    found = _LOCATION.fullmatch(word)
    if found is None:
        detail = f"expected header:NAME, query:NAME or cookie:NAME, got {word!r}"
        errors.append(ConfigError(path, detail))
        return _header(b"authorization")
    kind, name = found[1], found[2]
    if kind == "query":
        return _query(name)
    if kind == "cookie":
        return _cookie(name.encode())
    low = name.lower().encode()
    if low in FRAMING:
        errors.append(ConfigError(path, f"{name} frames the message"))
    return _bearer() if low == b"authorization" else _header(low)


def header_names(names: Iterable[str], path: str, errors: list[ConfigError]) -> list[bytes]:
    """Return names of fields that we set for the app, in lower case."""
    errors += [
        ConfigError(f"{path}.{name}", f"no field of ours can be called {name!r}")
        for name in names
        if not _FIELD.fullmatch(name) or name.lower().encode() in FRAMING
    ]
    return [name.lower().encode() for name in names]


def _bearer() -> Location:
    def take(head: RequestHead) -> bytes | None:
        value = head.get(b"authorization")
        found = None if value is None else _BEARER.fullmatch(value)
        return None if found is None else found[1]

    return Location(take, lambda head: take_out(head, b"authorization"))


def _header(name: bytes) -> Location:
    return Location(lambda head: head.get(name), lambda head: take_out(head, name))


def _query(name: str) -> Location:
    def is_it(pair: bytes) -> bool:
        return unquote_plus(pair.partition(b"=")[0].decode("latin-1")) == name

    def take(head: RequestHead) -> bytes | None:
        for pair in head.target.partition(b"?")[2].split(b"&"):
            if is_it(pair):
                return unquote_plus(pair.partition(b"=")[2].decode("latin-1")).encode()
        return None

    def strip(head: RequestHead) -> None:
        path, _, query = head.target.partition(b"?")
        rest = b"&".join([pair for pair in query.split(b"&") if not is_it(pair)])
        head.target = path + b"?" + rest if rest else path

    return Location(take, strip)


def _cookie(name: bytes) -> Location:
    def pairs(head: RequestHead) -> list[bytes]:
        fields = head.pairs
        if fields is None:
            fields = [(b"cookie", head.get(b"cookie") or b"")]
        # RFC 6265 §4.2.1; HTTP/2 may cut them into several fields.
        return b";".join([v for n, v in fields if n == b"cookie"]).split(b";")

    def is_it(pair: bytes) -> bool:
        return pair.partition(b"=")[0].strip() == name

    def take(head: RequestHead) -> bytes | None:
        for pair in pairs(head):
            if is_it(pair):
                return pair.partition(b"=")[2].strip().strip(b'"')
        return None

    def strip(head: RequestHead) -> None:
        rest = b"; ".join([pair.strip() for pair in pairs(head) if not is_it(pair)])
        head.remove(b"cookie")
        if rest:
            head.add(b"cookie", rest)

    return Location(take, strip)
