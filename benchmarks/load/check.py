"""Is a ratio worse than one that was stored?  `./dev bench --check FILE`.

Times of two runs say nothing about each other on a machine that is shared; ratios to a peer of the
same run do, as far as their rounds agree.  So a ratio is worse when its median lies above the stored
median by more than both spreads together, a spread being half of what lies between the lowest and
the highest round, and by more than `LEAST` of it in any case.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.load.report import FIGURES, HIGHER_IS_BETTER

LEAST: Final = 0.05
"""What medians of five rounds differ by when nothing has changed, on a machine left alone."""

Ratio = Mapping[str, Any]


@dataclass(frozen=True)
class Line:
    """One ratio that both results have."""

    name: str
    was: float
    now: float
    allowed: float
    """The limit that `now` must keep."""
    is_worse: bool
    is_better: bool
    """By as much in the other direction: the stored result is due for renewal."""


def key(ratio: Ratio) -> tuple[str, ...]:
    """Return what two ratios must share to be compared."""
    return tuple(ratio[name] for name in ("scenario", "case", "features", "figure", "peer"))


def judged(now: Iterable[Ratio], stored: Iterable[Ratio]) -> list[Line]:
    """Return a line for each ratio of `now` that was stored as well."""
    known = {key(ratio): ratio for ratio in stored}
    return [judge(ratio, known[key(ratio)]) for ratio in now if key(ratio) in known]


def judge(now: Ratio, stored: Ratio) -> Line:
    """Compare one ratio with the stored one."""
    was, value = stored["ratio"], now["ratio"]
    spread = sum((ratio["high"] - ratio["low"]) / 2 for ratio in (now, stored))
    room = max(spread, LEAST * was)
    if stored["figure"] in HIGHER_IS_BETTER:
        allowed, is_worse, is_better = was - room, value < was - room, value > was + room
    else:
        allowed, is_worse, is_better = was + room, value > was + room, value < was - room
    scenario, case, features, figure, peer = key(now)
    name = " ".join(filter(None, (scenario, case, features, FIGURES.get(figure, figure))))
    return Line(f"{name} / {peer}", was, value, allowed, is_worse, is_better)


def verdicts(lines: Iterable[Line]) -> str:
    """Return the table: what is worse first, then what is better; the rest as a number."""
    every = list(lines)
    worse = [line for line in every if line.is_worse]
    better = [line for line in every if line.is_better]
    text = [f"\n{'ratio, ours / theirs':78} {'stored':>8} {'now':>8} {'allowed':>8}"]
    for line in worse + better:
        word = "worse" if line.is_worse else "better"
        text.append(f"{line.name:78} {line.was:8.3f} {line.now:8.3f} {line.allowed:8.3f}  {word}")
    text.append(f"{len(every)} compared: {len(worse)} worse, {len(better)} better")
    return "\n".join(text)
