"""Requests are held back in proportion to what fails, and a server that recovers is found out."""

import random
from dataclasses import replace

import pytest

from sidecar.traffic.admission import Admission, Policy

POLICY = Policy()


def told(policy: Policy, good: int, bad: int, now: float = 0.0) -> Admission:
    admission = Admission(policy)
    for well, count in ((True, good), (False, bad)):
        for _ in range(count):
            admission.record(now, well=well)
    return admission


@pytest.mark.parametrize(
    ("good", "bad", "policy", "chance"),
    [
        (0, 0, POLICY, 0.0),
        (100, 0, POLICY, 0.0),
        (95, 5, POLICY, 0.0),
        (0, 1, POLICY, 0.5),  # one alone tells little
        (50, 50, POLICY, (100 - 50 / 0.95) / 101),
        (50, 50, replace(POLICY, aggression=2.0), ((100 - 50 / 0.95) / 101) ** 0.5),
        (0, 1000, POLICY, 0.8),
        (0, 1000, replace(POLICY, max_rejection=1.0), 1000 / 1001),
        (0, 29, replace(POLICY, rps_threshold=1.0), 0.0),
        (0, 30, replace(POLICY, rps_threshold=1.0), 0.8),
        (60, 40, replace(POLICY, success_rate_threshold=0.5), 0.0),
    ],
)
def test_the_chance_is_what_is_missing(good: int, bad: int, policy: Policy, chance: float) -> None:
    assert told(policy, good, bad).rejection(0.0) == pytest.approx(chance)


def test_what_is_older_than_the_window_is_forgotten_bit_by_bit() -> None:
    admission = Admission(POLICY)
    for second in range(30):
        for _ in range(10):
            admission.record(second + 0.5, well=second >= 15)
    before = admission.rejection(30.0)
    assert before == pytest.approx((300 - 150 / 0.95) / 301)
    assert 0 < admission.rejection(40.0) < before
    assert admission.rejection(45.5) == 0.0
    assert admission.rejection(1000.0) == 0.0


def test_an_overloaded_server_is_spared_half_of_the_load_and_its_recovery_is_found_out() -> None:
    chance = random.Random(3)  # noqa: S311 - seeded, so that a run can be repeated
    admission = Admission(replace(POLICY, max_rejection=0.9))
    capacity, sent, good = 50, 0, 0
    by_second: list[tuple[int, int]] = []
    for second in range(200):
        if second == 100:
            capacity = 500
        taken = sent = good = 0
        for number in range(200):
            now = second + number / 200
            if chance.random() < admission.rejection(now):
                continue
            sent += 1
            # It fails what is over its capacity, spread over the second.
            well = taken <= capacity * (number + 1) / 200
            taken += well
            good += well
            admission.record(now, well=well)
        by_second.append((sent, good))
    overloaded = by_second[60:100]
    # Half of the 200 that come: the geometric mean of load and capacity, as the chance has it.
    assert 90 <= sum(sent for sent, _ in overloaded) / 40 <= 110
    assert sum(good for _, good in overloaded) / 40 >= 0.9 * 50
    assert sum(good for _, good in by_second[160:]) / 40 >= 0.99 * 200
