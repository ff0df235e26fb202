"""When a ratio counts as worse than the stored one."""

from typing import Any

import pytest

from benchmarks.load.check import judge, judged, verdicts


def ratio(
    value: float, spread: float = 0.0, *, figure: str = "cpu_us_per_request", peer: str = "envoy"
) -> dict[str, Any]:
    return {
        "scenario": "http1", "case": "", "features": "bare", "figure": figure, "peer": peer,
        "ratio": value, "low": value - spread, "high": value + spread, "rounds": 5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("now", "stored", "verdict"),
    [
        (ratio(0.83), ratio(0.80), "same"),  # within the least that counts
        (ratio(0.85), ratio(0.80), "worse"),
        (ratio(0.85, 0.04), ratio(0.80, 0.04), "same"),  # the rounds agree no better than that
        (ratio(0.89, 0.04), ratio(0.80, 0.04), "worse"),
        (ratio(0.75), ratio(0.80), "better"),
        (ratio(1.3, figure="rps"), ratio(1.2, figure="rps"), "better"),
        (ratio(1.1, figure="rps"), ratio(1.2, figure="rps"), "worse"),
    ],
)
def test_a_ratio_is_worse_beyond_the_spread_of_its_rounds(
    now: dict[str, Any], stored: dict[str, Any], verdict: str
) -> None:
    line = judge(now, stored)

    said = "worse" if line.is_worse else "better" if line.is_better else "same"
    assert said == verdict


def test_only_what_both_runs_measured_is_compared() -> None:
    now = [ratio(2.0), ratio(9.0, peer="nginx")]

    lines = judged(now, [ratio(1.0), ratio(1.0, peer="haproxy")])

    assert [(line.name, line.was, line.now) for line in lines] == [
        ("http1 bare CPU µs per request / envoy", 1.0, 2.0)
    ]


def test_the_table_names_what_is_worse_and_counts_the_rest() -> None:
    stored = [ratio(1.0), ratio(1.0, peer="nginx"), ratio(1.0, peer="haproxy")]
    now = [ratio(1.0), ratio(2.0, peer="nginx"), ratio(0.5, peer="haproxy")]

    lines = verdicts(judged(now, stored)).splitlines()

    assert lines[-3].endswith("1.000    2.000    1.050  worse")
    assert lines[-2].endswith("better")
    assert lines[-1] == "3 compared: 1 worse, 1 better"
