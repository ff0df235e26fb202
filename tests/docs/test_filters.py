"""Whoever follows docs/filters.md gets what it says: its snippets are run as they stand."""

import asyncio
import importlib.util
import re
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from docs.generate import DOCS
from sidecar.compiler.python_code import load, look
from sidecar.compiler.snapshot import check
from sidecar.filter import Outcome, Reply, Request, Response
from sidecar.sources.file import FileSource

PAGE = (DOCS / "filters.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
HOURS, MAINTENANCE, TEST = PYTHON
DAY = 24 * 3600


def test_the_first_filter_is_found_good_where_the_page_puts_it(tmp_path: Path) -> None:
    (config,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "filters").mkdir()
    (tmp_path / "filters" / "business_hours.py").write_text(HOURS)
    path = tmp_path / "sidecar.yaml"
    path.write_text(config)
    snapshot = FileSource(str(path)).load()

    check(snapshot, None, runs_filters=True)

    assert snapshot.outbound[0].routes[0].filters[0].called == "business_hours"


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "business_hours.py").write_text(HOURS)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("business_hours", None)


def test_its_test_passes(beside: Path) -> None:
    path = beside / "test_business_hours.py"
    path.write_text(TEST)
    spec = importlib.util.spec_from_file_location("test_business_hours", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    module.test_it_is_closed_at_night()


@pytest.mark.parametrize(("said", "status"), [(b"down\n", 503), (b"up\n", None), (b"", None)])
async def test_the_filter_that_waits_does(tmp_path: Path, said: bytes, status: int | None) -> None:
    assert look(MAINTENANCE, ()) == []
    path = tmp_path / "s"
    asked = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            asked.append(await reader.readline())
            writer.write(said)

    server = await asyncio.start_unix_server(answer, path)
    code = MAINTENANCE.replace("/run/maintenance.sock", str(path))
    filter_: Any = load("maintenance", "maintenance.py", code, {})
    async with server:
        reply = await filter_.on_request(SimpleNamespace(route="orders"))

    assert asked == [b"orders\n"]
    assert (None if reply is None else reply.status) == status


def test_what_the_page_names_is_there() -> None:
    wanted = {
        Request: ["method", "target", "path", "host", "cookie", "peer", "source", "route", "listener",
                  "is_inbound", "id", "time", "state", "log", "count", "header", "headers",
                  "set_header", "add_header", "remove_header"],
        Response: ["status", "header", "headers", "set_header", "add_header", "remove_header"],
        Reply: ["status", "body", "headers", "grpc_status"],
        Outcome: ["status", "reason", "flag", "seconds", "bytes_in", "bytes_out", "attempts", "endpoint"],
    }  # fmt: skip
    for kind, names in wanted.items():
        for name in names:
            assert hasattr(kind, name)
            assert re.search(rf"\b{name}\b", PAGE)
