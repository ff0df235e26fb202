"""A ring of hashes: each member owns the stretches before its points (as ketama has it)."""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final, final

from sidecar.traffic.affinity import hash_of


@final
class Ring:
    """The points of the members, in order; see `affinity.Table`."""

    __slots__ = ("_points", "owners")

    def __init__(self, members: Sequence[tuple[str, int]], minimum: int, maximum: int) -> None:
        """Place `members`, (name, weight of 1 or more), on a ring.

        It has at least `minimum` points and about `maximum` at most; a member has one at least.
        """
        scale = point_scale([weight for _, weight in members], minimum, maximum)
        points = sorted(
            (hash_of(f"{name}_{number}".encode()), index)
            for index, (name, weight) in enumerate(members)
            for number in range(max(1, round(weight * scale)))
        )
        self._points: Final = [point for point, _ in points]
        self.owners: Final[Sequence[int]] = [index for _, index in points]

    def slot(self, key: int) -> int:
        """Return the place of the first point at or after `key`."""
        found = bisect_left(self._points, key)
        return found if found < len(self._points) else 0


def point_scale(weights: Sequence[int], minimum: int, maximum: int) -> float:
    """Return the points for a unit of weight: a power of two.

    Not just as many as fill the ring (Envoy's way): the number of everybody's points would then
    change with every member that comes or goes, and keys would move between those that stay.
    """
    total, lightest = sum(weights), min(weights, default=1)
    scale = 1.0
    while scale > 1 / (1 << 30) and total * scale / 2 >= minimum and lightest * scale / 2 >= 1:
        scale /= 2
    while total and (total * scale < minimum or lightest * scale < 1):
        scale *= 2
    while total * scale > max(maximum, len(weights)) and lightest * scale > 1 / (1 << 30):
        scale /= 2
    return scale
