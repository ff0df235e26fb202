"""Which HTTP/2 codec the sidecars of a module use: forwarding is tried over both."""

from collections.abc import Iterator

import pytest

from tests.e2e import stand

OVER_BOTH = ("test_mesh", "test_outbound")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.module.__name__.rpartition(".")[2] in OVER_BOTH:
        metafunc.fixturenames.append("codec")
        metafunc.parametrize("codec", ["own", "reference"], indirect=True, scope="module")


@pytest.fixture(scope="module", autouse=True)
def codec(request: pytest.FixtureRequest) -> Iterator[None]:
    stand.CODEC = getattr(request, "param", "own")
    yield
    stand.CODEC = "own"
