"""How a connection of the protocol that a cluster speaks is begun."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, cast, final

from sidecar.core import pool
from sidecar.core.book import HTTP1
from sidecar.core.http1_client import Http1Client
from sidecar.core.http2_client import Http2Client
from sidecar.core.plan import PROTOCOL_AUTO, ClusterPlan

if TYPE_CHECKING:
    from sidecar.core.book import Endpoint
    from sidecar.core.types import Engine
    from sidecar.errors import UpstreamError


def begin(
    engine: Engine, cluster: ClusterPlan, endpoint: Endpoint, kind: int, owner: pool.Place | None
) -> None:
    """Begin a connection: for `owner` alone (whom its PROXY header names), or for whoever waits."""
    protocol: Http1Client | Http2Client | Choice
    if kind == HTTP1:
        protocol = Http1Client(engine, cluster, endpoint, kind, owner)
    elif cluster.protocol == PROTOCOL_AUTO:
        protocol = Choice(engine, cluster, endpoint, kind, owner)
    else:
        protocol = Http2Client(engine, cluster, endpoint, kind, owner)
    waiter = None if owner is None else owner.waiter
    cluster.dial(cluster, endpoint, protocol, None if waiter is None else waiter.caller)


@final
class Choice(asyncio.Protocol):
    """A connection whose protocol ALPN decides (RFC 7301); no choice means HTTP/1.1."""

    __slots__ = ("_cluster", "_endpoint", "_engine", "_kind", "_owner")

    def __init__(
        self,
        engine: Engine,
        cluster: ClusterPlan,
        endpoint: Endpoint,
        kind: int,
        owner: pool.Place | None,
    ) -> None:
        self._engine: Final = engine
        self._cluster: Final = cluster
        self._endpoint: Final = endpoint
        self._kind: Final = kind
        self._owner: Final = owner

    @property
    def alpn(self) -> str:
        """What is offered under TLS."""
        return "auto"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The handshake is done: hand over."""
        chosen = transport.get_extra_info("alpn")
        is_http2 = chosen is not None and chosen != "http/1.1"
        self._endpoint.pools[self._kind].streams = 100 if is_http2 else 1
        make = Http2Client if is_http2 else Http1Client
        client = make(self._engine, self._cluster, self._endpoint, self._kind, self._owner)
        cast("asyncio.Transport", transport).set_protocol(client)
        client.connection_made(transport)

    def dial_failed(self, error: UpstreamError) -> None:
        """No connection came about."""
        pool.dial_failed(
            self._engine, self._cluster, self._endpoint, self._kind, error, self._owner
        )
