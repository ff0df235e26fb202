"""Filters that users have written in Python, as filters of the engine."""

from functools import partial

import msgspec

from sidecar.compiler import python_code
from sidecar.compiler.context import Context
from sidecar.core.api import HttpFilter
from sidecar.errors import ConfigError
from sidecar.filters import python
from sidecar.model.python import PythonFilter


def python_filters(
    models: tuple[PythonFilter, ...], place: tuple[str, str], path: str, context: Context
) -> list[HttpFilter]:
    """Return the filters of a listener or route; `place` tells it from all others.

    What has not changed is what it was before the push, with all that it keeps.
    """
    found = []
    for index, model in enumerate(models):
        where = f"{path}[{index}]"
        if not _is_sound(model, where, context.errors) or not context.runs_filters:
            continue
        # What is remembered is the filter whole: when it was off, and what its author keeps in it.
        key = ("python", place, index, msgspec.msgpack.encode(model))
        try:
            found.append(context.keep(key, partial(_made, model)))
        except python_code.LoadError as error:
            context.errors.append(ConfigError(where, str(error)))
    return found


def _made(model: PythonFilter) -> HttpFilter:
    name = model.called
    instance = python_code.load(name, _file(model), model.code, model.settings)
    return python.make(
        python.Settings(
            name,
            instance,
            model.budget,
            model.timeout,
            model.max_overruns,
            model.off_time,
            model.on_error == "open",
        )
    )


def _file(model: PythonFilter) -> str:
    return model.file or f"<{model.called}>"


def _is_sound(model: PythonFilter, path: str, errors: list[ConfigError]) -> bool:
    """Look at the filter without running it."""
    before = len(errors)
    if not model.file and not model.code:
        errors.append(ConfigError(path, "expected a file, or the code itself"))
        return False
    if not model.timeout:
        errors.append(ConfigError(f"{path}.timeout", "expected more than 0"))
    for mistake in python_code.look(model.code, model.settings.keys()):
        if mistake.is_setting:
            errors.append(ConfigError(f"{path}.settings", mistake.text))
        else:
            text, line = mistake.text, mistake.line
            errors.append(ConfigError(path, text, file=_file(model), line=line))
    return len(errors) == before
