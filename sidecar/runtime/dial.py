"""How a connection to an endpoint comes about: connect, PROXY header, TLS, identity, in one limit."""

import asyncio
import socket
from typing import Final, cast, final

from sidecar.core.book import Endpoint
from sidecar.core.plan import ClusterPlan, Dialled
from sidecar.core.types import Caller
from sidecar.errors import IdentityError, UpstreamError
from sidecar.identity.spiffe import peer_identity
from sidecar.identity.tls import ClientTls
from sidecar.runtime.eyeballs import Names, is_address
from sidecar.runtime.tasks import spawn
from sidecar.runtime.tls import Tls
from sidecar.wire.proxy_protocol import encode_v1, encode_v2

WRITE_HIGH: Final = 131072  # octets buffered towards a slow reader before we stop reading


@final
class Dialler:
    """Begins connections; the result goes to the protocol that was given."""

    __slots__ = ("_bug", "_loop", "_names")

    def __init__(self, loop: asyncio.AbstractEventLoop, bug: object) -> None:
        self._loop: Final = loop
        self._bug: Final = bug
        self._names: Final = Names(loop)

    def __call__(
        self, cluster: ClusterPlan, endpoint: Endpoint, protocol: Dialled, caller: Caller | None
    ) -> None:
        """See `ClusterPlan.dial`."""
        _ = spawn(
            self.dial(cluster, endpoint, protocol, caller),
            name=f"dial {endpoint.address}",
            on_error=self._bug,  # type: ignore[arg-type] # Engine.bug, kept opaque to avoid a cycle
        )

    async def dial(
        self, cluster: ClusterPlan, endpoint: Endpoint, protocol: Dialled, caller: Caller | None
    ) -> None:
        """Connect `protocol`, and return when it was told how that ended.

        Cancelled, it leaves no connection behind, unless the protocol has it already.
        """
        done: asyncio.Future[asyncio.BaseTransport] = self._loop.create_future()
        first = _First(cluster, protocol, endpoint, caller, done)
        connected = False
        try:
            async with asyncio.timeout(cluster.connect_timeout):
                await self._connect(endpoint, first)
                connected = True
                await done
        except TimeoutError:
            what = "TLS handshake" if connected else "connect"
            detail = f"{endpoint.address}: {what} took over {cluster.connect_timeout:g} s"
            self._failed(first, protocol, UpstreamError("connect-timeout", detail, sent=False))
        except OSError as error:
            reason = error.strerror or type(error).__name__
            detail = f"{endpoint.address}: {reason}"
            self._failed(first, protocol, UpstreamError("connect-failed", detail, sent=False))
        except UpstreamError as error:
            self._failed(first, protocol, error)
        except asyncio.CancelledError:
            if not first.given and first.transport is not None:
                first.transport.abort()
            first.given = True
            raise

    async def _connect(self, endpoint: Endpoint, first: "_First") -> None:
        if endpoint.path:
            await self._loop.create_unix_connection(lambda: first, endpoint.path)
        elif is_address(endpoint.host):
            await self._loop.create_connection(lambda: first, endpoint.host, endpoint.port)
        else:
            sock = await self._names.connect(endpoint.host, endpoint.port)
            try:
                await self._loop.create_connection(lambda: first, sock=sock)
            except BaseException:
                sock.close()
                raise

    def _failed(self, first: "_First", protocol: Dialled, error: UpstreamError) -> None:
        if first.given:
            return
        first.given = True
        if first.transport is not None:
            first.transport.abort()
        protocol.dial_failed(error)


class _First(asyncio.Protocol):
    """What the loop connects: it puts PROXY header and TLS before the protocol proper."""

    def __init__(
        self,
        cluster: ClusterPlan,
        protocol: Dialled,
        endpoint: Endpoint,
        caller: Caller | None,
        done: "asyncio.Future[asyncio.BaseTransport]",
    ) -> None:
        self.cluster: Final = cluster
        self.protocol: Final = protocol
        self.endpoint: Final = endpoint
        self.caller: Final = caller
        self.done: Final = done
        self.transport: asyncio.Transport | None = None
        self.given = False  # the protocol has been told

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected: say whose connection it is, then begin TLS or hand over."""
        transport = cast("asyncio.Transport", transport)  # uvloop does not inherit it
        self.transport = transport
        transport.set_write_buffer_limits(WRITE_HIGH)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._proxy_header(transport)
        tls = self.cluster.tls
        if tls is None:
            self._give(transport, self.protocol)
            return
        assert isinstance(tls, ClientTls)
        layer = Tls(
            tls.contexts[self.protocol.alpn],
            server_side=False,
            server_name=self.cluster.server_name
            or self.endpoint.hostname
            or self.endpoint.host
            or None,
            on_ready=self._verified,
            on_failed=self._refused,
        )
        transport.set_protocol(layer)
        layer.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Lost before anybody used it."""
        if not self.done.done():
            self.done.set_exception(OSError(0, "closed while connecting"))

    def _proxy_header(self, transport: asyncio.Transport) -> None:
        kind, caller = self.cluster.proxy_protocol, self.caller
        if kind == "off":
            return
        source = destination = None
        if caller is not None and caller.host:
            source, destination = (caller.host, caller.port), caller.local
        transport.write((encode_v1 if kind == "v1" else encode_v2)(source, destination))

    def _verified(self, layer: Tls) -> asyncio.Protocol | None:
        """The handshake is done: check that the endpoint is who we expect."""
        tls = self.cluster.tls
        assert isinstance(tls, ClientTls)
        if tls.mutual:
            try:
                identity, _ = peer_identity(layer.ssl)
            except IdentityError as error:
                self._refused(error, code="upstream-identity")
                return None
            allowed = self.cluster.identities
            if allowed is not None and identity not in allowed:
                expected = " or ".join(sorted(allowed)[:3])
                self._refused(
                    IdentityError("upstream-identity", f"expected {expected}, got {identity}"),
                    code="upstream-identity",
                )
                return None
        if self.given:
            return None
        self.given = True
        if not self.done.done():
            self.done.set_result(layer)
        assert isinstance(self.protocol, asyncio.Protocol)
        return self.protocol

    def _refused(self, error: IdentityError, code: str = "upstream-tls-failed") -> None:
        if not self.done.done():
            detail = f"{self.endpoint.address}: {error.code}: {error.detail}"
            self.done.set_exception(UpstreamError(code, detail, sent=False))

    def _give(self, transport: asyncio.Transport, protocol: Dialled) -> None:
        self.given = True
        assert isinstance(protocol, asyncio.Protocol)
        transport.set_protocol(protocol)
        if not self.done.done():
            self.done.set_result(transport)
        protocol.connection_made(transport)
