"""Who keeps shared buckets, which worker is told what, and a store that comes and goes."""

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from redis.exceptions import ReadOnlyError

from sidecar.agent import quota
from sidecar.agent.keeper import Answer, Own
from sidecar.agent.quota import Quota, check_installed
from sidecar.agent.redis_store import BACKOFF_MAX, MOST_ASKS, PING, RedisStore
from sidecar.agent.worker import Watch, Worker
from sidecar.errors import ConfigErrors
from sidecar.model.identity import Workload
from sidecar.model.snapshot import Snapshot
from sidecar.model.store import Redis, Store
from sidecar.runtime.messages import Asks, Grants, Sample
from sidecar.traffic.lease import Ask, Granted
from sidecar.traffic.rate import SWEEP, Grant
from tests.agent.bench import Bench, Double, config, in_no_time, settle

FAR = Store(name="far", redis=Redis(url="redis://far"))


def ask(number: int, wanted: int = 1, *, store: str = "", rule: str = "r", key: str = "") -> Ask:
    return Ask(number, store, rule, key, 0.1, 3, wanted)


def snapshot(*stores: Store) -> Snapshot:
    return Snapshot(workload=Workload(name="web"), stores=stores)


def granted(answers: Sequence[Granted]) -> list[tuple[int, int | None]]:
    return [(a.number, a.grant.granted if a.grant is not None else None) for a in answers]


# In the agent's own memory:


def test_workers_take_from_one_bucket() -> None:
    now, told = [5.0], list[Granted]()
    own = Own(lambda: now[0])
    own.ask([ask(1, 2), ask(2, 2)], told.extend)
    own.ask([ask(3), ask(4, key="k"), ask(5, rule="s")], told.extend)
    now[0] += 0.1
    own.ask([ask(6, 2)], told.extend)
    assert granted(told) == [(1, 2), (2, 1), (3, 0), (4, 1), (5, 1), (6, 1)]
    grant = told[2].grant
    assert grant is not None
    assert grant.reset == pytest.approx(0.3)
    assert grant.retry_after == pytest.approx(0.1)
    assert own.samples() == []
    own.stop()


def test_what_is_full_again_is_forgotten() -> None:
    now, told = [5.0], list[Granted]()
    own = Own(lambda: now[0])
    own.ask([ask(1, 3)], told.extend)
    now[0] += SWEEP
    own.ask([ask(2, 0, rule="s")], told.extend)
    assert len(own._tables) == 1
    own.ask([ask(3, 3)], told.extend)
    now[0] += SWEEP / 10
    own.ask([], told.extend)
    now[0] += SWEEP * 0.1
    assert granted(told)[-1] == (3, 3)


# Which keeper:


class Far:
    """A keeper that answers when the test says so."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.asked: list[tuple[list[Ask], Answer]] = []
        self.is_stopped = False

    def ask(self, asks: list[Ask], answer: Answer) -> None:
        self.asked.append((asks, answer))

    def samples(self) -> list[Sample]:
        return [Sample(self.store.name, (), (1.0,))]

    def stop(self) -> None:
        self.is_stopped = True


def grants(double: Double) -> list[tuple[int, int | None]]:
    return [pair for m in double.heard if isinstance(m, Grants) for pair in granted(m.answers)]


@in_no_time
async def test_a_worker_is_told_what_it_asked_for_also_while_it_drains() -> None:
    far: list[Far] = []

    def connect(store: Store) -> Far:
        far.append(Far(store))
        return far[-1]

    shared = Quota(connect, lambda: 5.0)
    shared.follow(snapshot(FAR))
    double = Double(1)

    class Told(Watch):
        def asked(self, worker: Worker, asks: Asks) -> None:
            shared.asked(worker, asks)

    worker = Worker(0, double, double.ours, Told(), is_ours=True)
    double.hello()
    await worker.settled.wait()
    back = ask(0, -1)  # wants no answer
    double.say(Asks((ask(1), ask(2, store="far"), back, ask(3, store="none"))))
    await settle()
    assert sorted(grants(double)) == [(1, 1), (3, None)]
    worker.drain(5.0)
    ((asks, answer),) = far[0].asked
    assert asks == [ask(2, store="far")]
    answer([Granted(2, Grant(1, 0.0, 0.0))])
    await settle()
    assert grants(double)[-1] == (2, 1)
    assert [sample.name for sample in shared.samples()] == ["far"]
    double.die()


@in_no_time
async def test_an_orphan_that_asks_before_anybody_leads_it_is_told_that_nobody_knows() -> None:
    double = Double(1)
    worker = Worker(0, double, double.ours, Watch(), is_ours=False)
    double.hello()
    await worker.settled.wait()
    double.say(Asks((ask(1), ask(0, -1))))
    await settle()
    assert grants(double) == [(1, None)]


@in_no_time
async def test_questions_pass_through_the_supervisor() -> None:
    bench = Bench()
    (double,) = await bench.run(config("a"))
    double.say(Asks((ask(1),)))
    await settle()
    assert bench.asked == [(ask(1),)]


@in_no_time
async def test_stores_that_did_not_change_are_not_touched() -> None:
    made: list[Far] = []

    def connect(store: Store) -> Far:
        made.append(Far(store))
        return made[-1]

    shared = Quota(connect)
    other = Store(name="other", redis=Redis(url="redis://other"))
    shared.follow(snapshot(FAR, other))
    shared.follow(snapshot(FAR, Store(name="other", redis=Redis(url="redis://elsewhere"))))
    assert [far.store.name for far in made] == ["far", "other", "other"]
    assert [far.is_stopped for far in made] == [False, True, False]
    shared.follow(snapshot())
    assert all(far.is_stopped for far in made)
    shared.follow(snapshot(FAR))
    shared.stop()
    assert made[-1].is_stopped


def test_a_package_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    check_installed(snapshot(FAR))
    monkeypatch.setattr(quota, "find_spec", lambda name: None)
    check_installed(snapshot())
    with pytest.raises(ConfigErrors, match=r"pip install 'sidecar\[redis\]'"):
        check_installed(snapshot(FAR))


# A store that comes and goes:


class Server:
    """A Redis, and the one connection to it; every bucket grants all that is wanted."""

    def __init__(self, takes: float = 0.001) -> None:
        self.takes = takes  # seconds for an answer
        self.error: Exception | None = None
        self.refuses: Exception | None = None
        self.tries: list[float] = []
        self.calls: list[list[str]] = []
        self.numbers: list[list[str]] = []
        self.pings = 0
        self.open = 0

    async def connect(self) -> "Server":
        self.tries.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0.001)
        if self.refuses is not None:
            raise self.refuses
        self.open += 1
        return self

    async def call(self, keys: Sequence[str], numbers: Sequence[str]) -> list[int]:
        self.calls.append(list(keys))
        self.numbers.append(list(numbers))
        await self._answer()
        return [n for i in range(len(keys)) for n in (int(numbers[3 * i + 2]), 2_000_000, 500_000)]

    async def ping(self) -> None:
        self.pings += 1
        await self._answer()

    async def close(self) -> None:
        self.open -= 1

    async def _answer(self) -> None:
        await asyncio.sleep(self.takes)
        if self.error is not None:
            raise self.error


class Rig:
    def __init__(self) -> None:
        self.server = Server()
        self.store = RedisStore(FAR, self.server.connect, lambda: 1.0)
        self.told: list[Granted] = []

    def ask(self, *asks: Ask) -> None:
        self.store.ask(list(asks), self.told.extend)

    def value(self, name: str) -> float:
        found = {s.name: s.values[0] for s in self.store.samples()}
        return found[f"sidecar_quota_store_{name}"]

    async def until(self, is_up: float) -> None:
        for _ in range(1000):
            if self.value("up") == is_up:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"the store's state stayed other than {is_up}")


@in_no_time
async def test_what_is_asked_while_a_call_is_under_way_goes_with_the_next() -> None:
    rig = Rig()
    await rig.until(is_up=1)
    rig.ask(ask(1, key="a"))
    await asyncio.sleep(0.0005)
    rig.ask(ask(2, 4, key="b"), ask(3))
    rig.ask(ask(4, -2, key="a"))
    await asyncio.sleep(0.01)
    assert rig.server.calls == [
        ["sidecar:quota:r:a"],
        ["sidecar:quota:r:b", "sidecar:quota:r", "sidecar:quota:r:a"],
    ]
    assert rig.server.numbers[1][:6] == ["100000.000000", "3", "4", "100000.000000", "3", "1"]
    assert granted(rig.told) == [(1, 1), (2, 4), (3, 1), (4, -2)]
    assert rig.told[0].grant == Grant(1, 2.0, 0.5)
    assert (rig.value("asks_total"), rig.value("round_trips_total")) == (4, 2)
    rig.store.stop()


@in_no_time
async def test_one_call_does_not_keep_the_server_for_long() -> None:
    rig = Rig()
    await rig.until(is_up=1)
    rig.ask(*[ask(n) for n in range(MOST_ASKS + 1)])
    await asyncio.sleep(0.01)
    assert [len(keys) for keys in rig.server.calls] == [MOST_ASKS, 1]
    assert len(rig.told) == MOST_ASKS + 1
    rig.store.stop()


@pytest.mark.parametrize(
    "error", [ConnectionError("gone"), ReadOnlyError("a replica"), KeyError("x")]
)
def test_what_fails_is_told_at_once_and_tried_again(error: Exception) -> None:
    @in_no_time
    async def run() -> None:
        rig = Rig()
        await rig.until(is_up=1)
        rig.server.error = error
        rig.ask(ask(1))
        await asyncio.sleep(0.0005)
        rig.ask(ask(2))
        await rig.until(is_up=0)
        rig.ask(ask(3))
        assert granted(rig.told) == [(1, None), (2, None), (3, None)]
        assert len(rig.server.calls) == 1
        rig.server.error = None
        await rig.until(is_up=1)
        rig.ask(ask(4))
        await asyncio.sleep(0.01)
        assert granted(rig.told)[-1] == (4, 1)
        assert rig.server.open == 1
        rig.store.stop()

    run()


@in_no_time
async def test_an_answer_that_does_not_come_is_not_waited_for() -> None:
    rig = Rig()
    await rig.until(is_up=1)
    rig.server.takes = 60.0
    rig.ask(ask(1))
    await asyncio.sleep(FAR.redis.timeout + 0.01)
    assert granted(rig.told) == [(1, None)]
    assert rig.value("failures_total") == 1
    rig.store.stop()


@in_no_time
async def test_that_it_is_gone_is_found_out_while_nobody_asks() -> None:
    rig = Rig()
    await rig.until(is_up=1)
    await asyncio.sleep(2.5 * PING)
    assert rig.server.pings == 2
    rig.server.error = ConnectionError("gone")
    rig.server.refuses = ConnectionError("refused")
    await asyncio.sleep(PING)
    assert rig.value("up") == 0
    rig.store.stop()


@in_no_time
async def test_one_that_is_away_is_tried_ever_more_rarely() -> None:
    rig = Rig()
    rig.server.refuses = ConnectionRefusedError("refused")
    await asyncio.sleep(20.0)
    tries = rig.server.tries
    gaps = [after - before for before, after in pairwise(tries)]
    assert gaps[0] < 0.2
    assert gaps[-1] == pytest.approx(BACKOFF_MAX, abs=0.01)
    assert len(tries) < 30
    rig.ask(*[ask(n) for n in range(1000)])
    assert len(rig.told) == 1000
    rig.store.stop()


@in_no_time
async def test_who_waits_when_a_store_is_removed_is_told() -> None:
    rig = Rig()
    await rig.until(is_up=1)
    rig.ask(ask(1))
    rig.store.stop()
    await asyncio.sleep(0.01)
    assert granted(rig.told) == [(1, None)]
    assert rig.server.open == 0


def test_a_password_file_is_read_to_its_first_line(tmp_path: Path) -> None:
    from sidecar.agent.redis_store import _first_line  # noqa: PLC0415

    (tmp_path / "p").write_text("s3cret \r\nnot this\n")
    assert _first_line(str(tmp_path / "p")) == "s3cret "
