"""Ring and Maglev: every member its share, few keys moved when one leaves, the same everywhere."""

from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, strategies as st

from sidecar.traffic.affinity import HASHES, Table, hash_of, preference
from sidecar.traffic.maglev import Maglev, is_prime
from sidecar.traffic.ring import Ring, point_scale

Members = Sequence[tuple[str, int]]
Make = Callable[[Members], Table]

KEYS = [hash_of(b"key %d" % number) for number in range(4000)]
SIZE = 2039  # a prime that is quick to fill; the shares below are those of such a table
TABLES: dict[str, Make] = {
    "ring": lambda members: Ring(members, 1024, 65536),
    "maglev": lambda members: Maglev(members, SIZE),
}


@pytest.fixture(params=TABLES)
def make(request: pytest.FixtureRequest) -> Make:
    return TABLES[str(request.param)]


def members(*weights: int) -> list[tuple[str, int]]:
    return [(f"10.0.0.{index}:80", weight) for index, weight in enumerate(weights)]


def owner(table: Table, of: Members, key: int) -> str:
    return of[table.owners[table.slot(key)]][0]


def test_the_hash_is_the_same_in_every_process_and_release() -> None:
    assert hash_of(b"") == 0xE4A6A0577479B2B4
    assert hash_of(b"a") == 0x40F89E395B66422F


@pytest.mark.parametrize("weights", [(1,) * 8, (1, 2, 5), (100, 200), (7,), (1, 1, 6)])
def test_every_member_gets_its_share_of_the_keys(make: Make, weights: tuple[int, ...]) -> None:
    of = members(*weights)
    table = make(of)
    counts = Counter(owner(table, of, key) for key in KEYS)
    for name, weight in of:
        fair = weight / sum(weights)
        assert counts[name] / len(KEYS) == pytest.approx(fair, rel=0.35)


def test_a_maglev_table_is_shared_out_almost_exactly() -> None:
    counts = Counter(Maglev(members(1, 1, 1, 1, 2), SIZE).owners)
    assert [counts[index] for index in range(5)] == [340, 340, 340, 340, 679]


@pytest.mark.parametrize("count", [3, 9, 12])
def test_when_a_member_leaves_few_keys_of_the_others_move(make: Make, count: int) -> None:
    before = members(*[1] * count)
    after = before[:1] + before[2:]
    old, new = make(before), make(after)
    moved = 0
    for key in KEYS:
        was = owner(old, before, key)
        if was != before[1][0]:
            moved += owner(new, after, key) != was
    # A ring moves none unless the points per member double (from 9 to 8 of them they do not, from 3
    # to 2 they do); Maglev's paper measures a few per cent.
    assert moved / len(KEYS) <= (0.45 if isinstance(new, Ring) and count == 3 else 0.12)
    if isinstance(new, Ring) and count != 3:
        assert moved == 0


def test_the_order_in_which_members_are_listed_matters_to_no_key_of_a_ring() -> None:
    of = members(1, 2, 3)
    one, other = Ring(of, 1024, 65536), Ring(of[::-1], 1024, 65536)
    assert all(owner(one, of, key) == owner(other, of[::-1], key) for key in KEYS)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=12), st.integers(0, HASHES - 1))
def test_each_member_is_in_the_order_of_preference_once(weights: list[int], key: int) -> None:
    of = members(*weights)
    for table in (Ring(of, 64, 4096), Maglev(of, 211)):
        order = list(preference(table, key))
        assert order[0] == table.owners[table.slot(key)]
        assert len(order) == len(set(order))
        if isinstance(table, Ring):
            assert sorted(order) == list(range(len(of)))


@given(st.integers(0, HASHES - 1))
def test_the_second_of_a_ring_takes_over_when_the_first_leaves(key: int) -> None:
    of = members(1, 1, 1, 1, 1)
    first, second, *_ = preference(Ring(of, 100, 4096), key)
    rest = [member for index, member in enumerate(of) if index != first]
    assert owner(Ring(rest, 65, 4096), rest, key) == of[second][0]


@pytest.mark.parametrize(
    ("weights", "minimum", "maximum", "points"),
    [
        ((1,), 1024, 65536, [1024]),
        ((1, 1, 1), 1024, 65536, [512, 512, 512]),
        ((1000, 1000), 1024, 65536, [1000, 1000]),
        ((4000, 4000), 1024, 65536, [1000, 1000]),
        ((1, 100000), 1024, 65536, [1, 50000]),
        ((1,) * 40, 16, 16, [1] * 40),
        ((), 1024, 65536, []),
    ],
)
def test_points_are_a_power_of_two_for_a_unit_of_weight(
    weights: tuple[int, ...], minimum: int, maximum: int, points: list[int]
) -> None:
    scale = point_scale(weights, minimum, maximum)
    counts = Counter(Ring(members(*weights), minimum, maximum).owners)
    assert scale.hex().startswith("0x1.0000000000000p")
    assert [counts[index] for index in range(len(weights))] == points


def test_a_key_behind_the_last_point_belongs_to_the_first() -> None:
    ring = Ring(members(1, 1), 2, 2)
    assert ring.slot(HASHES) == 0
    assert ring.slot(0) == 0


def test_no_members_own_nothing(make: Make) -> None:
    assert set(make([]).owners) <= {-1}


@pytest.mark.parametrize(
    ("number", "prime"),
    [(0, False), (1, False), (2, True), (9, False), (65537, True), (65536, False)],
)
def test_primes_are_known(number: int, prime: bool) -> None:
    assert is_prime(number) is prime
