"""Is this text a filter, and what does running it give?

Looking runs nothing: the agent does so whenever the config or the file changes, and tells mistakes
with file and line.  Running happens in workers, once for each place that names the filter.
"""

import ast
import linecache
import re
import sys
import traceback
import types
from collections.abc import Collection, Mapping
from dataclasses import fields as dataclass_fields, is_dataclass
from typing import Any, Final, NamedTuple

import msgspec

from sidecar.errors import nearest
from sidecar.filter import HOOKS, Filter

_ARGUMENTS: Final = {"on_request": 2, "on_response": 3, "on_finish": 3}  # `self` among them


class Mistake(NamedTuple):
    """One thing that is wrong with a filter."""

    line: int
    text: str
    is_setting: bool = False
    """It is the config's: what it sets."""


class LoadError(Exception):
    """The text cannot be run, or gives no filter with these settings."""


def look(code: str, settings: Collection[str]) -> list[Mistake]:
    """Return what can be seen to be wrong with a filter, without running it."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # ValueError: a NUL
        line = getattr(error, "lineno", None) or 1
        return [Mistake(line, f"not Python: {getattr(error, 'msg', None) or error}")]
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    filters = [node for node in classes if any(_name(base) == "Filter" for base in node.bases)]
    if not filters:
        return [Mistake(1, "no class here derives from sidecar.filter.Filter")]
    if len(filters) > 1:
        names = " and ".join(node.name for node in filters)
        return [Mistake(filters[1].lineno, f"expected one filter, got {names}")]
    found = _hooks(filters[0])
    kinds = [node for node in classes if node.name == "Settings"]
    if kinds:
        return found + _settings(kinds[0], settings)
    if settings and not _is_bound(tree, "Settings"):
        found.append(Mistake(0, "this filter takes none: it has no class Settings", True))
    return found


def load(name: str, file: str, code: str, settings: Mapping[str, object]) -> Filter[Any]:
    """Run `code` and return the filter it defines, made with `settings`.

    Raises:
        LoadError: it fails, or does not fit the settings; the text says where.
    """
    module = types.ModuleType("sidecar_filter_" + re.sub(r"\W", "_", name))
    module.__file__ = file
    sys.modules[module.__name__] = module  # dataclasses look there for what annotations mean
    linecache.cache[file] = (len(code), None, code.splitlines(keepends=True), file)
    try:
        exec(compile(code, file, "exec"), module.__dict__)  # noqa: S102 - what the feature is
        kind = _kind(module)
        return kind(_made(module, settings))
    except LoadError:
        raise
    except BaseException as error:  # noqa: BLE001 - not even SystemExit ends a worker
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
        line = frames[-1].lineno if frames else getattr(error, "lineno", None)
        where = f"{file}:{line}" if line else file
        raise LoadError(f"{where}: {type(error).__name__}: {error}") from None


def _kind(module: types.ModuleType) -> type[Filter[Any]]:
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Filter)
        and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise LoadError(f"{module.__file__}: expected one class of Filter, got {len(found)}")
    return found[0]


def _made(module: types.ModuleType, settings: Mapping[str, object]) -> object:
    """Return `settings` as the module's `Settings`; None where it has none."""
    kind: Any = vars(module).get("Settings")
    if kind is None:
        if settings:
            raise LoadError("settings: this filter takes none")
        return None
    if is_dataclass(kind):
        known = [field.name for field in dataclass_fields(kind)]
    elif isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        known = [field.encode_name for field in msgspec.structs.fields(kind)]
    else:
        raise LoadError(f"{module.__file__}: Settings must be a dataclass or a msgspec.Struct")
    for key in settings:
        if key not in known:
            raise LoadError(f"settings.{key}: unknown key; {_nearest(key, known)}")
    try:
        return msgspec.convert(dict(settings), kind)
    except msgspec.ValidationError as error:
        raise LoadError(f"settings: {error}") from None


def _hooks(node: ast.ClassDef) -> list[Mistake]:
    found = []
    hooks = [
        item
        for item in node.body
        if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef) and item.name.startswith("on_")
    ]
    for hook in hooks:
        if hook.name not in HOOKS:
            text = f"no hook is called {hook.name}; {_nearest(hook.name, list(HOOKS))}"
            found.append(Mistake(hook.lineno, text))
        elif not _takes(hook.args, _ARGUMENTS[hook.name]):
            count = _ARGUMENTS[hook.name] - 1
            found.append(Mistake(hook.lineno, f"{hook.name} is called with {count} besides self"))
        elif hook.name == "on_finish" and isinstance(hook, ast.AsyncFunctionDef):
            text = "nothing waits for on_finish: expected def, got async def"
            found.append(Mistake(hook.lineno, text))
    if not hooks:
        found.append(Mistake(node.lineno, f"{node.name} has no hook: expected {', '.join(HOOKS)}"))
    return found


def _takes(arguments: ast.arguments, count: int) -> bool:
    """Say whether a function can be called with `count` arguments by position."""
    named = len(arguments.posonlyargs) + len(arguments.args)
    missing = [d for d in arguments.kw_defaults if d is None]
    if missing or named - len(arguments.defaults) > count:
        return False
    return named >= count or arguments.vararg is not None


def _settings(node: ast.ClassDef, given: Collection[str]) -> list[Mistake]:
    """Compare what is set with what the class has; of one that inherits its fields, nothing is known."""
    if any(_name(base) != "Struct" for base in node.bases):
        return []
    fields = [
        item
        for item in node.body
        if isinstance(item, ast.AnnAssign) and _name(item.annotation) != "ClassVar"
    ]
    known = {f.target.id: f.value is None for f in fields if isinstance(f.target, ast.Name)}
    found = [
        Mistake(0, f"{key}: unknown key; {_nearest(key, list(known))}", True)
        for key in given
        if key not in known
    ]
    found += [
        Mistake(0, f"{key}: is required", True)
        for key, is_required in known.items()
        if is_required and key not in given
    ]
    return found


def _name(node: ast.expr) -> str:
    """Return the last name of `Filter`, `filter.Filter`, `Filter[Settings]`."""
    if isinstance(node, ast.Subscript):
        node = node.value
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _is_bound(tree: ast.Module, name: str) -> bool:
    """Say whether `name` is imported or assigned at the top."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and any(
            (alias.asname or alias.name) in (name, "*") for alias in node.names
        ):
            return True
        if isinstance(node, ast.Assign) and any(_name(target) == name for target in node.targets):
            return True
    return False


def _nearest(word: str, words: list[str]) -> str:
    near = nearest(word, words)
    return f"did you mean {near!r}?" if near else f"expected one of {', '.join(sorted(words))}"
