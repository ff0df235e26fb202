"""Quota that workers share: who keeps the buckets that they ask for."""

import asyncio
from collections.abc import Callable
from importlib.util import find_spec
from typing import Final, final

from sidecar.agent.keeper import Keeper, Own
from sidecar.agent.worker import Worker
from sidecar.errors import ConfigError, ConfigErrors
from sidecar.model.snapshot import Snapshot
from sidecar.model.store import Store
from sidecar.runtime.messages import Asks, Grants, Sample
from sidecar.traffic.lease import Ask, Granted


@final
class Quota:
    """Passes on what workers ask to who keeps it.

    `connect(store)` begins to keep buckets in one.
    """

    def __init__(
        self,
        connect: Callable[[Store], Keeper] | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._connect: Final = connect or _connect
        self._own: Final = Own(clock or asyncio.get_running_loop().time)
        self._stores: Final[dict[str, tuple[Store, Keeper]]] = {}

    def follow(self, snapshot: Snapshot) -> None:
        """Have exactly the stores of `snapshot`; those that did not change are not touched."""
        wanted = {store.name: store for store in snapshot.stores}
        for name, (store, keeper) in tuple(self._stores.items()):
            if wanted.get(name) != store:
                del self._stores[name]
                keeper.stop()
        for name, store in wanted.items():
            if name not in self._stores:
                self._stores[name] = store, self._connect(store)

    def asked(self, worker: Worker, message: Asks) -> None:
        """Have a worker's questions answered; one about a store that is not there, that it is away."""
        by_store: dict[str, list[Ask]] = {}
        for ask in message.asks:
            by_store.setdefault(ask.store, []).append(ask)

        def answer(answers: list[Granted]) -> None:
            wanted = tuple([a for a in answers if a.number])
            if wanted:
                worker.answer(Grants(wanted))

        for name, asks in by_store.items():
            if not name:
                self._own.ask(asks, answer)
            elif name in self._stores:
                self._stores[name][1].ask(asks, answer)
            else:
                answer([Granted(ask.number, None) for ask in asks])

    def samples(self) -> list[Sample]:
        """Return numbers of all stores."""
        return [sample for _, keeper in self._stores.values() for sample in keeper.samples()]

    def stop(self) -> None:
        """Let go of all stores."""
        for _, keeper in self._stores.values():
            keeper.stop()
        self._stores.clear()


def check_installed(snapshot: Snapshot) -> None:
    """See whether what the stores of `snapshot` need is there.

    Raises:
        ConfigErrors: it is not.
    """
    if snapshot.stores and find_spec("redis") is None:
        detail = "needs the package `redis`: pip install 'sidecar[redis]'"
        raise ConfigErrors([ConfigError("stores[0].redis", detail)])


def _connect(store: Store) -> Keeper:
    # Only where a store is configured: most agents need no client of it.
    from sidecar.agent.redis_store import RedisStore, connector  # noqa: PLC0415

    return RedisStore(store, connector(store.redis))
