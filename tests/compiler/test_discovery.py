"""What a cluster can say wrongly about where its endpoints come from, and what is found for it."""

from typing import Any

import pytest

from sidecar.compiler.snapshot import check, compile_snapshot, no_dial
from sidecar.core.book import Book
from sidecar.errors import ConfigErrors
from sidecar.model.cluster import Cluster, ClusterTls
from sidecar.model.discovery import DnsLookup
from sidecar.model.endpoint import Endpoint
from sidecar.model.identity import Workload
from sidecar.model.listener import OutboundListener
from sidecar.model.route import Route
from sidecar.model.snapshot import Snapshot


def one(cluster: Cluster, **route: Any) -> Snapshot:
    routes = (Route(cluster="catalog", **route),)
    return Snapshot(
        workload=Workload(name="web"),
        clusters=(cluster,),
        outbound=(OutboundListener(routes=routes),),
    )


@pytest.mark.parametrize(
    ("fields", "path", "detail"),
    [
        ({}, "", "expected exactly one of endpoints, dns, srv and file_sd"),
        ({"dns": "a:1", "srv": "_a._tcp.b"}, "", "expected exactly one of"),
        ({"dns": "unix:/x"}, ".dns", "a unix socket goes to `endpoints`"),
        ({"srv": "_a._tcp.b:80"}, ".srv", "expected a name like _http._tcp.catalog.internal"),
        ({"srv": "a." * 127 + "b"}, ".srv", "expected a name like"),
        ({"srv": "a..b"}, ".srv", "expected a name like"),
        ({"file_sd": "targets.yaml"}, ".file_sd", "expected a path that begins with /"),
        ({"file_sd": "/a\0b"}, ".file_sd", "expected a path that begins with /"),
        (
            {"file_sd": "/a", "dns_lookup": DnsLookup(respect_ttl=False)},
            ".dns_lookup",
            "needs dns or srv",
        ),
        (
            {"dns": "a:1", "dns_lookup": DnsLookup(min_refresh=9.0, max_refresh=8.0)},
            ".dns_lookup.min_refresh",
            "expected max_refresh, 8 s, or less",
        ),
        (
            {"srv": "_a._tcp.b", "dns_lookup": DnsLookup(servers=("1.1.1.1:53", "ns.test:53"))},
            ".dns_lookup.servers[1]",
            "expected an IP address and a port, got 'ns.test:53'",
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_path(
    fields: dict[str, Any], path: str, detail: str
) -> None:
    with pytest.raises(ConfigErrors) as caught:
        check(one(Cluster(name="catalog", **fields)), None)
    (error,) = caught.value.errors
    assert error.path == f"clusters[0]{path}"
    assert detail in error.detail


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"endpoints": (Endpoint(address="a:1"),)}, None),
        ({"dns": "a:1"}, ("dns", "a:1")),
        ({"srv": "_a._tcp.b."}, ("srv", "_a._tcp.b.")),
        ({"file_sd": "/a"}, ("file_sd", "/a")),
    ],
)
def test_each_of_them_alone_is_right(
    fields: dict[str, Any], expected: tuple[str, str] | None
) -> None:
    cluster = Cluster(name="catalog", **fields)
    check(one(cluster), None)
    assert cluster.discovery == expected


def test_what_is_found_has_all_that_a_listed_endpoint_can_have() -> None:
    book = Book()
    more: dict[str, Any] = {"weight": 2, "priority": 1, "zone": "z", "labels": {"v": "2"}}
    found = Endpoint(address="10.0.0.1:80", hostname="a.test", **more)
    book.cluster("catalog").resolved = (found,)
    tls = ClusterTls(mode="simple")
    snapshot = one(Cluster(name="catalog", srv="_a._tcp.b", tls=tls), subset={"v": "2"})
    (endpoint,) = compile_snapshot(snapshot, None, book, no_dial).clusters["catalog"].endpoints
    assert (endpoint.host, endpoint.port, endpoint.hostname) == ("10.0.0.1", 80, "a.test")
    assert (endpoint.weight, endpoint.priority, endpoint.zone) == (2, 1, "z")


def test_a_subset_may_be_empty_for_now_where_labels_may_still_come() -> None:
    book = Book()
    snapshot = one(Cluster(name="catalog", file_sd="/a"), subset={"v": "2"})
    plan = compile_snapshot(snapshot, None, book, no_dial)
    (listener,) = plan.listeners.values()
    route = listener.routes.find_name("any")
    assert route is not None
    assert route.pick(lambda: 0.0).endpoints == ()
    with pytest.raises(ConfigErrors, match="no endpoint of cluster 'catalog' has the labels"):
        check(one(Cluster(name="catalog", dns="a:1"), subset={"v": "2"}), None)


def test_a_bad_push_leaves_what_was_found_and_its_connections() -> None:
    book = Book()
    book.cluster("catalog").resolved = (Endpoint(address="10.0.0.1:80"),)
    good = one(Cluster(name="catalog", dns="a:1"))
    (endpoint,) = compile_snapshot(good, None, book, no_dial).clusters["catalog"].endpoints
    with pytest.raises(ConfigErrors):
        compile_snapshot(one(Cluster(name="catalog")), None, book, no_dial)
    assert book.clusters["catalog"].endpoints == {"10.0.0.1:80": endpoint}
    assert not endpoint.removed
