"""One condition of a match, compiled to a test on a request head."""

import random
import re
from collections.abc import Callable
from typing import Final
from urllib.parse import unquote_plus

from sidecar.compiler.patterns import PathTest, compile_pattern, path_test
from sidecar.core.api import Draw
from sidecar.core.plan import Condition
from sidecar.core.types import Caller
from sidecar.errors import ConfigError
from sidecar.model.match import RouteMatch, StringMatch
from sidecar.wire.fields import RequestHead

Text = Callable[[bytes | None], bool]

# RFC 9110 §5.1; HTTP/2 names the authority like a field, and so may a match.
_NAME: Final = re.compile(r":authority|[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_KINDS: Final = ("exact", "prefix", "suffix", "regex", "present")


def conditions(
    match: RouteMatch, path: str, errors: list[ConfigError], draw: Draw = random.random
) -> tuple[Condition, ...]:
    """Return the tests for everything in `match` but its hosts; what is wrong goes to `errors`.

    The draw for a percentage comes last, so that it is made only for what else matches.
    """
    found = [*_methods(match, path, errors), *_target(match, path, errors)]
    for name, text in match.headers.items():
        if not _NAME.fullmatch(name):
            errors.append(ConfigError(f"{path}.headers.{name}", f"no field can be called {name!r}"))
        test = text_test(text, f"{path}.headers.{name}", errors)
        found.append(_header(name.lower().encode(), test))
    for name, text in match.query.items():
        test = text_test(text, f"{path}.query.{name}", errors)
        found.append(_query(name, test))
    for name, text in match.cookies.items():
        if not is_field_name(name):
            errors.append(
                ConfigError(f"{path}.cookies.{name}", f"no cookie can be called {name!r}")
            )
        found.append(_cookie(name.encode(), text_test(text, f"{path}.cookies.{name}", errors)))
    if match.peer is not None:
        found.append(_peer(text_test(match.peer, f"{path}.peer", errors)))
    if match.ports:
        found.append(_port(frozenset(match.ports)))
    if match.percent < 100:
        found.append(_percent(match.percent / 100, draw))
    return tuple(found)


def _methods(match: RouteMatch, path: str, errors: list[ConfigError]) -> list[Condition]:
    for index, method in enumerate(match.methods):
        if not method or method != method.upper():  # methods are case-sensitive: RFC 9110 §9.1
            errors.append(
                ConfigError(f"{path}.methods[{index}]", f"expected capitals, got {method!r}")
            )
    return [_method(frozenset(m.encode() for m in match.methods))] if match.methods else []


def _target(match: RouteMatch, path: str, errors: list[ConfigError]) -> list[Condition]:
    test = path_test(match, path, errors)
    if test is None:
        return []
    if match.path is not None:
        return [_path(match.path.encode())]
    if match.prefix is not None:
        return [_prefix(match.prefix.rstrip("/").encode())]
    return [_on_path(test)]


def is_field_name(text: str) -> bool:
    """Say whether a field can be called `text` (RFC 9110 §5.1)."""
    return _NAME.fullmatch(text) is not None and not text.startswith(":")


def text_test(match: StringMatch, path: str, errors: list[ConfigError]) -> Text:
    """Return the test of one text; an absent text passes only `present: false` and inversions."""
    given = [k for k in _KINDS if getattr(match, k) is not None]
    if len(given) != 1:
        errors.append(
            ConfigError(path, f"expected exactly one of {', '.join(_KINDS)}; got {given}")
        )
        return lambda value: False
    test = _plain_test(match, given[0], path, errors)
    if match.invert:
        return lambda value: not test(value)
    return test


def _plain_test(match: StringMatch, kind: str, path: str, errors: list[ConfigError]) -> Text:
    if kind == "present":
        wanted = match.present
        return lambda value: (value is not None) is wanted
    if kind == "regex":
        assert match.regex is not None
        return _regex(match.regex, f"{path}.regex", errors)
    text = getattr(match, kind).encode()
    if kind == "prefix":
        return lambda value: value is not None and value.startswith(text)
    if kind == "suffix":
        return lambda value: value is not None and value.endswith(text)
    return lambda value: value == text


def _regex(pattern: str, path: str, errors: list[ConfigError]) -> Text:
    """Compile a user's pattern on an engine that is linear in the text (RE2)."""
    compiled = compile_pattern(pattern, path, errors)
    if compiled is None:
        return lambda value: False
    full = compiled.fullmatch
    return lambda value: value is not None and full(value.decode("latin-1")) is not None


def _method(methods: frozenset[bytes]) -> Condition:
    return lambda head, caller: head.method in methods


def _path(path: bytes) -> Condition:
    return lambda head, caller: head.path == path


def _on_path(test: PathTest) -> Condition:
    return lambda head, caller: test(head.path)


def _prefix(prefix: bytes) -> Condition:
    """By segments: `/api` takes `/api`, `/api/` and `/api?x`, not `/apix`."""
    size = len(prefix)
    ends = (b"", b"/", b"?")

    def holds(head: RequestHead, caller: Caller) -> bool:
        target = head.target
        return target.startswith(prefix) and target[size : size + 1] in ends

    return holds


def _cookie(name: bytes, test: Text) -> Condition:
    """RFC 6265 §4.2.1: pairs between semicolons; HTTP/2 may cut them into several fields."""

    def holds(head: RequestHead, caller: Caller) -> bool:
        pairs = head.pairs
        if pairs is None:
            pairs = [(b"cookie", head.get(b"cookie") or b"")]
        for pair in b";".join([v for n, v in pairs if n == b"cookie"]).split(b";"):
            key, found, value = pair.partition(b"=")
            if found and key.strip() == name:
                return test(value.strip().strip(b'"'))
        return test(None)

    return holds


def _peer(test: Text) -> Condition:
    return lambda head, caller: test(caller.identity.encode() or None)


def _port(ports: frozenset[int]) -> Condition:
    return lambda head, caller: caller.local[1] in ports


def _percent(share: float, draw: Draw) -> Condition:
    return lambda head, caller: draw() < share


def _header(name: bytes, test: Text) -> Condition:
    if name == b":authority":
        return lambda head, caller: test(head.authority)
    return lambda head, caller: test(head.get(name))


def _query(name: str, test: Text) -> Condition:
    def holds(head: RequestHead, caller: Caller) -> bool:
        for pair in head.target.partition(b"?")[2].split(b"&"):
            key, found, value = pair.partition(b"=")
            if (key or found) and unquote_plus(key.decode("latin-1")) == name:
                return test(unquote_plus(value.decode("latin-1")).encode())
        return test(None)

    return holds
