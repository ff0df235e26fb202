"""Cluster plans: endpoints that come and go, TLS contexts, what retires connections."""

import asyncio
import ssl

import pytest

from sidecar.compiler.snapshot import check, compile_snapshot, no_dial
from sidecar.core import pool
from sidecar.core.book import HTTP1, Book, Endpoint as Place
from sidecar.core.plan import ClusterPlan, Dialled
from sidecar.core.timers import Wheel
from sidecar.core.types import Caller, Engine
from sidecar.errors import ConfigErrors
from sidecar.identity.tls import ClientTls, ServerTls
from sidecar.issuers.ephemeral import Authority
from sidecar.model.cluster import Cluster, ClusterTls, Limits
from sidecar.model.endpoint import Endpoint
from sidecar.model.health import HealthCheck, TcpHealthCheck
from sidecar.model.identity import KeyPair, Secret, ServerCertificate, Workload
from sidecar.model.listener import InboundListener, OutboundListener
from sidecar.model.snapshot import Snapshot

CHECK = HealthCheck(tcp=TcpHealthCheck())
PEER = "spiffe://example.org/ns/default/sa/catalog"
AUTHORITY = Authority("example.org")
SECRET = AUTHORITY.issue("spiffe://example.org/ns/default/sa/web")
UNUSABLE = Secret(certificate=b"x", key=b"y", roots=b"z")


class FakeTransport(asyncio.Transport):
    """One end of a connection that only remembers that it was ended."""

    def __init__(self) -> None:
        super().__init__()
        self.is_over = False

    def close(self) -> None:
        self.is_over = True

    abort = close

    def get_write_buffer_size(self) -> int:
        return 0


def one(cluster: Cluster, *more: InboundListener) -> Snapshot:
    return Snapshot(
        workload=Workload(name="web", trust_domain="example.org"),
        clusters=(cluster,),
        inbound=more,
        outbound=(OutboundListener(cluster=cluster.name),),
    )


def listed(*addresses: str, tls: ClusterTls | None = None, **more: object) -> Cluster:
    places = tuple(Endpoint(address=address) for address in addresses)
    return Cluster(name="catalog", endpoints=places, tls=tls or ClusterTls(), **more)  # type: ignore[arg-type]


def plan_of(
    cluster: Cluster, secret: Secret | None = None, book: Book | None = None
) -> ClusterPlan:
    return compile_snapshot(one(cluster), secret, book or Book(), no_dial).clusters[cluster.name]


@pytest.mark.parametrize(
    ("address", "host", "port", "path"),
    [
        ("10.0.0.5:80", "10.0.0.5", 80, ""),
        ("db.internal:65535", "db.internal", 65535, ""),
        ("[2001:db8::7]:443", "2001:db8::7", 443, ""),
        ("unix:/run/app.sock", "", 0, "/run/app.sock"),
    ],
)
def test_an_address_becomes_an_endpoint(address: str, host: str, port: int, path: str) -> None:
    (endpoint,) = plan_of(listed(address)).endpoints
    assert (endpoint.address, endpoint.host, endpoint.port, endpoint.path) == (
        address,
        host,
        port,
        path,
    )


def test_an_endpoint_that_goes_takes_its_idle_connections_along() -> None:
    transports: list[FakeTransport] = []

    def dial(
        cluster: ClusterPlan,
        endpoint: Place,
        protocol: Dialled,
        caller: Caller | None,
    ) -> None:
        transports.append(FakeTransport())
        protocol.connection_made(transports[-1])

    book = Book()
    engine = Engine(lambda: 0.0, lambda: 0.0, Wheel(lambda when: None))
    before = compile_snapshot(one(listed("a:1", "b:1")), None, book, dial).clusters["catalog"]
    for endpoint in before.endpoints:
        pool.dial(engine, before, endpoint, HTTP1)
    gone, stays = before.endpoints

    after = compile_snapshot(one(listed("b:1", "c:1")), None, book, dial).clusters["catalog"]

    assert [e.address for e in after.endpoints] == ["b:1", "c:1"]
    assert after.endpoints[0] is stays
    assert [transport.is_over for transport in transports] == [True, False]
    assert (gone.idle, stays.idle) == (0, 1)


def test_weights_and_labels_are_those_of_the_last_push() -> None:
    book = Book()
    (before,) = plan_of(listed("a:1"), book=book).endpoints
    place = Endpoint(address="a:1", weight=3, labels={"version": "v2"})
    (after,) = plan_of(Cluster(name="catalog", endpoints=(place,)), book=book).endpoints
    assert after is before
    assert (after.weight, after.labels) == (3, {"version": "v2"})


@pytest.mark.parametrize(
    ("answer", "addresses"),
    [
        (None, []),
        ((), []),
        (("10.0.0.1:80", "[::1]:80"), ["10.0.0.1:80", "[::1]:80"]),
        (("10.0.0.1:80", "10.0.0.1:80"), ["10.0.0.1:80"]),
    ],
)
def test_the_endpoints_of_a_name_are_what_it_resolves_to(
    answer: tuple[str, ...] | None, addresses: list[str]
) -> None:
    book = Book()
    if answer is not None:
        book.cluster("catalog").resolved = tuple(Endpoint(address=address) for address in answer)
    plan = plan_of(Cluster(name="catalog", dns="catalog.internal:80"), book=book)
    assert [e.address for e in plan.endpoints] == addresses
    assert plan.server_name == "catalog.internal"


def judged(book: Book, **health: bool) -> None:
    book.cluster("catalog").judge({f"{name}:1": healthy for name, healthy in health.items()})


def available(plan: ClusterPlan) -> list[str]:
    return [e.address for e in plan.endpoints if e.available]


def test_what_health_checks_found_is_in_force_at_once_and_outlives_pushes() -> None:
    book = Book()
    judged(book, b=False)  # before there is a plan
    first = plan_of(listed("a:1", "b:1", "c:1", health_checks=(CHECK,)), book=book)
    assert available(first) == ["a:1", "c:1"]

    judged(book, a=False, b=True, c=False)
    assert available(first) == ["b:1"]

    second = plan_of(listed("a:1", "b:1", "d:1", health_checks=(CHECK,)), book=book)
    assert available(second) == ["b:1", "d:1"]
    third = plan_of(listed("a:1", "c:1", health_checks=(CHECK,)), book=book)
    assert available(third) == ["c:1"]  # which was away: what was known of it is forgotten


def test_without_checks_every_endpoint_is_available() -> None:
    book = Book()
    judged(book, a=False)
    plan_of(listed("a:1", health_checks=(CHECK,)), book=book)
    assert available(plan_of(listed("a:1"), book=book)) == ["a:1"]
    again = plan_of(listed("a:1", health_checks=(CHECK,)), book=book)
    assert available(again) == ["a:1"]


def test_the_given_server_name_wins_over_the_resolved_one() -> None:
    tls = ClusterTls(mode="simple", sni="shop.example")
    plan = plan_of(Cluster(name="catalog", dns="catalog.internal:80", tls=tls))
    assert plan.server_name == "shop.example"


def test_limits_and_times_are_taken_over() -> None:
    limits = Limits(connections=1, pending=2, requests=3, retries=4, retry_budget=0.5)
    plan = plan_of(
        listed("a:1", limits=limits, service="shop", connect_timeout=6.0, idle_timeout=7.0,
               max_requests_per_connection=8, proxy_protocol="v2")
    )  # fmt: skip
    assert (plan.max_connections, plan.max_pending, plan.max_requests) == (1, 2, 3)
    assert (plan.max_retries, plan.retry_budget) == (4, 0.5)
    assert (plan.service, plan.connect_timeout, plan.idle_timeout) == ("shop", 6.0, 7.0)
    assert (plan.max_requests_per_connection, plan.proxy_protocol) == (8, "v2")


@pytest.mark.parametrize(
    ("tls", "identities"),
    [
        (ClusterTls(mode="off"), None),
        (ClusterTls(mode="simple"), None),
        (ClusterTls(mode="mutual"), None),
        (ClusterTls(mode="mutual", identities=(PEER,)), frozenset({PEER})),
    ],
)
def test_a_mode_of_tls_becomes_a_context(tls: ClusterTls, identities: frozenset[str]) -> None:
    plan = plan_of(listed("a:1", tls=tls), SECRET)
    assert plan.identities == identities
    if tls.mode == "off":
        assert plan.tls is None
    else:
        assert isinstance(plan.tls, ClientTls)
        assert plan.tls.mutual is (tls.mode == "mutual")


def test_clusters_with_the_same_tls_share_one_context() -> None:
    clusters = tuple(
        Cluster(name=name, endpoints=(Endpoint(address="a:1"),), tls=ClusterTls(mode="mutual"))
        for name in ("a", "b")
    )
    snapshot = Snapshot(
        workload=Workload(name="web"),
        clusters=clusters,
        outbound=(OutboundListener(cluster="a"),),
    )
    plan = compile_snapshot(snapshot, SECRET, Book(), no_dial)
    assert plan.clusters["a"].tls is plan.clusters["b"].tls is not None


INBOUND = InboundListener(address="0.0.0.0:1", app="127.0.0.1:2")


@pytest.mark.parametrize(
    ("snapshot", "path", "told"),
    [
        (one(listed("a:1"), INBOUND), "certificates", "unusable key material"),
        (
            one(listed("a:1", tls=ClusterTls(mode="mutual"))),
            "clusters[0].tls",
            "unusable key material",
        ),
        (
            one(listed("a:1", tls=ClusterTls(mode="simple", roots="/nonexistent/ca.crt"))),
            "clusters[0].tls",
            "roots '/nonexistent/ca.crt'",
        ),
    ],
)
def test_key_material_that_cannot_be_used_is_told(snapshot: Snapshot, path: str, told: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        check(snapshot, UNUSABLE)
    found = {error.path: error.detail for error in caught.value.errors}
    assert found[path].startswith(told)


SERVER = Snapshot(
    workload=Workload(name="web"),
    inbound=(
        InboundListener(
            address="0.0.0.0:1",
            app="127.0.0.1:2",
            mtls="off",
            tls=ServerCertificate(certificate="a", key="b"),
        ),
    ),
)


def test_a_listener_with_tls_asks_callers_for_no_certificate() -> None:
    pair = KeyPair(certificate=SECRET.certificate, key=SECRET.key)
    plan = compile_snapshot(SERVER, Secret(servers={"0.0.0.0:1": pair}), Book(), no_dial)
    (listener,) = plan.listeners.values()
    assert listener.mtls == "simple"
    assert isinstance(listener.tls, ServerTls)
    assert listener.tls.context.verify_mode is ssl.CERT_NONE


def test_a_server_certificate_that_cannot_be_used_is_told() -> None:
    pair = KeyPair(certificate=b"no", key=b"PEM")
    with pytest.raises(ConfigErrors) as caught:
        check(SERVER, Secret(servers={"0.0.0.0:1": pair}))
    (error,) = caught.value.errors
    assert error.path == "inbound[0].tls"
    assert error.detail.startswith("unusable key material")


def test_a_server_certificate_is_no_identity() -> None:
    pair = KeyPair(certificate=SECRET.certificate, key=SECRET.key)
    snapshot = one(listed("a:1", tls=ClusterTls(mode="mutual")))
    with pytest.raises(ConfigErrors) as caught:
        check(snapshot, Secret(servers={"0.0.0.0:1": pair}))
    assert [error.path for error in caught.value.errors] == ["clusters[0].tls"]
    assert "Secret" in repr(Secret(servers={"0.0.0.0:1": pair}))
    assert repr(pair) == f"KeyPair({len(pair.certificate)} octets)"


def test_the_app_of_a_listener_is_a_cluster_of_the_workload() -> None:
    plan = compile_snapshot(one(listed("a:1"), INBOUND), SECRET, Book(), no_dial)
    (app,) = (c for name, c in plan.clusters.items() if name != "catalog")
    assert app.service == "web"
    assert [e.address for e in app.endpoints] == ["127.0.0.1:2"]
    listener = plan.listeners["0.0.0.0:1"]
    assert isinstance(listener.tls, ServerTls)
    assert (listener.role, listener.mtls) == ("inbound", "strict")


@pytest.mark.parametrize(
    ("before", "after", "retired"),
    [
        ((listed("a:1"), None), (listed("b:1"), SECRET), False),
        ((listed("a:1"), None), (listed("a:1", proxy_protocol="v1"), None), True),
        ((listed("a:1"), None), (listed("a:1", tls=ClusterTls(mode="simple")), None), True),
        (
            (listed("a:1", tls=ClusterTls(mode="mutual")), SECRET),
            (listed("a:1", tls=ClusterTls(mode="mutual")), AUTHORITY.issue(PEER)),
            False,  # a renewed certificate of the same authority
        ),
        (
            (listed("a:1", tls=ClusterTls(mode="mutual")), SECRET),
            (listed("a:1", tls=ClusterTls(mode="mutual")), Authority("example.org").issue(PEER)),
            True,
        ),
    ],
)
def test_connections_are_retired_when_what_they_rest_on_changes(
    before: tuple[Cluster, Secret | None], after: tuple[Cluster, Secret | None], retired: bool
) -> None:
    book = Book()
    plan_of(*before, book)
    generation = book.cluster("catalog").generation
    plan_of(*after, book)
    assert (book.cluster("catalog").generation != generation) is retired


def test_a_cluster_that_is_no_more_leaves_the_book() -> None:
    book = Book()
    plan_of(listed("a:1"), book=book)
    plan_of(Cluster(name="other", endpoints=(Endpoint(address="a:1"),)), book=book)
    assert set(book.clusters) == {"other"}
