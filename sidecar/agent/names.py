"""What the DNS names of clusters resolve to, kept up to date."""

import asyncio
import socket
from collections.abc import Callable
from typing import Final, final

from sidecar.agent.logs import bug, log
from sidecar.model.cluster import Cluster
from sidecar.model.snapshot import Snapshot
from sidecar.runtime.tasks import spawn

Key = tuple[str, str, float]  # cluster, host:port, seconds between look-ups


@final
class Names:
    """Follows names; `on_change(cluster, dns, addresses)` is told what is new."""

    def __init__(self, on_change: Callable[[str, str, tuple[str, ...]], None]) -> None:
        self._on_change: Final = on_change
        self._tasks: Final[dict[Key, asyncio.Task[None]]] = {}
        self._known: Final[dict[Key, tuple[str, ...]]] = {}
        self._news: Final = asyncio.Condition()

    def follow(self, snapshot: Snapshot) -> None:
        """Follow the names of `snapshot` as well."""
        for key in _keys(snapshot):
            if key not in self._tasks:
                self._tasks[key] = spawn(self._follow(*key), name=f"resolve {key[1]}", on_error=bug)

    def keep_only(self, snapshot: Snapshot | None) -> None:
        """Follow no other names than those of `snapshot` any more."""
        wanted = set(_keys(snapshot)) if snapshot is not None else set()
        for key in self._tasks.keys() - wanted:
            self._tasks.pop(key).cancel()
            self._known.pop(key, None)

    def of(self, snapshot: Snapshot) -> dict[str, tuple[str, ...]]:
        """Return the addresses of each cluster whose name was looked up already."""
        return {key[0]: self._known[key] for key in _keys(snapshot) if key in self._known}

    async def wait(self, seconds: float) -> None:
        """Wait until every name was looked up once, so that no request comes before the answer."""
        async with self._news:
            waiting = self._news.wait_for(lambda: self._known.keys() >= self._tasks.keys())
            try:
                await asyncio.wait_for(waiting, seconds)
            except TimeoutError:
                log.warning("not every name of a cluster is resolved yet")

    async def _follow(self, cluster: str, dns: str, refresh: float) -> None:
        key = (cluster, dns, refresh)
        failed = False
        while True:
            try:
                addresses = await _resolve(dns)
                failed = False
            except (OSError, ValueError) as error:  # ValueError: no name at all (idna)
                if not failed:
                    log.warning("%s does not resolve, the last addresses stay: %s", dns, error)
                failed = True
                addresses = self._known.get(key, ())
            if addresses != self._known.get(key):
                self._known[key] = addresses
                async with self._news:
                    self._news.notify_all()
                self._on_change(cluster, dns, addresses)
            await asyncio.sleep(max(refresh, 0.1))


async def _resolve(dns: str) -> tuple[str, ...]:
    host, _, port = dns.rpartition(":")
    loop = asyncio.get_running_loop()
    answer = await loop.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    found = {str(a[4][0]) for a in answer}
    return tuple(sorted(f"[{a}]:{port}" if ":" in a else f"{a}:{port}" for a in found))


def _keys(snapshot: Snapshot) -> list[Key]:
    return [_key(c, c.dns) for c in snapshot.clusters if c.dns is not None]


def _key(cluster: Cluster, dns: str) -> Key:
    return cluster.name, dns, cluster.dns_refresh
