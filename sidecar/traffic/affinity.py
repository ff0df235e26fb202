"""What consistent hashing rests on: a hash that all sidecars share, and members in order of it."""

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Final, Protocol

HASHES: Final = 1 << 64  # how many there are


def hash_of(data: bytes) -> int:
    """Return the hash of `data`, the same in every process (Python's own `hash` is salted)."""
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "big")


class Table(Protocol):
    """Slots that each have an owner: a member, by its index."""

    @property
    def owners(self) -> Sequence[int]:
        """The member of each slot."""

    def slot(self, key: int) -> int:
        """Return the slot that the hash `key` falls into."""


def preference(table: Table, key: int) -> Iterator[int]:
    """Yield the members in the order in which `key` would have them, each once.

    The first is the owner of the key's slot, the second the one that would be if the first left.
    """
    owners = table.owners
    size = len(owners)
    start = table.slot(key)
    seen: set[int] = set()
    for step in range(size):
        member = owners[(start + step) % size]
        if member not in seen:
            seen.add(member)
            yield member
