"""Filters in Python in a running sidecar: loaded, waited for, changed, refused, shown."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.stand import ROOT, Sidecar, Upstream, echo, free_port, wait_for

CONFIG = """\
workload: web
outbound:
  - address: 127.0.0.1:{port}
    filters: [{{file: filters/mark.py, settings: {{word: one}}}}]
    routes:
      - match: {{path: /slow}}
        cluster: app
        filters: [{{file: filters/slow.py, timeout: 300ms}}]
      - match: {{path: /broken}}
        cluster: app
        filters: [{{name: broken, code: "{broken}"}}]
      - {{cluster: app}}
clusters:
  - {{name: app, endpoints: ["127.0.0.1:{upstream}"]}}
"""
BROKEN = (
    "from sidecar.filter import Filter\\nclass Broken(Filter):\\n"
    "    def on_response(self, request, response): 1 / 0"
)
MARK = """\
from dataclasses import dataclass

from sidecar.filter import Filter

@dataclass
class Settings:
    word: str

class Mark(Filter[Settings]):
    def on_request(self, request):
        request.set_header("x-word", self.settings.word)
        request.count("marked", word=self.settings.word)

    def on_finish(self, request, outcome):
        request.log("word", self.settings.word)
"""
SLOW = """\
import asyncio

from sidecar.filter import Filter

class Slow(Filter[None]):
    async def on_request(self, request):
        await asyncio.sleep(float(request.header("x-sleep") or 0))
        request.set_header("x-slept", "1")

    async def on_response(self, request, response):
        await asyncio.sleep(0.01)
        response.set_header("x-late", "1")
"""


class Rig:
    def __init__(self, directory: Path) -> None:
        self.upstream = Upstream(echo)
        self.port = free_port()
        (directory / "filters").mkdir()
        self.mark = directory / "filters" / "mark.py"
        self.mark.write_text(MARK)
        (directory / "filters" / "slow.py").write_text(SLOW)
        self.sidecar = Sidecar(
            directory,
            CONFIG.format(port=self.port, upstream=self.upstream.port, broken=BROKEN),
            workers=2,
        )


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    rig = Rig(tmp_path_factory.mktemp("filters"))
    yield rig
    rig.upstream.close()
    rig.sidecar.end()


def test_a_filter_changes_what_passes(client: httpx.Client) -> None:
    assert "x-word: one\r\n" in client.get("/").text


def test_a_filter_is_waited_for_and_cancelled(client: httpx.Client) -> None:
    answer = client.get("/slow", headers={"x-sleep": "0.05"})
    assert (answer.status_code, answer.headers["x-late"]) == (200, "1")
    assert "x-slept: 1\r\n" in answer.text
    answer = client.get("/slow", headers={"x-sleep": "60"})
    assert answer.status_code == 504
    assert "code filter-timeout" in answer.text


def test_a_broken_filter_breaks_its_own_requests_only(client: httpx.Client, rig: Rig) -> None:
    answer = client.get("/broken")
    assert answer.status_code == 500
    assert "code filter-failed" in answer.text
    assert client.get("/").status_code == 200
    log = rig.sidecar.log.read_text()
    assert 'msg="filter failed" hook=on_response filter=broken' in log
    assert "ZeroDivisionError" in log


def test_the_operator_sees_what_filters_do(rig: Rig, client: httpx.Client) -> None:
    client.get("/")
    rows = {row["name"]: row for row in json.loads(rig.sidecar.get("/filters")[1])}
    assert set(rows) == {"mark", "slow", "broken"}
    assert rows["mark"]["file"] == str(rig.mark)
    assert rows["mark"]["hooks"]["on_request"]["calls"] >= 1
    assert rows["mark"]["hooks"]["on_request"]["mean_microseconds"] > 0
    assert rows["mark"]["workers_off"] == 0
    metrics = rig.sidecar.get("/metrics")[1]
    assert 'filter_marked_total{filter="mark",word="one"}' in metrics
    assert 'word="one"' in rig.sidecar.log.read_text()


def test_a_changed_file_is_taken_up_and_a_bad_one_is_not(rig: Rig) -> None:
    def word() -> str:
        return httpx.get(f"http://127.0.0.1:{rig.port}/").text.partition("x-word: ")[2][:3]

    def error() -> str:
        return str(rig.sidecar.info()["last_error"])

    try:
        rig.mark.write_text(MARK.replace("self.settings.word)", "'two')", 1))
        wait_for(lambda: word() == "two")
        rig.mark.write_text(MARK + "    def on_requets(self, r): ...\n")
        wait_for(lambda: f"{rig.mark}:16: outbound[0].filters[0]: no hook is called" in error())
        assert word() == "two"
        rig.mark.write_text("import absent_module\n" + MARK)
        wait_for(lambda: "mark.py:1: ModuleNotFoundError" in error())
        assert word() == "two"
    finally:
        rig.mark.write_text(MARK)
    wait_for(lambda: word() == "one")
    assert rig.sidecar.info()["last_error"] is None


def test_a_check_may_run_the_code_and_does_not_unless_told(tmp_path: Path) -> None:
    config = tmp_path / "sidecar.yaml"
    config.write_text(
        CONFIG.format(port=15001, upstream=15002, broken=BROKEN).replace("word: one", "word: 1")
    )
    (tmp_path / "filters").mkdir()
    (tmp_path / "filters" / "mark.py").write_text(MARK)
    (tmp_path / "filters" / "slow.py").write_text(SLOW)

    def check(*options: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "sidecar", "check", str(config), *options]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
        return done.returncode, done.stderr

    assert check() == (0, "")
    code, told = check("--load")
    assert code == 1
    assert told == (
        f"{config}:4: outbound[0].filters[0]: settings: Expected `str`, got `int` - at `$.word`\n"
    )
