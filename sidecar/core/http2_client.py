"""One HTTP/2 connection to an endpoint: it carries as many attempts at once as the peer allows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from sidecar.core import pool
from sidecar.core.http2_attempt import Http2Attempt
from sidecar.core.http2_connection import Http2Connection
from sidecar.errors import DownstreamError, SidecarError, UpstreamError
from sidecar.wire.http2_frames import (
    ALPN_SIDECAR,
    CANCEL,
    INTERNAL_ERROR,
    NO_ERROR,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    error_name,
)

if TYPE_CHECKING:
    import asyncio

    from sidecar.core.book import Endpoint
    from sidecar.core.plan import ClusterPlan
    from sidecar.core.types import Engine
    from sidecar.wire.fields import Field
    from sidecar.wire.http2_stream import Stream

PEER_KEEPALIVE: Final = 10.0  # seconds of silence before a sidecar is asked for a sign of life


@final
class Http2Client(Http2Connection):
    """The upstream half of exchanges."""

    __slots__ = (
        "asked", "cluster", "early", "endpoint", "generation", "is_settled", "keepalive",
        "kind", "leaving", "owner", "pooled", "secure", "spells", "used",
    )  # fmt: skip

    where = "http2_client"

    def __init__(
        self,
        engine: Engine,
        cluster: ClusterPlan,
        endpoint: Endpoint,
        kind: int,
        owner: pool.Place | None = None,
    ) -> None:
        super().__init__(engine)
        self.cluster: Final = cluster
        self.endpoint: Final = endpoint
        self.kind: Final = kind  # which of the endpoint's pools
        self.owner = owner  # the only one it is for (PROXY protocol); None: whoever waits
        self.generation = cluster.state.generation
        self.leaving = False  # takes no further requests; closes when it has none left
        self.asked = 0.0  # when the last PING went: anything heard since is a sign of life
        self.keepalive = cluster.http2.keepalive
        self.pooled = False  # among those that have room
        self.secure = False
        self.spells = False  # the peer is a sidecar that puts names back as they were
        self.used = 0
        self.is_settled = False  # the endpoint's SETTINGS are there
        self.early: list[Http2Attempt] = []  # tunnels that wait for them

    @property
    def alpn(self) -> str:
        """What is offered under TLS."""
        return "http2"

    # The dialler says:

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there, its TLS handshake done and the peer's identity checked."""
        transport = self.attach(transport)
        chosen = transport.get_extra_info("alpn")
        self.secure = self.cluster.tls is not None
        self.spells = chosen == ALPN_SIDECAR
        if self.spells and not self.keepalive:
            self.keepalive = PEER_KEEPALIVE
        cluster = self.cluster
        self.link = self.make_link(
            cluster.http2,
            client=True,
            max_list=cluster.reader.max_size,
            max_fields=cluster.reader.max_fields,
        )
        owner, self.owner = self.owner, None
        pool.dialled(self.engine, cluster, self.endpoint, self.kind, self, owner)
        if self.is_unused:
            self._arm_idle()
        self.mark()

    def dial_failed(self, error: UpstreamError) -> None:
        """No connection came about."""
        pool.dial_failed(self.engine, self.cluster, self.endpoint, self.kind, error, self.owner)

    # The pool says:

    @property
    def is_unused(self) -> bool:
        """It carries no request."""
        return not self.link.streams and not self.early

    @property
    def room(self) -> int:
        """How many more it could carry."""
        return self.link.room - len(self.early)

    def join(self) -> None:
        """Be among those that have room."""
        if not self.pooled:
            self.pooled = True
            self.endpoint.pools[self.kind].idle.append(self)

    def lease(self) -> Http2Attempt:
        """Return one stream, to be begun at once; leave the pool with the last one allowed."""
        self.used += 1
        cluster = self.cluster
        if 0 < cluster.max_requests_per_connection <= self.used or cluster.proxy_protocol != "off":
            self.leaving = True
        if self.leaving or self.link.room - len(self.early) <= 1:
            self._leave()
        return Http2Attempt(self)

    def retire(self) -> None:
        """Take no further requests, and close when those under way are finished."""
        self.leaving = True
        self._leave()
        self._maybe_done()

    # The transport says:

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over."""
        self.timer = self.engine.wheel.give_back(self.timer)
        if isinstance(exc, SidecarError):  # the TLS layer knows better
            self._lose(exc.code, exc.detail)
        else:
            self._lose("", "" if exc is None else type(exc).__name__)
        pool.gone(self.engine, self.cluster, self.endpoint)

    def begin(self, half: Http2Attempt, body: bytes, *, end: bool) -> None:
        """Pass a head on, if that has not been done, with the first of its body."""
        head, half.first = half.first, None
        exchange = half.exchange
        if head is not None and exchange is not None:
            try:
                exchange.response(head, body, end=end)
            except Exception as error:  # noqa: BLE001 - a bug may end an exchange, not those beside it
                self._end_by_bug(half, error)

    # The link says:

    def opened(self, stream: Stream, fields: list[Field], *, end: bool) -> None:
        """Never: an endpoint begins no streams."""

    def too_large(self, stream: Stream) -> None:
        """Never: for servers only."""

    def headers(self, stream: Stream, fields: list[Field], *, end: bool) -> None:
        """An interim response, the response's head, or trailers."""
        attempt: Http2Attempt = stream.user
        try:
            attempt.headers(fields, end=end)
        except DownstreamError as error:
            self.link.fault(stream, PROTOCOL_ERROR, str(error))
        except Exception as error:  # noqa: BLE001 - a bug may end an exchange, not those beside it
            self._end_by_bug(attempt, error)

    def data(self, stream: Stream, data: bytes, *, end: bool) -> None:
        """Octets of a response's body."""
        attempt: Http2Attempt = stream.user
        exchange = attempt.exchange
        assert exchange is not None  # else the stream is gone
        if not attempt.answered:
            self.link.fault(stream, PROTOCOL_ERROR, "DATA before the head")
            return
        if attempt.first is not None:
            self.begin(attempt, data, end=end)
            return
        try:
            if data:
                exchange.response_data(data)
            if end and attempt.tunnel:
                exchange.response_half()
            elif end:
                exchange.response_end(None)
        except Exception as error:  # noqa: BLE001 - as in `headers`
            self._end_by_bug(attempt, error)

    def ended_early(self, stream: Stream, code: int, detail: str) -> None:
        """The endpoint has reset the stream, or was reset for what it did."""
        attempt: Http2Attempt = stream.user
        self.begin(attempt, b"", end=False)
        exchange, attempt.exchange = attempt.exchange, None
        assert exchange is not None  # else we had reset it, and it would not be told of
        self._room_made()
        if code == REFUSED_STREAM and not attempt.answered:
            exchange.upstream_lost(UpstreamError("upstream-refused", detail, sent=False))
        elif code == NO_ERROR and exchange.response_done:
            exchange.response_end(None)  # of a tunnel: it wants to hear no more either
        elif detail.startswith("reset by the peer"):
            exchange.reset_code = code
            exchange.upstream_lost(UpstreamError("upstream-reset", detail, sent=True))
        else:
            exchange.upstream_lost(UpstreamError("upstream-protocol", detail, sent=True))

    def writable(self, stream: Stream) -> None:
        """The endpoint has taken what waited."""
        attempt: Http2Attempt = stream.user
        assert attempt.exchange is not None
        attempt.exchange.upstream_writable()

    def settled(self) -> None:
        """The endpoint's SETTINGS are there: it may allow more streams than we thought, or fewer."""
        self.is_settled = True
        early, self.early = self.early, []
        for attempt in early:
            assert attempt.exchange is not None
            attempt.request(attempt.exchange, b"", end=True)
        if not self.leaving:
            if self.room > 0:
                pool.free(self.cluster, self.endpoint.pools[self.kind], self)
            else:
                self._leave()

    def going_away(self, last: int, code: int, text: bytes) -> None:
        """The endpoint takes nothing new; what it has not looked at is safe elsewhere (§6.8)."""
        self.leaving = True
        self._leave()
        detail = f"GOAWAY {error_name(code)} {text[:60].decode('latin-1')}".rstrip()
        for attempt in self._attempts():
            if attempt.stream.id > last:
                self.link.reset(attempt.stream, CANCEL)
                attempt.lose("upstream-refused", detail, sent=False)
        self._maybe_done()

    def pong(self) -> None:
        """The endpoint lives, as whatever it sends says."""

    def broken(self, code: int, detail: str) -> None:
        """The endpoint has broken the protocol: nothing more can be read."""
        self._lose("upstream-protocol", detail)
        self.shut()

    # Time says:

    @property
    def patience(self) -> float:
        """As long as it might have rested."""
        return self.cluster.idle_timeout

    def due(self, now: float) -> None:
        """The timer has come up: it was idle too long, or silent too long."""
        if not self.is_open:
            self.abort()
        elif self.is_unused:
            self.retire()
        elif self.heard < self.asked:
            self._lose("upstream-closed", "no answer to a PING")
            self.abort()
        elif self.keepalive:
            if now - self.heard >= self.keepalive:
                self.asked = now
                self.link.ping()
                self.mark()
                self.arm(self.cluster.http2.keepalive_timeout)
            else:
                self.engine.wheel.arm(self.timer, self.heard + self.keepalive)

    # Inside:

    def watch(self) -> None:
        """A request is under way: look for a sign of life, from the first of them on."""
        if len(self.link.streams) == 1:
            self.arm(self.keepalive)

    def _arm_idle(self) -> None:
        self.engine.wheel.arm(self.timer, self.engine.now() + self.cluster.idle_timeout)

    def stream_over(self) -> None:
        """An attempt is over."""
        self._room_made()
        if self.link.out and not self.dirty:
            self.mark()

    def _room_made(self) -> None:
        if self.leaving:
            self._maybe_done()
            return
        if not self.link.streams and not self.early:
            self._arm_idle()
        if self.pooled and not self.cluster.state.pending:
            return  # nobody waits: it is where it would be put
        if self.room > 0:
            pool.free(self.cluster, self.endpoint.pools[self.kind], self)

    def _end_by_bug(self, attempt: Http2Attempt, error: Exception) -> None:
        self.engine.bug(self.where, error)
        exchange, attempt.exchange = attempt.exchange, None
        self.link.reset(attempt.stream, INTERNAL_ERROR)
        self.stream_over()
        if exchange is not None:
            exchange.upstream_lost(UpstreamError("internal-error", "", sent=True))

    def _leave(self) -> None:
        if self.pooled:
            self.pooled = False
            self.endpoint.pools[self.kind].idle.remove(self)

    def _maybe_done(self) -> None:
        if self.leaving and self.is_open and self.is_unused:
            self.link.go_away()
            self.shut()

    def _lose(self, code: str, detail: str) -> None:
        """Every stream is lost; nobody who tries again may come back to this connection."""
        self.received()
        self.is_open = False
        self.leaving = True
        self._leave()
        for attempt in self._attempts():
            why = code
            if not why:
                why = "upstream-body-cut" if attempt.answered else "upstream-closed"
                if self.used > 1 and not attempt.answered:
                    why = "reused-closed"
            attempt.lose(why, detail, sent=True)
        self.link.streams.clear()
        self.early.clear()

    def _attempts(self) -> list[Http2Attempt]:
        return [stream.user for stream in self.link.streams.values()] + self.early
