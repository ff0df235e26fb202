"""Shares that are drawn come out as configured: seeded, and within four and a half deviations."""

import math
import random
from collections import Counter
from typing import Any

import pytest

from tests.core.harness import GET, OK, Harness

ROUNDS = 3000
OTHERS = {name: f"10.0.1.{index}:80" for index, name in enumerate(("canary", "third"))}


def drawn(routes: list[dict[str, Any]], request: bytes = GET) -> Counter[str]:
    """Return how many of `ROUNDS` requests went to each cluster."""
    clusters = [{"name": name, "endpoints": [at]} for name, at in OTHERS.items()]
    harness = Harness(listener={"routes": routes}, clusters=clusters)
    harness.connects_at_once = True
    harness.draw = random.Random(8).random  # noqa: S311 - seeded, so that a run can be repeated
    names = {at: name for name, at in OTHERS.items()}
    for _ in range(ROUNDS):
        caller = harness.open(request)
        next(u for u in harness.upstreams if u.take()).send(OK)
        assert caller.take() == OK
        caller.lose()
    found = Counter(names.get(outcome.endpoint, "app") for outcome in harness.outcomes)
    harness.check()
    return found


def assert_shares(found: Counter[str], shares: dict[str, float]) -> None:
    assert set(found) == {name for name, share in shares.items() if share}
    for name, share in shares.items():
        deviation = math.sqrt(ROUNDS * share * (1 - share))
        assert abs(found[name] - ROUNDS * share) <= 4.5 * deviation


@pytest.mark.parametrize(
    "shares",
    [
        {"app": 0.9, "canary": 0.1},
        {"app": 0.99, "canary": 0.01},
        {"app": 0.5, "canary": 0.3, "third": 0.2},
        {"app": 1.0, "canary": 0.0},
    ],
)
def test_a_split_is_kept(shares: dict[str, float]) -> None:
    weights = [{"name": name, "weight": round(1000 * share)} for name, share in shares.items()]
    assert_shares(drawn([{"clusters": weights}]), shares)


CANARY: list[dict[str, Any]] = [
    {"match": {"headers": {"x-canary": "yes"}, "percent": 25}, "cluster": "canary"},
    {"cluster": "app"},
]


@pytest.mark.parametrize(
    ("line", "shares"),
    [
        (b"X-Canary: yes", {"app": 0.75, "canary": 0.25}),
        (b"X-Canary: no", {"app": 1.0}),
        (b"X-Other: yes", {"app": 1.0}),
    ],
)
def test_a_canary_gets_its_part_of_what_matches_and_nothing_else(
    line: bytes, shares: dict[str, float]
) -> None:
    request = GET.replace(b"\r\n\r\n", b"\r\n" + line + b"\r\n\r\n")
    assert_shares(drawn(CANARY, request), shares)
