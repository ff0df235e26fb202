"""A config comes into force in every worker or in none."""

import asyncio
import os
from pathlib import Path

import pytest

from sidecar.agent.config import Config
from sidecar.agent.push import ANSWER_TIMEOUT
from sidecar.errors import OperationError
from sidecar.model.identity import Secret
from sidecar.runtime.messages import Ack, Apply, Secrets
from tests.agent.bench import Bench, config, in_no_time, settle

A, B = config("a"), config("b")


def begin(bench: Bench, plan: Config = B) -> "asyncio.Task[None]":
    return asyncio.ensure_future(bench.push(plan))  # noqa: TID251 - awaited by the test


@in_no_time
async def test_a_push_waits_for_every_worker() -> None:
    bench = Bench(places=2)
    first, second = await bench.run(A)
    push = begin(bench)
    await first.pushed(2)
    first.ack()
    await settle()
    assert not push.done()
    assert bench.pusher.running == A

    second.ack()
    await push
    assert bench.pusher.running == B


@in_no_time
async def test_what_one_worker_refuses_is_taken_back_from_all() -> None:
    bench = Bench(places=2)
    first, second = await bench.run(A)
    push = begin(bench)
    await first.pushed(2)
    await second.pushed(2)
    first.ack()
    second.nack("no room")
    for double in (first, second):
        await double.pushed(3)
        double.ack()
    with pytest.raises(OperationError, match="no room"):
        await push

    assert first.versions() == second.versions() == [A.version, B.version, A.version]
    assert bench.pusher.running == bench.pusher.target == A
    assert first.signals == second.signals == []

    second.die()
    third = await bench.until_started(3)
    third.hello()
    await third.pushed()
    assert third.versions() == [A.version]


@in_no_time
async def test_who_does_not_answer_is_late_for_all() -> None:
    bench = Bench(places=2)
    first, second = await bench.run(A)
    push = begin(bench)
    await first.pushed(2)
    first.ack()
    await first.pushed(3)
    assert asyncio.get_running_loop().time() == pytest.approx(ANSWER_TIMEOUT, abs=0.1)
    first.ack()
    second.say(Ack(second.pushes()[1].serial, B.version))  # too late: this is not waited for
    with pytest.raises(OperationError, match="did not answer in 30 s"):
        await push

    assert second.ended.is_set()  # nor did it go back
    assert not first.ended.is_set()
    assert bench.pusher.running == A
    await bench.until_started(3)
    assert bench.supervisor.restarts["refused"] == 1


@in_no_time
async def test_a_worker_that_dies_in_a_push_is_waited_for_in_its_successor() -> None:
    bench = Bench(places=2)
    first, second = await bench.run(A)
    push = begin(bench)
    await second.pushed(2)
    first.ack()
    second.die()
    third = await bench.until_started(3)
    await settle()
    assert not push.done()

    third.hello()
    await third.pushed()
    third.ack()
    await push
    assert third.versions() == [B.version]
    assert bench.pusher.running == B


@in_no_time
async def test_a_plan_that_workers_die_of_is_taken_back() -> None:
    bench = Bench(places=2)
    first, second = await bench.run(A)
    push = begin(bench)
    await first.pushed(2)
    first.ack()
    await second.pushed(2)
    second.die()
    third = await bench.until_started(3)
    third.hello()
    await third.pushed()
    third.die()
    await first.pushed(3)
    first.ack()
    with pytest.raises(OperationError, match="workers end when they are given it"):
        await push

    fourth = await bench.until_started(4)
    fourth.hello()
    await fourth.pushed()
    assert fourth.versions() == [A.version]


@in_no_time
async def test_the_mend_of_a_crash_loop_is_not_blamed_for_it() -> None:
    bench = Bench()
    (first,) = await bench.run(A)
    first.die()
    for count in (2, 3):
        double = await bench.until_started(count)
        double.hello()
        await double.pushed()
        double.die()
    push = begin(bench)
    fourth = await bench.until_started(4)
    fourth.hello()
    await fourth.pushed()
    fourth.ack()
    await push

    assert fourth.versions() == [B.version]


@in_no_time
async def test_a_death_before_the_push_was_sent_is_not_blamed_on_it() -> None:
    bench = Bench()
    (first,) = await bench.run(A)
    push = begin(bench)
    first.die()
    for count in (2, 3, 4):
        (await bench.until_started(count)).die()  # without a hello
    last = await bench.until_started(5)
    last.hello()
    await last.pushed()
    last.ack()
    await push

    assert bench.pusher.running == B


@in_no_time
async def test_the_first_push_fails_when_workers_die_at_once() -> None:
    bench = Bench()
    await bench.start()
    push = begin(bench, A)
    for count in (1, 2):
        double = await bench.until_started(count)
        double.hello()
        await double.pushed()
        double.die()
    with pytest.raises(OperationError):
        await push

    assert bench.pusher.running is None
    assert bench.supervisor.serving() == 0


@in_no_time
async def test_a_newcomer_that_refuses_what_runs_is_replaced() -> None:
    bench = Bench()
    (first,) = await bench.run(A)
    first.die()
    second = await bench.until_started(2)
    second.hello()
    await second.pushed()
    second.nack("no room")
    await bench.until_started(3)

    assert second.ended.is_set()
    assert bench.supervisor.restarts["refused"] == 1


@in_no_time
async def test_an_answer_to_a_push_given_up_is_none_to_the_next() -> None:
    bench = Bench()
    (first,) = await bench.run(A)
    stale = first.pushes()[-1].serial
    push = begin(bench)
    await first.pushed(2)
    first.say(Ack(stale, A.version))
    await settle()
    assert not push.done()

    first.ack()
    await push


@in_no_time
async def test_only_key_material_travels_when_only_it_is_new() -> None:
    bench = Bench()
    plan = config("a", secret=Secret(certificate=b"1", key=b"2", roots=b"3"))
    renewed = plan._replace(secret=Secret(certificate=b"4", key=b"5", roots=b"6"))
    (first,) = await bench.run(plan)
    push = asyncio.ensure_future(bench.push(renewed))  # noqa: TID251 - awaited below
    await first.pushed(2)
    first.nack("not this one")
    await first.pushed(3)
    first.ack()
    with pytest.raises(OperationError):
        await push

    kinds = [type(push) for push in first.pushes()]
    assert kinds == [Apply, Secrets, Apply]  # after a refusal, whole: who knows what it runs
    assert first.pushes()[2].secret == plan.secret


@in_no_time
async def test_a_socket_is_sent_once_and_again_after_a_refusal(tmp_path: Path) -> None:
    bench = Bench()
    one, two = (f"unix:{tmp_path}/{name}" for name in "12")
    plans = [config("a", one), config("b", two)]
    bench.listening.bind([one, two])
    (first,) = await bench.run(plans[0])
    for take in (first.nack, None):
        push = asyncio.ensure_future(bench.push(plans[1]))  # noqa: TID251 - awaited below
        before = len(first.pushes())
        await first.pushed(before + 1)
        if take is None:
            first.ack()
            await push
            break
        take("no")
        await first.pushed(before + 2)
        first.ack()
        with pytest.raises(OperationError):
            await push
    bench.listening.close()

    sent = [push.addresses for push in first.pushes() if isinstance(push, Apply)]
    assert sent == [(one,), (two,), (), (two,)]
    assert os.listdir(tmp_path) == []  # the paths are gone with the sockets


@in_no_time
async def test_who_has_not_answered_is_sent_every_socket_again(tmp_path: Path) -> None:
    bench = Bench()
    one, two = (f"unix:{tmp_path}/{name}" for name in "12")
    bench.listening.bind([one, two])
    (first,) = await bench.run(config("a", one))
    push = asyncio.ensure_future(bench.push(config("b", one, two)))  # noqa: TID251 - awaited below
    await first.pushed(3)
    first.ack()
    with pytest.raises(OperationError):
        await push
    bench.listening.close()

    sent = [push.addresses for push in first.pushes() if isinstance(push, Apply)]
    assert sent == [(one,), (two,), (one,)]  # did it take the second push, or not?


@in_no_time
async def test_a_newcomer_is_given_what_health_checks_found() -> None:
    bench = Bench()
    bench.health["c"] = {"127.0.0.1:1": False}
    (first,) = await bench.run(A)
    first.die()
    second = await bench.until_started(2)
    second.hello()
    await second.pushed()

    given = [push.health for push in (*first.pushes(), *second.pushes()) if isinstance(push, Apply)]
    assert given == [bench.health, bench.health]
