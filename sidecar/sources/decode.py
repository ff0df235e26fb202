"""Plain data to structures of the model, with every error and its path."""

import ipaddress
import math
import re
from collections.abc import Callable
from functools import cache
from typing import Any, Final, TypeVar

from msgspec import NODEFAULT, inspect

from sidecar.errors import ConfigError, ConfigErrors, nearest
from sidecar.model.base import Model

Kind = TypeVar("Kind", bound=Model)

# Digits are bounded, so that whatever is accepted is finite and fits 64 bits.
_DURATION: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,12})?)(ms|s|m|h|d)")
_SECONDS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE: Final = re.compile(r"([0-9]{1,9})(B|KiB|MiB|GiB)")
_OCTETS: Final = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_ADDRESS: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})")
_LABEL: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_UNIX_PATH_LIMIT: Final = 107  # octets that sockaddr_un has room for, the closing zero aside
_ADDRESSES: Final = ("address", "address or off")  # units


def decode(tree: object, kind: type[Kind]) -> Kind:
    """Return `tree` as a `kind`.

    Raises:
        ConfigErrors: all that does not fit, each with its path.
    """
    walker = _Walker()
    value = walker.struct(tree, _type_info(kind), "")
    if walker.errors:
        raise ConfigErrors(walker.errors)
    assert isinstance(value, kind)
    return value


# Worked out anew it takes more time than all the rest of a small configuration; kept, 110 kB.
_type_info: Final = cache(inspect.type_info)


class _Walker:
    """Walks data and type together; a value that does not fit becomes None and an error."""

    def __init__(self) -> None:
        self.errors: list[ConfigError] = []

    def fail(self, path: str, detail: str) -> None:
        self.errors.append(ConfigError(path, detail))

    def value(self, data: Any, kind: inspect.Type, path: str, unit: str = "") -> Any:
        if isinstance(kind, inspect.Metadata):
            return self.value(data, kind.type, path, (kind.extra or {}).get("unit", unit))
        if isinstance(kind, inspect.UnionType):
            return self._union(data, kind, path, unit)
        for known, read in self._readers():
            if isinstance(kind, known):
                return read(data, kind, path, unit)
        raise AssertionError(f"no reader for {kind}")  # a type that the model has not used yet

    def struct(self, data: Any, kind: inspect.Type, path: str, unit: str = "") -> Any:
        assert isinstance(kind, inspect.StructType)
        assert issubclass(kind.cls, Model)
        short = kind.cls.SHORT
        if short and not isinstance(data, dict) and data is not None and not isinstance(data, list):
            data = {short: data}
        if not isinstance(data, dict):
            also = f" (or just its {short})" if short else ""
            self.fail(path, f"expected keys and values{also}, got {_say(data)}")
            return None
        fields = {field.name: field for field in kind.fields}
        found: dict[str, Any] = {}
        before = len(self.errors)
        for key, item in data.items():
            inner = f"{path}.{key}" if path else key
            field = fields.get(key)
            if field is None:
                self.fail(inner, f"unknown key; {_nearest(key, list(fields))}")
            elif item is None and field.default is not NODEFAULT:
                continue  # a key left empty: the default
            else:
                found[key] = self.value(item, field.type, inner)
        for name, field in fields.items():
            if field.required and name not in data:
                self.fail(f"{path}.{name}" if path else name, "is required")
        return kind.cls(**found) if len(self.errors) == before else None

    def _readers(
        self,
    ) -> tuple[tuple[type[inspect.Type], Callable[[Any, Any, str, str], Any]], ...]:
        return (
            (inspect.StructType, self.struct),
            (inspect.VarTupleType, self._list),
            (inspect.DictType, self._dict),
            (inspect.LiteralType, self._literal),
            (inspect.BoolType, self._bool),
            (inspect.IntType, self._int),
            (inspect.FloatType, self._float),
            (inspect.StrType, self._text),
            (inspect.CustomType, self._plain),
        )

    def _union(self, data: Any, kind: inspect.UnionType, path: str, unit: str) -> Any:
        """Optional fields are the only unions of the model."""
        inner = [t for t in kind.types if not isinstance(t, inspect.NoneType)]
        return None if data is None else self.value(data, inner[0], path, unit)

    def _list(self, data: Any, kind: inspect.VarTupleType, path: str, unit: str) -> Any:
        if not isinstance(data, list):
            self.fail(path, f"expected a list (`- ` before each item, or [..]), got {_say(data)}")
            return ()
        return tuple(
            self.value(item, kind.item_type, f"{path}[{index}]") for index, item in enumerate(data)
        )

    def _dict(self, data: Any, kind: inspect.DictType, path: str, unit: str) -> Any:
        if not isinstance(data, dict):
            self.fail(path, f"expected keys and values, got {_say(data)}")
            return {}
        return {k: self.value(v, kind.value_type, f"{path}.{k}") for k, v in data.items()}

    def _literal(self, data: Any, kind: inspect.LiteralType, path: str, unit: str) -> Any:
        if data not in kind.values:
            self.fail(path, f"got {_say(data)}; {_nearest(str(data), list(map(str, kind.values)))}")
        return data

    def _bool(self, data: Any, kind: inspect.BoolType, path: str, unit: str) -> Any:
        if not isinstance(data, bool):
            self.fail(path, f"expected true or false, got {_say(data)}")
        return data

    def _int(self, data: Any, kind: inspect.IntType, path: str, unit: str) -> Any:
        if unit == "size" and isinstance(data, str):
            match = _SIZE.fullmatch(data)
            if match is None:
                self.fail(path, f"expected octets like 64KiB or 1MiB, got {_say(data)}")
                return 0
            return int(match[1]) * _OCTETS[match[2]]
        if isinstance(data, bool) or not isinstance(data, int):
            self.fail(path, f"expected a whole number, got {_say(data)}")
            return 0
        self._range(data, kind, path)
        return data

    def _float(self, data: Any, kind: inspect.FloatType, path: str, unit: str) -> Any:
        if unit == "duration" and isinstance(data, str):
            match = _DURATION.fullmatch(data)
            if match is None:
                self.fail(path, f"expected a duration like 250ms, 15s or 1h, got {_say(data)}")
                return 0.0
            number = float(match[1])
            # Divided, not times 0.001: 35ms is 0.035, not 0.035000000000000003.
            return number / 1000 if match[2] == "ms" else number * _SECONDS[match[2]]
        if unit == "percent" and isinstance(data, str) and data.endswith("%"):
            data = _number(data[:-1], data)
        if isinstance(data, bool) or not isinstance(data, (int, float)):
            what = "a duration like 15s" if unit == "duration" else "a number"
            self.fail(path, f"expected {what}, got {_say(data)}")
            return 0.0
        if not math.isfinite(data):
            self.fail(path, f"expected a finite number, got {data}")
            return 0.0
        self._range(data, kind, path)
        return float(data)

    def _range(self, data: float, kind: inspect.IntType | inspect.FloatType, path: str) -> None:
        if kind.ge is not None and data < kind.ge:
            self.fail(path, f"expected {kind.ge:g} or more, got {data:g}")
        if kind.le is not None and data > kind.le:
            self.fail(path, f"expected {kind.le:g} or less, got {data:g}")

    def _text(self, data: Any, kind: inspect.StrType, path: str, unit: str) -> Any:
        if isinstance(data, bool) or not isinstance(data, (str, int, float)):
            self.fail(path, f"expected a text, got {_say(data)}")
            return ""
        text = str(data)
        if unit in _ADDRESSES and not (text == "off" and unit == "address or off"):
            problem = _address_problem(text)
            if problem:
                self.fail(path, problem)
        return text

    def _plain(self, data: Any, kind: inspect.CustomType, path: str, unit: str) -> Any:
        """Return data whose meaning is not the model's: settings that a filter checks itself."""
        assert kind.cls is object
        return data


def _address_problem(text: str) -> str:
    if text.startswith("unix:"):
        name = text[5:]
        # A relative one would mean another place for the agent than for whoever calls `check`.
        if not name.startswith("/") or "\0" in name:
            return f"expected a path that begins with / after unix:, got {name[:80]!r}"
        size = len(name.encode())
        if size <= _UNIX_PATH_LIMIT:
            return ""
        return f"expected a path of up to {_UNIX_PATH_LIMIT} octets after unix:, got {size}"
    match = _ADDRESS.fullmatch(text)
    if match is None:
        return f"expected host:port, [v6]:port or unix:/path, got {text[:80]!r}"
    if match[1] is not None and not _is_v6(match[1]):
        return f"expected an IPv6 address in the brackets, got {match[1]!r}"
    if match[2] is not None and not _is_host(match[2]):
        return f"expected a host name or an IP address before the port, got {match[2][:80]!r}"
    if not 0 < int(match[3]) < 65536:
        return f"expected a port from 1 to 65535, got {match[3]}"
    return ""


def _is_v6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _is_host(text: str) -> bool:
    """Say whether `text` can be a name, or is an IPv4 address if its last label is a number."""
    labels = text.removesuffix(".").split(".")
    if not labels[-1].isdecimal():
        return len(text) < 255 and all(map(_LABEL.fullmatch, labels))
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def _number(text: str, otherwise: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return otherwise


def _nearest(word: str, words: list[str]) -> str:
    near = nearest(word, words)
    return f"did you mean {near!r}?" if near else f"expected one of {', '.join(sorted(words))}"


def _say(data: Any) -> str:
    """Return what `data` is, for somebody who wrote YAML."""
    if data is None:
        return "nothing"
    if isinstance(data, dict):
        return "keys and values"
    if isinstance(data, list):
        return "a list"
    if isinstance(data, bool):
        return "true" if data else "false"
    if isinstance(data, str):
        return f"the text {data[:80]!r}"
    return f"the number {data}"
