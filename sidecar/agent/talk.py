"""What is said on a connection to find out whether an endpoint is healthy."""

import asyncio
from collections.abc import Sequence
from typing import Final, cast, final
from urllib.parse import unquote

import h11

from sidecar import __version__
from sidecar.compiler.health import statuses
from sidecar.core.plan import (
    PROTOCOL_AUTO,
    PROTOCOL_HTTP1,
    PROTOCOL_HTTP2,
    PROTOCOL_SAME,
    ClusterPlan,
    Codec,
)
from sidecar.errors import IdentityError, UpstreamError
from sidecar.model.health import GrpcHealthCheck, HealthCheck, HttpHealthCheck, TcpHealthCheck
from sidecar.runtime.tls import Tls
from sidecar.wire import grpc_health
from sidecar.wire.fields import Field
from sidecar.wire.http2_stream import Http2Link, Stream

MAX_BODY: Final = 65536  # octets of an answer that are read; the rest is not waited for
MAX_RECEIVED: Final = 4096  # octets in which what a tcp check expects must be
USER_AGENT: Final = f"sidecar/{__version__} health-check"

_ALPN: Final = {
    PROTOCOL_HTTP1: "http1",
    PROTOCOL_HTTP2: "http2",
    PROTOCOL_AUTO: "auto",
    PROTOCOL_SAME: "auto",
}


class Talk(asyncio.Protocol):
    """One question on one connection; `done` becomes why the endpoint failed, empty if it did not."""

    alpn = ""

    def __init__(self) -> None:
        self.done: Final[asyncio.Future[str]] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport | None = None

    def begin(self, transport: asyncio.Transport) -> None:
        """Ask; the connection is there."""
        raise NotImplementedError

    def settle(self, failure: str = "") -> None:
        """Note the answer; only the first one counts."""
        if not self.done.done():
            self.done.set_result(failure)

    def end(self) -> None:
        """Give the connection up."""
        if self.transport is None:
            return
        if self.done.cancelled() or not self.done.done():
            self.transport.abort()
        else:
            self.transport.close()

    # The dialler and the transport say:

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected, TLS and the peer's identity included."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop does not inherit it
        self.begin(self.transport)

    def dial_failed(self, error: UpstreamError) -> None:
        """No connection came about."""
        self.settle(str(error))

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over."""
        if isinstance(exc, IdentityError):  # often why our certificate was refused
            self.settle(f"tls: {exc.detail}")
        self.settle("the endpoint closed the connection without a whole answer")


@final
class TcpTalk(Talk):
    """Connect; then, if asked for, say and expect something."""

    def __init__(self, check: TcpHealthCheck) -> None:
        super().__init__()
        self._send: Final = check.send.encode()
        self._expected: Final = check.receive.encode()
        self._received = b""

    def begin(self, transport: asyncio.Transport) -> None:
        """See Talk."""
        if self._send:
            transport.write(self._send)
        if not self._expected:
            self.settle()

    def data_received(self, data: bytes) -> None:
        """Look for what is expected."""
        self._received = (self._received + data)[:MAX_RECEIVED]
        if self._expected in self._received:
            self.settle()
        elif len(self._received) == MAX_RECEIVED:
            self.settle(f"expected {self._expected!r}, got {self._received[:60]!r}")


@final
class Http1Talk(Talk):
    """One GET over HTTP/1.1; its connection is not used again."""

    def __init__(self, check: HttpHealthCheck, authority: str) -> None:
        super().__init__()
        self._check: Final = check
        self._authority: Final = authority
        self._connection: Final = h11.Connection(h11.CLIENT)
        self._status = 0
        self._size = 0

    def begin(self, transport: asyncio.Transport) -> None:
        """See Talk."""
        fields = [("Host", self._authority), ("User-Agent", USER_AGENT), ("Connection", "close")]
        request = h11.Request(method="GET", target=self._check.path, headers=fields)
        data = self._connection.send(request) or b""
        transport.write(data + (self._connection.send(h11.EndOfMessage()) or b""))

    def data_received(self, data: bytes) -> None:
        """Read the answer."""
        if self.done.done():
            return
        self._connection.receive_data(data)
        try:
            self._read()
        except h11.RemoteProtocolError as error:
            self.settle(f"not HTTP/1.1: {error}")

    def eof_received(self) -> None:
        """The end of the connection may be that of the answer."""
        if self._status:  # else `connection_lost` knows more
            self.data_received(b"")

    def _read(self) -> None:
        while True:
            event = self._connection.next_event()
            if isinstance(event, h11.Response):
                self._status = event.status_code
            elif isinstance(event, h11.Data):
                self._size += len(event.data)
            elif not isinstance(event, h11.InformationalResponse):
                break
        # The body is read so that the endpoint does not see its answer cut off.
        if isinstance(event, h11.EndOfMessage) or self._size > MAX_BODY:
            self.settle(judge_status(self._check, self._status))


class Http2Talk(Talk):
    """One request over HTTP/2; its connection is not used again.

    A subclass says what is asked and what the answer, head, body and trailers, means.
    """

    alpn = "http2"

    def __init__(self, codec: Codec) -> None:
        super().__init__()
        self._codec: Final = codec
        self._link: Http2Link | None = None
        self.head: dict[bytes, bytes] = {}
        self.body = b""
        self.trailers: dict[bytes, bytes] = {}

    def request(self, *, secure: bool) -> tuple[list[Field], bytes]:
        """Return fields and body of what is asked."""
        raise NotImplementedError

    def judge(self) -> str:
        """Return why the answer is a bad one, empty if it is not."""
        raise NotImplementedError

    def begin(self, transport: asyncio.Transport) -> None:
        """See Talk."""
        link = self._link = self._codec(self, asyncio.get_running_loop().time, client=True)
        fields, body = self.request(secure=isinstance(transport, Tls))
        stream = link.open()
        link.send_headers(stream, fields, end=not body)
        if body:
            link.send_data(stream, body, end=True)
        self.flush()

    def data_received(self, data: bytes) -> None:
        """Read the answer."""
        if self._link is not None and not self.done.done():
            self._link.receive(data)
            self.flush()

    # The link says:

    def opened(self, stream: Stream, fields: Sequence[Field], *, end: bool) -> None:
        """Never: an endpoint begins no streams."""

    def too_large(self, stream: Stream) -> None:
        """Never: for servers only."""

    def headers(self, stream: Stream, fields: Sequence[Field], *, end: bool) -> None:
        """An interim response, the head, or trailers."""
        if not self.head and (end or not dict(fields).get(b":status", b"").startswith(b"1")):
            self.head = dict(fields)
        elif self.head:
            self.trailers = dict(fields)
        if end:
            self.settle(self.judge())

    def data(self, stream: Stream, data: bytes, *, end: bool) -> None:
        """More of the body."""
        self.body += data
        if end or len(self.body) > MAX_BODY:
            self.settle(self.judge())

    def ended_early(self, stream: Stream, code: int, detail: str) -> None:
        """The stream was reset."""
        self.settle(detail)

    def writable(self, stream: Stream) -> None:
        """What waited has gone out."""

    def settled(self) -> None:
        """The endpoint's SETTINGS are there."""

    def going_away(self, last: int, code: int, text: bytes) -> None:
        """It takes no more requests; ours, the only one, it may still answer."""
        if last < 1:
            self.settle("the endpoint is going away")

    def pong(self) -> None:
        """Never: we send no PING."""

    def broken(self, code: int, detail: str) -> None:
        """It has broken the protocol."""
        self.settle(f"not HTTP/2: {detail}")

    def flush(self) -> None:
        """Send what is to be sent."""
        if self._link is not None and self.transport is not None and self._link.out:
            self.transport.write(self._link.take())


@final
class GetTalk(Http2Talk):
    """One GET over HTTP/2."""

    def __init__(self, check: HttpHealthCheck, authority: str, codec: Codec) -> None:
        super().__init__(codec)
        self._check: Final = check
        self._authority: Final = authority

    def request(self, *, secure: bool) -> tuple[list[Field], bytes]:
        """See Http2Talk."""
        fields = _fields(b"GET", self._check.path.encode(), self._authority, secure=secure)
        return fields, b""

    def judge(self) -> str:
        """See Http2Talk."""
        return judge_status(self._check, _number(self.head.get(b":status")))


@final
class GrpcTalk(Http2Talk):
    """One call of Health/Check, unary."""

    def __init__(
        self, check: GrpcHealthCheck, authority: str, timeout: float, codec: Codec
    ) -> None:
        super().__init__(codec)
        self._check: Final = check
        self._authority: Final = authority
        self._timeout: Final = timeout

    def request(self, *, secure: bool) -> tuple[list[Field], bytes]:
        """See Http2Talk."""
        fields = _fields(b"POST", grpc_health.PATH, self._authority, secure=secure)
        fields += [
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
            (b"grpc-timeout", b"%dm" % (self._timeout * 1000)),
        ]
        return fields, grpc_health.encode_request(self._check.service_name)

    def judge(self) -> str:
        """See Http2Talk."""
        status = self.head.get(b":status", b"")
        if status != b"200":
            return f"no gRPC: status {status.decode('latin-1')}"
        found = self.trailers if b"grpc-status" in self.trailers else self.head
        code = _number(found.get(b"grpc-status"))
        if code == 12:  # UNIMPLEMENTED
            is_bad = self._check.unimplemented == "unhealthy"
            return "the endpoint has no health service (UNIMPLEMENTED)" if is_bad else ""
        if code != 0:
            text = unquote(found.get(b"grpc-message", b"").decode("latin-1"))
            return f"grpc-status {code} {text}".rstrip()
        answer = grpc_health.decode_response(self.body)
        if answer == grpc_health.SERVING:
            return ""
        if answer is None or answer >= len(grpc_health.NAMES):
            return "the answer is no HealthCheckResponse"
        return grpc_health.NAMES[answer]


@final
class Choice(Talk):
    """A GET whose protocol ALPN decides (RFC 7301); no choice means HTTP/1.1."""

    def __init__(self, check: HttpHealthCheck, authority: str, alpn: str, codec: Codec) -> None:
        super().__init__()
        self.alpn = alpn
        self._codec: Final = codec
        self._check: Final = check
        self._authority: Final = authority

    def begin(self, transport: asyncio.Transport) -> None:
        """See Talk: hand over."""
        chosen = transport.get_extra_info("alpn")
        is_http2 = chosen is not None and chosen != "http/1.1"
        talk: Talk
        if is_http2 or (chosen is None and self.alpn == "http2"):
            talk = GetTalk(self._check, self._authority, self._codec)
        else:
            talk = Http1Talk(self._check, self._authority)
        talk.done.add_done_callback(lambda done: self.settle(done.result()))
        transport.set_protocol(talk)
        talk.connection_made(transport)


def make_talk(check: HealthCheck, cluster: ClusterPlan) -> Talk:
    """Return what is to be said for `check` on a new connection; command checks have none."""
    codec = cluster.http2.codec
    if check.http is not None:
        return Choice(check.http, check.http.host or cluster.name, _ALPN[cluster.protocol], codec)
    if check.grpc is not None:
        return GrpcTalk(check.grpc, check.grpc.authority or cluster.name, check.timeout, codec)
    assert check.tcp is not None
    return TcpTalk(check.tcp)


def judge_status(check: HttpHealthCheck, status: int) -> str:
    """Return why `status` is a bad answer, empty if it is not."""
    for text in check.expected_statuses:
        expected = statuses(text)
        if expected is not None and status in expected:
            return ""
    return f"expected status {' or '.join(check.expected_statuses)}, got {status}"


def _fields(method: bytes, path: bytes, authority: str, *, secure: bool) -> list[Field]:
    return [
        (b":method", method),
        (b":scheme", b"https" if secure else b"http"),
        (b":authority", authority.encode()),
        (b":path", path),
        (b"user-agent", USER_AGENT.encode()),
    ]


def _number(text: bytes | None) -> int:
    """Return the number that a status field says, -1 if it says none."""
    return int(text) if text is not None and text.isdigit() and len(text) < 10 else -1
