"""What a line of the agent's log looks like in the journal, and elsewhere."""

import json
import logging
import os
from pathlib import Path

import pytest

from sidecar.agent import logs


def line(level: int, *, as_json: bool = False, for_journal: bool = True) -> str:
    record = logging.LogRecord("sidecar", level, "x.py", 1, "port %d", (80,), None)
    return logs.Form(as_json=as_json, for_journal=for_journal).format(record)


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        (logging.DEBUG, '<7>level=debug msg="port 80"'),
        (logging.INFO, '<6>level=info msg="port 80"'),
        (logging.WARNING, '<4>level=warning msg="port 80"'),
        (logging.ERROR, '<3>level=error msg="port 80"'),
        (logging.CRITICAL, '<2>level=critical msg="port 80"'),
    ],
)
def test_the_journal_is_told_the_level_and_not_the_time(level: int, expected: str) -> None:
    assert line(level) == expected


def test_json_stays_json_behind_the_level() -> None:
    text = line(logging.ERROR, as_json=True)

    assert text[:3] == "<3>"
    assert json.loads(text[3:]) == {"level": "error", "msg": "port 80"}


def test_elsewhere_a_line_has_its_time_and_no_prefix() -> None:
    assert line(logging.INFO, for_journal=False).startswith("time=")


def test_standard_error_is_the_journal_only_if_it_is_that_very_file(tmp_path: Path) -> None:
    with (tmp_path / "a").open("w") as one, (tmp_path / "b").open("w") as other:
        status = os.fstat(one.fileno())
        environ = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}

        assert logs.is_journal(one.fileno(), environ)
        assert not logs.is_journal(other.fileno(), environ)
        assert not logs.is_journal(one.fileno(), {})
