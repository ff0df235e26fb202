"""How much of the traffic each tier of endpoints gets: the first all it can carry, then the next."""

from collections.abc import Sequence
from typing import Final

OVERPROVISIONING: Final = (
    1.4  # what is available of a tier carries so much more than its part (Envoy)
)


def tier_loads(tiers: Sequence[tuple[int, int]]) -> tuple[list[float], bool]:
    """Return each tier's share of the traffic, 1 in all, and whether they can carry all of it.

    `tiers` are (available endpoints, endpoints), the most wanted first.  A tier carries everything
    while 1 / 1.4 of it, 71 %, is available.  Where all together cannot carry it, each gets more than
    it can, in proportion; the first gets all when nothing is available.
    """
    carried = [min(1.0, OVERPROVISIONING * up / size) if size else 0.0 for up, size in tiers]
    total = sum(carried)
    if total == 0:
        return [1.0, *[0.0] * (len(tiers) - 1)], False
    if total < 1:
        return [part / total for part in carried], False
    left = 1.0
    loads = []
    for part in carried:
        loads.append(min(left, part))
        left -= loads[-1]
    return loads, True
