"""Which interpreter our side is measured on."""

import sys
from pathlib import Path

import pytest

from benchmarks.load import interpreter
from benchmarks.load.interpreter import (
    LOCK,
    Interpreter,
    UnusableError,
    choose,
    compared,
    fastest,
    probed,
    steps,
)


def one(path: str, seconds: float) -> Interpreter:
    return Interpreter(path, "3.13.0", "GCC", seconds)


@pytest.mark.parametrize(
    ("seconds", "path"),
    [((1.0, 0.7, 0.8), "b"), ((1.0, 0.97, 0.96), "a"), ((1.0, 1.4, 1.2), "a")],
    ids=["clearly faster", "within noise", "slower"],
)
def test_another_interpreter_must_be_clearly_faster(seconds: tuple[float, ...], path: str) -> None:
    found = [one(name, spent) for name, spent in zip("abc", seconds, strict=True)]

    assert fastest(found).path == path


def test_a_name_and_its_target_are_one_interpreter(tmp_path: Path) -> None:
    running = probed(sys.executable)
    assert running is not None
    link = tmp_path / "python"
    link.symlink_to(running.path)

    (found,) = compared([running.path, str(link), "/bin/false"], turns=1)

    assert (found.path, found.version) == (running.path, sys.version.split()[0])
    assert found.seconds > 0


@pytest.mark.parametrize("path", ["/nowhere/python3", "/bin/false", "/bin/echo"])
def test_what_is_no_python_is_refused_when_asked_for(path: str) -> None:
    assert probed(path) is None
    with pytest.raises(UnusableError, match=f"{path} is not a working Python"):
        choose(path)


def test_an_environment_that_has_the_packages_is_taken_as_it_is() -> None:
    chosen = choose(sys.executable)

    assert chosen.python == sys.executable
    assert chosen.version == sys.version.split()[0]
    assert chosen.says.endswith("asked for")


@pytest.mark.parametrize("uv", [True, False])
def test_packages_are_installed_by_their_hashes_only(uv: bool) -> None:
    commands = steps("/usr/bin/python3", "/place/bin/python", uv=uv)

    assert [command[0] for command in commands].count("uv") == (2 if uv else 0)
    assert "/usr/bin/python3" in commands[0]
    assert {"--no-deps", "--require-hashes", str(LOCK), "/place/bin/python"} <= set(commands[1])


def test_the_environment_is_made_again_when_the_lock_or_the_base_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "lock"
    ran: list[str] = []

    def fake_steps(base: str, python: str, *, uv: bool) -> list[list[str]]:
        ran.append(base)
        place = Path(python).parent
        return [["mkdir", "-p", str(place)], ["ln", "-sf", sys.executable, python]]

    monkeypatch.setattr(interpreter, "PLACE", tmp_path / "made")
    monkeypatch.setattr(interpreter, "LOCK", lock)
    monkeypatch.setattr(interpreter, "steps", fake_steps)
    monkeypatch.setattr(interpreter, "complete", lambda python: Path(python).exists())

    for base, pinned in (("a", "x"), ("a", "x"), ("b", "x"), ("b", "y")):
        lock.write_text(pinned)
        interpreter.installed(one(base, 1.0))

    assert ran == ["a", "b", "b"]
