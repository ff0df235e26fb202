"""How long to wait before the next try: full jitter, so that callers do not come back in step."""


def full_jitter(attempt: int, base: float, cap: float, chance: float) -> float:
    """Return seconds to wait after `attempt` tries (1 or more) have failed.

    Uniform between 0 and `base * 2**attempt`, at most `cap`; `chance` is in [0, 1).
    """
    return min(cap, base * (1 << min(attempt, 16))) * chance
