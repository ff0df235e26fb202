"""The micro-benchmarks run, and what they compare is what they say."""

from collections.abc import Mapping

import pytest

from benchmarks.micro import access, exchange, features, frames, head
from benchmarks.micro.features import CASES
from benchmarks.micro.instructions import COUNT, NONE, TOTAL, Counted, a_unit
from benchmarks.micro.turns import Case, chosen, differences, spent

MODULES: Mapping[str, Mapping[str, Case]] = {
    "access": access.CASES,
    "exchange": exchange.CASES,
    "features": features.CASES,
    "frames": frames.CASES,
    "head": head.CASES,
}


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module, cases in MODULES.items() for name in cases]
)
def test_every_case_does_what_it_measures(module: str, name: str) -> None:
    # The cases assert that every exchange was answered, once.
    assert MODULES[module][name](8) > 0


def test_what_is_off_is_on_no_list_of_the_plan() -> None:
    stand = exchange.Stand(upstream="http1", cluster=features.NOTHING, routes=[features.PLAIN])

    route = stand.listener.plan.routes.find_name("")

    assert route is not None
    hooks = (route.on_request, route.on_response, route.on_reply, route.on_finish)
    assert hooks == ((), (), (), ())


def test_a_difference_is_that_of_the_rounds_not_of_the_medians() -> None:
    took = {"nothing": [10.0, 20.0, 30.0], "cors": [11.0, 21.0, 31.0]}

    assert differences(took, "cors", "nothing") == [1.0, 1.0, 1.0]


def test_cases_take_turns() -> None:
    order: list[str] = []

    def case(name: str) -> Case:
        def run(count: int) -> float:
            order.append(name)
            return 0.001 * count

        return run

    took = spent({"a": case("a"), "b": case("b")}, count=10, rounds=2)

    assert "".join(order) == "abababa"[:6]
    assert took == {"a": [pytest.approx(1000)] * 2, "b": [pytest.approx(1000)] * 2}


def test_a_case_that_is_not_there_is_told() -> None:
    with pytest.raises(SystemExit, match="no case 'corse'; there are: nothing"):
        chosen(CASES, ["corse"])


class Scripted(Counted):
    """Counts by a table instead of under valgrind, which takes a minute to start."""

    def __init__(self, instructions: Mapping[int, int]) -> None:
        self.instructions = instructions
        self.warmed: list[str] = []

    def warm(self, name: str) -> None:
        self.warmed.append(name)

    def run(self, name: str, count: int) -> int:
        assert self.warmed == [name]
        return self.instructions[count]


def test_instructions_of_a_unit_are_without_those_of_what_is_around_it() -> None:
    around, each = 5_000_000, 1_700

    counted = Scripted({n: around + n * each for n in (NONE, COUNT + NONE)})

    assert a_unit(counted, "request, two fields") == each


@pytest.mark.parametrize("text", ["version: 1\nsummary: 12345\n", "fn=(1)\n1 5\n\ntotals: 12345\n"])
def test_a_dump_of_callgrind_tells_the_total(text: str) -> None:
    found = TOTAL.search(text)

    assert found is not None
    assert found[1] == "12345"
