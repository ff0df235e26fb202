"""GCRA against a bucket of tokens, and a table that cannot be blown up."""

from fractions import Fraction

from hypothesis import given, strategies as st

from sidecar.traffic.rate import Buckets, Decision, Rate


class Tokens:
    """What GCRA is the short form of: a bucket that is filled as time goes by."""

    def __init__(self, interval: int, burst: int) -> None:
        self.interval, self.burst = interval, burst
        self.tokens, self.at = Fraction(burst), 0

    def take(self, now: int) -> tuple[bool, int, Fraction]:
        """Return whether there was one, how many whole ones are left, and the wait for the next."""
        filled = self.tokens + Fraction(now - self.at, self.interval)
        self.tokens, self.at = min(filled, Fraction(self.burst)), now
        is_there = self.tokens >= 1
        if is_there:
            self.tokens -= 1
        return is_there, int(self.tokens), self.wait

    def grant(self, now: int, wanted: int) -> int:
        """Return how many of `wanted` there were; less than none are put back."""
        self.tokens += Fraction(now - self.at, self.interval)
        self.tokens, self.at = min(self.tokens, Fraction(self.burst)), now
        granted = min(wanted, int(self.tokens))
        self.tokens = min(self.tokens - granted, Fraction(self.burst))
        return granted

    @property
    def wait(self) -> Fraction:
        return max(Fraction(0), 1 - self.tokens) * self.interval


@given(st.integers(1, 50), st.integers(1, 6), st.lists(st.integers(0, 60), min_size=1, max_size=60))
def test_it_decides_as_a_bucket_of_tokens_does(interval: int, burst: int, gaps: list[int]) -> None:
    rate, model, full_at, now = Rate(1, interval, burst), Tokens(interval, burst), 0.0, 0
    for gap in gaps:
        now += gap
        decision, full_at = rate.take(full_at, now)
        is_there, left, wait = model.take(now)
        assert decision[:2] == (is_there, left)
        assert decision.retry_after == wait
        assert decision.reset == (burst - model.tokens) * interval


@given(
    st.integers(1, 50),
    st.integers(1, 9),
    st.lists(st.tuples(st.integers(0, 60), st.integers(-5, 12)), min_size=1, max_size=60),
)
def test_many_at_once_are_granted_and_taken_back_as_by_a_bucket_of_tokens(
    interval: int, burst: int, steps: list[tuple[int, int]]
) -> None:
    rate, model, full_at, now = Rate(1, interval, burst), Tokens(interval, burst), 0.0, 0
    for gap, wanted in steps:
        now += gap
        grant, full_at = rate.grant(full_at, now, wanted)
        assert grant.granted == model.grant(now, wanted)
        assert grant.retry_after == model.wait
        assert grant.reset == (burst - model.tokens) * interval


@given(st.integers(1, 5000), st.floats(0.1, 100), st.integers(1, 5000), st.floats(0, 1e7))
def test_no_rounding_keeps_back_one_of_a_full_bucket(
    count: int, period: float, burst: int, now: float
) -> None:
    rate = Rate(count, period, burst)
    grant, full_at = rate.grant(0.0, now, burst + 1)
    assert grant.granted == burst
    assert rate.grant(full_at, now, 1)[0].granted == 0


def test_one_by_one_or_many_at_once_is_the_same() -> None:
    rate, one_by_one = Rate(10, 1, 7), 0.0
    for _ in range(7):
        _, one_by_one = rate.take(one_by_one, 3.0)
    _, at_once = rate.grant(0.0, 3.0, 7)
    assert abs(at_once - one_by_one) < 1e-9


def test_what_is_told_of_a_request() -> None:
    rate = Rate(10, 60, 2)
    first, full_at = rate.take(0.0, 100.0)
    assert first == Decision(True, 1, 6.0, 0.0)
    second, full_at = rate.take(full_at, 100.0)
    assert second == Decision(True, 0, 12.0, 6.0)
    third, after = rate.take(full_at, 101.0)
    assert third == Decision(False, 0, 11.0, 5.0)
    assert after == full_at  # a refusal costs nothing


def test_a_full_table_is_searched_for_room_once_a_second() -> None:
    rate, table = Rate(1, 10, 1), Buckets(2)
    assert [table.take(rate, key, 0.0).allowed for key in "ab"] == [True, True]
    assert table.take(rate, "c", 5.0).allowed  # the shared one
    assert not table.take(rate, "d", 5.5).allowed
    assert len(table) == 2
    assert not table.take(rate, "a", 9.0).allowed
    assert table.take(rate, "d", 10.5).allowed  # a and b are full again, and were forgotten
    assert len(table) == 1


def test_a_table_keeps_its_size_whatever_keys_come() -> None:
    rate, table = Rate(1, 3, 1), Buckets(10)
    taken = sum(table.take(rate, key, key / 10).allowed for key in range(1000))
    assert len(table) <= 10
    assert taken < 1000


def test_a_table_grants_by_key_and_what_finds_no_room_shares_a_bucket() -> None:
    rate, table = Rate(1, 10, 3), Buckets(2)
    assert [table.grant(rate, key, 0.0, 2).granted for key in "aab"] == [2, 1, 2]
    assert [table.grant(rate, key, 1.5, 2).granted for key in "cd"] == [2, 1]
    assert table.grant(rate, "d", 1.5, -1).granted == -1
    assert table.grant(rate, "c", 1.5, 1).granted == 1
    assert len(table) == 2
    table.sweep(100.0)
    assert len(table) == 0


@given(
    st.integers(1, 50),
    st.integers(1, 6),
    st.lists(st.tuples(st.integers(0, 60), st.sampled_from("abc")), min_size=1, max_size=60),
)
def test_a_request_that_fits_at_first_sight_is_one_that_would_have_been_allowed(
    interval: int, burst: int, steps: list[tuple[int, str]]
) -> None:
    rate, quick, slow, now = Rate(1, interval, burst), Buckets(2), Buckets(2), 0.0
    for gap, key in steps:
        now += gap
        fits = quick.fits(rate, key, now) or quick.take(rate, key, now).allowed
        assert fits == slow.take(rate, key, now).allowed
        assert len(quick) == len(slow)
