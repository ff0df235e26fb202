"""A table of hashes in which each member owns its share almost exactly (Maglev, Eisenbud 2016 §3.4)."""

from collections.abc import Sequence
from heapq import heapify, heapreplace
from typing import Final, final

from sidecar.traffic.affinity import hash_of


@final
class Maglev:
    """The slots of the members; see `affinity.Table`."""

    __slots__ = ("owners",)

    def __init__(self, members: Sequence[tuple[str, int]], size: int) -> None:
        """Fill a table of `size` slots, a prime, for `members`: (name, weight of 1 or more).

        Each member has an order of its own in which it would like the slots, and in turn takes the
        next that is free; a heavier one has more turns.
        """
        owners = [-1] * size
        offsets = [hash_of(f"{name}|offset".encode()) % size for name, _ in members]
        skips = [hash_of(f"{name}|skip".encode()) % (size - 1) + 1 for name, _ in members]
        # When each is next: not in rounds, of which a light one would need thousands for one slot.
        turns = [(1 / weight, index) for index, (_, weight) in enumerate(members)]
        heapify(turns)
        for _ in range(size if members else 0):
            turn, index = turns[0]
            slot, skip = offsets[index], skips[index]
            while owners[slot] >= 0:
                slot = (slot + skip) % size
            owners[slot] = index
            offsets[index] = (slot + skip) % size
            heapreplace(turns, (turn + 1 / members[index][1], index))
        self.owners: Final[Sequence[int]] = owners

    def slot(self, key: int) -> int:
        """Return the slot of `key`."""
        return key % len(self.owners)


def is_prime(number: int) -> bool:
    """Say whether `number` is prime: only then does every order of slots reach all of them."""
    return number > 1 and all(number % i for i in range(2, int(number**0.5) + 1))
