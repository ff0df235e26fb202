"""What a snapshot can say wrongly, each told with its path; and that nothing is taken by half."""

import pytest

from sidecar.compiler.snapshot import check, compile_snapshot, version_of
from sidecar.core.book import Book
from sidecar.errors import ConfigErrors
from sidecar.model.cluster import Cluster, ClusterTls
from sidecar.model.endpoint import Endpoint
from sidecar.model.identity import Workload
from sidecar.model.listener import InboundListener, OutboundListener
from sidecar.model.route import Route, RouteMatch, StringMatch, WeightedCluster
from sidecar.model.snapshot import Snapshot

PLACE = Endpoint(address="127.0.0.1:8080")
APP = Cluster(name="catalog", endpoints=(PLACE,))
OUT = OutboundListener(cluster="catalog")


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


def cluster(**more: object) -> Cluster:
    return Cluster(**{"name": "catalog", "endpoints": (PLACE,), **more})  # type: ignore[arg-type]


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
        "expected exactly one of cluster and clusters",
    ),
    "neither cluster nor clusters": (
        routed(Route()),
        "outbound[0].routes[0]",
        "expected exactly one of cluster and clusters",
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
        guarded("off", "spiffe://cluster.local/ns/default/sa/api"),
        "inbound[0].allow",
        "needs mtls: without it nobody has an identity",
    ),
    "bad SPIFFE id of endpoints": (
        snapshot(cluster(tls=ClusterTls(identities=("api",)))),
        "clusters[0].tls.identities[0]",
        "no SPIFFE ID: 'api'",
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
        "expected exactly one of endpoints and dns",
    ),
    "neither endpoints nor dns": (
        snapshot(cluster(endpoints=())),
        "clusters[0]",
        "expected exactly one of endpoints and dns",
    ),
    "bad host": (
        routed(Route(match=RouteMatch(hosts=("a.*",)), cluster=TO)),
        "outbound[0].routes[0].match.hosts[0]",
        "expected a name, *.name or *, without port or path; got 'a.*'",
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


def test_a_bad_identity_in_allow_is_told_with_its_path() -> None:
    with pytest.raises(ConfigErrors) as caught:
        check(guarded("strict", "api"), None)
    told = [(e.path, e.detail) for e in caught.value.errors]
    assert ("inbound[0].allow[0]", "no SPIFFE ID: 'api'") in told


def test_all_errors_are_told_at_once() -> None:
    with pytest.raises(ConfigErrors) as caught:
        check(routed(Route(), Route(cluster="x")), None)
    assert len(caught.value.errors) == 2


def test_a_good_snapshot_becomes_a_plan_by_address_and_name() -> None:
    plan = compile_snapshot(snapshot(), None, Book(), lambda *_: None)
    assert set(plan.listeners) == {"127.0.0.1:15001"}
    assert set(plan.clusters) == {"catalog"}
    assert plan.version == version_of(snapshot())
    assert plan.identity == "spiffe://cluster.local/ns/default/sa/web"


def test_endpoints_survive_a_push_and_a_wrong_one_changes_nothing() -> None:
    book = Book()
    before = compile_snapshot(snapshot(), None, book, lambda *_: None)
    (endpoint,) = before.clusters["catalog"].endpoints
    with pytest.raises(ConfigErrors):
        compile_snapshot(snapshot(cluster(balancer="x")), None, book, lambda *_: None)
    assert book.cluster("catalog").endpoints == {"127.0.0.1:8080": endpoint}
    after = compile_snapshot(snapshot(), None, book, lambda *_: None)
    assert after.clusters["catalog"].endpoints == (endpoint,)


def test_equal_snapshots_have_equal_versions_and_others_do_not() -> None:
    assert version_of(snapshot()) == version_of(snapshot())
    assert version_of(snapshot()) != version_of(snapshot(cluster(name="other")))
