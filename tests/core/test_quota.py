"""Shared quota: what requests wait for, what is asked, and that nobody waits for ever."""

from collections.abc import Callable
from typing import Any

import pytest

from sidecar.core.api import HttpFilter
from sidecar.core.exchange import Exchange
from sidecar.core.quota import LOST, PROBE, Desk, Share
from sidecar.traffic.lease import KEPT, Granted
from sidecar.traffic.rate import SWEEP, Grant, Rate
from tests.core.asking import HTTP1, HTTP2, PROTOCOLS, Asked, ask
from tests.core.harness import GET, Harness
from tests.core.keeper import Keeper

Make = Callable[..., Harness]

BOTH = pytest.mark.parametrize("protocol", PROTOCOLS)
OWN = {"status": 200, "body": "ok"}


def limited(make: Make, by: tuple[str, ...] = (), /, **shared: Any) -> tuple[Harness, Keeper]:
    """A route that answers by itself, 1000 requests in a second."""
    return ruled(make, {"by": list(by), "shared": {"on_failure": "closed", **shared}})


def ruled(make: Make, *rules: dict[str, Any]) -> tuple[Harness, Keeper]:
    limits = [{"requests": 1000, "name": f"r{index}", **rule} for index, rule in enumerate(rules)]
    harness = make(route={"cluster": "", "respond": OWN, "rate_limits": limits})
    return harness, Keeper(harness)


def share_of(harness: Harness) -> Share:
    (share,) = [kept for kept in harness.book.kept.values() if isinstance(kept, Share)]
    return share


def busy(harness: Harness, keeper: Keeper) -> None:
    """Have so many requests come that some are held in advance."""
    for _ in range(60):
        ask(harness)
        keeper.grant()
        harness.advance(0.001)
    assert held(harness) > 0


def held(harness: Harness) -> int:
    return sum(h.lease.held for h in share_of(harness)._held.values())


@BOTH
def test_a_request_waits_for_the_answer(make: Make, protocol: str) -> None:
    harness, keeper = limited(make)
    asked = ask(harness, protocol)
    assert not asked.is_answered
    (question,) = keeper.asked
    assert question[1:] == ("", "127.0.0.1:15001|all#0", "", 0.001, 1000, 1)
    keeper.grant()
    assert asked.answer().status == 200


@BOTH
def test_what_is_not_granted_is_refused_and_nobody_asks_until_there_is_some(
    make: Make, protocol: str
) -> None:
    harness, keeper = limited(make)
    asked = ask(harness, protocol)
    keeper.grant(0, wait=3.0, reset=7.0)
    seen = asked.answer()
    assert (seen.status, seen.fields[b"retry-after"]) == (429, b"3")
    assert seen.fields[b"ratelimit-reset"] == b"7"
    harness.advance(2.9)
    assert ask(harness, protocol).answer().status == 429
    assert keeper.asked == []
    harness.advance(0.2)
    asked = ask(harness, protocol)
    keeper.grant()
    assert asked.answer().status == 200


def test_all_that_come_in_one_turn_ask_one_question(make: Make) -> None:
    harness, keeper = limited(make)
    with harness.together():
        asked = [ask(harness) for _ in range(5)]
    assert [question.wanted for question in keeper.asked] == [5]
    keeper.grant(3, wait=1.0)
    assert sorted(one.answer().status for one in asked) == [200, 200, 200, 429, 429]


def test_all_keys_of_one_turn_travel_together(make: Make) -> None:
    harness, keeper = limited(make, ("path",))
    with harness.together():
        asked = [ask(harness, HTTP1, target) for target in ("/a", "/b", "/a")]
    assert keeper.posts == 1
    assert [question.wanted for question in keeper.asked] == [2, 1]
    assert len({question.key for question in keeper.asked}) == 2
    keeper.grant()
    assert [one.answer().status for one in asked] == [200] * 3


def test_who_comes_while_a_question_is_under_way_is_asked_for_next(make: Make) -> None:
    harness, keeper = limited(make)
    first, second, third = ask(harness), ask(harness), ask(harness)
    assert len(keeper.asked) == 1
    keeper.grant()
    assert first.answer().status == 200
    assert [question.wanted for question in keeper.asked] == [2]
    keeper.grant()
    assert [second.answer().status, third.answer().status] == [200, 200]


def test_a_key_that_many_ask_for_is_held_in_advance(make: Make) -> None:
    harness, keeper = limited(make)
    busy(harness, keeper)
    posts = keeper.posts
    for _ in range(20):
        assert ask(harness).answer().status == 200  # at once
    assert keeper.posts - posts <= 1


def test_what_is_not_used_is_given_back(make: Make) -> None:
    harness, keeper = limited(make)
    busy(harness, keeper)
    count, share = held(harness), share_of(harness)
    harness.advance(KEPT + 0.1)
    (back,) = keeper.take()
    assert (back.number, back.wanted) == (0, -count)
    assert held(harness) == 0
    assert share.counts["returned"] == count
    harness.advance(1.0)
    assert keeper.asked == []


def test_what_is_used_on_is_not_given_back(make: Make) -> None:
    harness, keeper = limited(make)
    for _ in range(1000):
        ask(harness)
        keeper.grant()
        harness.advance(0.001)
    assert share_of(harness).counts["returned"] == 0


def test_what_is_too_old_is_given_back_with_the_next_question(make: Make) -> None:
    harness, keeper = limited(make, ("path",))
    busy(harness, keeper)
    old = held(harness)
    harness.now += KEPT  # before the timer
    asked = ask(harness)
    question, back = keeper.asked
    assert back.wanted == -old
    keeper.grant()
    assert asked.answer().status == 200
    assert held(harness) == question.wanted - 1


def test_one_that_is_gone_takes_nothing(make: Make) -> None:
    harness, keeper = limited(make)
    gone, stays = ask(harness), ask(harness)
    gone.transport.lose()
    keeper.grant()
    assert stays.answer().status == 200
    assert keeper.asked == []


def test_who_is_gone_when_all_is_refused_is_not_told(make: Make) -> None:
    harness, keeper = limited(make)
    gone = ask(harness)
    gone.transport.lose()
    keeper.fail()
    assert harness.outcomes[-1].code == "downstream-closed"


@BOTH
def test_nobody_waits_longer_than_the_timeout(make: Make, protocol: str) -> None:
    harness, _ = limited(make)
    asked = ask(harness, protocol)
    harness.advance(0.031)  # and a tick of the wheel
    seen = asked.answer()
    assert seen.status == 503
    assert b"(code rate-limit-unavailable, flag RLSE, route all, limit r0, request" in seen.body


def test_once_it_is_known_to_be_away_nobody_waits(make: Make) -> None:
    harness, keeper = limited(make, ("path",))
    asked = ask(harness)
    keeper.fail()
    assert asked.answer().status == 503
    for _ in range(100):
        assert ask(harness, HTTP1, "/another").answer().status == 503
    assert keeper.asked == []


def test_one_question_in_a_while_finds_out_that_it_is_back(make: Make) -> None:
    harness, keeper = limited(make)
    ask(harness)
    keeper.fail()
    harness.advance(PROBE)
    assert ask(harness).answer().status == 503
    assert ask(harness).answer().status == 503
    assert len(keeper.asked) == 1
    keeper.fail()
    harness.advance(PROBE)
    ask(harness)
    keeper.grant()
    assert ask(harness).answer().status == 200


def test_a_probe_that_is_not_answered_is_not_repeated_without_end(make: Make) -> None:
    harness, keeper = limited(make)
    ask(harness)
    for _ in range(40):
        harness.advance(PROBE)
        ask(harness)
    assert len(keeper.asked) == 1


def test_an_answer_that_is_late_brings_nobody_back(make: Make) -> None:
    harness, keeper = limited(make)
    asked = ask(harness)
    harness.advance(0.05)
    assert asked.answer().status == 503
    keeper.grant()  # late: what was granted is held
    assert ask(harness).answer().status == 200
    assert ask(harness).answer().status == 503


def test_without_anybody_to_ask_it_is_known_at_once(make: Make) -> None:
    harness, keeper = limited(make)
    keeper.is_there = False
    assert ask(harness).answer().status == 503
    keeper.is_there = True
    harness.advance(PROBE)
    ask(harness)
    keeper.grant()
    assert ask(harness).answer().status == 200


def test_who_waits_when_nobody_is_there_any_more_is_decided_at_once(make: Make) -> None:
    harness, keeper = limited(make)
    asked = ask(harness)
    with harness.together():
        keeper.desk.lost()
    assert asked.answer().status == 503
    keeper.answer([Granted(question.number, Grant(1, 0, 0)) for question in keeper.take()])
    assert held(harness) == 0  # of a question that was given up


def test_a_question_that_was_forgotten_is_asked_again(make: Make) -> None:
    harness, keeper = limited(make)
    ask(harness)
    (forgotten,) = keeper.take()
    harness.advance(LOST)
    ask(harness)
    (again,) = keeper.asked
    keeper.answer([Granted(forgotten.number, Grant(1, 0, 0))])
    assert held(harness) == 0
    keeper.grant()
    assert again.number != forgotten.number
    assert [ask(harness).answer().status for _ in range(1)] == [200]


def test_stores_are_away_each_by_itself(make: Make) -> None:
    harness = make()
    keeper = Keeper(harness)
    harness.swap(
        stores=[{"name": "far", "redis": "redis://far"}],
        route={
            "rate_limits": [
                {"name": "a", "requests": 9, "match": {"path": "/far"}, "shared": "far"},
                {"name": "b", "requests": 9, "match": {"path": "/own"}, "shared": {}},
            ],
            "cluster": "",
            "respond": OWN,
        },
    )
    ask(harness, HTTP1, "/far")
    (question,) = keeper.asked
    assert (question.store, question.rule) == ("far", "a")
    keeper.fail()
    asked = ask(harness, HTTP1, "/own")
    keeper.grant()
    assert asked.answer().status == 200


def test_two_rules_are_asked_about_one_after_the_other(make: Make) -> None:
    harness, keeper = ruled(make, {"shared": {}}, {"shared": {}})
    asked = ask(harness)
    keeper.grant()
    assert not asked.is_answered
    keeper.grant()
    assert asked.answer().status == 200


def test_a_pipelined_request_begins_while_the_one_before_is_let_go(make: Make) -> None:
    harness, keeper = limited(make)
    asked = Asked(harness.open(GET + GET), b"GET", None)
    keeper.grant()
    assert asked.transport.take().count(b"200 OK") == 1
    keeper.grant()
    assert asked.transport.take().count(b"200 OK") == 1


class Faulty(HttpFilter):
    def on_request(self, exchange: Exchange) -> None:
        if exchange.head.path == b"/bad":
            raise RuntimeError("a bug")


@BOTH
def test_a_bug_behind_a_wait_ends_that_exchange_alone(make: Make, protocol: str) -> None:
    harness, keeper = limited(make)
    (row,) = harness.listener.plan.routes._any
    route = row[1]
    object.__setattr__(route, "on_request", (route.on_request[0], Faulty(), *route.on_request[1:]))
    with harness.together():
        bad, good = ask(harness, protocol, "/bad"), ask(harness, protocol)
    keeper.grant()
    assert good.answer().status == 200
    assert harness.outcomes[0].code == "internal-error"
    assert [str(bug) for bug in harness.bugs] == ["a bug"]
    assert bad.answer().status == 500
    harness.bugs.clear()


def test_a_table_keeps_its_size_and_forgets_what_is_idle() -> None:
    share = Share("r", "", "r", Rate(1, 1, 1), limit=2, patience=0.02)
    keys = [(b"%d" % number,) for number in range(4)]
    first = share.held(keys[0], str, 0.0)
    assert share.held(keys[0], str, 0.0) is first
    share.held(keys[1], str, 0.0)
    rest = share.held(keys[2], str, 0.5)
    assert rest.key == "rest"
    assert share.held(keys[3], str, 0.6) is rest
    first.is_asked = True
    assert len(share) == 2
    assert share.held(keys[2], str, 0.5 + SWEEP) is not rest  # 1 was forgotten
    assert share.held(keys[0], str, 0.5 + SWEEP) is first
    assert share.held(keys[3], str, 0.6 + SWEEP) is rest
    assert len(share) == 2


def test_a_desk_is_told_the_answer_to_nothing(make: Make) -> None:
    harness = make()
    desk = Desk(harness.engine, lambda asks: True)
    desk.answered((Granted(7, None),))
    desk.lost()
    assert ask(harness, HTTP2) is not None
