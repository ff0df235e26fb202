"""How micro-benchmarks are run: all cases in turns, least and median told, in µs of CPU a unit.

A case is called with a count and returns the seconds of CPU that so many units took, without what it
prepared.  Turns, and the least of many short rounds, because other work on the machine only ever adds.
"""

import gc
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final

Case = Callable[[int], float]
NOTHING: Final = "nothing"  # the case with which others are compared


def spent(cases: Mapping[str, Case], count: int, rounds: int) -> dict[str, list[float]]:
    """Return what each case took in each round, in µs a unit."""
    took: dict[str, list[float]] = {name: [] for name in cases}
    for name in cases:  # imports and caches are filled outside the measurement
        cases[name](count)
    gc.collect()
    for _ in range(rounds):
        for name, case in cases.items():
            took[name].append(case(count) / count * 1e6)
    return took


def chosen(cases: Mapping[str, Case], names: Sequence[str]) -> dict[str, Case]:
    """Return the cases whose names are given, or all; say which there are and exit if one is not."""
    unknown = [name for name in names if name not in cases]
    if unknown:
        sys.exit(f"no case {unknown[0]!r}; there are: {', '.join(cases)}")
    return {name: cases[name] for name in names or cases}


def tell(cases: Mapping[str, Case], what: str, count: int, rounds: int) -> None:
    """Run the cases that the command line names, and print."""
    took = spent(chosen(cases, sys.argv[1:]), count, rounds)
    print(f"Python {sys.version.split()[0]}, µs of CPU {what}, least of {rounds} rounds (median)")
    for name, values in took.items():
        print(f"  {name:28} {min(values):7.2f} ({statistics.median(values):.2f})")


def differences(took: Mapping[str, Sequence[float]], name: str, base: str) -> list[float]:
    """Return the quartiles of the rounds' differences between a case and its base: three, in order."""
    pairs = zip(took[name], took[base], strict=True)
    return statistics.quantiles([mine - theirs for mine, theirs in pairs], n=4)


def tell_differences(
    cases: Mapping[str, Case], bases: Mapping[str, str], count: int, rounds: int
) -> None:
    """Run the cases that the command line names, and print what each costs more than its base.

    `bases` has the base of a case, where that is not NOTHING; bases themselves are not told.
    """
    wanted = chosen(cases, sys.argv[1:])
    compared = {name: cases[name] for name in (NOTHING, *bases.values())}
    took = spent({**compared, **wanted}, count, rounds)
    print(
        f"Python {sys.version.split()[0]}, µs of CPU more than the base"
        f" ({NOTHING}: {min(took[NOTHING]):.2f}); median of {rounds} rounds (quartiles)"
    )
    for name in wanted:
        if name not in compared:
            low, middle, high = differences(took, name, bases.get(name, NOTHING))
            print(f"  {name:28} {middle:+7.2f} ({low:+.2f} to {high:+.2f})")
