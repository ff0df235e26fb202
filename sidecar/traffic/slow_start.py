"""How much of its share a new endpoint gets, so that cold caches are not met by full load."""

import math


def warmth(age: float, window: float, aggression: float, least: float) -> float:
    """Return the part of its weight that an endpoint counts with, `age` seconds after it came.

    From `least` to 1 over `window` seconds (more than 0): in a straight line with an `aggression` of
    1, faster at first with more (Envoy: SlowStartConfig).
    """
    if age >= window:
        return 1.0
    return max(least, math.pow(max(age, 0.0) / window, 1 / aggression))
