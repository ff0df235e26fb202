"""Like requests to one endpoint, found in a table in which each has its exact share."""

from collections.abc import Sequence
from functools import lru_cache
from typing import final

from sidecar.core.affinity import Hashed
from sidecar.core.api import Draw
from sidecar.core.book import Endpoint
from sidecar.model.balancing import Maglev as Settings
from sidecar.plugin import Plugin
from sidecar.traffic.maglev import Maglev as Table


@final
class Maglev(Hashed):
    """See the module."""

    __slots__ = ()

    def __init__(
        self, endpoints: Sequence[Endpoint], draw: Draw, panic: float, settings: Settings
    ) -> None:
        members = tuple((e.address, e.weight) for e in endpoints)
        table = _table(members, settings.table_size)
        super().__init__(endpoints, draw, panic, table, settings.hash_balance_factor)


# A push makes all plans anew; a table takes 15 to 60 ms, and most clusters have not changed.
_table = lru_cache(maxsize=256)(Table)

PLUGIN = Plugin("maglev", Settings, Maglev)
