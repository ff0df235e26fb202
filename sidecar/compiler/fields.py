"""One condition of a match, compiled to a test on a request head."""

import re
from collections.abc import Callable
from typing import Final
from urllib.parse import unquote_plus

from sidecar.core.plan import Condition
from sidecar.errors import ConfigError
from sidecar.model.route import RouteMatch, StringMatch
from sidecar.wire.fields import RequestHead

Text = Callable[[bytes | None], bool]

# RFC 9110 §5.1; HTTP/2 names the authority like a field, and so may a match.
_NAME: Final = re.compile(r":authority|[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_KINDS: Final = ("exact", "prefix", "suffix", "regex", "present")


def conditions(match: RouteMatch, path: str, errors: list[ConfigError]) -> tuple[Condition, ...]:
    """Return the tests for everything in `match` but its hosts; what is wrong goes to `errors`."""
    found: list[Condition] = []
    for index, method in enumerate(match.methods):
        if not method or method != method.upper():  # methods are case-sensitive: RFC 9110 §9.1
            errors.append(
                ConfigError(f"{path}.methods[{index}]", f"expected capitals, got {method!r}")
            )
    if match.methods:
        found.append(_method(frozenset(m.encode() for m in match.methods)))
    kinds = [k for k in ("path", "prefix", "regex") if getattr(match, k) is not None]
    if len(kinds) > 1:
        errors.append(ConfigError(path, f"expected one of path, prefix, regex; got {kinds}"))
    for kind in ("path", "prefix"):
        value = getattr(match, kind)
        if value is not None and not value.startswith("/"):
            errors.append(ConfigError(f"{path}.{kind}", f"expected a leading /, got {value!r}"))
        elif value is not None and ("?" in value or "#" in value):
            errors.append(
                ConfigError(f"{path}.{kind}", f"expected a path without query, got {value!r}")
            )
    if match.path is not None:
        found.append(_path(match.path.encode()))
    elif match.prefix is not None and match.prefix != "/":
        found.append(_prefix(match.prefix.rstrip("/").encode()))
    elif match.regex is not None:
        test = _regex(match.regex, f"{path}.regex", errors)
        found.append(lambda head: test(head.path))
    for name, text in match.headers.items():
        if not _NAME.fullmatch(name):
            errors.append(ConfigError(f"{path}.headers.{name}", f"no field can be called {name!r}"))
        test = text_test(text, f"{path}.headers.{name}", errors)
        found.append(_header(name.lower().encode(), test))
    for name, text in match.query.items():
        test = text_test(text, f"{path}.query.{name}", errors)
        found.append(_query(name, test))
    return tuple(found)


def names(match: RouteMatch) -> set[bytes]:
    """Return the request fields that `match` looks at, in lower case."""
    return {name.lower().encode() for name in match.headers}


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
    import re2  # noqa: PLC0415 - 5 MB that only a worker with patterns should load

    options = re2.Options()
    options.log_errors = False
    try:
        # The dialect works on characters; Latin-1 makes each octet one, so any octet can be matched.
        full = re2.compile(pattern, options).fullmatch
    except re2.error as error:
        text = error.args[0] if error.args else "not understood"
        detail = text.decode() if isinstance(text, bytes) else str(text)
        errors.append(ConfigError(path, f"bad pattern {pattern!r}: {detail}"))
        return lambda value: False
    return lambda value: value is not None and full(value.decode("latin-1")) is not None


def _method(methods: frozenset[bytes]) -> Condition:
    return lambda head: head.method in methods


def _path(path: bytes) -> Condition:
    return lambda head: head.path == path


def _prefix(prefix: bytes) -> Condition:
    """By segments: `/api` takes `/api`, `/api/` and `/api?x`, not `/apix`."""
    size = len(prefix)
    ends = (b"", b"/", b"?")

    def holds(head: RequestHead) -> bool:
        target = head.target
        return target.startswith(prefix) and target[size : size + 1] in ends

    return holds


def _header(name: bytes, test: Text) -> Condition:
    if name == b":authority":
        return lambda head: test(head.authority)
    return lambda head: test(head.get(name))


def _query(name: str, test: Text) -> Condition:
    def holds(head: RequestHead) -> bool:
        for pair in head.target.partition(b"?")[2].split(b"&"):
            key, found, value = pair.partition(b"=")
            if (key or found) and unquote_plus(key.decode("latin-1")) == name:
                return test(unquote_plus(value.decode("latin-1")).encode())
        return test(None)

    return holds
