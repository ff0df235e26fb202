"""Edges of the histograms: numbers that worker and agent must agree on."""

from typing import Final

DURATION_BUCKETS: Final = (
    0.5, 1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10000.0,
    30000.0, 60000.0,
)  # fmt: skip
"""Milliseconds; what is above the last goes to +Inf."""

SIZE_BUCKETS: Final = (1.0, 10.0, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8)
"""Octets."""
