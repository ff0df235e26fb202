"""The TLS layer in memory: two of it, joined; who is refused, what is sent, and what is left behind."""

import asyncio
import gc
import ssl
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from sidecar.errors import IdentityError
from sidecar.identity.spiffe import peer_identity
from sidecar.identity.tls import ClientTls, ServerTls, mutual_tls, server_tls, simple_server_tls
from sidecar.issuers.ephemeral import Authority
from sidecar.runtime.tls import Tls
from tests.core.transport import CLOSED, FakeTransport

CART, SHOP = "spiffe://example.org/ns/a/sa/cart", "spiffe://example.org/ns/a/sa/shop"
OURS: Final = Authority("example.org")
THEIRS: Final = Authority("example.org")  # of the same name, which is not enough


class App(asyncio.Protocol):
    """The protocol above: keeps what it gets, and says `greeting` first."""

    def __init__(self, greeting: bytes = b"") -> None:
        self.greeting: Final = greeting
        self.got = b""
        self.transport: asyncio.Transport | None = None
        self.is_lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if self.greeting:
            transport.write(self.greeting)

    def data_received(self, data: bytes) -> None:
        self.got += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self.is_lost = True


class End:
    """One end: the layer, what is below it and above it, and how its handshake went."""

    def __init__(
        self,
        soon: Callable[[Callable[[], None]], None],
        context: ssl.SSLContext,
        *,
        verifying: ssl.SSLContext | None = None,
        is_server: bool = False,
        greeting: bytes = b"",
    ) -> None:
        self.app: Final = App(greeting)
        self.ready = 0
        self.identity = ""
        self.failures: Final[list[IdentityError]] = []
        self.below: Final = FakeTransport(soon)
        self.tls: Final = Tls(
            context,
            server_side=is_server,
            verifying=verifying,
            on_ready=self._ready,
            on_failed=self.failures.append,
        )
        self.below.set_protocol(self.tls)
        self.tls.connection_made(self.below)

    def _ready(self, tls: Tls) -> asyncio.Protocol:
        self.ready += 1
        if tls.ssl.getpeercert(binary_form=True):
            self.identity, _ = peer_identity(tls.ssl)
        return self.app


class Pair:
    """A caller and a server, whose octets go over in pieces of `size`."""

    def __init__(
        self,
        server: ServerTls,
        client: ssl.SSLContext,
        *,
        size: int = 65536,
        greeting: bytes = b"hello",
    ) -> None:
        self._queue: Final[deque[Callable[[], None]]] = deque()
        self._size: Final = size
        self.server: Final = End(
            self._queue.append, server.context, verifying=server.verifying, is_server=True
        )
        self.client: Final = End(self._queue.append, client, greeting=greeting)
        self.settle()

    def settle(self) -> None:
        """Carry octets until there are none."""
        while True:
            while self._queue:
                self._queue.popleft()()
            moved = False
            for one, other in ((self.client, self.server), (self.server, self.client)):
                data = one.below.take()
                for at in range(0, len(data), self._size):
                    other.below.send(data[at : at + self._size])
                    moved = True
            if not moved:
                return


def ours(authority: Authority = OURS, identity: str = CART) -> ssl.SSLContext:
    """Return how a workload calls, with a certificate of `authority`; it trusts us."""
    secret = authority.issue(identity)
    made: ClientTls = mutual_tls(secret.certificate, secret.key, OURS.roots)
    return made.contexts["http1"]


def shop() -> ServerTls:
    secret = OURS.issue(SHOP)
    return server_tls(secret.certificate, secret.key, secret.roots)


def limited(context: ssl.SSLContext, version: ssl.TLSVersion) -> ssl.SSLContext:
    context.maximum_version = version
    return context


VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("size", [1, 100, 65536])
def test_both_ends_know_each_other_however_the_octets_come(
    size: int, version: ssl.TLSVersion
) -> None:
    pair = Pair(shop(), limited(ours(), version), size=size)
    assert (pair.client.identity, pair.server.identity) == (SHOP, CART)
    assert pair.server.app.got == b"hello"
    assert pair.client.tls.ssl.version() == version.name.replace("_", ".")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("size", [1, 100, 65536])
def test_a_caller_of_another_root_is_refused_however_the_octets_come(
    size: int, version: ssl.TLSVersion
) -> None:
    pair = Pair(shop(), limited(ours(THEIRS), version), size=size)
    assert [error.code for error in pair.server.failures] == ["peer-unknown-root"]
    assert pair.server.ready == 0
    assert pair.server.app.got == b""


def test_a_caller_without_a_certificate_is_refused() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=OURS.roots.decode())
    pair = Pair(shop(), context)
    assert [error.code for error in pair.server.failures] == ["peer-no-certificate"]


def test_a_caller_who_must_say_hello_twice_is_served() -> None:
    server = shop()
    assert server.verifying is not None
    for context in (server.context, server.verifying):
        context.set_ecdh_curve("secp384r1")  # callers offer a share of X25519: HelloRetryRequest
    pair = Pair(server, ours())
    assert pair.server.identity == CART
    assert pair.server.app.got == b"hello"


def test_the_first_context_alone_refuses_every_caller() -> None:
    pair = Pair(ServerTls(shop().context), ours())
    assert [error.code for error in pair.server.failures] == ["peer-unknown-root"]


def chain(tls: Tls) -> list[Any]:
    """Return the certificates that the peer has sent."""
    object_: Any = tls.ssl
    of = (
        object_ if hasattr(object_, "get_unverified_chain") else object_._sslobj
    )  # public since 3.13
    return list(of.get_unverified_chain())


def test_a_server_sends_its_certificate_without_the_root() -> None:
    assert len(chain(Pair(shop(), ours()).client.tls)) == 1


def test_no_ticket_lets_a_caller_of_the_mesh_back_in() -> None:
    pair = Pair(shop(), ours())
    pair.server.tls.write(b"hi")
    pair.settle()
    assert pair.client.app.got == b"hi"
    session = pair.client.tls.ssl.session
    assert session is None or not session.has_ticket


def test_a_caller_from_outside_gets_a_ticket() -> None:
    secret = OURS.issue(SHOP)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=OURS.roots.decode())
    pair = Pair(simple_server_tls(secret.certificate, secret.key, is_http=True), context)
    session = pair.client.tls.ssl.session
    assert session is not None
    assert session.has_ticket


def test_the_end_of_a_handshake_goes_out_with_the_first_data() -> None:
    assert Pair(shop(), ours()).client.below.writes == 2  # hello; certificate, Finished and data
    assert Pair(shop(), ours(), greeting=b"").client.below.writes == 2


@pytest.fixture
def collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def count() -> int:
    return sum(isinstance(each, Tls | ssl.SSLObject | End) for each in gc.get_objects())


@pytest.mark.usefixtures("collector")
def test_a_connection_that_is_over_is_gone_without_the_collector() -> None:
    server, client = shop(), ours()
    before = count()
    pair = Pair(server, client)
    assert pair.server.app.transport is pair.server.tls
    pair.client.tls.close()
    pair.settle()
    assert pair.client.below.fate == CLOSED
    pair.server.below.lose()
    pair.settle()
    assert pair.server.app.is_lost
    del pair
    assert count() == before


def test_an_identity_is_read_once_for_the_octets_that_name_it() -> None:
    server, client = shop(), ours()
    first, second, third = Pair(server, client), Pair(server, client), Pair(server, ours())
    known = peer_identity(first.server.tls.ssl)
    assert peer_identity(second.server.tls.ssl) is known
    assert peer_identity(third.server.tls.ssl)[0] == CART
    assert peer_identity(third.server.tls.ssl)[1] != known[1]
