"""YAML is read strictly: words mean what they look like, and every error has a line."""

from contextlib import suppress

import pytest
from hypothesis import given, strategies as st

from sidecar.errors import ConfigErrors
from sidecar.sources import yaml_tree
from sidecar.sources.yaml_tree import MAX_SIZE, load


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("off", "off"),
        ("on", "on"),
        ("yes", "yes"),
        ("no", "no"),
        ("True", "True"),
        ("true", True),
        ("false", False),
        ("", None),
        ("~", None),
        ("null", None),
        ("-7", -7),
        ("012", "012"),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("2026-11-24", "2026-11-24"),
        (".inf", ".inf"),
        ("2.5", 2.5),
        ("1e3", 1000.0),
        ("1e999", "1e999"),
        ("9" * 5000, "9" * 5000),
        ("'7'", "7"),
        ('"true"', "true"),
        ("|\n  7\n", "7\n"),
    ],
)
def test_plain_words_mean_what_yaml_1_2_says(text: str, value: object) -> None:
    tree, _ = load(f"key: {text}".encode())
    assert tree == {"key": value}
    assert type(tree["key"]) is type(value) or isinstance(value, float)


def test_a_number_remembers_how_it_was_written() -> None:
    tree, _ = load(b"version: 1.10")
    assert tree["version"] == 1.1
    assert str(tree["version"]) == "1.10"


def test_every_path_has_its_line() -> None:
    _, lines = load(b"a:\n  - b: 1\n    c:\n      d: [x,\n          y]\n")
    assert lines["a"] == 1
    assert lines["a[0].b"] == 2
    assert lines["a[0].c"] == 3
    assert lines["a[0].c.d[1]"] == 5


@pytest.mark.parametrize(
    ("data", "line", "told"),
    [
        (b"", 0, "the file is empty"),
        (b"# nothing\n", 0, "the file is empty"),
        (b"a: 1\nb: \xff", 2, "not UTF-8 text"),
        (b"a: 1\n---\nb: 1", 3, "expected one document"),
        (b"a: 1\nb: 2\na: 3", 3, "the key is given twice"),
        (b"a: 1\n\tb: 2", 2, "found character tab that cannot start any token; indent with spaces"),
        (b"a: b: c", 1, "a text with `: ` needs quotes"),
        (b"a: [1,\nb: 2", 2, "a bracket or brace is not closed"),
        (b"a: {b: 1", 1, "got the end of the file; a bracket or brace is not closed"),
        (b"a:\n  b: 1\n c: 2", 3, "the indentation differs"),
        (b"a: 'b", 1, "a quote is not closed"),
        (b"a: 1\nb\nc: 1", 3, "a key needs a colon"),
        (b"a: *b", 1, "name it with & first"),
        (b"a: 1\nb: \x00", 2, "the character U+0000 is not allowed"),
        (b"a: 1\nb: !!python/name:os.system x", 2, "mean nothing"),
        (b"a: 1\nb: !secret x", 2, "tags such as !secret mean nothing"),
        (b'a: "\\ud800"', 1, "half of a surrogate pair"),
        (b"? [a]\n: 1", 1, "a key must be a plain word"),
        (b"a: &a [*a]", 1, "too many values or too deep"),
        (b"[" * 66 + b"]" * 66, 1, "too many values or too deep"),
        (b"[" * 5000, 1, "too many values or too deep"),
        (b"- " * 5000, 1, "too many values or too deep"),
        (b"[" + b"x," * 400_001, 1, "too many values or too deep"),
        (b"a: !!int '3'", 1, "tags such as"),
        (b"a: !mine {b: c}", 1, "tags such as !mine mean nothing"),
        (b'"\\e[31m": 1', 1, "a key must be a plain word"),
        (b'"\\ud800": 1', 1, "a key must be a plain word"),
        (b"a: &x {b: 1}\nc:\n  <<: *x", 3, "merge keys (`<<`) are not supported"),
        (b" " * (MAX_SIZE + 1), 0, "larger than"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_line(data: bytes, line: int, told: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        load(data)
    (error,) = caught.value.errors
    assert told in error.detail
    assert error.line == line


def test_aliases_that_multiply_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_tree, "MAX_NODES", 10)
    load(b"a: &a [1, 2, 3]\nb: *a")
    with pytest.raises(ConfigErrors, match="too many values"):
        load(b"a: &a [1, 2, 3]\nb: [*a, *a]")


@given(
    st.binary(max_size=200) | st.text("ab:-[]{}&*!|>'\"#%@`,? \n\t01.", max_size=60).map(str.encode)
)
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with suppress(ConfigErrors):
        _, lines = load(data)
        assert lines[""] >= 1
