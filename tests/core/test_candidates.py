"""Which endpoints may be chosen, and in what share."""

from collections import Counter

import pytest

from sidecar.core.book import Endpoint
from sidecar.core.candidates import Weighted, usable


def endpoints(*weights: int) -> list[Endpoint]:
    return [Endpoint(f"10.0.0.{i}:80", weight=weight) for i, weight in enumerate(weights)]


def places(found: object, of: list[Endpoint]) -> list[int]:
    assert isinstance(found, list)
    return [of.index(endpoint) for endpoint in found]


@pytest.mark.parametrize(
    ("away", "tried", "found"),
    [
        ((), (), [0, 1, 2, 3]),
        ((0,), (), [1, 2, 3]),
        ((0, 1), (), [2, 3]),
        ((0, 1, 2), (), [0, 1, 2, 3]),  # fewer than half: all are as good as those that are left
        ((), (1, 2), [0, 3]),
        ((0,), (1,), [2, 3]),
        ((0,), (1, 2, 3), [1, 2, 3]),  # all were tried: any of them
        ((), (0, 1, 2, 3), [0, 1, 2, 3]),
    ],
)
def test_the_available_and_untried_come_first(
    away: tuple[int, ...], tried: tuple[int, ...], found: list[int]
) -> None:
    all_ = endpoints(1, 1, 1, 1)
    for index in away:
        all_[index].available = False
    assert places(usable(all_, [all_[i] for i in tried]), all_) == found


@pytest.mark.parametrize("weights", [(1, 1, 1, 1), (5, 5), (1, 2, 3), (7,), (1, 999)])
def test_each_is_drawn_in_proportion_to_its_weight(weights: tuple[int, ...]) -> None:
    all_ = endpoints(*weights)
    weighted = Weighted(all_)
    total = sum(weights)
    draws = Counter(all_.index(weighted.draw((i + 0.5) / total)) for i in range(total))
    assert [draws[i] for i in range(len(weights))] == list(weights)


@pytest.mark.parametrize("weights", [(1, 1), (1, 3)])
def test_the_edges_of_chance_are_within(weights: tuple[int, ...]) -> None:
    all_ = endpoints(*weights)
    weighted = Weighted(all_)
    assert weighted.draw(0.0) is all_[0]
    assert weighted.draw(1 - 2**-53) is all_[-1]
