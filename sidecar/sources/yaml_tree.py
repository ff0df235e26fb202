"""YAML to plain data, with the line of every value; strict where YAML is surprising."""

import re
from collections.abc import Iterator
from typing import Any, Final, final

import yaml

from sidecar.errors import ConfigError, ConfigErrors

MAX_SIZE: Final = 16 * 1024 * 1024  # octets of a file
MAX_NODES: Final = 200_000  # values after aliases are followed: an alias bomb has billions
MAX_DEPTH: Final = 64

# libyaml where it is there: 10,000 endpoints take 0.4 s, with PyYAML's own parser 1.2 s.
FASTEST: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Lines = dict[str, int]

_BOOL: Final = {"true": True, "false": False}
# No leading zeros or plus signs, and at most 18 digits: other plain words stay texts.
_INT: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_FLOAT: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,18})?(?:[eE][-+]?[0-9]{1,2})?")
_HINTS: Final = (  # what the parser says, and what usually was meant
    ("mapping values are not allowed", "a text with `: ` needs quotes, or the indentation is off"),
    ("that cannot start any token", "indent with spaces; quote texts that begin with @, ` or %"),
    ("could not find expected ':'", "a key needs a colon and a space after it"),
    ("expected ',' or", "a bracket or brace is not closed, or a comma is missing"),
    ("expected <block end>", "the indentation differs from the lines above"),
    ("unexpected end of stream", "a quote is not closed"),
    ("undefined alias", "name it with & first, or quote a text that begins with *"),
)


@final
class Number(float):
    """A number with a fraction that remembers how it was written, should a text be wanted."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text: Final = text

    def __str__(self) -> str:
        """Return it as written: `1.10` is not `1.1`."""
        return self._text


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
    # What libyaml refuses is read again by PyYAML's own parser, for its clearer messages.
    loader = FASTEST if _is_bounded(text) else yaml.SafeLoader
    try:
        nodes = list(yaml.compose_all(text, Loader=loader))
    except yaml.MarkedYAMLError as error:
        raise _syntax(error) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _error(
            line, f"the character U+{ord(text[error.position]):04X} is not allowed"
        ) from None
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


def _is_bounded(text: str) -> bool:
    """Say whether `text` is YAML, before nodes are made of it.

    The composer makes all nodes at once, and recurses as deep as the text says: 16 MiB of `[x,x,..`
    would take it minutes and gigabytes.

    Raises:
        ConfigErrors: too many values, too deep, or tags.
    """
    depth = count = 0
    events: Iterator[Any] = yaml.parse(text, Loader=FASTEST)
    try:
        for event in events:
            line = event.start_mark.line + 1
            count += isinstance(event, yaml.NodeEvent)
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if count > MAX_NODES * 2 or depth > MAX_DEPTH:  # a key is a node, but no value
                raise _error(line, "too many values or too deep")
            if getattr(event, "tag", None) is not None:
                raise _error(line, f"tags such as {event.tag[:80]} mean nothing")
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        if mark is not None and "nesting depth" in str(error):  # libyaml's own limit
            raise _error(mark.line + 1, "too many values or too deep") from None
        return False
    return True


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
        if any("\ud800" <= character <= "\udfff" for character in node.value):
            self.errors.append(ConfigError(path, "half of a surrogate pair is no text", line=line))
        assert isinstance(node, yaml.ScalarNode)  # the composer makes no fourth kind
        return _scalar(node)

    def _mapping(self, node: yaml.MappingNode, path: str, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self.errors.append(ConfigError(path, "a key must be a plain word", line=line))
                continue
            key = str(key_node.value)
            if not key.isprintable():  # it would get into messages, and terminals, as it is
                self.errors.append(ConfigError(path, "a key must be a plain word", line=line))
                continue
            if key == "<<" and key_node.style in (None, ""):
                detail = "merge keys (`<<`) are not supported; write the keys out"
                self.errors.append(ConfigError(path, detail, line=line))
                continue
            inner = f"{path}.{key}" if path else key
            if key in found:
                self.errors.append(
                    ConfigError(inner, "the key is given twice; remove one", line=line)
                )
                continue
            self.lines[inner] = line
            found[key] = self.read(value_node, inner, depth + 1)
        return found


def _scalar(node: yaml.ScalarNode) -> Any:
    text = str(node.value)
    if node.style not in (None, ""):  # quoted, or a block: a text whatever it looks like
        return text
    if text in ("", "~", "null"):
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return Number(text)
    return text


def _syntax(error: yaml.MarkedYAMLError) -> ConfigErrors:
    """Return what the parser says with its line, and with what usually was meant."""
    mark = error.problem_mark or error.context_mark
    problem = (error.problem or "not understood").replace("'\\t'", "tab")
    problem = problem.replace("'<stream end>'", "the end of the file")
    hint = next((f"; {meant}" for said, meant in _HINTS if said in problem), "")
    return _error(mark.line + 1 if mark else 0, f"not YAML: {problem}{hint}")


def _error(line: int, detail: str) -> ConfigErrors:
    return ConfigErrors([ConfigError("", detail, line=line)])
