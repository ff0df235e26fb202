"""What a snapshot can say wrongly, each told with its path; and that nothing is taken by half."""

import pytest

from sidecar.compiler.routes import OUTBOUND_TIMEOUT
from sidecar.compiler.snapshot import check, compile_snapshot, no_dial, version_of
from sidecar.core.book import HTTP1, Book
from sidecar.core.http1_client import Http1Client
from sidecar.core.timers import Wheel
from sidecar.core.types import Engine
from sidecar.errors import ConfigErrors
from sidecar.model.action import Respond
from sidecar.model.admission import AdaptiveConcurrency
from sidecar.model.balancing import (
    HashCookie,
    HashPolicy,
    Maglev,
    OutlierDetection,
    RingHash,
    SlowStart,
    ZoneAware,
)
from sidecar.model.cluster import Cluster, ClusterTls
from sidecar.model.endpoint import Endpoint
from sidecar.model.health import (
    CommandHealthCheck,
    GrpcHealthCheck,
    HealthCheck,
    HttpHealthCheck,
    TcpHealthCheck,
)
from sidecar.model.identity import ServerCertificate, Workload
from sidecar.model.listener import InboundListener, OutboundListener
from sidecar.model.match import RouteMatch, StringMatch
from sidecar.model.retry import Hedge, RetryPolicy
from sidecar.model.route import Route, WeightedCluster
from sidecar.model.snapshot import Snapshot

PLACE = Endpoint(address="127.0.0.1:8080")
APP = Cluster(name="catalog", endpoints=(PLACE,))
OUT = OutboundListener(cluster="catalog")
PEER = "spiffe://cluster.local/ns/default/sa/api"


def snapshot(
    *clusters: Cluster,
    inbound: tuple[InboundListener, ...] = (),
    outbound: tuple[OutboundListener, ...] = (OUT,),
) -> Snapshot:
    return Snapshot(
        workload=Workload(name="web"),
        clusters=clusters or (APP,),
        inbound=inbound,
        outbound=outbound,
    )


def routed(*routes: Route) -> Snapshot:
    return snapshot(outbound=(OutboundListener(routes=routes),))


def guarded(mtls: str, *allow: str) -> Snapshot:
    listener = InboundListener(address="0.0.0.0:1", app="127.0.0.1:2", mtls=mtls, allow=allow)  # type: ignore[arg-type]
    return snapshot(inbound=(listener,))


def tcp(*routes: Route) -> OutboundListener:
    return OutboundListener(protocol="tcp", routes=routes)


def cluster(**more: object) -> Cluster:
    return Cluster(**{"name": "catalog", "endpoints": (PLACE,), **more})  # type: ignore[arg-type]


TCP = HealthCheck(tcp=TcpHealthCheck())
HEALTH: list[tuple[HealthCheck, str, str, dict[str, str]]] = [
    (
        HealthCheck(),
        "",
        "expected exactly one of http, tcp, grpc, command; got none (`tcp: {}` is the simplest)",
        {},
    ),
    (
        HealthCheck(tcp=TcpHealthCheck(), grpc=GrpcHealthCheck()),
        "",
        "expected exactly one of http, tcp, grpc, command; got tcp and grpc",
        {},
    ),
    *(
        (
            HealthCheck(http=HttpHealthCheck(path=path)),
            ".http.path",
            f"expected a leading / and visible ASCII, got {path!r}",
            {},
        )
        for path in ("healthz", "/a b", "/a#b", "/\r\nx: y")
    ),
    (
        HealthCheck(http=HttpHealthCheck(path="/", host="a b")),
        ".http.host",
        "expected a host, or host:port, got 'a b'",
        {},
    ),
    (
        HealthCheck(http=HttpHealthCheck(path="/", expected_statuses=())),
        ".http.expected_statuses",
        "expected at least one status",
        {},
    ),
    *(
        (
            HealthCheck(http=HttpHealthCheck(path="/", expected_statuses=("200", text))),
            ".http.expected_statuses[1]",
            f"expected a status like 200 or a range like 200-299, got {text!r}",
            {},
        )
        for text in ("2xx", "99", "299-200", "200-", "")
    ),
    (
        HealthCheck(grpc=GrpcHealthCheck(authority="a/b")),
        ".grpc.authority",
        "expected a host, or host:port, got 'a/b'",
        {},
    ),
    (
        HealthCheck(grpc=GrpcHealthCheck()),
        ".grpc",
        "needs HTTP/2, and `protocol` says http1",
        {"protocol": "http1"},
    ),
    *(
        (
            HealthCheck(command=CommandHealthCheck(argv=argv)),
            ".command.argv",
            f"expected a program and its arguments, got {list(argv)!r}",
            {},
        )
        for argv in ((), ("",), ("true", "a\0b"))
    ),
]


def hashed(*policies: HashPolicy) -> Snapshot:
    route = Route(cluster=TO, hash_policy=policies)
    return snapshot(cluster(balancer="ring_hash"), outbound=(OutboundListener(routes=(route,)),))


TO = "catalog"
WRONG = {
    "unknown cluster": (
        routed(Route(cluster="catalgo")),
        "outbound[0].routes[0].cluster",
        "no cluster is named 'catalgo' (did you mean 'catalog'?)",
    ),
    "unknown cluster without a near one": (
        routed(Route(cluster="zzz")),
        "outbound[0].routes[0].cluster",
        "no cluster is named 'zzz'",
    ),
    "unknown cluster in a split": (
        routed(Route(clusters=(WeightedCluster(name="catalo", weight=1),))),
        "outbound[0].routes[0].clusters[0].name",
        "no cluster is named 'catalo' (did you mean 'catalog'?)",
    ),
    "duplicate cluster": (snapshot(APP, APP), "clusters[1].name", "'catalog' is defined twice"),
    "duplicate endpoint": (
        snapshot(cluster(endpoints=(PLACE, PLACE))),
        "clusters[0].endpoints[1]",
        "127.0.0.1:8080 is listed twice",
    ),
    "duplicate address": (
        snapshot(outbound=(OUT, OUT)),
        "outbound[1].address",
        "127.0.0.1:15001 is used by outbound[0] already",
    ),
    "duplicate route name": (
        routed(
            Route(name="r", match=RouteMatch(path="/a"), cluster=TO), Route(name="r", cluster=TO)
        ),
        "outbound[0].routes[1].name",
        "two routes are called 'r'",
    ),
    "unreachable route": (
        routed(Route(cluster=TO), Route(match=RouteMatch(path="/a"), cluster=TO)),
        "outbound[0].routes[1]",
        "never reached: outbound[0].routes[0] takes every request; put it last",
    ),
    "cluster and clusters": (
        routed(Route(cluster=TO, clusters=(WeightedCluster(name=TO, weight=1),))),
        "outbound[0].routes[0]",
        "expected exactly one of cluster, clusters, redirect and respond",
    ),
    "neither cluster nor clusters": (
        routed(Route()),
        "outbound[0].routes[0]",
        "expected exactly one of cluster, clusters, redirect and respond",
    ),
    "cluster and routes": (
        snapshot(outbound=(OutboundListener(cluster=TO, routes=(Route(cluster=TO),)),)),
        "outbound[0].cluster",
        "expected one of cluster and routes",
    ),
    "no listener": (snapshot(outbound=()), "", "no listener: expected `inbound` or `outbound`"),
    "mtls without certificates": (
        guarded("strict"),
        "inbound[0].mtls",
        "strict needs the workload's certificates: set `certificates`, or"
        " `mtls: off` for plaintext",
    ),
    "mutual without certificates": (
        snapshot(cluster(tls=ClusterTls(mode="mutual"))),
        "clusters[0].tls",
        "mutual needs the workload's certificates: set `certificates`",
    ),
    "allow with mtls off": (
        guarded("off", PEER),
        "inbound[0].allow",
        "needs mtls: without it nobody has an identity",
    ),
    "tls beside mtls": (
        snapshot(
            inbound=(
                InboundListener(
                    address="0.0.0.0:1",
                    app="127.0.0.1:2",
                    mtls="permissive",
                    tls=ServerCertificate(certificate="a", key="b"),
                ),
            )
        ),
        "inbound[0].tls",
        "asks callers for no certificate, while mtls permissive does: set `mtls: off` beside it,"
        " or give mesh callers a listener of their own",
    ),
    "bad balancer": (
        snapshot(cluster(balancer="round_robbin")),
        "clusters[0].balancer",
        "no balancer is called 'round_robbin' (did you mean 'round_robin'?)",
    ),
    "weights that sum to 0": (
        routed(Route(clusters=(WeightedCluster(name=TO, weight=0),))),
        "outbound[0].routes[0].clusters",
        "the weights add up to 0",
    ),
    "outbound that goes nowhere": (
        snapshot(outbound=(OutboundListener(),)),
        "outbound[0]",
        "goes nowhere: expected cluster or routes",
    ),
    "inbound that goes nowhere": (
        snapshot(inbound=(InboundListener(address="127.0.0.1:1", mtls="off"),)),
        "inbound[0]",
        "goes nowhere: expected app, cluster or routes",
    ),
    "endpoints and dns": (
        snapshot(cluster(dns="catalog.internal:80")),
        "clusters[0]",
        "expected exactly one of endpoints, dns, srv and file_sd",
    ),
    "neither endpoints nor dns": (
        snapshot(cluster(endpoints=())),
        "clusters[0]",
        "expected exactly one of endpoints, dns, srv and file_sd",
    ),
    **{
        f"bad host {host!r}": (
            routed(Route(match=RouteMatch(hosts=("*", host)), cluster=TO)),
            "outbound[0].routes[0].match.hosts[1]",
            f"expected a name, *.name or *, without port or path; got {host!r}",
        )
        for host in ("a.*", "", "*.", "a/b", "a:80", "::1", "[::1]:80")
    },
    "bad server name": (
        snapshot(outbound=(tcp(Route(match=RouteMatch(sni=("a:443",)), cluster=TO)),)),
        "outbound[0].routes[0].match.sni[0]",
        "expected a name, *.name or *, without port or path; got 'a:443'",
    ),
    "http match of a tcp listener": (
        snapshot(
            outbound=(
                tcp(
                    Route(match=RouteMatch(sni=("a",)), cluster=TO),
                    Route(match=RouteMatch(path="/a"), cluster=TO),
                ),
            )
        ),
        "outbound[0].routes[1].match",
        "a tcp listener can match `sni` only",
    ),
    "unix socket for dns": (
        snapshot(cluster(endpoints=(), dns="unix:/run/x")),
        "clusters[0].dns",
        "expected host:port; a unix socket goes to `endpoints`",
    ),
    "nameless workload": (
        Snapshot(workload=Workload(name=""), clusters=(APP,), outbound=(OUT,)),
        "workload.name",
        "expected a name, got an empty text",
    ),
    "nameless cluster": (
        snapshot(APP, cluster(name="")),
        "clusters[1].name",
        "expected a name, got an empty text",
    ),
    "cluster with a name of ours": (
        snapshot(APP, cluster(name="app|0.0.0.0:15006")),
        "clusters[1].name",
        "names that begin with app| are taken: they stand for the apps of listeners",
    ),
    "identities that nobody would look at": (
        snapshot(cluster(tls=ClusterTls(mode="simple", identities=(PEER,)))),
        "clusters[0].tls.identities",
        "needs mode: mutual",
    ),
    "roots that nobody would look at": (
        snapshot(cluster(tls=ClusterTls(roots="ca.crt"))),
        "clusters[0].tls.roots",
        "needs mode: simple",
    ),
    **{
        f"health check: {path or told}": (
            snapshot(cluster(health_checks=(TCP, check), **more)),
            f"clusters[0].health_checks[1]{path}",
            told,
        )
        for check, path, told, more in HEALTH
    },
    "no status codes": (
        routed(Route(cluster=TO, retry=RetryPolicy(on=("retriable-status-codes",)))),
        "outbound[0].routes[0].retry.on",
        "retriable-status-codes needs status_codes",
    ),
    "status codes that nobody looks at": (
        routed(Route(cluster=TO, retry=RetryPolicy(on=("reset",), status_codes=(429,)))),
        "outbound[0].routes[0].retry.status_codes",
        "needs retriable-status-codes in `on`",
    ),
    "a hedge without a moment": (
        routed(Route(cluster=TO, hedge=Hedge())),
        "outbound[0].routes[0].hedge",
        "expected exactly one of delay and percentile",
    ),
    "a hedge with two moments": (
        routed(Route(cluster=TO, hedge=Hedge(delay=1.0, percentile=95.0))),
        "outbound[0].routes[0].hedge",
        "expected exactly one of delay and percentile",
    ),
    "a hedge without attempts": (
        routed(Route(cluster=TO, hedge=Hedge(delay=1.0), retry=RetryPolicy(attempts=1))),
        "outbound[0].routes[0].retry.attempts",
        "expected 2 or more: the second attempt of a hedge is one of them",
    ),
    "a hedge of what is not sent on": (
        routed(Route(respond=Respond(status=200), hedge=Hedge(delay=1.0))),
        "outbound[0].routes[0].hedge",
        "nothing is sent on by this route",
    ),
    "a hedge of a method in small letters": (
        routed(Route(cluster=TO, hedge=Hedge(delay=1.0, methods=("post",)))),
        "outbound[0].routes[0].hedge.methods[0]",
        "expected capitals, got 'post'",
    ),
    "a least limit over the greatest": (
        snapshot(
            cluster(
                adaptive_concurrency=AdaptiveConcurrency(min_concurrency=9, max_concurrency_limit=8)
            )
        ),
        "clusters[0].adaptive_concurrency.min_concurrency",
        "expected max_concurrency_limit, 8, or less",
    ),
    "no retriable headers": (
        routed(Route(cluster=TO, retry=RetryPolicy(on=("retriable-headers",)))),
        "outbound[0].routes[0].retry.on",
        "retriable-headers needs retriable_headers",
    ),
    "a retriable header that cannot be": (
        routed(
            Route(
                cluster=TO,
                retry=RetryPolicy(
                    on=("retriable-headers",), retriable_headers={"a b": StringMatch(exact="1")}
                ),
            )
        ),
        "outbound[0].routes[0].retry.retriable_headers.a b",
        "no field can be called 'a b'",
    ),
    "an idempotency key that cannot be": (
        routed(Route(cluster=TO, retry=RetryPolicy(idempotency_key=":path"))),
        "outbound[0].routes[0].retry.idempotency_key",
        "no field can be called ':path'",
    ),
    "no kind to hash by": (
        hashed(HashPolicy()),
        "outbound[0].routes[0].hash_policy[0]",
        "expected exactly one of header, cookie, query_parameter, source_ip; got []",
    ),
    "two kinds to hash by": (
        hashed(HashPolicy(source_ip=True), HashPolicy(header="a", query_parameter="b")),
        "outbound[0].routes[0].hash_policy[1]",
        "expected exactly one of header, cookie, query_parameter, source_ip;"
        " got ['header', 'query_parameter']",
    ),
    "a field to hash by": (
        hashed(HashPolicy(header="a b")),
        "outbound[0].routes[0].hash_policy[0].header",
        "no field can be called 'a b'",
    ),
    "a cookie to hash by": (
        hashed(HashPolicy(cookie=HashCookie(name="a=b"))),
        "outbound[0].routes[0].hash_policy[0].cookie.name",
        "no cookie can be called 'a=b'",
    ),
    "the path of a cookie": (
        hashed(HashPolicy(cookie=HashCookie(name="a", path="/;x"))),
        "outbound[0].routes[0].hash_policy[0].cookie.path",
        "expected a path from / on, got '/;x'",
    ),
    "nobody who hashes": (
        routed(Route(cluster=TO, hash_policy=(HashPolicy(header="a"),))),
        "outbound[0].routes[0].hash_policy",
        "needs a cluster with balancer ring_hash or maglev; got catalog",
    ),
    "a header of opaque connections": (
        snapshot(
            cluster(balancer="maglev"),
            outbound=(tcp(Route(cluster=TO, hash_policy=(HashPolicy(header="a"),))),),
        ),
        "outbound[0].routes[0].hash_policy",
        "a tcp listener has `source_ip` only",
    ),
    "settings of another balancer": (
        snapshot(cluster(maglev=Maglev(table_size=13))),
        "clusters[0].maglev",
        "needs balancer: maglev",
    ),
    "a table that is no prime": (
        snapshot(cluster(balancer="maglev", maglev=Maglev(table_size=65536))),
        "clusters[0].maglev.table_size",
        "expected a prime, got 65536",
    ),
    "a ring that is smaller than it may be": (
        snapshot(
            cluster(
                balancer="ring_hash", ring_hash=RingHash(minimum_ring_size=9, maximum_ring_size=8)
            )
        ),
        "clusters[0].ring_hash.minimum_ring_size",
        "expected maximum_ring_size, 8, or less",
    ),
    "a bound below the mean": (
        snapshot(cluster(balancer="ring_hash", ring_hash=RingHash(hash_balance_factor=99))),
        "clusters[0].ring_hash.hash_balance_factor",
        "expected 0, or 100 or more; got 99",
    ),
    "a zone that nobody has told": (
        snapshot(cluster(zone_aware=ZoneAware(enabled=True))),
        "clusters[0].zone_aware",
        "needs workload.zone",
    ),
    "a slow start where the hash chooses": (
        snapshot(cluster(balancer="maglev", slow_start=SlowStart(window=1.0))),
        "clusters[0].slow_start",
        "needs a balancer that may choose; with maglev the hash does",
    ),
    "an ejection longer than the longest": (
        snapshot(cluster(outlier_detection=OutlierDetection(base_ejection_time=301.0))),
        "clusters[0].outlier_detection.base_ejection_time",
        "expected max_ejection_time, 300 s, or less",
    ),
    "app and cluster": (
        snapshot(inbound=(InboundListener(app="127.0.0.1:2", cluster=TO, mtls="off"),)),
        "inbound[0].app",
        "expected one of app, cluster and routes",
    ),
    "listeners of one name": (
        snapshot(
            outbound=(
                OutboundListener(name="out", cluster=TO),
                OutboundListener(name="out", address="127.0.0.1:1", cluster=TO),
            )
        ),
        "outbound[1].name",
        "out is used by outbound[0] already",
    ),
}


@pytest.mark.parametrize(("wrong", "path", "text"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_told_with_its_path(wrong: Snapshot, path: str, text: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        check(wrong, None)
    assert [(e.path, e.detail) for e in caught.value.errors] == [(path, text)]


def test_a_bad_pattern_is_told_with_its_path() -> None:
    text = StringMatch(regex="(")
    wrong = routed(Route(match=RouteMatch(headers={"x": text}), cluster=TO))
    with pytest.raises(ConfigErrors) as caught:
        check(wrong, None)
    (error,) = caught.value.errors
    assert error.path == "outbound[0].routes[0].match.headers.x.regex"
    assert error.detail.startswith("bad pattern '(': ")


@pytest.mark.parametrize(
    ("wrong", "path"),
    [
        (guarded("strict", PEER, "api"), "inbound[0].allow[1]"),
        (
            snapshot(cluster(tls=ClusterTls(mode="mutual", identities=(PEER, "api")))),
            "clusters[0].tls.identities[1]",
        ),
    ],
)
def test_a_bad_identity_is_told_with_its_path(wrong: Snapshot, path: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        check(wrong, None)
    told = [(e.path, e.detail) for e in caught.value.errors]
    assert (path, "no SPIFFE ID: 'api'") in told


def test_all_errors_are_told_at_once() -> None:
    with pytest.raises(ConfigErrors) as caught:
        check(routed(Route(), Route(cluster="x")), None)
    assert len(caught.value.errors) == 2


@pytest.mark.parametrize(
    "check",
    [
        HealthCheck(
            http=HttpHealthCheck(path="/ready", host="a:1", expected_statuses=("200-299",))
        ),
        HealthCheck(grpc=GrpcHealthCheck()),
        HealthCheck(tcp=TcpHealthCheck()),
        HealthCheck(command=CommandHealthCheck(argv=("true",))),
    ],
    ids=["http", "grpc", "tcp", "command"],
)
def test_a_good_health_check_is_taken(check: HealthCheck) -> None:
    one = snapshot(cluster(health_checks=(check,), protocol="http2"))
    assert compile_snapshot(one, None, Book(), no_dial).clusters


def test_a_good_snapshot_becomes_a_plan_by_address_and_name() -> None:
    plan = compile_snapshot(snapshot(), None, Book(), no_dial)
    assert set(plan.listeners) == {"127.0.0.1:15001"}
    assert set(plan.clusters) == {"catalog"}
    assert plan.version == version_of(snapshot())
    assert plan.identity == "spiffe://cluster.local/ns/default/sa/web"


def test_endpoints_survive_a_push_and_a_wrong_one_changes_nothing() -> None:
    book = Book()
    before = compile_snapshot(snapshot(), None, book, no_dial)
    (endpoint,) = before.clusters["catalog"].endpoints
    with pytest.raises(ConfigErrors):
        compile_snapshot(snapshot(cluster(balancer="x")), None, book, no_dial)
    assert book.cluster("catalog").endpoints == {"127.0.0.1:8080": endpoint}
    after = compile_snapshot(snapshot(), None, book, no_dial)
    assert after.clusters["catalog"].endpoints == (endpoint,)


def test_equal_snapshots_have_equal_versions_and_others_do_not() -> None:
    assert version_of(snapshot()) == version_of(snapshot())
    assert version_of(snapshot()) != version_of(snapshot(cluster(name="other")))


def test_a_wrong_first_snapshot_leaves_nothing_in_the_book() -> None:
    book = Book()
    with pytest.raises(ConfigErrors):
        compile_snapshot(snapshot(cluster(balancer="x")), None, book, no_dial)
    assert book.clusters == {}


def test_a_route_behind_one_that_takes_everything_is_told_at_its_own_place() -> None:
    wrong = routed(
        Route(cluster="x"), Route(cluster=TO), Route(match=RouteMatch(path="/a"), cluster=TO)
    )
    with pytest.raises(ConfigErrors) as caught:
        check(wrong, None)
    assert [e.path for e in caught.value.errors] == [
        "outbound[0].routes[0].cluster",
        "outbound[0].routes[2]",
    ]


def test_a_plan_that_is_only_looked_at_dials_nobody() -> None:
    plan = compile_snapshot(snapshot(), None, Book(), no_dial).clusters["catalog"]
    engine = Engine(lambda: 0.0, lambda: 0.0, Wheel(lambda when: None))
    client = Http1Client(engine, plan, plan.endpoints[0], HTTP1)
    with pytest.raises(AssertionError, match="dials nobody"):
        plan.dial(plan, plan.endpoints[0], client, None)


@pytest.mark.parametrize(
    ("policy", "connect", "reset", "statuses"),
    [
        (RetryPolicy(), True, True, {502, 503, 504}),
        (RetryPolicy(on=()), False, False, set()),
        (RetryPolicy(on=("connect-failure",)), True, False, set()),
        (RetryPolicy(on=("reset-before-request",)), True, False, set()),
        (RetryPolicy(on=("refused-stream",)), False, False, set()),
        (RetryPolicy(on=("reset",)), True, True, set()),
        (RetryPolicy(on=("gateway-error",)), True, True, {502, 503, 504}),
        (RetryPolicy(on=("envoy-ratelimited",)), False, False, set(range(200, 600))),
        (
            RetryPolicy(on=("retriable-headers",), retriable_headers={"x": StringMatch(exact="1")}),
            False,
            False,
            set(range(200, 600)),
        ),
        (RetryPolicy(on=("5xx",)), True, True, set(range(500, 600))),
        (RetryPolicy(on=("retriable-4xx",)), False, False, {409}),
        (RetryPolicy(on=("retriable-status-codes",), status_codes=(429,)), False, False, {429}),
    ],
)
def test_a_retry_policy_becomes_what_is_looked_at(
    policy: RetryPolicy, connect: bool, reset: bool, statuses: set[int]
) -> None:
    plan = compile_snapshot(routed(Route(cluster=TO, retry=policy)), None, Book(), no_dial)
    route = plan.listeners["127.0.0.1:15001"].routes.find_name("")
    assert route is not None
    assert (route.retry.on_connect, route.retry.on_reset) == (connect, reset)
    assert route.retry.on_status == statuses


@pytest.mark.parametrize(
    ("given", "inbound", "outbound"),
    [(None, 0.0, OUTBOUND_TIMEOUT), (3.0, 3.0, 3.0), (0.0, 0.0, 0.0)],
)
def test_the_timeout_of_a_route_depends_on_the_role_unless_it_is_given(
    given: float | None, inbound: float, outbound: float
) -> None:
    routes = (Route(cluster=TO, timeout=given),)
    tree = snapshot(
        inbound=(InboundListener(address="127.0.0.1:1", routes=routes, mtls="off"),),
        outbound=(OutboundListener(address="127.0.0.1:2", routes=routes),),
    )
    plan = compile_snapshot(tree, None, Book(), no_dial)
    found = [plan.listeners[f"127.0.0.1:{port}"].routes.find_name("") for port in (1, 2)]
    assert [route and route.timeout for route in found] == [inbound, outbound]


def test_a_share_of_weight_0_gets_nothing() -> None:
    shares = (WeightedCluster(name=TO, weight=1), WeightedCluster(name="other", weight=0))
    tree = snapshot(
        APP, cluster(name="other"), outbound=(OutboundListener(routes=(Route(clusters=shares),)),)
    )
    plan = compile_snapshot(tree, None, Book(), no_dial)
    route = plan.listeners["127.0.0.1:15001"].routes.find_name("")
    assert route is not None
    assert route.cluster is plan.clusters[TO]
