"""How far an exchange is, which steps there are, and what one whose response is whole waits for."""

from __future__ import annotations

from typing import Final

ROUTING, WAITING, CONNECTING, STREAMING, REPLYING, DONE = range(6)
STATE_NAMES: Final = ("ROUTING", "WAITING", "CONNECTING", "STREAMING", "REPLYING", "DONE")

# STEPS[state] has a bit for each state one step away.  docs/life-of-a-request.md draws it.
STEPS: Final = (
    1 << WAITING | 1 << CONNECTING | 1 << STREAMING | 1 << REPLYING | 1 << DONE,  # ROUTING
    1 << WAITING | 1 << CONNECTING | 1 << STREAMING | 1 << REPLYING | 1 << DONE,  # WAITING
    1 << CONNECTING | 1 << STREAMING | 1 << REPLYING | 1 << DONE,  # CONNECTING, also a retry
    1 << CONNECTING | 1 << STREAMING | 1 << REPLYING | 1 << DONE,  # STREAMING, also a retry
    1 << DONE,  # REPLYING
    0,  # DONE
)

# Bits of `Exchange.owed`.
REQUEST: Final = 1  # the end of the request
HELD: Final = 2  # a response that goes to the caller later than it came: see `core/late.py`
