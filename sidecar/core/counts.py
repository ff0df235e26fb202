"""What filters count: numbers by name and labels, so few that no caller can make them many."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, final

Labels = tuple[tuple[str, str], ...]
Row = tuple[str, Labels, tuple[float, ...]]

SERIES: Final = 200  # kept for each name; a caller may have chosen the values of labels


@final
class Tally:
    """One number; whoever has it adds to it."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0


@final
class Counts:
    """Counters and gauges of one worker; they outlive every plan."""

    __slots__ = ("_series",)

    def __init__(self) -> None:
        self._series: Final[dict[str, dict[Labels, Tally]]] = {}

    def tally(self, name: str, labels: Labels) -> Tally:
        """Return the number of these labels; beyond `SERIES`, the one where all are `other`.

        Not the first, which says who counts: its values come from the config, never from a caller.
        """
        rows = self._series.get(name)
        if rows is None:
            rows = self._series[name] = {}
        found = rows.get(labels)
        if found is None:
            if len(rows) >= SERIES:
                labels = (*labels[:1], *[(label, "other") for label, _ in labels[1:]])
            found = rows.setdefault(labels, Tally())
        return found

    def rows(self) -> Iterator[Row]:
        """Return all series."""
        for name, rows in self._series.items():
            for labels, tally in rows.items():
                yield name, labels, (tally.value,)
