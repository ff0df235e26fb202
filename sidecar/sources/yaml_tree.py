"""YAML to plain data, with the line of every value; strict where YAML is surprising."""

import re
from typing import Any, Final

import yaml

from sidecar.errors import ConfigError, ConfigErrors

MAX_SIZE: Final = 16 * 1024 * 1024  # octets of a file
MAX_NODES: Final = 200_000  # values after aliases are followed: an alias bomb has billions
MAX_DEPTH: Final = 64

Lines = dict[str, int]

_BOOL: Final = {"true": True, "false": False}
_INT: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_FLOAT: Final = re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)(?:[eE][-+]?[0-9]+)?")


def load(data: bytes) -> tuple[Any, Lines]:
    """Return the document in `data` as plain data, and the line of each config path.

    Plain words mean what YAML 1.2 says: `off`, `on`, `yes` and `no` are texts.

    Raises:
        ConfigErrors: not YAML, several documents, repeated keys, too large.
    """
    if len(data) > MAX_SIZE:
        raise _error(0, f"larger than {MAX_SIZE} octets")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _error(line, "not UTF-8 text; save the file as UTF-8") from None
    try:
        nodes = list(yaml.compose_all(text, Loader=yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = (error.problem or "not YAML").replace("\\t", "a tab")
        hint = "; indent with spaces" if "tab" in problem or "\\t" in problem else ""
        raise _error(mark.line + 1 if mark else 0, f"not YAML: {problem}{hint}") from None
    except yaml.YAMLError as error:
        raise _error(0, f"not YAML: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise _error(0, f"nested more than {MAX_DEPTH} deep") from None
    if not nodes:
        raise _error(0, "the file is empty: expected at least `workload` and a listener")
    if len(nodes) > 1:
        raise _error(nodes[1].start_mark.line + 1, "expected one document, found a second `---`")
    reader = _Reader()
    value = reader.read(nodes[0], "", 0)
    if reader.errors:
        raise ConfigErrors(reader.errors)
    return value, reader.lines


class _Reader:
    def __init__(self) -> None:
        self.lines: Lines = {}
        self.errors: list[ConfigError] = []
        self._nodes = 0

    def read(self, node: yaml.Node, path: str, depth: int) -> Any:
        self._nodes += 1
        line = node.start_mark.line + 1
        if self._nodes > MAX_NODES or depth > MAX_DEPTH:
            raise _error(line, "too many values or too deep (do aliases repeat each other?)")
        self.lines.setdefault(path, line)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            return [
                self.read(item, f"{path}[{index}]", depth + 1)
                for index, item in enumerate(node.value)
            ]
        return _scalar(node)

    def _mapping(self, node: yaml.MappingNode, path: str, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self.errors.append(ConfigError(path, "a key must be a plain word", line=line))
                continue
            key = str(key_node.value)
            inner = f"{path}.{key}" if path else key
            if key in found:
                self.errors.append(
                    ConfigError(inner, "the key is given twice; remove one", line=line)
                )
                continue
            self.lines[inner] = line
            found[key] = self.read(value_node, inner, depth + 1)
        return found


def _scalar(node: yaml.Node) -> Any:
    text = node.value
    if getattr(node, "style", None) is not None or not isinstance(text, str):
        return text
    if text in ("", "~", "null"):
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def _error(line: int, detail: str) -> ConfigErrors:
    return ConfigErrors([ConfigError("", detail, line=line)])
