"""The app of most suites, and the ways to it: each is opened once for all of them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.interop.peer import python
from tests.interop.way import App, Front, way


@pytest.fixture(scope="session", autouse=True)
def unmeasured() -> Iterator[None]:
    """Leave the coverage of what is started to tests/e2e: measured, everything here is slower."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
        yield


@pytest.fixture(scope="session")
def origin(unmeasured: None) -> Iterator[dict[str, App]]:
    """Return tests.interop.origin by what it speaks."""
    with python("tests.interop.origin") as ports:
        yield {"h1": App(ports["http1"], http2=False), "h2": App(ports["http2"])}


@pytest.fixture(scope="session")
def fronts(
    origin: dict[str, App], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Front]]:
    """Open ways by name, each when it is first asked for."""
    found: dict[str, Front] = {}
    with ExitStack() as stack:

        def named(name: str) -> Front:
            if name not in found:
                opening = way(name, [*origin.values()], tmp_path_factory.mktemp("way"))
                found[name] = stack.enter_context(opening)
            return found[name]

        yield named


@pytest.fixture
def front(request: pytest.FixtureRequest, fronts: Callable[[str], Front]) -> Front:
    """The way that the parameter names."""
    return fronts(request.param)
