"""Tables of a plan: which route takes a request, which cluster its weights give, which hooks run."""

from collections.abc import Callable

import pytest

from sidecar.core.api import Balancer, HttpFilter, NetworkFilter
from sidecar.core.book import ClusterState
from sidecar.core.connect import begin
from sidecar.core.exchange import Exchange
from sidecar.core.plan import ClusterPlan, Condition, RoutePlan, RouteTable, overrides
from sidecar.core.types import Caller
from sidecar.wire.fields import RequestHead
from sidecar.wire.http1_head import HeadReader

Entry = tuple[tuple[str, ...], tuple[Condition, ...], RoutePlan]


def cluster(name: str) -> ClusterPlan:
    return ClusterPlan(
        name, ClusterState(), (), Balancer(), lambda *_: None, HeadReader(), begin
    )  # fmt: skip


def entry(name: str, *hosts: str, when: tuple[Condition, ...] = ()) -> Entry:
    return hosts, when, RoutePlan(name, ((1, cluster(name)),))


def request(host: str, method: str = "GET") -> RequestHead:
    result = HeadReader().request(f"{method} / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert result is not None
    return result[0]


def found(table: RouteTable, host: str, method: str = "GET") -> str:
    route = table.find(request(host, method), Caller())
    return "" if route is None else route.name


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("a.example", "exact"),
        ("a.example:8080", "exact"),
        ("a.example.", "exact"),
        ("a.example.:8080", "exact"),
        ("a.example..", "exact"),
        ("b.example.", "wild"),
        ("a.example.org.", ""),
        ("b.example", "wild"),
        ("c.b.example", "wild"),
        ("example", ""),
        (".example", ""),
        ("notexample", ""),
        ("a.example.org", ""),
    ],
)
def test_a_host_is_matched_whole_or_below_a_wildcard(host: str, name: str) -> None:
    table = RouteTable((entry("exact", "a.example"), entry("wild", "*.example")))
    assert found(table, host) == name


def test_the_first_entry_that_matches_is_taken_even_if_a_later_one_is_more_exact() -> None:
    table = RouteTable((entry("wild", "*.example"), entry("exact", "a.example")))
    assert found(table, "a.example") == "wild"


def test_an_entry_without_hosts_takes_its_place_among_the_named_ones() -> None:
    post: Condition = lambda head, caller: head.method == b"POST"  # noqa: E731
    table = RouteTable(
        (entry("any", when=(post,)), entry("exact", "a.example"), entry("rest", "*"))
    )
    assert found(table, "a.example", "POST") == "any"
    assert found(table, "a.example") == "exact"
    assert found(table, "b.example", "POST") == "any"
    assert found(table, "b.example") == "rest"


@pytest.mark.parametrize("turned", [False, True])
def test_the_longer_of_two_wildcards_still_leaves_the_order_in_force(turned: bool) -> None:
    entries = (entry("short", "*.example"), entry("long", "*.a.example"))
    table = RouteTable(entries[::-1] if turned else entries)
    assert found(table, "x.a.example") == ("long" if turned else "short")
    assert found(table, "x.b.example") == "short"


def test_one_entry_may_have_several_hosts() -> None:
    table = RouteTable((entry("both", "a.example", "*.b.example"),))
    assert [found(table, h) for h in ("a.example", "x.b.example", "c")] == ["both", "both", ""]


def test_all_conditions_must_hold() -> None:
    yes: Condition = lambda head, caller: True  # noqa: E731
    no: Condition = lambda head, caller: False  # noqa: E731
    table = RouteTable((entry("half", when=(yes, no)), entry("whole", when=(yes, yes))))
    assert found(table, "a") == "whole"


def test_an_empty_table_takes_nothing() -> None:
    assert RouteTable(()).find(request("a"), Caller()) is None
    assert RouteTable(()).find_name("a") is None


def test_a_server_name_is_found_like_a_host() -> None:
    table = RouteTable((entry("exact", "a.example"), entry("wild", "*.example")))
    names = [table.find_name(n) for n in ("a.example", "b.example", "example", "")]
    assert [r and r.name for r in names] == ["exact", "wild", None, None]


def at(chance: float) -> Callable[[], float]:
    return lambda: chance


@pytest.mark.parametrize(
    ("chance", "name"),
    [(0.0, "a"), (0.0999, "a"), (0.1, "b"), (0.3999, "b"), (0.4, "c"), (0.999999, "c"), (1.0, "c")],
)
def test_chance_picks_a_cluster_by_weight(chance: float, name: str) -> None:
    route = RoutePlan("r", ((1, cluster("a")), (3, cluster("b")), (6, cluster("c"))))
    assert route.pick(at(chance)).name == name


def test_a_single_cluster_is_picked_without_chance() -> None:
    def never() -> float:
        raise AssertionError("drawn")

    assert RoutePlan("r", ((1, cluster("only")),)).pick(never).name == "only"


class Nothing(HttpFilter):
    """Overrides no hook."""


class Request(HttpFilter):
    """Overrides one hook."""

    def on_request(self, exchange: Exchange) -> str | None:
        return None


class Heir(Request):
    """Inherits one hook, overrides another."""

    def on_finish(self, exchange: Exchange) -> None:
        pass


class Other(NetworkFilter):
    """Overrides no hook of the connection."""


def test_only_hooks_that_a_filter_overrides_are_on_the_lists() -> None:
    nothing, first, heir = Nothing(), Request(), Heir()
    route = RoutePlan("r", ((1, cluster("a")),), filters=(nothing, first, heir))
    assert route.on_request == (first, heir)
    assert route.on_response == ()
    assert route.on_finish == (heir,)


def test_on_finish_runs_in_the_opposite_order() -> None:
    first, second = Heir(), Heir()
    route = RoutePlan("r", ((1, cluster("a")),), filters=(first, second))
    assert route.on_request == (first, second)
    assert route.on_finish == (second, first)


def test_an_inherited_hook_of_the_base_is_no_override() -> None:
    assert not overrides(Nothing(), "on_request")
    assert overrides(Heir(), "on_request")
    assert not overrides(Other(), "on_session")
