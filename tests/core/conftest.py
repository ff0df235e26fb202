"""Every test of the engine ends with the question whether something is left over."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.core.harness import Harness


@pytest.fixture
def make() -> Iterator[Callable[..., Harness]]:
    """Return a maker of harnesses, each checked at the end."""
    made: list[Harness] = []

    def new(**config: Any) -> Harness:
        made.append(Harness(**config))
        return made[-1]

    yield new
    for harness in made:
        harness.check()


@pytest.fixture
def harness(make: Callable[..., Harness]) -> Harness:
    """Return one with the plainest config."""
    return make()
