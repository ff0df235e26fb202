"""The configuration from a YAML file."""

import os
from typing import Final, TypeVar, final

from msgspec.structs import replace

from sidecar.errors import ConfigError, ConfigErrors
from sidecar.model.listener import Listener
from sidecar.model.python import PythonFilter
from sidecar.model.route import Route
from sidecar.model.snapshot import Snapshot
from sidecar.sources.decode import decode
from sidecar.sources.yaml_tree import MAX_SIZE, Lines, load

MAX_CODE: Final = 1 << 20  # octets of a filter's file: it travels to every worker

Kind = TypeVar("Kind", bound=Listener)
Holder = TypeVar("Holder", bound=Listener | Route)


@final
class FileSource:
    """Reads one file; `locate` tells the lines of errors that were found later."""

    def __init__(self, path: str) -> None:
        self._path: Final = path
        self._lines: Lines = {}
        self._code: tuple[str, ...] = ()  # files of filters

    @property
    def name(self) -> str:
        """Where it reads from, for messages."""
        return self._path

    def load(self) -> Snapshot:
        """Return what the file says now.

        Raises:
            ConfigErrors: all that is wrong, each with file, line and path.
        """
        try:
            with open(self._path, "rb") as file:
                data = file.read(MAX_SIZE + 1)  # a device would never end
        except OSError as error:
            problem = ConfigError("", f"cannot be read: {error.strerror}", file=self._path)
            raise ConfigErrors([problem]) from None
        try:
            tree, self._lines = load(data)
            if not isinstance(tree, dict):
                raise ConfigErrors([ConfigError("", "expected keys and values at the top", line=1)])
            return self._with_code(decode(tree, Snapshot))
        except ConfigErrors as errors:
            raise self.locate(errors) from None

    def locate(self, errors: ConfigErrors) -> ConfigErrors:
        """Return `errors` with file and line, in the order of the file."""
        found = [
            # One that has its file was located when it was found, or, unread, has no line at all.
            e
            if e.file
            else ConfigError(e.path, e.detail, file=self._path, line=e.line or self._line(e.path))
            for e in errors.errors
        ]
        return ConfigErrors(sorted(found, key=lambda e: e.line))

    def watched(self) -> tuple[str, ...]:
        """Return the paths whose change means: load again."""
        return (os.path.abspath(self._path), *self._code)

    def _with_code(self, snapshot: Snapshot) -> Snapshot:
        """Return `snapshot` with what the files of its filters hold."""
        errors: list[ConfigError] = []
        files: dict[str, str] = {}
        base = os.path.dirname(os.path.abspath(self._path))

        def read(one: PythonFilter, path: str) -> PythonFilter:
            if not one.file:
                return one
            if one.code:
                errors.append(ConfigError(path, "expected one of file and code"))
            file = os.path.join(base, one.file)
            if file not in files:
                files[file] = _text(file, f"{path}.file", errors)
            return replace(one, file=file, code=files[file])

        def filled(holder: Holder, path: str) -> Holder:
            if not holder.filters:
                return holder
            return replace(
                holder,
                filters=tuple(
                    read(one, f"{path}.filters[{i}]") for i, one in enumerate(holder.filters)
                ),
            )

        def whole(listener: Kind, path: str) -> Kind:
            listener = filled(listener, path)
            routes = tuple(filled(r, f"{path}.routes[{i}]") for i, r in enumerate(listener.routes))
            return replace(listener, routes=routes)

        found = replace(
            snapshot,
            inbound=tuple(whole(x, f"inbound[{i}]") for i, x in enumerate(snapshot.inbound)),
            outbound=tuple(whole(x, f"outbound[{i}]") for i, x in enumerate(snapshot.outbound)),
        )
        self._code = tuple(files)
        if errors:
            raise ConfigErrors(errors)
        return found

    def _line(self, path: str) -> int:
        """Return the line of the longest known beginning of `path`."""
        while path and path not in self._lines:
            cut = max(path.rfind("."), path.rfind("["))
            path = path[:cut] if cut > 0 else ""
        return self._lines.get(path, 1)


def _text(file: str, path: str, errors: list[ConfigError]) -> str:
    """Return what a filter's file holds; what is wrong goes to `errors`."""
    try:
        with open(file, "rb") as opened:
            data = opened.read(MAX_CODE + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        errors.append(ConfigError(path, f"{file} cannot be read: {error}"))
        return ""
    if len(data) > MAX_CODE:
        errors.append(ConfigError(path, f"{file} is larger than {MAX_CODE} octets"))
        return ""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        errors.append(ConfigError(path, f"{file} is no UTF-8: {error}"))
        return ""
