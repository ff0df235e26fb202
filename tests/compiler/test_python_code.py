"""What can be seen of a filter without running it, and what running it may tell."""

import sys
import textwrap
from typing import Any

import pytest

from sidecar.compiler.python_code import LoadError, load, look
from sidecar.compiler.snapshot import check
from sidecar.errors import ConfigErrors
from sidecar.filter import Filter
from sidecar.model.snapshot import Snapshot
from sidecar.sources.decode import decode
from tests.core.harness import tree

GOOD = "from sidecar.filter import Filter\n\nclass Mine(Filter):\n    def on_request(self, request): ...\n"
HOOKLESS = "class Mine(Filter):\n    "


def with_settings(fields: str, decorator: str = "@dataclass") -> str:
    return f"{decorator}\nclass Settings:\n    {fields}\n{GOOD}"


@pytest.mark.parametrize(
    ("code", "line", "text"),
    [
        ("", 1, "no class here derives from sidecar.filter.Filter"),
        ("class Mine:\n    def on_request(self, request): ...", 1, "no class here derives"),
        ("x = 1\ndef f(:\n", 2, "not Python: invalid syntax"),
        ("a\0b", 1, "not Python: source code string cannot contain null bytes"),
        ("(" * 5000, 1, "not Python: "),
        (GOOD + GOOD, 7, "expected one filter, got Mine and Mine"),
        (HOOKLESS + "pass", 1, "Mine has no hook: expected on_request, on_response, on_finish"),
        (HOOKLESS + "\n    def on_requets(self, r): ...", 3, "no hook is called on_requets; did you mean 'on_request'?"),
        (HOOKLESS + "def on_body(self, r): ...", 2, "no hook is called on_body; expected one of"),
        (HOOKLESS + "def on_request(self): ...", 2, "on_request is called with 1 besides self"),
        (HOOKLESS + "def on_request(self, a, b): ...", 2, "on_request is called with 1"),
        (HOOKLESS + "def on_response(self, a): ...", 2, "on_response is called with 2"),
        (HOOKLESS + "def on_request(self, a, *, b): ...", 2, "on_request is called with 1"),
        (HOOKLESS + "async def on_finish(self, a, b): ...", 2, "nothing waits for on_finish"),
    ],
)  # fmt: skip
def test_mistakes_are_told_with_their_line(code: str, line: int, text: str) -> None:
    mistake = look(code, ())[0]
    assert (mistake.line, mistake.is_setting) == (line, False)
    assert mistake.text.startswith(text)


@pytest.mark.parametrize(
    "code",
    [
        GOOD,
        "class Mine(filter.Filter[Settings]):\n    async def on_response(self, a, b): ...",
        HOOKLESS + "def on_request(self, *all): ...",
        HOOKLESS + "def on_request(self, a, b=1, *, c=2): ...",
        HOOKLESS + "def on_finish(self, a, /, b): ...",
        with_settings("a: int = 1"),
    ],
)
def test_what_is_good_is_found_good(code: str) -> None:
    assert look(code, ()) == []


@pytest.mark.parametrize(
    ("code", "given", "texts"),
    [
        (GOOD, ["a"], ["this filter takes none: it has no class Settings"]),
        (with_settings("name: str"), [], ["name: is required"]),
        (with_settings("name: str"), ["nmae"], ["nmae: unknown key; did you mean 'name'?", "name: is required"]),
        (with_settings("a: int = 1; LIMIT: ClassVar[int] = 3"), ["LIMIT"], ["LIMIT: unknown key"]),
        (with_settings("a: int = 1"), ["a"], []),
        (f"class Settings(msgspec.Struct):\n    a: int\n{GOOD}", [], ["a: is required"]),
        # Of these nothing is known without running them.
        (f"class Settings(Base):\n    a: int\n{GOOD}", ["b"], []),
        (f"from mine import Settings\n{GOOD}", ["b"], []),
        (f"from mine import Other as Settings, x\n{GOOD}", ["b"], []),
        (f"from mine import *\n{GOOD}", ["b"], []),
        (f"a = 1\nSettings = make()\n{GOOD}", ["b"], []),
    ],
)  # fmt: skip
def test_settings_are_compared_with_their_class(
    code: str, given: list[str], texts: list[str]
) -> None:
    found = look(code, given)
    assert all(mistake.is_setting for mistake in found)
    assert len(found) == len(texts)
    assert all(m.text.startswith(text) for m, text in zip(found, texts, strict=True))


# Running:

SETTINGS = """
from __future__ import annotations
from dataclasses import dataclass
from typing import ClassVar
from sidecar.filter import Filter
import msgspec

@dataclass
class Settings:
    name: str
    share: float = 0.5
    KIND: ClassVar[str] = "x"

    def __post_init__(self):
        if self.share > 1:
            raise ValueError("expected a share")

class Mine(Filter[Settings]):
    def on_request(self, request): ...
"""
STRUCT = SETTINGS.replace("@dataclass\nclass Settings:", "class Settings(msgspec.Struct):")


def loaded(code: str, **settings: object) -> Filter[Any]:
    return load("a name", "mine.py", code, settings)


@pytest.mark.parametrize("code", [SETTINGS, STRUCT])
def test_settings_become_what_the_file_says(code: str) -> None:
    filter_ = loaded(code, name="a", share=1)
    assert (filter_.settings.name, filter_.settings.share) == ("a", 1.0)
    assert type(filter_).__module__ == "sidecar_filter_a_name" in sys.modules


def test_a_filter_without_settings_has_none() -> None:
    assert loaded(GOOD).settings is None


@pytest.mark.parametrize(
    ("code", "settings", "text"),
    [
        (SETTINGS, {"name": 1}, "settings: Expected `str`, got `int` - at `$.name`"),
        (SETTINGS, {"name": "a", "share": 2}, "settings: expected a share"),
        (SETTINGS, {"nam": 1}, "settings.nam: unknown key; did you mean 'name'?"),
        (STRUCT, {"x": 1}, "settings.x: unknown key; expected one of name, share"),
        (GOOD, {"x": 1}, "settings: this filter takes none"),
        ("Settings = 3\n" + GOOD, {}, "mine.py: Settings must be a dataclass or a msgspec.Struct"),
        ("Settings = int\n" + GOOD, {}, "mine.py: Settings must be"),
        ("\nimport absent_module", {}, "mine.py:2: ModuleNotFoundError: No module named 'absent_module'"),
        ("raise SystemExit(1)", {}, "mine.py:1: SystemExit: 1"),
        ("x = (", {}, "mine.py:1: SyntaxError: '(' was never closed (mine.py, line 1)"),
        ("from sidecar.filter import Filter", {}, "mine.py: expected one class of Filter, got 0"),
        (GOOD + "\n    def __init__(self): ...", {}, "mine.py: TypeError: Mine.__init__() takes 1"),
        (GOOD + "\n    def __init__(self, s):\n        1 / 0", {}, "mine.py:7: ZeroDivisionError"),
    ],
)  # fmt: skip
def test_what_running_shows_is_told_with_its_place(
    code: str, settings: dict[str, object], text: str
) -> None:
    with pytest.raises(LoadError) as caught:
        loaded(code, **settings)
    assert str(caught.value).startswith(text)


# In a config:

PATH = "outbound[0].filters[0]"


def problems(*, runs: bool = False, protocol: str = "http", **filter_: Any) -> list[str]:
    config = tree(protocol=protocol, listener={"filters": [filter_]})
    try:
        check(decode(config, Snapshot), None, runs_filters=runs)
    except ConfigErrors as errors:
        return [str(error) for error in errors.errors]
    return []


def test_what_is_looked_at_is_not_run() -> None:
    code = "raise SystemExit(1)\n" + GOOD
    assert problems(code=code) == []
    assert problems(code=code, runs=True) == ["outbound[0].filters[0]: <inline>:1: SystemExit: 1"]


@pytest.mark.parametrize(
    ("filter_", "text"),
    [
        ({}, "outbound[0].filters[0]: expected a file, or the code itself"),
        ({"code": GOOD, "timeout": 0}, "outbound[0].filters[0].timeout: expected more than 0"),
        ({"code": GOOD, "settings": {"a": 1}}, f"{PATH}.settings: this filter takes none: it has no class Settings"),
        ({"file": "/etc/a.py", "code": "\n1 +"}, "/etc/a.py:2: outbound[0].filters[0]: not Python: invalid syntax"),
        ({"name": "x", "code": "("}, "<x>:1: outbound[0].filters[0]: not Python: '(' was never closed"),
        ({"code": GOOD, "protocol": "tcp"}, "outbound[0].filters: a tcp listener sees no requests"),
    ],
)  # fmt: skip
def test_mistakes_name_the_filter_and_its_place(filter_: dict[str, Any], text: str) -> None:
    assert problems(**filter_) == [text]


def test_a_route_of_a_tcp_listener_has_no_filters_either() -> None:
    config = tree(protocol="tcp", route={"filters": [{"code": textwrap.dedent(GOOD)}], "retry": {}})
    with pytest.raises(ConfigErrors, match=r"routes\[0\].filters: a tcp listener sees no requests"):
        check(decode(config, Snapshot), None)
