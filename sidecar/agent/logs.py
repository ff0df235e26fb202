"""The agent's own log: structured, quiet, on standard error."""

import contextlib
import faulthandler
import json
import logging
import os
import sys
from collections.abc import Mapping
from typing import Final

log: Final = logging.getLogger("sidecar")

# sd-daemon(3): the level of a line for the journal, by its first octets.
JOURNAL_LEVELS: Final = {"critical": "<2>", "error": "<3>", "warning": "<4>", "debug": "<7>"}


class Form(logging.Formatter):
    """A record as one line: `key=value` words or a JSON object."""

    def __init__(self, *, as_json: bool, for_journal: bool) -> None:
        super().__init__(datefmt="%Y-%m-%dT%H:%M:%S%z")
        self._json = as_json
        self._journal = for_journal  # which knows the time, and wants the level its own way

    def format(self, record: logging.LogRecord) -> str:
        level = record.levelname.lower()
        if self._journal:
            return JOURNAL_LEVELS.get(level, "<6>") + self._line(record, {"level": level})
        time = self.formatTime(record, self.datefmt)
        return self._line(record, {"time": time, "level": level})

    def _line(self, record: logging.LogRecord, row: dict[str, str]) -> str:
        row["msg"] = record.getMessage()
        if record.exc_info:
            row["error"] = self.formatException(record.exc_info)
        if self._json:
            return json.dumps(row)
        return " ".join(
            f"{k}={v}"
            if v.isprintable() and " " not in v and '"' not in v
            else f"{k}={json.dumps(v)}"
            for k, v in row.items()
        )


def setup() -> None:
    """Send the log to standard error, as text, or as JSON with SIDECAR_LOG_FORMAT=json."""
    handler = logging.StreamHandler(sys.stderr)
    as_json = os.environ.get("SIDECAR_LOG_FORMAT") == "json"
    handler.setFormatter(Form(as_json=as_json, for_journal=is_journal(2, os.environ)))
    log.handlers[:] = [handler]
    log.propagate = False
    log.setLevel(os.environ.get("SIDECAR_LOG_LEVEL", "INFO").upper())
    # systemd's watchdog ends a hung agent with SIGABRT: then the log says where it hung.
    with contextlib.suppress(OSError, ValueError):  # standard error that is no file
        faulthandler.enable()


def is_journal(handle: int, environ: Mapping[str, str]) -> bool:
    """Say whether what is written to descriptor `handle` goes to the journal (systemd.exec(5))."""
    try:
        status = os.fstat(handle)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def bug(where: str, error: BaseException) -> None:
    """Tell of an error that is ours; what runs goes on."""
    log.error("bug in %s", where, exc_info=error)
