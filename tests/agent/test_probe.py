"""Real servers, good and bad, asked whether they are healthy; none is left with a connection."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, RequestReceived, StreamEnded

from sidecar.agent.health import Checks
from sidecar.agent.probe import Prober
from sidecar.compiler.clusters import make_endpoint
from sidecar.identity.tls import server_tls
from sidecar.issuers.ephemeral import Authority
from sidecar.model.cluster import Cluster, ClusterTls
from sidecar.model.endpoint import Endpoint
from sidecar.model.health import GrpcHealthCheck, HealthCheck, HttpHealthCheck, TcpHealthCheck
from sidecar.model.http2 import Http2
from sidecar.model.identity import Secret, Workload
from sidecar.model.snapshot import Snapshot
from sidecar.wire.http2_frames import ALPN_SIDECAR

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

AUTHORITY = Authority("example.org")
OURS = AUTHORITY.issue("spiffe://example.org/ns/shop/sa/web")
THEIRS = AUTHORITY.issue("spiffe://example.org/ns/shop/sa/catalog")
STRANGER = Authority("example.org").issue("spiffe://example.org/ns/shop/sa/catalog")
CLOSED = "the endpoint closed the connection without a whole answer"


@contextlib.asynccontextmanager
async def serving(handle: Handler, context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A server's address; at the end, every connection must have been ended by the other side."""
    open_ones: set[asyncio.Task[Any]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        open_ones.add(task)
        with contextlib.suppress(OSError):
            await handle(reader, writer)
            while await reader.read(65536):
                pass
        writer.transport.abort()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        if open_ones:
            _, left = await asyncio.wait(open_ones, timeout=10)
            assert left == set()


def cluster(check: HealthCheck, **more: Any) -> Cluster:
    places = (Endpoint(address="127.0.0.1:1"),)
    return Cluster(name="catalog", endpoints=places, health_checks=(check,), **more)


async def ask(address: str, check: HealthCheck, secret: Secret | None = None, **more: Any) -> str:
    tree = Snapshot(workload=Workload(name="web"), clusters=(cluster(check, **more),))
    plan = Checks.plans(tree, secret)["catalog"]
    return await Prober().ask(plan, make_endpoint(address), check)


def http(timeout: float = 10.0, **more: Any) -> HealthCheck:
    return HealthCheck(http=HttpHealthCheck(**{"path": "/healthz", **more}), timeout=timeout)


def tcp(timeout: float = 10.0, **more: Any) -> HealthCheck:
    return HealthCheck(tcp=TcpHealthCheck(**more), timeout=timeout)


def grpc(**more: Any) -> HealthCheck:
    return HealthCheck(grpc=GrpcHealthCheck(**more), timeout=10.0)


def saying(data: bytes, *, end: bool = False, heard: list[bytes] | None = None) -> Handler:
    """Answer one HTTP/1.1 request with `data`."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if heard is not None:
            heard.append(head)
        writer.write(data)
        if end:
            writer.close()

    return handle


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
RANGES = {"expected_statuses": ("204", "300-302")}


@pytest.mark.parametrize(
    ("answer", "end", "options", "failure"),
    [
        (OK, False, {}, ""),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK, False, {}, ""),
        (b"HTTP/1.0 200 OK\r\n\r\nok", True, {}, ""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", False, RANGES, ""),
        (b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n", False, RANGES, ""),
        (OK, False, RANGES, "expected status 204 or 300-302, got 200"),
        (b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", False, {},
         "expected status 200, got 503"),
        # A body without end is not waited for.
        (b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n" + b"x" * 70000, False, {}, ""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", True, {}, "not HTTP/1.1: "),
        (b"SSH-2.0-OpenSSH\r\n\r\n", False, {}, "not HTTP/1.1: "),
        (b"", True, {}, CLOSED),
    ],
)  # fmt: skip
async def test_a_get_is_judged_by_its_status(
    answer: bytes, end: bool, options: dict[str, Any], failure: str
) -> None:
    async with serving(saying(answer, end=end)) as address:
        found = await ask(address, http(**options))

    assert found.startswith(failure) if failure else found == ""


@pytest.mark.parametrize(("host", "expected"), [("", b"catalog"), ("shop:81", b"shop:81")])
async def test_a_get_names_path_host_and_who_asks(host: str, expected: bytes) -> None:
    heard: list[bytes] = []
    async with serving(saying(OK, heard=heard)) as address:
        await ask(address, http(host=host))

    lines = heard[0].split(b"\r\n")
    assert lines[0] == b"GET /healthz HTTP/1.1"
    assert b"Host: " + expected in lines
    assert b"Connection: close" in lines
    assert any(line.startswith(b"User-Agent: sidecar/") for line in lines)


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take everything, say nothing."""


async def hasty(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


@pytest.mark.parametrize("check", [http(0.1), tcp(0.1, receive="x")])
async def test_silence_is_a_failure_and_the_connection_is_given_up(check: HealthCheck) -> None:
    async with serving(silent) as address:
        assert await ask(address, check) == "no answer within 0.1 s"


@pytest.mark.parametrize("check", [http(), tcp(receive="x"), grpc()])
async def test_a_connection_that_is_closed_is_a_failure(check: HealthCheck) -> None:
    async with serving(hasty) as address:
        assert await ask(address, check) == CLOSED


@pytest.mark.parametrize("check", [http(), tcp(), grpc()])
async def test_nobody_there_is_a_failure(check: HealthCheck, tmp_path: Path) -> None:
    async with serving(silent) as address:
        pass
    assert (await ask(address, check)).startswith(f"connect-failed: {address}: Connect")
    assert (await ask(f"unix:{tmp_path}/x", check)).endswith("No such file or directory")


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)


@pytest.mark.parametrize(
    ("options", "failure"),
    [
        ({}, ""),
        ({"send": "PING\r\n"}, ""),
        ({"send": "PING é\r\n", "receive": "NG é"}, ""),
        ({"send": "x" * 5000, "receive": "y"}, f"expected b'y', got {b'x' * 60!r}"),
    ],
)
async def test_tcp_connects_and_may_expect_words(options: dict[str, Any], failure: str) -> None:
    async with serving(echo) as address:
        assert await ask(address, tcp(**options)) == failure


async def test_a_name_is_asked_at_whatever_address_takes_the_connection() -> None:
    async with serving(silent) as address:  # `localhost` may be ::1 first
        port = address.rpartition(":")[2]
        prober = Prober()
        tree = Snapshot(workload=Workload(name="web"), clusters=(cluster(tcp()),))
        plan = Checks.plans(tree, None)["catalog"]
        for _ in range(2):  # the second time by what is known already
            assert await prober.ask(plan, make_endpoint(f"localhost:{port}"), tcp()) == ""
        assert plan.server_name == ""

    found = await ask(f"{'x' * 70}.example:1", tcp())
    assert found.startswith("x" * 70 + ".example does not resolve: ")


async def test_only_so_many_are_under_way_at_once() -> None:
    waiting: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await waiting.put(writer)

    prober = Prober(connections=2)
    check = tcp(60.0, receive="ok")
    tree = Snapshot(workload=Workload(name="web"), clusters=(cluster(check),))
    plan = Checks.plans(tree, None)["catalog"]
    async with serving(slow) as address, asyncio.TaskGroup() as group:
        place = make_endpoint(address)
        asked = [group.create_task(prober.ask(plan, place, check)) for _ in range(5)]
        answered = [await waiting.get(), await waiting.get()]
        for _ in range(100):  # turns of the loop, in which the others would have come
            await asyncio.sleep(0)
        assert waiting.empty()
        for writer in answered:
            writer.write(b"ok")
        for _ in range(3):
            (await waiting.get()).write(b"ok")
    assert [task.result() for task in asked] == [""] * 5


async def test_what_endpoints_say_is_told_without_control_characters_and_cut() -> None:
    async with serving(echo) as address:
        found = await ask(address, tcp(send="\x1b[31m\n" + "x" * 5000, receive="y" * 300))
    assert found.isprintable()
    assert len(found) == 200


# HTTP/2, served by a library that is not ours:


Answer = Callable[[H2Connection, int], None]


class Http2Server:
    """Answers each request by `answer`; keeps what it was asked."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.fields: dict[bytes, bytes] = {}
        self.body = b""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        connection.initiate_connection()
        writer.write(connection.data_to_send())
        while data := await reader.read(65536):
            for event in connection.receive_data(data):
                if isinstance(event, RequestReceived):
                    self.fields = dict(event.headers or ())
                elif isinstance(event, DataReceived):
                    self.body += event.data or b""
                elif isinstance(event, StreamEnded):
                    self.answer(connection, event.stream_id or 0)
            writer.write(connection.data_to_send())


def answering(
    *fields: tuple[str, str], body: bytes = b"", trailers: tuple[tuple[str, str], ...] = ()
) -> Answer:
    def answer(connection: H2Connection, stream: int) -> None:
        alone = not body and not trailers
        connection.send_headers(stream, list(fields), end_stream=alone)
        if body:
            connection.send_data(stream, body, end_stream=not trailers)
        if trailers:
            connection.send_headers(stream, list(trailers), end_stream=True)

    return answer


def early(connection: H2Connection, stream: int) -> None:
    connection.send_headers(stream, [(":status", "103")])
    answering((":status", "200"), body=b"ok")(connection, stream)


def reset(connection: H2Connection, stream: int) -> None:
    connection.reset_stream(stream, ErrorCodes.REFUSED_STREAM)


def leave(connection: H2Connection, stream: int) -> None:
    connection.close_connection(last_stream_id=0)


def leave_politely(connection: H2Connection, stream: int) -> None:
    answering((":status", "200"))(connection, stream)
    connection.close_connection(last_stream_id=stream)


STATUS = (":status", "200")


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (answering(STATUS), ""),
        (answering(STATUS, body=b"ok"), ""),
        (answering(STATUS, body=b"ok", trailers=(("a", "b"),)), ""),
        (answering((":status", "503"), body=b"no"), "expected status 200, got 503"),
        (early, ""),
        (leave_politely, ""),
        (reset, "reset by the peer: REFUSED_STREAM"),
        (leave, "the endpoint is going away"),
    ],
)
@pytest.mark.parametrize("codec", ["own", "reference"])
async def test_a_get_over_http2_is_judged_by_its_status(
    codec: Literal["own", "reference"], answer: Answer, failure: str
) -> None:
    server = Http2Server(answer)
    async with serving(server) as address:
        found = await ask(address, http(), protocol="http2", http2=Http2(codec=codec))
    assert found.startswith(failure) if failure else found == ""

    wanted = {b":method": b"GET", b":path": b"/healthz", b":authority": b"catalog"}
    assert wanted.items() <= server.fields.items()


async def test_a_server_that_speaks_no_http2_is_told() -> None:
    async with serving(saying(OK)) as address:
        found = await ask(address, http(), protocol="http2")
    assert found.startswith("not HTTP/2: ")


async def test_a_body_without_end_is_not_waited_for_over_http2() -> None:
    def answer(connection: H2Connection, stream: int) -> None:
        connection.send_headers(stream, [STATUS])
        for _ in range(5):
            connection.send_data(stream, b"x" * 16000)

    async with serving(Http2Server(answer)) as address:
        assert await ask(address, http(), protocol="http2") == ""


SERVING = b"\0\0\0\0\2\x08\x01"
GRPC = (STATUS, ("content-type", "application/grpc"))


def said(body: bytes, status: str = "0", *more: tuple[str, str]) -> Answer:
    return answering(*GRPC, body=body, trailers=(("grpc-status", status), *more))


def only(status: str, *more: tuple[str, str]) -> Answer:
    """Answer by a head alone (gRPC calls it trailers-only)."""
    return answering(*GRPC, ("grpc-status", status), *more)


NO_SERVICE = "the endpoint has no health service (UNIMPLEMENTED)"
NO_MESSAGE = "the answer is no HealthCheckResponse"


@pytest.mark.parametrize(
    ("answer", "options", "failure"),
    [
        (said(SERVING), {}, ""),
        (said(b"\0\0\0\0\2\x08\x02"), {}, "NOT_SERVING"),
        (said(b"\0\0\0\0\2\x08\x03"), {}, "SERVICE_UNKNOWN"),
        (said(b"\0\0\0\0\0"), {}, "UNKNOWN"),
        (said(b"\0\0\0\0\2\x08\x09"), {}, NO_MESSAGE),
        (said(b"hello"), {}, NO_MESSAGE),
        (answering(*GRPC, body=SERVING), {}, "grpc-status -1"),
        (said(SERVING, "14", ("grpc-message", "not%20yet")), {}, "grpc-status 14 not yet"),
        (only("5", ("grpc-message", "who?")), {}, "grpc-status 5 who?"),
        (only("12"), {}, NO_SERVICE),
        (only("12"), {"unimplemented": "healthy"}, ""),
        (only("x"), {}, "grpc-status -1"),
        (answering((":status", "404")), {}, "no gRPC: status 404"),
    ],
)
async def test_a_grpc_server_says_how_it_is(
    answer: Answer, options: dict[str, Any], failure: str
) -> None:
    async with serving(Http2Server(answer)) as address:
        assert await ask(address, grpc(**options)) == failure


async def test_a_grpc_call_is_one_to_grpc_health_v1() -> None:
    server = Http2Server(said(SERVING))
    async with serving(server) as address:
        await ask(address, grpc(service_name="shop.Cart", authority="cart.internal"))

    assert server.body == b"\0\0\0\0\x0b\x0a\x09shop.Cart"
    assert (
        server.fields.items()
        >= {
            b":method": b"POST",
            b":scheme": b"http",
            b":authority": b"cart.internal",
            b":path": b"/grpc.health.v1.Health/Check",
            b"content-type": b"application/grpc",
            b"te": b"trailers",
            b"grpc-timeout": b"10000m",
        }.items()
    )


class Raw:
    """Messages as they lie on the wire: grpclib's own health service needs protobuf."""

    __content_subtype__ = "proto"

    def encode(self, message: bytes, kind: object) -> bytes:
        return message

    decode = encode


@pytest.mark.parametrize(
    ("service", "method", "failure"),
    [
        ("", "Check", ""),
        ("shop.Cart", "Check", "NOT_SERVING"),
        ("shop.Crat", "Check", "grpc-status 5 no such service"),
        ("", "Watch", NO_SERVICE),
    ],
)
async def test_grpclib_is_understood(service: str, method: str, failure: str) -> None:
    grpclib = pytest.importorskip("grpclib", reason="grpclib is not installed")
    const = pytest.importorskip("grpclib.const")
    make = pytest.importorskip("grpclib.server").Server

    class Servicer:
        def __mapping__(self) -> dict[str, object]:
            handler = const.Handler(self.check, const.Cardinality.UNARY_UNARY, bytes, bytes)
            return {f"/grpc.health.v1.Health/{method}": handler}

        async def check(self, stream: Any) -> None:
            name = (await stream.recv_message())[2:]
            if name not in (b"", b"shop.Cart"):
                raise grpclib.GRPCError(const.Status.NOT_FOUND, "no such service")
            await stream.send_message(b"\x08\x02" if name else b"\x08\x01")

    server = make([Servicer()], codec=Raw())
    sock = socket.create_server(("127.0.0.1", 0))
    await server.start(sock=sock)
    try:
        found = await ask(f"127.0.0.1:{sock.getsockname()[1]}", grpc(service_name=service))
    finally:
        server.close()
        await server.wait_closed()
    assert found == failure


# TLS:


def context(secret: Secret, *protocols: str) -> ssl.SSLContext:
    made = server_tls(secret.certificate, secret.key, secret.roots).verifying
    assert made is not None
    made.set_alpn_protocols(list(protocols))
    return made


@pytest.mark.parametrize(
    ("protocols", "check", "handler"),
    [
        (("http/1.1",), http(), saying(OK)),
        (("h2",), http(), Http2Server(answering(STATUS))),
        ((ALPN_SIDECAR, "h2"), http(), Http2Server(answering(STATUS))),
        (("h2",), grpc(), Http2Server(said(SERVING))),
        ((), tcp(send="a", receive="a"), echo),
    ],
)
async def test_mutual_tls_goes_with_the_workloads_certificate(
    protocols: tuple[str, ...], check: HealthCheck, handler: Handler
) -> None:
    async with serving(handler, context(THEIRS, *protocols)) as address:
        assert await ask(address, check, OURS, tls=ClusterTls(mode="mutual")) == ""


async def test_an_endpoint_with_another_identity_is_not_healthy() -> None:
    tls = ClusterTls(mode="mutual", identities=("spiffe://example.org/ns/shop/sa/cart",))
    async with serving(saying(OK), context(THEIRS)) as address:
        found = await ask(address, http(), OURS, tls=tls)
    assert found.startswith("upstream-identity: ")


def refusing(context: ssl.SSLContext) -> Handler:
    """Break the handshake off and say why, which asyncio's own TLS does not."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_side=True)
        with contextlib.suppress(ssl.SSLCertVerificationError):
            while data := await reader.read(65536):
                incoming.write(data)
                with contextlib.suppress(ssl.SSLWantReadError):
                    tls.do_handshake()
                writer.write(outgoing.read())
        writer.write(outgoing.read())
        writer.write_eof()

    return handle


async def test_an_endpoint_of_other_roots_is_told() -> None:
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # the server's view of it
    async with serving(saying(OK), context(STRANGER)) as address:
        found = await ask(address, http(), OURS, tls=ClusterTls(mode="mutual"))
    assert "peer-unknown-root" in found


async def test_why_an_endpoint_refuses_our_certificate_is_told() -> None:
    roots = STRANGER.roots
    made = context(Secret(certificate=THEIRS.certificate, key=THEIRS.key, roots=roots))
    async with serving(refusing(made)) as address:
        found = await ask(address, http(), OURS, tls=ClusterTls(mode="mutual"))
    assert found.startswith("tls: ")
