"""The agent's own log: structured, quiet, on standard error."""

import json
import logging
import os
import sys
from typing import Final

log: Final = logging.getLogger("sidecar")


class _Form(logging.Formatter):
    def __init__(self, *, as_json: bool) -> None:
        super().__init__(datefmt="%Y-%m-%dT%H:%M:%S%z")
        self._json = as_json

    def format(self, record: logging.LogRecord) -> str:
        row = {
            "time": self.formatTime(record, self.datefmt),
            "level": record.levelname.lower(),
            "msg": record.getMessage(),
        }
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
    handler.setFormatter(_Form(as_json=os.environ.get("SIDECAR_LOG_FORMAT") == "json"))
    log.handlers[:] = [handler]
    log.propagate = False
    log.setLevel(os.environ.get("SIDECAR_LOG_LEVEL", "INFO").upper())
