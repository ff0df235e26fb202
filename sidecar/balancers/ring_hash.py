"""Like requests to one endpoint, found on a ring of hashes; few move when endpoints come or go."""

from collections.abc import Sequence
from functools import lru_cache
from typing import final

from sidecar.core.affinity import Hashed
from sidecar.core.api import Draw
from sidecar.core.book import Endpoint
from sidecar.model.balancing import RingHash as Settings
from sidecar.plugin import Plugin
from sidecar.traffic.ring import Ring


@final
class RingHash(Hashed):
    """See the module."""

    __slots__ = ()

    def __init__(
        self, endpoints: Sequence[Endpoint], draw: Draw, panic: float, settings: Settings
    ) -> None:
        members = tuple((e.address, e.weight) for e in endpoints)
        ring = _ring(members, settings.minimum_ring_size, settings.maximum_ring_size)
        super().__init__(endpoints, draw, panic, ring, settings.hash_balance_factor)


# A push makes all plans anew; most of its clusters have not changed.
_ring = lru_cache(maxsize=256)(Ring)

PLUGIN = Plugin("ring_hash", Settings, RingHash)
