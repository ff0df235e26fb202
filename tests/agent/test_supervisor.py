"""Who is started, replaced, adopted and ended, and that nobody is taken for another."""

import asyncio
import signal

import pytest

from sidecar.agent.supervisor import BACKOFF, PATIENCE, QUICK_DEATH, SILENCE, UNANSWERED, Supervisor
from sidecar.agent.worker import LINGER, Watch, Worker
from sidecar.runtime.messages import DUMP, Ack
from tests.agent.bench import Bench, Double, config, in_no_time, settle

PLAN = config("a")


def living(doubles: list[Double]) -> int:
    return sum(not double.ended.is_set() for double in doubles)


async def orphan(number: int, index: int, release: str | None = None) -> tuple[Double, Worker]:
    """A worker that waited for an agent, and has said hello to this one."""
    double = Double(number, index=index)
    worker = Worker(index, double, double.ours, Watch(), is_ours=False)
    double.hello(release) if release else double.hello()
    await worker.settled.wait()
    return double, worker


def worker_of(supervisor: Supervisor, place: int = 0) -> Worker:
    worker = supervisor.places[place].worker
    assert worker is not None
    return worker


def restarts(bench: Bench) -> dict[str, int]:
    return {reason: n for reason, n in bench.supervisor.restarts.items() if n}


# Adoption:


@in_no_time
async def test_an_orphan_takes_its_place_and_nothing_is_started_there() -> None:
    bench = Bench()
    _, worker = await orphan(1, index=1)
    bench.supervisor.adopt([worker], 2, 30.0)
    bench.supervisor.fill()

    assert worker_of(bench.supervisor, 1) is worker
    assert [double.index for double in bench.started] == [0]


@in_no_time
async def test_one_of_another_release_drains_and_is_never_taken_for_its_successor() -> None:
    bench = Bench()
    old, worker = await orphan(1, index=0, release="0.0.0")
    bench.supervisor.adopt([worker], 1, 30.0)
    bench.supervisor.fill()
    new = await bench.until_started(1)
    new.hello()
    push = asyncio.ensure_future(bench.push(PLAN))  # noqa: TID251 - awaited below
    await new.pushed()
    new.count(5.0)
    old.count(7.0)
    old.say(Ack(new.pushes()[-1].serial, PLAN.version))  # whatever it says
    await settle()

    assert not push.done()
    assert old.pushes() == []
    assert old.drains() == [30.0]
    assert worker_of(bench.supervisor).samples[0].values == (5.0,)

    new.ack()
    await push
    old.die()
    await settle()

    assert bench.gone[0][0].values == (7.0,)
    assert bench.supervisor.everyone() == [worker_of(bench.supervisor)]
    assert bench.supervisor.serving() == 1
    assert (len(bench.started), restarts(bench)) == (1, {})

    new.die()  # and what the old one said about leaving does not keep this one from replacement
    assert (await bench.until_started(2)).index == 0


@in_no_time
async def test_orphans_that_find_no_place_drain() -> None:
    bench = Bench()
    met = [await orphan(n, index=n) for n in range(3)]
    bench.supervisor.adopt([worker for _, worker in met], 2, 12.0)
    bench.supervisor.fill()
    await settle()

    assert [double.drains() for double, _ in met] == [[], [], [12.0]]
    assert bench.started == []


@in_no_time
async def test_two_orphans_of_one_index_get_a_place_each() -> None:
    bench = Bench()
    met = [await orphan(n, index=0) for n in range(2)]
    bench.supervisor.adopt([worker for _, worker in met], 2, 12.0)

    assert [worker.index for _, worker in met] == [0, 1]
    push = asyncio.ensure_future(bench.push(PLAN))  # noqa: TID251 - awaited below
    for double, _ in met:
        await double.pushed()
        double.ack()
    await push
    assert bench.supervisor.serving() == 2


@in_no_time
async def test_an_orphan_that_dies_while_others_are_met_leaves_one_start() -> None:
    bench = Bench()
    double, worker = await orphan(1, index=0)
    double.die()
    await worker.parted.wait()
    bench.supervisor.adopt([worker], 1, 30.0)
    bench.supervisor.fill()
    await settle()

    assert len(bench.started) == 1
    assert restarts(bench) == {}


@in_no_time
async def test_an_orphan_that_dies_right_after_its_adoption_is_replaced_once() -> None:
    bench = Bench()
    double, worker = await orphan(1, index=0)
    bench.supervisor.adopt([worker], 1, 30.0)
    bench.supervisor.fill()
    double.die()
    await worker.parted.wait()
    bench.supervisor.fill()  # a place that waits for its next worker is not empty
    await settle()

    assert len(bench.started) == 1
    assert restarts(bench) == {"ended": 1}


@in_no_time
async def test_a_start_given_up_ends_the_new_and_leaves_the_old_alone() -> None:
    bench = Bench()
    old, worker = await orphan(1, index=0)
    bench.supervisor.adopt([worker], 2, 30.0)
    bench.supervisor.fill()
    await bench.supervisor.abandon()
    await settle()

    assert living(bench.started) == 0
    assert (old.signals, old.drains(), old.is_lost) == ([], [], True)
    assert len(bench.started) == 1


# Replacement:


@in_no_time
async def test_nobody_is_started_before_the_one_before_has_ended() -> None:
    bench = Bench()
    (first,) = await bench.run(PLAN)
    first.is_stubborn = True
    first.channel.close()  # it has lost its agent, and lives on
    await asyncio.sleep(10 * LINGER)

    assert first.signals == [signal.SIGKILL]
    assert len(bench.started) == 1
    assert bench.supervisor.serving() == 0

    first.die()
    await bench.until_started(2)
    assert living(bench.started) == 1
    assert restarts(bench) == {"ended": 1}


@in_no_time
async def test_what_one_said_before_it_ended_is_heard() -> None:
    bench = Bench()
    (first,) = await bench.run(PLAN)
    first.count(3.0)
    first.die()
    await bench.until_started(2)

    assert bench.gone[0][0].values == (3.0,)


@in_no_time
async def test_a_crash_loop_slows_down_and_is_forgotten_after_a_long_life() -> None:
    bench = Bench()
    await bench.start()
    for count in range(1, 12):
        (await bench.until_started(count)).die()
    await bench.until_started(12)
    pauses = [b - a for a, b in zip(bench.starts, bench.starts[1:], strict=False)]

    assert pauses == pytest.approx([*BACKOFF[1:], *[BACKOFF[-1]] * 3], abs=0.01)
    assert bench.supervisor.places[0].restarts == 11
    assert restarts(bench) == {"ended": 11}

    await asyncio.sleep(QUICK_DEATH)
    bench.started[-1].die()
    await settle()
    assert len(bench.started) == 13


@in_no_time
async def test_a_start_that_the_system_refuses_is_tried_again() -> None:
    bench = Bench()
    bench.refusals = 3
    bench.supervisor.adopt((), 1, 30.0)
    bench.supervisor.fill()

    assert bench.supervisor.places[0].state == "backing off"
    await bench.until_started(1)
    assert len(bench.starts) == 4


# Silence:


@in_no_time
@pytest.mark.parametrize(
    ("state", "ticks"), [("starting", PATIENCE), ("taking a plan", PATIENCE), ("running", SILENCE)]
)
async def test_who_says_nothing_for_too_long_is_replaced(state: str, ticks: int) -> None:
    bench = Bench()
    bench.supervisor.adopt((), 1, 30.0)
    bench.supervisor.fill()
    first = await bench.until_started(1)
    first.is_stubborn = True
    push = asyncio.ensure_future(bench.push(PLAN))  # noqa: TID251 - cancelled below
    if state != "starting":
        first.hello()
        await first.pushed()
    if state == "running":
        first.ack()
    await settle()
    for _ in range(ticks - 1):
        bench.supervisor.tick()
    assert first.signals == []
    bench.supervisor.tick()
    bench.supervisor.tick()
    await asyncio.sleep(LINGER)

    assert first.signals == [DUMP, signal.SIGKILL]
    first.die()
    await bench.until_started(2)
    assert restarts(bench) == {"stuck": 1}
    push.cancel()


@in_no_time
async def test_who_reports_is_left_alone() -> None:
    bench = Bench()
    (first,) = await bench.run(PLAN)
    for _ in range(3 * SILENCE):
        bench.supervisor.tick()
        first.count(1.0)
        await settle()

    assert first.signals == []
    assert bench.supervisor.serving() == 1


@in_no_time
async def test_who_reports_but_never_answers_a_push_is_replaced() -> None:
    bench = Bench()
    (first,) = await bench.run(PLAN)
    first.die()
    second = await bench.until_started(2)
    second.hello()
    await second.pushed()
    for _ in range(UNANSWERED):
        bench.supervisor.tick()
        second.count(1.0)
        await settle()

    assert second.signals[:1] == [DUMP]
    await bench.until_started(3)
    assert restarts(bench) == {"ended": 1, "stuck": 1}


@in_no_time
async def test_a_silent_worker_does_not_count_as_serving() -> None:
    bench = Bench()
    (first,) = await bench.run(PLAN)
    push = asyncio.ensure_future(bench.push(config("b")))  # noqa: TID251 - cancelled below
    await first.pushed(2)
    assert bench.supervisor.serving() == 1
    for _ in range(SILENCE):
        bench.supervisor.tick()

    assert bench.supervisor.serving() == 0
    assert first.signals == []  # it may take its time over the push
    push.cancel()


# The end:


@in_no_time
async def test_a_drain_ends_all_and_replaces_nobody() -> None:
    bench = Bench(places=2)
    first, second = await bench.run(PLAN)
    bench.supervisor.drain(5.0)
    await settle()
    assert first.drains() == second.drains() == [5.0]
    first.die()
    second.is_stubborn = True
    await bench.supervisor.wait(6.0)

    assert signal.SIGKILL in second.signals
    assert len(bench.started) == 2
    assert restarts(bench) == {}
