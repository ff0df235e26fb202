"""Who is asked when, what the answers add up to, who is told; no endpoint is really asked."""

import asyncio
from collections.abc import Callable

import pytest

from sidecar.agent.health import STEP, Checks
from sidecar.core.book import Endpoint as Place
from sidecar.core.plan import ClusterPlan
from sidecar.errors import ConfigErrors
from sidecar.model.cluster import Cluster, ClusterTls
from sidecar.model.endpoint import Endpoint
from sidecar.model.health import HealthCheck, HttpHealthCheck, TcpHealthCheck
from sidecar.model.identity import Workload
from sidecar.model.snapshot import Snapshot
from sidecar.runtime.messages import EndpointStatus
from tests.agent.bench import in_no_time

CHECK = HealthCheck(tcp=TcpHealthCheck(), interval=10.0, interval_jitter_percent=0.0)
OTHER = HealthCheck(http=HttpHealthCheck(path="/"), interval=10.0, interval_jitter_percent=0.0)


def listed(*names: str, checks: tuple[HealthCheck, ...] = (CHECK,), cluster: str = "c") -> Cluster:
    places = tuple(Endpoint(address=f"{name}:1") for name in names)
    return Cluster(name=cluster, endpoints=places, health_checks=checks)


def places(*addresses: str) -> tuple[Endpoint, ...]:
    return tuple(Endpoint(address=address) for address in addresses)


def snapshot(*clusters: Cluster) -> Snapshot:
    return Snapshot(workload=Workload(name="web"), clusters=clusters)


class Ward:
    """Checks whose answers the test gives; addresses go by their first letter."""

    def __init__(self, draw: Callable[[], float] = lambda: 0.0) -> None:
        self.bad: dict[str, str] = {}  # why an endpoint fails, by letter, or by letter and check
        self.takes: dict[str, float] = {}  # seconds until it answers
        self.asked: list[tuple[float, str]] = []
        self.under_way: list[str] = []
        self.most = 0  # at once, to one endpoint
        self.given_up: list[str] = []
        self.told: list[dict[str, bool]] = []
        self.checks = Checks(self.ask, lambda cluster, turned: self.told.append(turned), draw)

    async def ask(self, cluster: ClusterPlan, place: Place, check: HealthCheck) -> str:
        letter = place.address[0]
        name = letter + ("t" if check.tcp is not None else "h")
        self.asked.append((asyncio.get_running_loop().time(), name))
        self.under_way.append(letter)
        self.most = max(self.most, self.under_way.count(letter))
        try:
            await asyncio.sleep(self.takes.get(letter, 0.0))
            if self.bad.get(letter) == "bug":
                raise RuntimeError("oh")
        except asyncio.CancelledError:
            self.given_up.append(letter)
            raise
        finally:
            self.under_way.remove(letter)
        return self.bad.get(letter) or self.bad.get(name, "")

    def follow(self, *clusters: Cluster, **resolved: tuple[str, ...]) -> None:
        tree = snapshot(*clusters)
        found = {name: places(*addresses) for name, addresses in resolved.items()}
        self.checks.follow(tree, Checks.plans(tree, None), found)

    def known(self, cluster: Cluster) -> dict[str, bool]:
        return self.checks.of(snapshot(cluster)).get("c", {})

    def times(self, name: str) -> list[float]:
        return [when for when, asked in self.asked if asked == name]

    async def pass_by(self, seconds: float) -> None:
        """Let time pass; what is due at its end is done."""
        await asyncio.sleep(seconds + 0.001)


@in_no_time
async def test_an_endpoint_turns_after_as_many_answers_as_the_thresholds_say() -> None:
    ward = Ward()
    ward.follow(listed("a", "b"))
    assert ward.known(listed("a", "b")) == {}
    await ward.pass_by(0)
    assert ward.told == [{"a:1": True}, {"b:1": True}]

    ward.bad["a"] = "refused"
    await ward.pass_by(20)
    assert ward.known(listed("a", "b")) == {"a:1": True, "b:1": True}
    await ward.pass_by(10)
    assert ward.known(listed("a", "b")) == {"a:1": False, "b:1": True}
    ward.bad.clear()
    await ward.pass_by(10)
    assert ward.told[2:] == [{"a:1": False}]
    await ward.pass_by(10)
    assert ward.told[2:] == [{"a:1": False}, {"a:1": True}]


@in_no_time
async def test_the_first_questions_are_spread_and_the_next_come_by_chance() -> None:
    count = 40
    draws = iter([i / count for i in range(count)])
    check = HealthCheck(tcp=TcpHealthCheck(), interval=10.0, interval_jitter_percent=20.0)
    ward = Ward(lambda: next(draws, 0.5))
    places = tuple(Endpoint(address=f"{chr(97 + i % 26)}:{i + 1}") for i in range(count))
    ward.follow(Cluster(name="c", endpoints=places, health_checks=(check,)))
    await ward.pass_by(30)

    first = [when for when, _ in ward.asked[:count]]
    assert first == pytest.approx([i * STEP for i in range(count)])
    second = [when for when, _ in ward.asked[count : 2 * count]]
    assert second == pytest.approx([when + 11.0 for when in first])


@in_no_time
async def test_the_next_question_comes_after_the_answer() -> None:
    ward = Ward()
    ward.takes["a"] = 30.0
    ward.follow(listed("a", "b"))
    await ward.pass_by(100)

    assert ward.times("at") == pytest.approx([0, 40, 80])
    assert len(ward.times("bt")) == 11  # which is not kept waiting by it
    assert ward.most == 1


@in_no_time
async def test_two_checks_of_one_endpoint_take_turns_and_both_must_pass() -> None:
    ward = Ward()
    ward.takes["a"] = 4.0
    ward.bad["ah"] = "status 500"
    cluster = listed("a", checks=(CHECK, OTHER, CHECK))
    ward.follow(cluster)
    await ward.pass_by(4)
    assert ward.known(cluster) == {}  # one answer of two
    await ward.pass_by(30)

    assert ward.most == 1
    assert len(ward.times("at")) == len(ward.times("ah")) == 3
    assert ward.told == [{"a:1": False}]
    (status,) = ward.checks.marked([status_of("a")])
    assert (status.health, status.last_failure) == ("unhealthy", "status 500")


def status_of(name: str, cluster: str = "c") -> EndpointStatus:
    return EndpointStatus(cluster, f"{name}:1", 1, 0, 0, 0, 0, 0, True)


@in_no_time
async def test_a_push_keeps_what_is_known_and_asks_those_that_are_gone_no_more() -> None:
    ward = Ward()
    ward.bad.update(a="refused", b="refused")
    ward.follow(listed("a", "b"))
    await ward.pass_by(5)
    ward.asked.clear()
    ward.follow(listed("a", "d"))
    assert ward.known(listed("a", "d")) == {"a:1": False}
    await ward.pass_by(20)

    assert ward.times("at") == pytest.approx([10, 20])  # the schedule goes on as it was
    assert len(ward.times("dt")) == 3
    assert ward.times("bt") == []
    assert ward.told == [{"a:1": False}, {"b:1": False}, {"d:1": True}]


@in_no_time
async def test_another_check_takes_the_state_over_and_its_first_answer_counts_for_an_ill_one() -> (
    None
):
    ward = Ward()
    ward.bad["at"] = "refused"
    ward.follow(listed("a", "b"))
    await ward.pass_by(5)
    ward.told.clear()
    ward.bad["bh"] = "refused"
    ward.takes["a"] = 1.0
    ward.follow(listed("a", "b", checks=(OTHER,)))
    assert ward.known(listed("a", "b")) == {"a:1": False, "b:1": True}
    await ward.pass_by(2)

    assert ward.told == [{"a:1": True}]
    await ward.pass_by(20)
    assert ward.told == [{"a:1": True}, {"b:1": False}]


@in_no_time
async def test_an_endpoint_is_well_again_when_the_check_that_it_fails_is_taken_away() -> None:
    ward = Ward()
    ward.bad["ah"] = "refused"
    ward.follow(listed("a", checks=(CHECK, OTHER)))
    await ward.pass_by(5)
    ward.follow(listed("a", checks=(CHECK,)))

    assert ward.told == [{"a:1": False}, {"a:1": True}]


@in_no_time
async def test_a_question_under_way_is_given_up_with_its_endpoint() -> None:
    ward = Ward()
    ward.takes.update(a=9.0, b=9.0, d=9.0)
    ward.follow(listed("a", "b"), listed("d", cluster="e"))
    await ward.pass_by(1)
    ward.follow(listed("b"))
    await ward.pass_by(0)
    assert sorted(ward.given_up) == ["a", "d"]

    ward.checks.stop()
    await ward.pass_by(0)
    assert ward.under_way == []
    assert ward.told == []


@in_no_time
async def test_the_endpoints_of_a_name_are_what_it_resolves_to() -> None:
    ward = Ward()
    cluster = Cluster(name="c", dns="catalog.internal:1", health_checks=(CHECK,))
    ward.follow(cluster)
    ward.checks.resolved("c", places("a:1", "b:1"))
    ward.checks.resolved("other", places("z:1"))
    await ward.pass_by(5)
    ward.checks.resolved("c", places("b:1", "d:1"))
    await ward.pass_by(5)

    assert ward.known(cluster) == {"b:1": True, "d:1": True}
    assert [name for _, name in ward.asked] == ["at", "bt", "dt", "bt"]
    ward.follow(cluster, c=("b:1",))
    assert ward.known(cluster) == {"b:1": True}


@in_no_time
async def test_a_bug_in_a_check_says_nothing_about_the_endpoint() -> None:
    ward = Ward()
    ward.bad["a"] = "bug"
    ward.follow(listed("a"))
    await ward.pass_by(30)
    assert (len(ward.asked), ward.told) == (4, [])

    ward.bad.clear()
    await ward.pass_by(10)
    assert ward.told == [{"a:1": True}]


@in_no_time
async def test_numbers_and_states_are_told() -> None:
    ward = Ward()
    ward.bad["a"] = "refused"
    ward.takes["b"] = 5.0
    ward.follow(listed("a", "b"), listed("d", cluster="e"))
    await ward.pass_by(1)
    statuses = [status_of("a"), status_of("b"), status_of("x"), status_of("d", "none")]

    assert [(s.health, s.last_failure) for s in ward.checks.marked(statuses)] == [
        ("unhealthy", "refused"),
        ("unknown", ""),
        ("", ""),
        ("", ""),
    ]
    found = {(s.name, *(v for _, v in s.labels)): s.values[0] for s in ward.checks.samples(2)}
    assert found == {
        ("sidecar_health_checks_total", "c", "failure"): 1,
        ("sidecar_health_checks_total", "e", "success"): 1,
        ("sidecar_health_endpoints", "c", "unhealthy"): 1,
        ("sidecar_health_endpoints", "c", "unknown"): 1,
        ("sidecar_health_endpoints", "e", "healthy"): 1,
        ("sidecar_endpoint_healthy", "c", "a:1"): 0,
        ("sidecar_endpoint_healthy", "c", "b:1"): 1,
    }
    ward.follow(listed("a", checks=()))
    assert ward.checks.samples(9) == []


def test_how_endpoints_are_reached_is_checked_before_a_push() -> None:
    tls = ClusterTls(mode="mutual")
    with pytest.raises(ConfigErrors, match=r"clusters\[1\].tls: mutual needs"):
        Checks.plans(snapshot(listed("a"), Cluster(
            name="d", endpoints=(Endpoint(address="a:1"),), tls=tls, health_checks=(CHECK,)
        )), None)  # fmt: skip
    assert Checks.plans(snapshot(listed("a", checks=())), None) == {}
