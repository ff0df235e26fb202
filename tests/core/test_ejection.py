"""Endpoints that fail are left out, return through one live request, and are never too many."""

from collections.abc import Callable
from typing import Any

import pytest

from sidecar.core.book import Endpoint
from sidecar.core.ejection import LONGEST_OUTAGE, Outage
from sidecar.telemetry.metrics import ejections
from sidecar.traffic.outlier import CONSECUTIVE, LOCAL, PROBE, SUCCESS_RATE
from tests.core.harness import GET, OK, Harness
from tests.core.test_grpc import answer, call, trailers_only

Make = Callable[..., Harness]

ERROR = b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"
LIMITED = b"HTTP/1.1 429 Slow\r\nContent-Length: 0\r\n\r\n"
MISSING = b"HTTP/1.1 404 None\r\nContent-Length: 0\r\n\r\n"
REFUSED = b""  # in place of an answer: no connection
PLACES = ("10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80")
SICK = PLACES[0]


def three(make: Make, **cluster: Any) -> Harness:
    """Return a harness of three endpoints that take turns, without retries of whatever kind."""
    return make(endpoints=PLACES, cluster=cluster, retry={"attempts": 1})


def ask(harness: Harness, answers: dict[str, bytes], request: bytes = GET) -> str:
    """Send a request, have it answered by `answers` or well; return where it went."""
    harness.connects_at_once = False
    before = len(harness.dials)
    caller = harness.open(request)
    if len(harness.dials) > before:
        dial = harness.dials[-1]
        if answers.get(dial.address) == REFUSED:
            dial.fail()
            return harness.outcomes[-1].endpoint
        dial.connect()
    upstream = next(u for u in harness.upstreams if u.take())
    address = upstream.get_extra_info("peername")[0]
    upstream.send(answers.get(address, OK))
    caller.lose()
    return harness.outcomes[-1].endpoint


def asked(
    harness: Harness, rounds: int, answers: dict[str, bytes], request: bytes = GET
) -> list[str]:
    return [ask(harness, answers, request) for _ in range(rounds)]


def out(harness: Harness) -> set[str]:
    """Return who is left out."""
    return {place for place in PLACES if not harness.endpoint(place).available}


def reasons(harness: Harness) -> dict[str, int]:
    return dict(harness.state().detector.ejections)


@pytest.mark.parametrize(
    ("sick", "reason"),
    [(ERROR, CONSECUTIVE), (LIMITED, CONSECUTIVE), (MISSING, ""), (OK, "")],
)
def test_five_failures_in_a_row_eject(make: Make, sick: bytes, reason: str) -> None:
    harness = three(make)
    asked(harness, 12, {SICK: sick})
    assert out(harness) == set()
    asked(harness, 3, {SICK: sick})
    assert reasons(harness) == ({reason: 1} if reason else {})
    assert out(harness) == ({SICK} if reason else set())
    assert (SICK in asked(harness, 12, {SICK: sick})) is (reason == "")
    assert harness.state().detector.reason(harness.endpoint(SICK)) == reason


def refuse(harness: Harness) -> None:
    """Ask until the sick one has refused a connection."""
    while ask(harness, {SICK: REFUSED}) != SICK:
        pass


def test_who_takes_no_connections_is_passed_over_and_tried_ever_more_seldom(make: Make) -> None:
    harness = three(make)
    refuse(harness)
    for wait in (0.1, 0.2, 0.4, 0.8):
        assert SICK not in asked(harness, 6, {})
        harness.advance(wait - 0.01)
        assert ask(harness, {}) != SICK
        assert out(harness) == set()  # that is no ejection
        harness.advance(0.02)
        assert ask(harness, {SICK: REFUSED}) == SICK
    assert out(harness) == {SICK}  # but five in a row are one
    assert reasons(harness) == {LOCAL: 1}
    assert harness.state().detector.reason(harness.endpoint(SICK)) == LOCAL


def test_whoever_takes_a_connection_again_has_its_share_at_once(make: Make) -> None:
    harness = three(make)
    refuse(harness)
    harness.advance(0.11)
    assert ask(harness, {}) == SICK
    assert harness.state().detector.down == {}
    assert asked(harness, 3, {}).count(SICK) == 1


def test_of_many_that_fail_at_once_to_connect_one_counts(make: Make) -> None:
    harness = three(make)
    for _ in range(18):
        harness.open(GET)
    for dial in list(harness.begun):
        if dial.address == SICK:
            dial.fail()
        else:
            dial.connect()
    assert out(harness) == set()
    detector = harness.state().detector
    assert detector.watched[harness.endpoint(SICK)].tally.failed_in_row == 1


def test_what_was_connected_before_does_not_hide_that_nobody_can_connect(make: Make) -> None:
    harness = three(make)
    late = [harness.open(GET) for _ in range(3)]
    while harness.begun:
        harness.connect()
    busy = next(u for u in harness.upstreams if u.get_extra_info("peername")[0] == SICK)
    refuse(harness)
    assert SICK not in asked(harness, 6, {})
    busy.send(OK)  # whose connection lives: then others can be made, too
    assert harness.state().detector.down == {}
    assert OK in [caller.take() for caller in late]


def test_where_nobody_takes_connections_all_are_tried_as_ever(make: Make) -> None:
    harness = three(make)
    asked(harness, 6, dict.fromkeys(PLACES, REFUSED))
    assert set(harness.state().detector.down) == {harness.endpoint(p) for p in PLACES}
    assert ask(harness, {}) in PLACES
    assert harness.outcomes[-1].status == 200


def test_a_retry_does_not_find_out_who_takes_connections_again(make: Make) -> None:
    harness = make(endpoints=PLACES, retry={"attempts": 3, "backoff": 0})
    harness.open(GET)
    first = harness.begun[0]
    first.fail()
    harness.advance(0.05)
    second = harness.begun[0]
    harness.advance(0.1)  # the first is due
    second.fail()
    harness.advance(0.05)
    third = harness.begun[0]
    assert len({dial.address for dial in (first, second, third)}) == 3
    third.connect()


def test_where_like_requests_belong_together_they_find_out_themselves(make: Make) -> None:
    harness = make(
        endpoints=PLACES,
        cluster={"balancer": "ring_hash"},
        route={"hash_policy": [{"header": "x-user"}]},
        retry={"attempts": 1},
    )

    def of(user: int) -> bytes:
        return GET.replace(b"\r\n\r\n", b"\r\nX-User: %d\r\n\r\n" % user)

    places = {user: ask(harness, {}, of(user)) for user in range(20)}
    theirs, others = ([u for u in places if (places[u] == SICK) is own] for own in (True, False))
    harness.endpoint(SICK).retire()
    assert ask(harness, {SICK: REFUSED}, of(theirs[0])) == SICK
    assert ask(harness, {}, of(theirs[0])) != SICK
    harness.advance(0.11)
    assert [ask(harness, {}, of(user)) for user in others] == [places[user] for user in others]
    assert ask(harness, {SICK: REFUSED}, of(theirs[1])) == SICK
    assert ask(harness, {}, of(theirs[1])) != SICK
    harness.advance(0.21)
    assert ask(harness, {}, of(theirs[1])) == SICK
    assert harness.state().detector.down == {}


def test_who_takes_no_connections_is_nobodys_concern_in_another_subset(make: Make) -> None:
    places = [{"address": p, "labels": {"v": "1" if p == SICK else "2"}} for p in PLACES]
    first = {"match": {"path": "/1"}, "cluster": "app", "subset": {"v": "1"}}
    routes = [
        {**first, "retry": {"attempts": 1}},
        {"cluster": "app", "subset": {"v": "2"}, "retry": {"attempts": 1}},
    ]
    harness = make(cluster={"endpoints": places}, listener={"routes": routes})
    one = GET.replace(b"GET /", b"GET /1")
    assert ask(harness, {SICK: REFUSED}, one) == SICK
    harness.advance(0.11)
    assert SICK not in asked(harness, 4, {})
    assert ask(harness, {}, one) == SICK


def test_it_is_tried_at_least_every_few_seconds() -> None:
    outage = Outage()
    outage.misses = 1000
    outage.begin(None, 10.0)
    assert outage.until == 10.0 + LONGEST_OUTAGE


def test_who_takes_no_connections_is_forgotten_with_the_endpoint(make: Make) -> None:
    harness = three(make)
    refuse(harness)
    harness.swap(endpoints=PLACES[1:])
    assert harness.state().detector.down == {}


@pytest.mark.parametrize(
    ("sick", "ejected"),
    [
        (trailers_only(b"8"), True),
        (trailers_only(b"14"), True),
        (answer(b"grpc-status: 8"), True),
        (trailers_only(b"5"), False),
        (answer(b"grpc-status: 0"), False),
        (answer(), False),  # no status at all: not ours to judge
        (answer(b"x-more: 1"), False),
        (ERROR, True),
    ],
)
@pytest.mark.parametrize("kept", [True, False])
def test_calls_count_by_their_own_status(
    make: Make, sick: bytes, ejected: bool, kept: bool
) -> None:
    retry: dict[str, Any] = {"attempts": 1, **({"on": ["unavailable"]} if kept else {})}
    harness = make(endpoints=PLACES, retry=retry)
    asked(harness, 15, {SICK: sick, **dict.fromkeys(PLACES[1:], trailers_only(b"0"))}, call())
    assert out(harness) == ({SICK} if ejected else set())


def test_a_connection_that_dies_in_the_usual_race_blames_nobody(make: Make) -> None:
    harness = three(make)
    for _ in range(8):
        caller = harness.open(b"POST" + GET[3:])
        if harness.begun:
            harness.connect()
        upstream = next(u for u in harness.upstreams if u.take())
        upstream.send(b"HTTP/1.1 204 None\r\n\r\n")
        caller.lose()
    assert reasons(harness) == {}
    detector = harness.state().detector
    health = detector.watched[harness.endpoint(SICK)]
    for _ in range(9):
        health.failed(harness.sink, "reused-closed", harness.now)  # type: ignore[arg-type] # not looked at
    assert health.tally.failed_in_row == 0


def ejected(make: Make, **cluster: Any) -> Harness:
    harness = three(make, **cluster)
    asked(harness, 15, {SICK: ERROR})
    assert out(harness) == {SICK}
    return harness


def due(harness: Harness, seconds: float = 45) -> None:
    """Let time pass, and somebody's answer have the sweep take place."""
    harness.advance(seconds)
    assert ask(harness, {}) != SICK


def test_one_live_request_brings_an_endpoint_back(make: Make) -> None:
    harness = ejected(make)
    due(harness)
    first, second = harness.open(GET), harness.open(GET)
    assert out(harness) == {SICK}  # the second did not go there
    assert harness.endpoint(SICK).active == 1
    for upstream in [u for u in harness.upstreams if u.take()]:
        upstream.send(OK)
    assert (first.take(), second.take()) == (OK, OK)
    assert out(harness) == set()
    assert SICK in asked(harness, 3, {})


def test_an_endpoint_that_fails_its_probe_is_out_for_twice_as_long(make: Make) -> None:
    harness = ejected(make)
    due(harness)
    assert ask(harness, {SICK: ERROR}) == SICK
    assert reasons(harness) == {CONSECUTIVE: 1, PROBE: 1}
    due(harness)  # 45 s of 60
    assert SICK not in asked(harness, 6, {})
    due(harness, 20)
    assert ask(harness, {}) == SICK
    assert out(harness) == set()


def test_a_probe_stays_within_the_subset_of_its_route(make: Make) -> None:
    places = [{"address": p, "labels": {"v": "1" if p == SICK else "2"}} for p in PLACES]
    first = {"match": {"path": "/1"}, "cluster": "app", "subset": {"v": "1"}}
    routes = [
        {**first, "retry": {"attempts": 1}},
        {"cluster": "app", "subset": {"v": "2"}, "retry": {"attempts": 1}},
    ]
    harness = make(cluster={"endpoints": places}, listener={"routes": routes})
    one = GET.replace(b"GET /", b"GET /1")
    asked(harness, 5, {SICK: ERROR}, one)
    assert out(harness) == {SICK}
    due(harness)
    assert harness.state().detector.due == [harness.endpoint(SICK)]
    assert SICK not in asked(harness, 4, {})
    assert ask(harness, {}, one) == SICK
    assert out(harness) == set()


def test_a_retry_is_no_probe(make: Make) -> None:
    harness = make(endpoints=PLACES, retry={"attempts": 3, "backoff": 0})
    detector = harness.state().detector
    asked(harness, 15, {SICK: ERROR})
    harness.advance(45)
    harness.open(GET)
    busy = next(u for u in harness.upstreams if u.take())
    harness.endpoint(PLACES[1]).retire()
    harness.endpoint(PLACES[2]).retire()
    harness.open(GET)
    dial = harness.begun[0]
    busy.send(OK)  # now the endpoint is due
    assert detector.due == [harness.endpoint(SICK)]
    dial.fail()
    harness.advance(1)
    assert harness.endpoint(SICK).active == 0
    assert detector.due == [harness.endpoint(SICK)]


def test_a_probe_that_tells_nothing_is_made_again(make: Make) -> None:
    harness = ejected(make)
    due(harness)
    harness.open(GET).lose()  # the caller goes before the answer
    assert [u for u in harness.upstreams if u.take()]
    assert SICK not in asked(harness, 3, {})
    due(harness, 12)
    assert ask(harness, {}) == SICK
    assert out(harness) == set()


def test_what_was_under_way_before_decides_nothing(make: Make) -> None:
    harness = three(make)
    late = harness.open(GET)
    dial = harness.begun[0]
    upstream = dial.connect()
    assert upstream.take()
    sick = dial.address
    for _ in range(30):
        if out(harness):
            break
        ask(harness, {sick: ERROR})
    assert out(harness) == {sick}
    upstream.send(OK)
    assert late.take() == OK
    assert out(harness) == {sick}


def test_no_more_are_ejected_than_leave_the_panic_threshold(make: Make) -> None:
    harness = three(make, outlier_detection={"max_ejection_percent": 100})
    asked(harness, 60, dict.fromkeys(PLACES, ERROR))
    assert len(out(harness)) == 1


def test_a_low_rate_of_success_ejects_though_no_row_is_long(make: Make) -> None:
    harness = three(make, outlier_detection={"success_rate_request_volume": 20})
    for _ in range(20):
        for sick in (ERROR, OK, OK):
            asked(harness, 3, {SICK: sick})
    assert out(harness) == set()
    harness.advance(11)
    asked(harness, 1, {})
    assert out(harness) == {SICK}
    assert reasons(harness) == {SUCCESS_RATE: 1}


def test_an_outlier_in_both_ways_is_ejected_once(make: Make) -> None:
    harness = three(make, outlier_detection={"success_rate_request_volume": 20})
    detector = harness.state().detector
    ask(harness, {})
    for health in detector.watched.values():
        for number in range(100):
            is_sick = health.endpoint.address == SICK
            health.tally.answered(well=not is_sick or number % 3 == 0)
            if is_sick and number % 2:
                health.tally.went_without()
                health.tally.reached()
    harness.advance(11)
    ask(harness, {})
    assert reasons(harness) == {SUCCESS_RATE: 1}


OFF = {"outlier_detection": False}


@pytest.mark.parametrize(
    ("endpoints", "cluster", "back"),
    [(PLACES, {}, False), (PLACES, OFF, True), (PLACES[:1], {}, True), (PLACES[1:], {}, True)],
)
@pytest.mark.parametrize("is_due", [False, True])
def test_a_push_forgets_nothing_but_what_is_no_longer_watched(
    make: Make, endpoints: tuple[str, ...], cluster: dict[str, Any], back: bool, is_due: bool
) -> None:
    harness = ejected(make)
    if is_due:
        due(harness)
    harness.swap(endpoints=endpoints, cluster=cluster, retry={"attempts": 1})
    assert harness.endpoint(SICK).available is back
    assert (harness.endpoint(SICK).watchers == ()) is back
    assert bool(harness.state().detector.due) is (is_due and not back)


def test_sessions_count_by_whether_a_connection_came_about(make: Make) -> None:
    harness = make(protocol="tcp", endpoints=PLACES)

    def connect(*, sick: bool) -> None:
        caller = harness.open(b"x")
        while harness.begun:
            if sick and harness.begun[0].address == SICK:
                harness.fail()
            else:
                harness.connect()
        caller.lose()

    for _ in range(15):
        harness.advance(1)  # else it is passed over, and has no chance to fail again
        connect(sick=True)
    assert out(harness) == {SICK}
    assert reasons(harness) == {LOCAL: 1}
    harness.advance(45)
    connect(sick=False)
    connect(sick=False)
    assert out(harness) == set()


@pytest.mark.parametrize("cluster", [OFF, {"endpoints": [SICK]}])
def test_where_nobody_is_ejected_nobody_is_watched(make: Make, cluster: dict[str, Any]) -> None:
    harness = make(endpoints=PLACES, cluster=cluster)
    place = harness.endpoint(SICK)
    assert isinstance(place, Endpoint)
    assert place.watchers == ()
    assert harness.state().detector.reason(place) == ""


def test_ejections_are_counted_by_cluster_and_reason(make: Make) -> None:
    harness = three(make)
    assert list(ejections(harness.book)) == []
    asked(harness, 15, {SICK: ERROR})
    assert list(ejections(harness.book)) == [
        ("sidecar_outlier_ejections_total", (("cluster", "app"), ("reason", CONSECUTIVE)), (1,)),
        ("sidecar_outlier_ejected_endpoints", (("cluster", "app"),), (1,)),
    ]
