"""The config file: what is wrong is told with file, line, path and what to do."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import inspect

from sidecar.compiler.snapshot import check
from sidecar.errors import ConfigError, ConfigErrors
from sidecar.model.snapshot import Snapshot
from sidecar.sources.file import FileSource
from sidecar.sources.schema import json_schema, structures
from sidecar.sources.yaml_tree import load
from tests.full_config import secret_of

ROOT = Path(__file__).parents[2]
GOOD = """\
workload: web
outbound:
  - address: 127.0.0.1:15001
    cluster: app
clusters:
  - name: app
    endpoints: ["127.0.0.1:8080"]
"""
# What is replaced, by what, and the beginning of what is told.
BAD = [
    ("workload: web", "workload:", "1: workload: expected keys and values (or just its name)"),
    ("workload: web\n", "", "1: workload: is required"),
    ("workload: web", "wrkload: web", "1: wrkload: unknown key; did you mean 'workload'?"),
    ("cluster: app", "clusta: app", "4: outbound[0].clusta: unknown key; did you mean 'cluster'?"),
    ("cluster: app", "cluster: ap", "4: outbound[0].cluster: no cluster is named 'ap' (did you mean 'app'?)"),
    ("cluster: app", "cluster: [app]", "4: outbound[0].cluster: expected a text, got a list"),
    ("127.0.0.1:15001", "127.0.0.1", "3: outbound[0].address: expected host:port"),
    ("127.0.0.1:15001", "127.0.0.1:70000", "3: outbound[0].address: expected a port from 1 to 65535"),
    ('["127.0.0.1:8080"]', '"127.0.0.1:8080"', "7: clusters[0].endpoints: expected a list"),
    ('["127.0.0.1:8080"]', "[{weight: 1}]", "7: clusters[0].endpoints[0].address: is required"),
    ('["127.0.0.1:8080"]', '[{address: "a:1", weight: 0}]', "7: clusters[0].endpoints[0].weight: expected 1 or more"),
    ("cluster: app", "cluster: app\n    protocol: htp", "5: outbound[0].protocol: got the text 'htp'; did you mean 'http'?"),
    ("cluster: app", "cluster: app\n    idle_timeout: 5 s", "5: outbound[0].idle_timeout: expected a duration"),
    ("cluster: app", "cluster: app\n    idle_timeout: -1", "5: outbound[0].idle_timeout: expected 0 or more"),
    ("cluster: app", "cluster: app\n    max_head_size: 1MB", "5: outbound[0].max_head_size: expected octets"),
    ("cluster: app", "cluster: app\n    max_connections: many", "5: outbound[0].max_connections: expected a whole number"),
    ("cluster: app", "cluster: app\n    accept_proxy_protocol: yes", "5: outbound[0].accept_proxy_protocol: expected true"),
    ("cluster: app", "cluster: app\n    cluster: app", "5: outbound[0].cluster: the key is given twice"),
    ("cluster: app", "\tcluster: app", "4: not YAML"),
    ("- name: app", "- name: [", "not YAML"),
    ("- name: app", "- {name: app", "not YAML"),
    ("workload: web", "workload: web\n---\na: 1", "expected one document"),
    ("    endpoints", "    balancer: randm\n    endpoints", "clusters[0].balancer: no balancer is called 'randm'"),
    ("    endpoints", "    tls: mutual\n    endpoints", "clusters[0].tls: mutual needs the workload's certificates"),
    ("    endpoints", "    tls: {mode: mutal}\n    endpoints", "clusters[0].tls.mode: got the text 'mutal'; did you mean"),
    ("cluster: app", "routes: [{cluster: app}, {cluster: app}]", "outbound[0].routes[1]: never reached"),
    ("cluster: app", 'routes: [{match: {regex: "("}, cluster: app}]', "outbound[0].routes[0].match.regex: bad pattern"),
    ("cluster: app", "routes: [{match: {path: a}, cluster: app}]", "outbound[0].routes[0].match.path: expected a leading /"),
    ("cluster: app", "routes: [{}]", "outbound[0].routes[0]: expected exactly one of cluster, clusters, redirect and respond"),
    ("workload: web", 'workload: ""', "1: workload.name: expected a name"),
    ("- name: app", '- name: ""', "6: clusters[0].name: expected a name"),
    ('endpoints: ["127.0.0.1:8080"]', "dns: unix:/x", "7: clusters[0].dns: expected host:port; a unix socket"),
    ('"127.0.0.1:8080"', "unix:run/x", "7: clusters[0].endpoints[0].address: expected a path that begins with /"),
    ("127.0.0.1:15001", "off", "3: outbound[0].address: expected host:port"),
    ("cluster: app", "routes: [{cluster: app, retry: {status_codes: [99]}}]", "retry.status_codes[0]: expected 100 or more"),
    ("cluster: app", "routes: [{cluster: app, retry: {status_codes: [503, 600]}}]", "retry.status_codes[1]: expected 599"),
    ("workload: web", "workload: web\ntelemetry: {tracing: {sampling: 101}}", "2: telemetry.tracing.sampling: expected 100"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "told"), BAD)
def test_what_is_wrong_is_told(tmp_path: Path, old: str, new: str, told: str) -> None:
    path = tmp_path / "sidecar.yaml"
    assert old in GOOD
    path.write_text(GOOD.replace(old, new, 1))
    source = FileSource(str(path))
    with pytest.raises(ConfigErrors) as caught:
        check(source.load(), None)
    text = str(source.locate(caught.value))
    assert str(path) in text
    assert told in text


def test_every_error_is_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "sidecar.yaml"
    path.write_text(GOOD.replace("name: app", "nam: app").replace("cluster: app", "x: 1"))
    with pytest.raises(ConfigErrors) as caught:
        FileSource(str(path)).load()
    assert [e.line for e in caught.value.errors] == [4, 6, 6]


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"[]", b"- a", b"a: &a [*a]"])
def test_what_is_no_config_at_all_is_told(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "sidecar.yaml"
    path.write_bytes(data)
    with pytest.raises(ConfigErrors):
        FileSource(str(path)).load()


def test_an_alias_bomb_is_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    path = tmp_path / "sidecar.yaml"
    path.write_text("\n".join(lines))
    with pytest.raises(ConfigErrors, match="too many values"):
        FileSource(str(path)).load()


def test_an_error_below_what_is_written_has_the_line_of_what_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "sidecar.yaml"
    path.write_text(GOOD)
    source = FileSource(str(path))
    source.load()
    paths = ["clusters[0].tls.mode", "outbound[0].routes[2].name", "admin", ""]
    found = source.locate(ConfigErrors([ConfigError(p, "no") for p in paths])).errors
    assert {e.path: e.line for e in found} == dict(zip(paths, [6, 3, 1, 1], strict=True))
    assert {e.file for e in found} == {source.name}


def test_the_file_itself_is_watched(tmp_path: Path) -> None:
    path = tmp_path / "sidecar.yaml"
    assert FileSource(str(path)).watched() == (str(path),)


def test_a_missing_file_is_told_without_a_line() -> None:
    source = FileSource("/nonexistent/sidecar.yaml")
    with pytest.raises(ConfigErrors) as caught:
        source.load()
    told = "/nonexistent/sidecar.yaml: cannot be read: No such file or directory"
    assert str(source.locate(caught.value)) == told


def test_a_device_that_never_ends_is_refused() -> None:
    with pytest.raises(ConfigErrors, match="larger than"):
        FileSource("/dev/zero").load()


@pytest.mark.parametrize("name", ["quickstart", "inbound-mtls", "outbound", "full"])
def test_the_examples_compile(name: str) -> None:
    snapshot = FileSource(str(ROOT / "config" / f"{name}.yaml")).load()
    check(snapshot, secret_of(snapshot))


def test_the_full_example_names_every_field() -> None:
    tree, _ = load((ROOT / "config" / "full.yaml").read_bytes())
    wanted = {
        (declared.__name__, name)
        for model in structures()
        for declared in model.__mro__
        for name in getattr(declared, "__annotations__", ())
        if name != "SHORT"
    }
    assert wanted - set(written(tree, inspect.type_info(Snapshot))) == set()


def written(tree: Any, kind: inspect.Type) -> Iterator[tuple[str, str]]:
    """Yield each field that `tree` gives, with the name of the structure that declares it."""
    if isinstance(kind, inspect.Metadata):
        yield from written(tree, kind.type)
    elif isinstance(kind, inspect.UnionType):
        for inner in kind.types:
            yield from written(tree, inner)
    elif isinstance(kind, inspect.VarTupleType):
        for item in tree:
            yield from written(item, kind.item_type)
    elif isinstance(kind, inspect.DictType):
        for item in tree.values():
            yield from written(item, kind.value_type)
    elif isinstance(kind, inspect.StructType) and isinstance(tree, dict):
        fields = {field.name: field.type for field in kind.fields}
        for key, item in tree.items():
            owner = next(c for c in kind.cls.__mro__ if key in getattr(c, "__annotations__", ()))
            yield owner.__name__, key
            yield from written(item, fields[key])


def test_the_schema_knows_every_structure() -> None:
    schema = json_schema()
    assert set(schema["$defs"]) == {model.__name__ for model in structures()}
    assert schema["$defs"]["Snapshot"]["required"] == ["workload"]


FILTER = (
    "from sidecar.filter import Filter\nclass Mine(Filter):\n    def on_finish(self, r, o): ...\n"
)
FILTERED = """\
workload: web
outbound:
  - filters: [mine.py, {file: sub/other.py, on_error: open}]
    routes: [{cluster: app, filters: [mine.py]}]
clusters:
  - {name: app, endpoints: ["127.0.0.1:8080"]}
"""


def filtered(tmp_path: Path, config: str = FILTERED) -> FileSource:
    (tmp_path / "sub").mkdir()
    (tmp_path / "mine.py").write_text(FILTER)
    (tmp_path / "sub" / "other.py").write_text(FILTER + "# other\n")
    path = tmp_path / "sidecar.yaml"
    path.write_text(config)
    return FileSource(str(path))


def test_files_of_filters_are_read_beside_the_config_and_watched(tmp_path: Path) -> None:
    source = filtered(tmp_path)
    assert source.watched() == (str(tmp_path / "sidecar.yaml"),)
    snapshot = source.load()
    check(snapshot, None)
    mine, other = str(tmp_path / "mine.py"), str(tmp_path / "sub" / "other.py")
    listener = snapshot.outbound[0]
    assert [(f.file, f.code) for f in listener.filters] == [
        (mine, FILTER),
        (other, FILTER + "# other\n"),
    ]
    assert [(f.file, f.code) for f in listener.routes[0].filters] == [(mine, FILTER)]
    assert set(source.watched()) == {str(tmp_path / "sidecar.yaml"), mine, other}


def test_a_mistake_in_a_filter_names_its_own_file(tmp_path: Path) -> None:
    source = filtered(tmp_path)
    (tmp_path / "mine.py").write_text("\n\nclass Mine(Filter):\n    def on_rquest(self, r): ...\n")
    with pytest.raises(ConfigErrors) as caught:
        check(source.load(), None)
    first = str(source.locate(caught.value).errors[0])
    assert first.startswith(f"{tmp_path}/mine.py:4: outbound[0].")
    assert "no hook is called on_rquest; did you mean 'on_request'?" in first


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "mine.py cannot be read: [Errno 2]"),
        (b"\xff", "mine.py is no UTF-8"),
        (b"#" * (1 << 20) + b"\n", "mine.py is larger than 1048576 octets"),
    ],
)
def test_a_file_that_cannot_be_a_filter_is_told_with_the_line_that_names_it(
    tmp_path: Path, content: bytes | None, text: str
) -> None:
    source = filtered(tmp_path)
    path = tmp_path / "mine.py"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(ConfigErrors) as caught:
        source.load()
    (error,) = caught.value.errors
    assert str(error).startswith(f"{tmp_path}/sidecar.yaml:3: outbound[0].filters[0].file: ")
    assert text in str(error)
    assert str(path) in source.watched()  # which may be mended


def test_a_filter_has_a_file_or_code(tmp_path: Path) -> None:
    source = filtered(tmp_path, FILTERED.replace("[mine.py]", "[{file: mine.py, code: x}]"))
    with pytest.raises(ConfigErrors, match=r"filters\[0\]: expected one of file and code"):
        source.load()


def test_a_listener_without_filters_is_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "sidecar.yaml"
    path.write_text(GOOD)
    source = FileSource(str(path))
    assert source.load().outbound[0].filters == ()
    assert source.watched() == (str(path),)
