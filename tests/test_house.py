"""Does the tree keep the rules that no single file can show: floors, links, pins, addresses?"""

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.compiler.snapshot import check
from sidecar.issuers.ephemeral import Authority
from sidecar.sources.file import FileSource

ROOT = Path(__file__).parents[1]
KEPT_OUT_OF_THE_WORKER = {
    "yaml",
    "prometheus_client",
    "opentelemetry",
    "grpclib",
    "redis",
    "cryptography",
    "jwt",
    "click",
    "dns",
    "rich",
    "h2",
}
MADE = {"__pycache__", "dist", "build", "htmlcov"}  # what tools leave behind, not what we write
HIDDEN_BUT_OURS = {".ci", ".gitignore", ".dockerignore"}  # other dot names are tools' too

# Imports all a worker is made of, finds the plug-ins as the compiler does, tells what is loaded.
WORKER = """
import importlib, pkgutil, sys
import sidecar.worker as worker
for found in pkgutil.iter_modules(worker.__path__):
    if found.name != "__main__":  # which would run it
        importlib.import_module(f"sidecar.worker.{found.name}")
from sidecar.plugin import discover
for package in ("sidecar.filters", "sidecar.balancers"):
    discover(package)
print(*sys.modules, sep="\\n")
"""

# The same with the HTTP/2 codec that a config may choose.
WORKER_WITH_H2 = """
from sidecar.compiler.http2 import http2_plan
from sidecar.model.http2 import Http2
http2_plan(Http2(codec="reference"))
"""

# The same with keys of tokens.
WORKER_WITH_JWT = """
from sidecar.identity import keys
"""


def files(*endings: str) -> Iterator[Path]:
    """Yield the project's own text files, `endings` as in `.py`; none given means all."""
    for place, directories, names in os.walk(ROOT):
        # Not entered: an environment has a hundred times as many files as we do.
        directories[:] = sorted(filter(is_ours, directories))
        for path in (Path(place, name) for name in sorted(names) if is_ours(name)):
            if path.is_file() and (not endings or path.suffix in endings):
                yield path


def is_ours(name: str) -> bool:
    return name not in MADE and (not name.startswith(".") or name in HIDDEN_BUT_OURS)


def words(text: str) -> str:
    """Return the anchor that a heading gets: lower case, words joined by hyphens."""
    return re.sub(r"[^\w\- ]", "", text.lower()).strip().replace(" ", "-")


def told_by(program: str) -> str:
    """Return what `program` prints, in a process into which no measuring of coverage loads anything."""
    environment = {key: value for key, value in os.environ.items() if "COVERAGE" not in key}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("chosen", "more"),
    [("", set()), (WORKER_WITH_H2, {"h2"}), (WORKER_WITH_JWT, {"cryptography", "jwt"})],
    ids=["own", "reference", "jwt"],
)
def test_a_worker_loads_nothing_slow_or_large(chosen: str, more: set[str]) -> None:
    loaded = set(told_by(chosen + WORKER).split())

    assert "sidecar.core.exchange" in loaded, "this is not what a worker runs"
    assert {name.partition(".")[0] for name in loaded} & KEPT_OUT_OF_THE_WORKER == more


# What a process imports that runs `sidecar run` with a certificate and no more.
AGENT = """
import sys
import sidecar.agent.app, sidecar.cli.main, sidecar.sources.file
print(*sys.modules, sep="\\n")
"""
KEPT_OUT_OF_THE_AGENT = {
    "click", "cryptography", "dns", "email", "h2", "html", "jwt", "opentelemetry", "prometheus_client",
    "redis", "rich", "uvloop",
}  # fmt: skip


def test_an_agent_loads_nothing_large_that_a_configuration_does_not_ask_for() -> None:
    loaded = set(told_by(AGENT).split())

    assert "sidecar.agent.supervisor" in loaded, "this is not what an agent runs"
    assert {name.partition(".")[0] for name in loaded} & KEPT_OUT_OF_THE_AGENT == set()


# Compiles a config, tells which filters were loaded; then reaches for one more.
FILTERS = """
import sys, types
from sidecar.compiler.snapshot import check
from sidecar.sources.file import FileSource
def loaded():
    found = {n for n, m in sys.modules.items() if n.startswith("sidecar.filters.") and type(m) is types.ModuleType}
    print(*sorted(n.removeprefix("sidecar.filters.") for n in found))
check(FileSource("config/quickstart.yaml").load(), None)
loaded()
from sidecar.filters import jwt
loaded()
jwt.PLUGIN
loaded()
"""


def test_filters_that_no_plan_has_are_not_loaded() -> None:
    plan, imported, used = (set(line.split()) for line in told_by(FILTERS).splitlines())

    assert plan <= {"allow_peers", "attempt_count", "authorization", "header_edit"}
    assert imported == plan
    assert used == plan | {"jwt"}


def floors() -> dict[str, int]:
    """Return the floor of each room, counted from the ground, as pyproject.toml lists them."""
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    layers = tools["importlinter"]["contracts"][0]["layers"]
    return {
        room: floor
        for floor, layer in enumerate(reversed(layers))
        for room in re.findall(r"\w+", layer)
    }


def test_even_for_annotations_no_room_looks_upward() -> None:
    # The import contracts leave `if TYPE_CHECKING:` out, because such imports make no cycle.
    floor = floors()
    upward = []
    for path in files(".py"):
        place = path.relative_to(ROOT).with_suffix("").parts
        if place[0] != "sidecar" or len(place) < 2 or place[1] == "__init__":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            for name in names:
                room = name.split(".")[1:2]
                if not name.startswith("sidecar.") or room == [place[1]]:
                    continue
                if floor[room[0]] >= floor[place[1]]:
                    upward.append(f"{'/'.join(place)} imports {name}")

    assert upward == []


def pages() -> list[Path]:
    return [*files(".md")]


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_inside_the_docs_leads_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        goal = (page.parent / name) if name else page
        if not goal.exists():
            broken.append(target)
        elif anchor and goal.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", goal.read_text(), re.MULTILINE)
            if anchor not in map(words, headings):
                broken.append(target)

    assert broken == []


def test_the_five_lines_of_the_readme_are_five_and_good(tmp_path: Path) -> None:
    found = re.search(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert found is not None
    config = tmp_path / "sidecar.yaml"
    config.write_text(found[1])

    snapshot = FileSource(str(config)).load()

    workload = snapshot.workload
    check(snapshot, Authority(workload.trust_domain).issue(workload.identity))
    assert len(found[1].splitlines()) == 5
    assert (workload.name, snapshot.inbound[0].mtls) == ("web", "strict")


def test_no_file_names_a_place_on_one_machine() -> None:
    # Put together here, so that this file does not find itself. Tests may look for vectors that
    # lie beside the repository, and skip where there are none.
    machine = re.compile(rb"/" + rb"work/|/tmp/" + rb"w/|/root/" + rb"\.pyenv")
    beside = re.compile(rb"\.\./" + rb"shared")
    found = []
    for path in files():
        content = path.read_bytes()
        in_tests = path.relative_to(ROOT).parts[0] == "tests"
        if machine.search(content) or (beside.search(content) and not in_tests):
            found.append(str(path.relative_to(ROOT)))

    assert found == []


def test_no_lock_names_an_index() -> None:
    locks = [*files(".lock")]

    assert {path.name for path in locks} >= {"requirements.lock", "requirements-dev.lock"}
    for path in locks:
        assert re.findall(r"^-|://", path.read_text(), re.MULTILINE) == []


def test_every_pin_carries_a_hash() -> None:
    for path in files(".lock"):
        text = re.sub(r"\\\n", " ", path.read_text())
        pins = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
        assert [pin.split()[0] for pin in pins if "--hash=sha256:" not in pin] == []
