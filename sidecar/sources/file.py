"""The configuration from a YAML file."""

import os
from typing import Final, final

from sidecar.errors import ConfigError, ConfigErrors
from sidecar.model.snapshot import Snapshot
from sidecar.sources.decode import decode
from sidecar.sources.yaml_tree import MAX_SIZE, Lines, load


@final
class FileSource:
    """Reads one file; `locate` tells the lines of errors that were found later."""

    def __init__(self, path: str) -> None:
        self._path: Final = path
        self._lines: Lines = {}

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
            return decode(tree, Snapshot)
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
        return (os.path.abspath(self._path),)

    def _line(self, path: str) -> int:
        """Return the line of the longest known beginning of `path`."""
        while path and path not in self._lines:
            cut = max(path.rfind("."), path.rfind("["))
            path = path[:cut] if cut > 0 else ""
        return self._lines.get(path, 1)
