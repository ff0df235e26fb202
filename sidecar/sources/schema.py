"""What a config file may say: JSON Schema for editors, Markdown for people, both from the model."""

import ast
import inspect
import textwrap
from functools import cache
from typing import Any, Final

from msgspec import NODEFAULT, inspect as types

from sidecar.model.base import Model
from sidecar.model.snapshot import Snapshot

_ADDRESS: Final = r"unix:/.*|(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}"
_UNITS: Final[dict[str, dict[str, Any]]] = {
    "duration": {"type": ["number", "string"], "pattern": r"^[0-9]+(\.[0-9]+)?(ms|s|m|h|d)$"},
    "size": {"type": ["integer", "string"], "pattern": r"^[0-9]+(B|KiB|MiB|GiB)$"},
    "address": {
        "type": "string",
        "pattern": f"^({_ADDRESS})$",
        "examples": ["127.0.0.1:8080", "unix:/run/app.sock"],
    },
    "address or off": {
        "type": "string",
        "pattern": f"^({_ADDRESS}|off)$",
        "examples": ["127.0.0.1:15000", "off"],
    },
    "percent": {
        "type": ["number", "string"],
        "pattern": r"^[0-9]+(\.[0-9]+)?%$",
        "examples": [1, "0.5%"],
    },
}
_INTRODUCTION: Final = """\
# Configuration

Made from the strings under the model's fields by `./dev docs`; do not edit it by hand.
`sidecar check CONFIG` says everything that is wrong with a file, with line and path;
`sidecar schema` prints the JSON Schema for editors.

A service in the common case takes five lines:

```yaml
workload: catalog
inbound: [{app: "127.0.0.1:8080"}]
certificates: {certificate: /etc/sidecar/tls.crt, key: /etc/sidecar/tls.key, roots: /etc/sidecar/ca.crt}
outbound: [{cluster: orders}]
clusters: [{name: orders, endpoints: ["10.0.0.7:15006"], tls: mutual}]
```

Durations are `250ms`, `15s`, `5m`, `1h` or seconds; sizes `64KiB`, `1MiB` or octets; addresses
`host:port`, `[v6]:port` or `unix:/path`. Whole examples: [quickstart](../config/quickstart.yaml),
[inbound mTLS](../config/inbound-mtls.yaml), [outbound](../config/outbound.yaml), and
[every field](../config/full.yaml).
"""


@cache
def field_docs(model: type[Model]) -> dict[str, str]:
    """Return the string under each field of `model`, those it inherits included."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if not issubclass(base, Model):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(body, ast.ClassDef)
        name = ""
        for line in body.body:
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                name = line.target.id
            elif name and isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant):
                found[name] = inspect.cleandoc(str(line.value.value)).replace("\n", " ")
                name = ""
            else:
                name = ""
    return found


def structures() -> list[type[Model]]:
    """Return every structure of the model, the top level first, each before those it holds."""
    found: list[type[Model]] = []

    def visit(kind: types.Type) -> None:
        kind = _bare(kind)
        if isinstance(kind, types.StructType) and kind.cls not in found:
            assert issubclass(kind.cls, Model)
            found.append(kind.cls)
            for field in kind.fields:
                visit(field.type)
        elif isinstance(kind, types.VarTupleType):
            visit(kind.item_type)
        elif isinstance(kind, types.DictType):
            visit(kind.value_type)

    visit(types.type_info(Snapshot))
    return found


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of the config file."""
    definitions = {model.__name__: _object(model) for model in structures()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "sidecar configuration",
        "$ref": "#/$defs/Snapshot",
        "$defs": definitions,
    }


def markdown() -> str:
    """Return docs/configuration.md."""
    parts = [_INTRODUCTION]
    for model in structures():
        title = "The file" if model is Snapshot else model.__name__
        parts.append(f"## {title}\n\n{inspect.cleandoc(model.__doc__ or '')}\n")
        if model.SHORT:
            parts.append(f"A bare value stands for `{model.SHORT}`.\n")
        rows = ["| Field | Type | Default | Meaning |", "| --- | --- | --- | --- |"]
        info = types.type_info(model)
        assert isinstance(info, types.StructType)
        texts = field_docs(model)
        rows += [
            f"| `{f.name}` | {_word(f.type)} | {_default(f)} | {_cell(texts[f.name])} |"
            for f in info.fields
        ]
        parts.append("\n".join(rows) + "\n")
    return "\n".join(parts)


def _object(model: type[Model]) -> dict[str, Any]:
    info = types.type_info(model)
    assert isinstance(info, types.StructType)
    texts = field_docs(model)
    body: dict[str, Any] = {
        "type": "object",
        "description": inspect.cleandoc(model.__doc__ or ""),
        "additionalProperties": False,
        "properties": {
            f.name: {**_schema(f.type), "description": texts[f.name]} for f in info.fields
        },
    }
    required = [f.name for f in info.fields if f.required]
    if required:
        body["required"] = required
    if not model.SHORT:
        return body
    short = next(f for f in info.fields if f.name == model.SHORT)
    return {"anyOf": [_schema(short.type), body]}


def _schema(kind: types.Type) -> dict[str, Any]:
    if isinstance(kind, types.Metadata):
        unit = (kind.extra or {}).get("unit")
        return {**_schema(kind.type), **_UNITS.get(unit or "", {})}
    if isinstance(kind, types.UnionType):  # an optional field; with its unit, unlike _bare
        return _schema(next(t for t in kind.types if not isinstance(t, types.NoneType)))
    if isinstance(kind, types.StructType):
        return {"$ref": f"#/$defs/{kind.cls.__name__}"}
    if isinstance(kind, types.VarTupleType):
        return {"type": "array", "items": _schema(kind.item_type)}
    if isinstance(kind, types.DictType):
        return {"type": "object", "additionalProperties": _schema(kind.value_type)}
    if isinstance(kind, types.LiteralType):
        return {"enum": list(kind.values)}
    if isinstance(kind, types.BoolType):
        return {"type": "boolean"}
    if isinstance(kind, types.CustomType):
        return {}  # whatever it is
    if isinstance(kind, types.IntType | types.FloatType):
        word = "integer" if isinstance(kind, types.IntType) else "number"
        limits = {"minimum": kind.ge, "maximum": kind.le}
        return {"type": word, **{k: v for k, v in limits.items() if v is not None}}
    return {"type": "string"}


def _bare(kind: types.Type) -> types.Type:
    """Return `kind` without its unit, and without the None of an optional field."""
    if isinstance(kind, types.Metadata):
        return _bare(kind.type)
    if isinstance(kind, types.UnionType):
        return _bare(next(t for t in kind.types if not isinstance(t, types.NoneType)))
    return kind


def _word(kind: types.Type) -> str:
    if isinstance(kind, types.Metadata):
        return (kind.extra or {}).get("unit") or _word(kind.type)
    if isinstance(kind, types.UnionType):
        return _word(next(t for t in kind.types if not isinstance(t, types.NoneType)))
    if isinstance(kind, types.StructType):
        return f"[{kind.cls.__name__}](#{kind.cls.__name__.lower()})"
    if isinstance(kind, types.VarTupleType):
        return f"list of {_word(kind.item_type)}"
    if isinstance(kind, types.DictType):
        return f"name: {_word(kind.value_type)}"
    if isinstance(kind, types.LiteralType):
        return " or ".join(f"`{v}`" for v in kind.values)
    words = {
        types.BoolType: "true or false", types.IntType: "number", types.FloatType: "number",
        types.CustomType: "anything",
    }  # fmt: skip
    return words.get(type(kind), "text")


def _cell(text: str) -> str:
    """Return `text` for a table, where a bare bar would begin the next cell, even in code."""
    return text.replace("|", r"\|")


def _default(field: types.Field) -> str:
    if field.required:
        return "required"
    value = field.default
    if value is NODEFAULT or isinstance(value, Model) or value in ((), None, ""):
        return "-"
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"
