"""Endpoints from a file in the format of Prometheus's `file_sd`."""

import os
import stat
from typing import Final

from sidecar.errors import ConfigError, ConfigErrors
from sidecar.model.base import Address, Model
from sidecar.model.endpoint import Endpoint
from sidecar.sources.decode import decode
from sidecar.sources.yaml_tree import MAX_SIZE, load

_NUMBERS: Final = {"weight": (1, 1_000_000), "priority": (0, 128)}  # labels, and what they may say
_TOP: Final = "groups"  # the model has no bare lists: so the list is called, but to nobody's face


class TargetGroup(Model, frozen=True, kw_only=True):
    """Some targets that have the same labels."""

    targets: tuple[Address, ...]
    """Where they listen."""

    labels: dict[str, str] = {}
    """What is known about them."""


class _File(Model, frozen=True, kw_only=True):
    groups: tuple[TargetGroup, ...]


def read(path: str) -> tuple[Endpoint, ...]:
    """Return the endpoints in the file at `path`; of a target that comes twice, the first.

    Raises:
        ConfigErrors: all that is wrong, each with file, line and path.
    """
    lines: dict[str, int] = {}
    try:
        tree, lines = load(_content(path))
        if not isinstance(tree, list):
            raise ConfigErrors([ConfigError("", "expected a list of targets with labels", line=1)])
        return _endpoints(decode({_TOP: tree}, _File).groups)
    except OSError as error:
        problem = ConfigError("", f"cannot be read: {error.strerror}", file=path)
        raise ConfigErrors([problem]) from None
    except ConfigErrors as errors:
        found = [_located(error, path, lines) for error in errors.errors]
        raise ConfigErrors(sorted(found, key=lambda e: e.line)) from None


def _content(path: str) -> bytes:
    # Not to wait: what looks like a file may be a pipe that nobody writes to.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(0, "it is no regular file")
        return file.read(MAX_SIZE + 1)


def _endpoints(groups: tuple[TargetGroup, ...]) -> tuple[Endpoint, ...]:
    found: dict[str, Endpoint] = {}
    errors: list[ConfigError] = []
    for index, group in enumerate(groups):
        where = f"{_TOP}[{index}].labels"
        numbers = {name: _number(group.labels, name, where, errors) for name in _NUMBERS}
        labels = {name: value for name, value in group.labels.items() if not name.startswith("__")}
        for address in group.targets:
            if address not in found and not errors:
                found[address] = Endpoint(
                    address=address,
                    weight=numbers["weight"],
                    priority=numbers["priority"],
                    zone=labels.get("zone", ""),
                    hostname=labels.get("hostname", ""),
                    labels=labels,
                )
    if errors:
        raise ConfigErrors(errors)
    return tuple(found[address] for address in sorted(found))


def _number(labels: dict[str, str], name: str, path: str, errors: list[ConfigError]) -> int:
    least, most = _NUMBERS[name]
    text = labels.get(name, str(least))
    if text.isascii() and text.isdecimal() and len(text) < 10 and least <= int(text) <= most:
        return int(text)
    detail = f"expected a whole number from {least} to {most}, got {text[:80]!r}"
    errors.append(ConfigError(f"{path}.{name}", detail))
    return least


def _located(error: ConfigError, path: str, lines: dict[str, int]) -> ConfigError:
    inner = error.path.removeprefix(_TOP)
    place = inner
    while place and place not in lines:
        place = place[: max(place.rfind("."), place.rfind("["), 0)]
    return ConfigError(inner, error.detail, file=path, line=error.line or lines.get(place, 1))
