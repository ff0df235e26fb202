"""A bucket of octets keeps its rate, gives what there is, and says when there will be more."""

import pytest
from hypothesis import given, strategies as st

from sidecar.traffic.pace import SPREAD, SWEEP, Bucket, Table


@given(
    st.integers(1, 10**7),
    st.integers(0, 10**6),
    st.lists(st.tuples(st.floats(0, 2), st.integers(0, 10**6)), min_size=1, max_size=60),
)
def test_no_span_of_time_has_more_than_the_rate_and_a_burst(
    rate: int, burst: int, steps: list[tuple[float, int]]
) -> None:
    bucket, now, spent = Bucket(rate, burst), 100.0, 0
    most = max(burst, rate * SPREAD, 1)
    for seconds, wanted in steps:
        now += seconds
        size = min(wanted, bucket.room(now))
        bucket.spend(size)
        spent += size
        assert spent <= most + rate * (now - 100.0) + 1e-3


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_whoever_waits_as_long_as_told_finds_room(rate: int, wanted: int) -> None:
    bucket = Bucket(rate)
    all_of_it = bucket.room(100.0)
    bucket.spend(all_of_it)
    wait = bucket.wait(wanted)
    assert bucket.room(100.0 + wait + 1e-6) >= min(wanted, all_of_it) - 1


def test_a_full_bucket_holds_a_burst_and_no_more() -> None:
    bucket = Bucket(1000, 500)
    assert bucket.room(0.0) == 500
    assert bucket.room(3600.0) == 500
    assert bucket.wait(10**9) == 0
    bucket.spend(500)
    assert bucket.room(3600.1) == pytest.approx(100, abs=1)
    assert bucket.room(3600.05) == pytest.approx(100, abs=1)  # a clock that goes back gives nothing


def test_who_takes_more_than_there_is_waits_until_that_is_paid() -> None:
    bucket = Bucket(100, 50)
    assert bucket.room(1.0) == 50
    bucket.spend(250)
    assert bucket.room(1.0) == 0
    assert bucket.wait(1) == 2.01
    assert bucket.room(3.5) == 50
    assert bucket.is_full(3.5)
    bucket.spend(1)
    assert not bucket.is_full(3.5)


def test_keys_have_buckets_of_their_own_and_a_table_keeps_its_size() -> None:
    table = Table(100, 50, 2)
    first = table.take("a", 0.0)
    assert table.take("a", 0.0) is first
    table.take("b", 0.0)
    rest = table.take("c", 0.0)
    assert table.take("d", 0.5) is rest
    assert rest is not first
    assert len(table) == 2


def test_what_is_in_use_or_not_full_yet_is_not_forgotten() -> None:
    table = Table(100, 50, 2)
    used, left = table.take("used", 0.0), table.take("left", 0.0)
    assert left.room(0.0) == 50
    left.spend(200)
    table.leave(left)
    assert left.users == 0
    shared = table.take("more", 0.0)
    assert table.take("more", SWEEP) is shared  # nothing could go
    assert table.take("left", SWEEP) is left
    table.leave(left)
    fresh = table.take("more", SWEEP * 3)
    assert fresh is not shared
    assert table.take("used", SWEEP * 3) is used
    assert len(table) == 2
