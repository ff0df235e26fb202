"""What a route does besides sending on, as its filters."""

import re
from collections.abc import Callable, Mapping
from typing import Final

from sidecar.compiler.fields import text_test
from sidecar.compiler.patterns import compile_pattern
from sidecar.core.api import HttpFilter
from sidecar.core.format import Value, parse
from sidecar.errors import ConfigError
from sidecar.filters import cors, header_edit, redirect, respond, rewrite
from sidecar.model import action
from sidecar.model.match import RouteMatch
from sidecar.model.route import Route
from sidecar.wire.edits import FRAMING

Target = Callable[[bytes], bytes]


_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 §5.1
_VALUE: Final = re.compile(
    r"(?:[!-~\x80-\U0010ffff](?:[ \t!-~\x80-\U0010ffff]*[!-~\x80-\U0010ffff])?)?"
)
_PATH: Final = re.compile(r"/[!-~]*")
_HOST: Final = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
_GROUP: Final = re.compile(r"\\(.?)")
_BODILESS: Final = (204, 205, 304)


def action_filters(route: Route, path: str, errors: list[ConfigError]) -> list[HttpFilter]:
    """Return the filters for what `route` does, in the order in which they are asked."""
    found: list[HttpFilter] = []
    if route.redirect is not None:
        found.append(_redirect(route.redirect, route.match, f"{path}.redirect", errors))
    if route.respond is not None:
        found.append(_respond(route.respond, f"{path}.respond", errors))
    if route.rewrite is not None:
        found.append(_rewrite(route.rewrite, route.match, f"{path}.rewrite", errors))
        if route.redirect is not None or route.respond is not None:
            errors.append(ConfigError(f"{path}.rewrite", "nothing is sent on by this route"))
    request, response = route.request_headers, route.response_headers
    request_edits = _edits(request, f"{path}.request_headers", errors, response=False)
    response_edits = _edits(response, f"{path}.response_headers", errors, response=True)
    if request_edits != header_edit.Edits() or response_edits != header_edit.Edits():
        found.append(header_edit.HeaderEdit(header_edit.Settings(request_edits, response_edits)))
    return found


def cors_filter(model: action.Cors, path: str, errors: list[ConfigError]) -> HttpFilter:
    """Return the filter for `model`."""
    for kind in ("methods", "headers", "expose"):
        for index, name in enumerate(getattr(model, kind)):
            if not _NAME.fullmatch(name):
                errors.append(
                    ConfigError(f"{path}.{kind}[{index}]", f"expected a name, got {name!r}")
                )
    if not model.origins:
        errors.append(ConfigError(f"{path}.origins", "expected at least one"))
    tests = [
        text_test(origin, f"{path}.origins[{index}]", errors)
        for index, origin in enumerate(model.origins)
    ]
    return cors.Cors(
        cors.Settings(
            tuple(tests),
            ", ".join(model.methods).encode(),
            ", ".join(model.headers).encode(),
            ", ".join(model.expose).encode(),
            None if model.max_age is None else int(model.max_age),
            model.credentials,
        )
    )


def _respond(model: action.Respond, path: str, errors: list[ConfigError]) -> HttpFilter:
    if model.body and model.status in _BODILESS:
        errors.append(ConfigError(f"{path}.body", f"a {model.status} has none"))
    fields = []
    for name, value in model.headers.items():
        check_field(name, value, f"{path}.headers", errors)
        fields.append((name.encode(), value.encode()))
    return respond.Respond(respond.Settings(model.status, tuple(fields), model.body.encode()))


def _redirect(
    model: action.Redirect, match: RouteMatch, path: str, errors: list[ConfigError]
) -> HttpFilter:
    if model.host:
        _check_host(model.host, path, errors, port=False)
    target = _target(model, match, path, errors)
    if target is None and not (model.scheme or model.host or model.port or model.strip_query):
        errors.append(ConfigError(path, "leads to where the request came"))
    return redirect.Redirect(
        redirect.Settings(
            model.status,
            (model.scheme or "").encode(),
            model.host.encode(),
            model.port or 0,
            target,
            model.strip_query,
        )
    )


def _rewrite(
    model: action.Rewrite, match: RouteMatch, path: str, errors: list[ConfigError]
) -> HttpFilter:
    if model.host:
        _check_host(model.host, path, errors, port=True)
    return rewrite.Rewrite(
        rewrite.Settings(_target(model, match, path, errors), model.host.lower().encode())
    )


def _check_host(host: str, path: str, errors: list[ConfigError], *, port: bool) -> None:
    found = _HOST.fullmatch(host)
    if found is None or (found[1] and not port):
        form = "a host, and a port if need be" if port else "a host without port"
        errors.append(ConfigError(f"{path}.host", f"expected {form}; got {host!r}"))


def _target(
    model: action.Rewrite | action.Redirect,
    match: RouteMatch,
    path: str,
    errors: list[ConfigError],
) -> Target | None:
    """Return what makes the new target of an old one."""
    kinds = [k for k in ("path", "prefix", "regex") if getattr(model, k) is not None]
    if len(kinds) > 1:
        errors.append(ConfigError(path, f"expected one of path, prefix, regex; got {kinds}"))
    if model.regex is not None:
        return _by_regex(model.regex, f"{path}.regex", errors)
    for kind in kinds:
        value = getattr(model, kind)
        if not _PATH.fullmatch(value) or "?" in value or "#" in value:
            detail = f"expected a path without query, with a leading /; got {value!r}"
            errors.append(ConfigError(f"{path}.{kind}", detail))
    if model.path is not None:
        whole = model.path.encode()
        return lambda target: b"".join((whole, *target.partition(b"?")[1:]))
    if model.prefix is None:
        return None
    old = match.prefix if match.prefix is not None else match.path
    if old is None:
        errors.append(ConfigError(f"{path}.prefix", "needs a match by `prefix` or `path`"))
        return None
    return _by_prefix(len(old.rstrip("/").encode()), model.prefix.rstrip("/").encode())


def _by_prefix(size: int, new: bytes) -> Target:
    def turn(target: bytes) -> bytes:
        rest = new + target[size:]
        return rest if rest.startswith(b"/") else b"/" + rest

    return turn


def _by_regex(model: action.RegexRewrite, path: str, errors: list[ConfigError]) -> Target | None:
    pattern = compile_pattern(model.pattern, f"{path}.pattern", errors)
    if pattern is None:
        return None
    text = model.substitution
    for found in _GROUP.finditer(text):
        if found[1] != "\\" and not (found[1].isdigit() and int(found[1]) <= pattern.groups):
            detail = f"{found[0]} is no group: the pattern has {pattern.groups}"
            errors.append(ConfigError(f"{path}.substitution", detail))
            return None
    if not re.fullmatch(r"[!-~]*", text) or "?" in text or "#" in text:
        errors.append(ConfigError(f"{path}.substitution", f"expected part of a path, got {text!r}"))
        return None
    parts = re.split(r"\\(.)", text)  # plain, group, plain, group, ..., plain

    def expand(match: re.Match[str]) -> str:
        found = list(parts)
        for index in range(1, len(parts), 2):
            if parts[index] != "\\":
                found[index] = match.group(int(parts[index])) or ""
        return "".join(found)

    def turn(target: bytes) -> bytes:
        old, mark, query = target.partition(b"?")
        new: bytes = pattern.sub(expand, old.decode("latin-1")).encode("latin-1")
        return (new if new.startswith(b"/") else b"/" + new) + mark + query

    return turn


def _edits(
    model: action.HeaderEdit, path: str, errors: list[ConfigError], *, response: bool
) -> header_edit.Edits:
    for index, name in enumerate(model.remove):
        check_field(name, "", f"{path}.remove[{index}]", errors, is_named=False)
    return header_edit.Edits(
        tuple(name.lower().encode() for name in model.remove),
        _values(model.set, f"{path}.set", errors, response=response),
        _values(model.add, f"{path}.add", errors, response=response),
    )


def _values(
    fields: Mapping[str, str], path: str, errors: list[ConfigError], *, response: bool
) -> tuple[tuple[bytes, Value], ...]:
    found = []
    for name, text in fields.items():
        check_field(name, text, path, errors)
        try:
            found.append((name.lower().encode(), parse(text, response=response)))
        except ValueError as error:
            errors.append(ConfigError(f"{path}.{name}", str(error)))
    return tuple(found)


def check_field(
    name: str, value: str, path: str, errors: list[ConfigError], *, is_named: bool = True
) -> None:
    """Look whether a config may set this field; `is_named`: its name is behind `path` in errors."""
    where = f"{path}.{name}" if is_named else path
    if not _NAME.fullmatch(name):
        errors.append(ConfigError(where, f"no field can be called {name!r}"))
    elif name.lower().encode() in FRAMING:
        hint = "; `rewrite.host` changes it" if name.lower() == "host" else ""
        errors.append(ConfigError(where, f"{name} frames the message and is the sidecar's{hint}"))
    elif not _VALUE.fullmatch(value):
        errors.append(ConfigError(where, f"no field can have the value {value!r}"))
