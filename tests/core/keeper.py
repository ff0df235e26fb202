"""Who keeps shared buckets, played by the test: it sees the questions, and answers when told to."""

from collections.abc import Iterable
from typing import Final, final

from sidecar.core.quota import Desk
from sidecar.traffic.lease import Ask, Granted
from sidecar.traffic.rate import Grant
from tests.core.harness import Harness


@final
class Keeper:
    """Gives the harness's engine a desk; see the module."""

    def __init__(self, harness: Harness) -> None:
        self.harness: Final = harness
        self.asked: Final[list[Ask]] = []  # and not answered
        self.posts = 0
        self.is_there = True
        self.desk: Final = Desk(harness.engine, self._post)
        harness.engine.desk = self.desk

    def take(self) -> list[Ask]:
        """Return what was asked since the last time."""
        asked = self.asked[:]
        self.asked.clear()
        return asked

    def grant(self, granted: int | None = None, wait: float = 0.0, reset: float = 1.0) -> None:
        """Answer all that was asked: with what is wanted, or `granted` for each."""
        self.answer(
            Granted(ask.number, Grant(ask.wanted if granted is None else granted, reset, wait))
            for ask in self.take()
            if ask.number
        )

    def fail(self) -> None:
        """Say of all that was asked that nobody can tell."""
        self.answer(Granted(ask.number, None) for ask in self.take())

    def answer(self, answers: Iterable[Granted]) -> None:
        with self.harness.together():
            self.desk.answered(tuple(answers))

    def _post(self, asks: tuple[Ask, ...]) -> bool:
        if not self.is_there:
            return False
        self.posts += 1
        self.asked.extend(asks)
        return True
