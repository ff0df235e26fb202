"""Names and files are followed; what fails takes nothing away. Time is the loop's, no name is asked."""

import asyncio
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from sidecar.agent.discovery import FILE_INTERVAL, Discovery, Goal
from sidecar.agent.lookup import Found, LookupFailed, NoSuchName
from sidecar.model.cluster import Cluster
from sidecar.model.discovery import DnsLookup
from sidecar.model.endpoint import Endpoint
from sidecar.model.identity import Workload
from sidecar.model.snapshot import Snapshot
from tests.agent.bench import in_no_time, settle


def snapshot(*clusters: Cluster) -> Snapshot:
    return Snapshot(workload=Workload(name="web"), clusters=clusters)


def named(dns: str = "a.test:80", refresh: float = 5.0, **options: Any) -> Cluster:
    return Cluster(name="c", dns=dns, dns_refresh=refresh, dns_lookup=DnsLookup(**options))


class Town:
    """A discovery whose look-ups the test answers."""

    def __init__(self) -> None:
        self.answers: dict[str, Found | Exception] = {}
        self.asked: list[tuple[float, str]] = []
        self.told: list[tuple[str, list[str]]] = []
        self.discovery = Discovery(self.hear, lambda: self, lambda: 0.0)

    def say(self, target: str, *addresses: str, ttl: float | None = 60.0) -> None:
        self.answers[target] = Found(tuple(Endpoint(address=a) for a in addresses), ttl)

    async def find(self, kind: str, target: str, options: DnsLookup) -> Found:
        self.asked.append((asyncio.get_running_loop().time(), target))
        answer = self.answers[target]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def hear(self, goal: Goal, endpoints: tuple[Endpoint, ...]) -> None:
        self.told.append((goal.cluster, [e.address for e in endpoints]))

    def times(self) -> list[float]:
        return [when for when, _ in self.asked]

    def sample(self, name: str, **labels: str) -> float:
        wanted = tuple(labels.items())
        found = [
            s.values[0] for s in self.discovery.samples() if (s.name, s.labels) == (name, wanted)
        ]
        return found[0] if found else -1.0


@in_no_time
async def test_a_name_is_asked_for_again_when_its_time_is_over() -> None:
    town = Town()
    town.say("a.test:80", "10.0.0.1:80", ttl=10.0)
    town.discovery.follow(snapshot(named()))
    await asyncio.sleep(11)
    town.say("a.test:80", "10.0.0.2:80", ttl=100.0)
    await asyncio.sleep(110)
    assert town.times() == [0.0, 10.0, 20.0, 120.0]
    assert town.told == [("c", ["10.0.0.1:80"]), ("c", ["10.0.0.2:80"])]


@in_no_time
async def test_a_ttl_may_be_left_out_of_account() -> None:
    town = Town()
    town.say("a.test:80", "10.0.0.1:80", ttl=100.0)
    town.discovery.follow(snapshot(named(refresh=3.0, respect_ttl=False)))
    await asyncio.sleep(10)
    assert town.times() == [0.0, 3.0, 6.0, 9.0]


@in_no_time
async def test_who_asks_often_may_ask_sooner_than_a_ttl_is_bounded() -> None:
    town = Town()
    town.say("a.test:80", "10.0.0.1:80", ttl=0.0)
    town.discovery.follow(snapshot(named(refresh=0.5)))
    await asyncio.sleep(1.9)
    assert town.times() == [0.0, 0.5, 1.0, 1.5]


@in_no_time
async def test_a_failing_resolver_takes_nothing_away(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sidecar")
    town = Town()
    town.say("a.test:80", "10.0.0.1:80", ttl=10.0)
    town.discovery.follow(snapshot(named()))
    await settle()
    town.answers["a.test:80"] = LookupFailed("a.test: SERVFAIL", (Endpoint(address="x:1"),))
    await asyncio.sleep(60)
    town.say("a.test:80", "10.0.0.1:80")
    await asyncio.sleep(6)
    assert town.told == [("c", ["10.0.0.1:80"])]
    assert town.times()[:5] == [0.0, 10.0, 10.25, 10.75, 11.75]
    gaps = [b - a for a, b in zip(town.times()[4:-2], town.times()[5:-1], strict=True)]
    assert max(gaps) == 2.5
    texts = [record.getMessage() for record in caplog.records]
    assert texts == [
        "cluster c: a.test: SERVFAIL; the last 1 endpoints stay",
        "a.test:80 of cluster c is found again",
    ]
    updates = "sidecar_discovery_updates_total"
    assert town.sample(updates, cluster="c", result="failure") > 10
    assert town.sample(updates, cluster="c", result="success") == 2
    assert town.sample("sidecar_discovery_endpoints", cluster="c") == 1
    assert town.sample("sidecar_discovery_last_success_timestamp_seconds", cluster="c") > 1e9


@in_no_time
async def test_that_a_name_is_not_there_any_more_is_believed_the_third_time() -> None:
    town = Town()
    town.say("a.test:80", "10.0.0.1:80", ttl=10.0)
    town.discovery.follow(snapshot(named()))
    await settle()
    town.answers["a.test:80"] = NoSuchName("a.test does not exist", 8.0)
    await asyncio.sleep(25.5)
    assert town.times() == [0.0, 10.0, 18.0]
    assert town.told == [("c", ["10.0.0.1:80"])]
    await asyncio.sleep(2)
    assert town.told == [("c", ["10.0.0.1:80"]), ("c", [])]
    assert town.sample("sidecar_discovery_updates_total", cluster="c", result="empty") == 3


@in_no_time
async def test_a_name_that_never_was_there_is_nothing_at_once() -> None:
    town = Town()
    town.answers["a.test:80"] = NoSuchName("a.test does not exist", 8.0)
    tree = snapshot(named())
    town.discovery.follow(tree)
    await town.discovery.wait(1.0)
    assert town.discovery.of(tree) == {"c": ()}
    town.say("a.test:80", "10.0.0.1:80")
    await asyncio.sleep(9)
    assert town.told == [("c", []), ("c", ["10.0.0.1:80"])]


@in_no_time
async def test_half_an_answer_is_better_than_none_but_not_than_a_whole_one() -> None:
    town = Town()
    town.answers["a.test:80"] = LookupFailed("AAAA: SERVFAIL", (Endpoint(address="x:1"),))
    tree = snapshot(named())
    town.discovery.follow(tree)
    await town.discovery.wait(1.0)
    town.say("a.test:80", "x:1", "y:1", ttl=1.0)
    await asyncio.sleep(1)
    town.answers["a.test:80"] = LookupFailed("AAAA: SERVFAIL", (Endpoint(address="x:1"),))
    await asyncio.sleep(5)
    assert town.told == [("c", ["x:1"]), ("c", ["x:1", "y:1"])]


@in_no_time
async def test_while_nobody_could_say_nothing_is_said_to_be_known() -> None:
    # Workers that outlived an agent know better than the next agent while DNS is away.
    town = Town()
    town.answers["a.test:80"] = LookupFailed("no answer")
    tree = snapshot(named())
    town.discovery.follow(tree)
    await town.discovery.wait(1.0)
    assert asyncio.get_running_loop().time() < 1.0
    assert (town.discovery.of(tree), town.told) == ({}, [])


@in_no_time
async def test_a_push_does_not_wait_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    town = Town()
    never: asyncio.Future[Found] = asyncio.get_running_loop().create_future()

    class Slow:
        async def find(self, kind: str, target: str, options: DnsLookup) -> Found:
            return await never

    discovery = Discovery(town.hear, Slow)
    discovery.follow(snapshot(named()))
    await discovery.wait(3.0)
    assert "not every name of a cluster is resolved yet" in caplog.text
    discovery.keep_only(None)
    await settle()
    assert never.cancelled()


@in_no_time
async def test_what_no_config_names_any_more_is_forgotten() -> None:
    town = Town()
    town.say("a.test:80", "10.0.0.1:80", ttl=10.0)
    town.say("b.test:80", "10.0.0.2:80", ttl=10.0)
    first, second = snapshot(named()), snapshot(named("b.test:80"))
    town.discovery.follow(first)
    await settle()
    town.discovery.follow(second)
    await settle()
    assert town.discovery.of(first) == {"c": (Endpoint(address="10.0.0.1:80"),)}
    town.discovery.keep_only(second)
    await asyncio.sleep(30)
    assert [target for _, target in town.asked].count("a.test:80") == 1
    assert town.discovery.of(first) == {}
    town.discovery.keep_only(None)
    assert town.discovery.samples() == []


# Files:


class Desk:
    """A file of targets that the test writes."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "targets.json"
        self.town = Town()
        self.tree = snapshot(Cluster(name="c", file_sd=str(self.path)))

    def put(self, text: str) -> None:
        """Put another file in its place."""
        spare = self.path.with_suffix(".new")
        spare.write_text(text)
        os.rename(spare, self.path)

    def write(self, text: str) -> None:
        """Write into it as it is."""
        self.path.write_text(text)

    async def open(self) -> None:
        self.town.discovery.follow(self.tree)
        await self.town.discovery.wait(5.0)

    async def look(self, times: int = 1) -> list[tuple[str, list[str]]]:
        """Return what was told after so many looks."""
        await asyncio.sleep(FILE_INTERVAL * times)
        await settle()
        told, self.town.told = self.town.told, []
        return told


@in_no_time
async def test_a_file_put_in_place_of_another_is_read_at_once(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.put('[{"targets": ["a:1"]}]')
    await desk.open()
    assert desk.town.discovery.of(desk.tree) == {"c": (Endpoint(address="a:1"),)}
    desk.put('[{"targets": ["a:1", "b:1"]}]')
    assert await desk.look() == [("c", ["a:1"]), ("c", ["a:1", "b:1"])]
    assert await desk.look(5) == []
    assert desk.town.asked == []


@in_no_time
async def test_a_file_that_is_written_to_is_read_when_it_rests(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.put('[{"targets": ["a:1", "b:1"]}]')
    await desk.open()
    assert len(await desk.look()) == 1
    desk.write('[{"targets": ["a:1"]}]')
    assert await desk.look() == []
    desk.write('[{"targets": ["a:1", "longer:1"]}]')
    assert await desk.look() == []
    assert await desk.look() == [("c", ["a:1", "longer:1"])]


@in_no_time
async def test_a_bad_file_leaves_the_last_good_endpoints_and_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    desk = Desk(tmp_path)
    desk.put('[{"targets": ["a:1"]}]')
    await desk.open()
    desk.put('[\n {"targets": ["b:x"]}\n]')
    assert await desk.look(4) == [("c", ["a:1"])]
    desk.path.unlink()
    assert await desk.look(4) == []
    texts = [record.getMessage() for record in caplog.records]
    assert len(texts) == 2
    assert texts[0].startswith(f"cluster c: {desk.path}:2: [0].targets[0]: expected host:port")
    assert texts[0].endswith("; the last 1 endpoints stay")
    assert "cannot be read: No such file" in texts[1]
    desk.put('[{"targets": ["b:1"]}]')
    assert await desk.look() == [("c", ["b:1"])]


@in_no_time
async def test_a_file_that_is_not_there_yet_is_waited_for_without_holding_anything_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    desk = Desk(tmp_path)
    await desk.open()
    assert desk.town.discovery.of(desk.tree) == {}
    assert caplog.messages[0].endswith("it has no endpoints")
    desk.put("- targets: [a:1]")
    assert await desk.look(2) == [("c", ["a:1"])]
