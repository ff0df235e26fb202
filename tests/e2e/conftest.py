"""Over what the tests of a module are run: both HTTP/2 codecs, callers of both versions of HTTP."""

from collections.abc import Iterator
from typing import Protocol

import httpx
import pytest

from tests.e2e import stand


@pytest.fixture(scope="module")
def codec(request: pytest.FixtureRequest) -> Iterator[None]:
    """Which HTTP/2 codec the sidecars use that are started meanwhile."""
    stand.CODEC = request.param
    yield
    stand.CODEC = "own"


class Rig(Protocol):
    """What a module's own `rig` has where its tests ask for a `client`."""

    port: int


@pytest.fixture(params=["HTTP/1.1", "HTTP/2"])
def client(request: pytest.FixtureRequest, rig: Rig) -> Iterator[httpx.Client]:
    """A caller of the module's rig."""
    is_2 = request.param == "HTTP/2"
    base = f"http://127.0.0.1:{rig.port}"
    with httpx.Client(base_url=base, http1=not is_2, http2=is_2, timeout=20) as client:
        yield client
