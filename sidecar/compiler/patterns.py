"""Patterns of users, and conditions on paths, compiled to tests that are linear in the text."""

import re
from collections.abc import Callable
from typing import Any, Final

from sidecar.errors import ConfigError
from sidecar.model.authorization import PathMatch
from sidecar.model.match import RouteMatch

PathTest = Callable[[bytes], bool]
"""Tests a path without its query."""

Spell = Callable[[str], bytes]
"""Returns a text of the configuration as it is compared with paths."""

PATH_KINDS: Final = ("path", "prefix", "regex", "template")

_SEGMENT: Final = re.compile(
    r"(?P<many>\*\*|\{[a-z_][a-z0-9_]*=\*\*\})|(?P<one>\*|\{[a-z_][a-z0-9_]*(?:=\*)?\})|[^*{}]*"
)


def path_test(
    match: RouteMatch | PathMatch,
    path: str,
    errors: list[ConfigError],
    spell: Spell = str.encode,
) -> PathTest | None:
    """Return the test of `match` on paths, None if it has none; what is wrong goes to `errors`."""
    kinds = [k for k in PATH_KINDS if getattr(match, k) is not None]
    if len(kinds) > 1:
        errors.append(ConfigError(path, f"expected one of {', '.join(PATH_KINDS)}; got {kinds}"))
    for kind in ("path", "prefix", "template"):
        value = getattr(match, kind)
        if value is not None and not value.startswith("/"):
            errors.append(ConfigError(f"{path}.{kind}", f"expected a leading /, got {value!r}"))
        elif value is not None and ("?" in value or "#" in value):
            errors.append(
                ConfigError(f"{path}.{kind}", f"expected a path without query, got {value!r}")
            )
    if match.path is not None:
        whole = spell(match.path)
        return lambda target: target == whole
    if match.prefix is not None:
        return _prefix(spell(match.prefix).rstrip(b"/")) if match.prefix != "/" else None
    if match.regex is not None:
        return _pattern(match.regex, f"{path}.regex", errors)
    if match.template is not None:
        return _template(match.template, f"{path}.template", errors, spell)
    return None


def compile_pattern(pattern: str, path: str, errors: list[ConfigError]) -> Any:
    """Return a user's pattern compiled by RE2, or None after an error.

    The dialect works on characters; Latin-1 makes each octet one, so any octet can be matched.
    """
    import re2  # noqa: PLC0415 - 5 MB that only a worker with patterns should load

    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        text = error.args[0] if error.args else "not understood"
        detail = text.decode() if isinstance(text, bytes) else str(text)
        errors.append(ConfigError(path, f"bad pattern {pattern!r}: {detail}"))
        return None


def _prefix(prefix: bytes) -> PathTest:
    """By segments: `/api` takes `/api` and `/api/`, not `/apix`."""
    size = len(prefix)
    return lambda path: path.startswith(prefix) and path[size : size + 1] in (b"", b"/")


def _pattern(pattern: str, path: str, errors: list[ConfigError]) -> PathTest:
    compiled = compile_pattern(pattern, path, errors)
    if compiled is None:
        return lambda target: False
    full = compiled.fullmatch
    return lambda target: full(target.decode("latin-1")) is not None


def _template(template: str, path: str, errors: list[ConfigError], spell: Spell) -> PathTest:
    """Segments between slashes; possessive, so that no path can make it slow."""
    segments = template.split("/")[1:]
    parts = []
    for index, segment in enumerate(segments):
        kind = _SEGMENT.fullmatch(segment)
        if kind is None:
            detail = (
                f"expected a word, *, {{name}}, ** or {{name=**}} between slashes, got {segment!r}"
            )
            errors.append(ConfigError(path, detail))
        elif kind["many"]:
            if index < len(segments) - 1:
                errors.append(ConfigError(path, f"{segment} stands for the rest: put it last"))
            parts.append(b"(?:/.*+)?+")
        else:
            parts.append(b"/[^/]++" if kind["one"] else re.escape(spell(f"/{segment}")))
    full = re.compile(b"".join(parts), re.DOTALL).fullmatch
    return lambda target: full(target) is not None
