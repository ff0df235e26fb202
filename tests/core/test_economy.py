"""What connections leave behind: nothing for the collector, and nothing in the wheel of timers."""

import gc
from collections.abc import Iterator
from typing import Any

import pytest

from sidecar.core.http1_client import Http1Client
from sidecar.core.http1_server import Http1Server
from sidecar.core.http2_client import Http2Client
from sidecar.core.http2_server import Http2Server
from sidecar.core.tcp import Session
from sidecar.core.timers import Timer
from sidecar.runtime.listener import Front
from sidecar.wire.http2 import Link
from tests.core.harness import GET, OK, Harness
from tests.core.transport import FakeTransport
from tests.wire.http2_ends import End

OURS = (
    Front, Http1Server, Http1Client, Http2Server, Http2Client, Session, Timer, FakeTransport,
)  # fmt: skip


@pytest.fixture
def collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def count() -> int:
    return sum(isinstance(each, OURS) for each in gc.get_objects())


def http1(harness: Harness) -> None:
    caller = harness.open(GET)
    upstream = harness.connect()
    upstream.send(OK)
    harness.settle()
    assert caller.take().startswith(b"HTTP/1.1 200")
    caller.lose()
    upstream.lose()


def http2(harness: Harness) -> None:
    caller = harness.open(End(Link, client=True).link.take())
    harness.settle()
    assert caller.take()
    caller.lose()


def silent(harness: Harness) -> None:
    harness.open().lose()


def opaque(harness: Harness) -> None:
    caller = harness.open(b"x")
    upstream = harness.connect()
    harness.settle()
    assert upstream.take() == b"x"
    caller.lose()


@pytest.mark.usefixtures("collector")
@pytest.mark.parametrize(
    ("live", "listener"),
    [(http1, {}), (silent, {}), (opaque, {"protocol": "tcp"})],
)
def test_a_connection_that_is_over_is_gone_though_its_timers_were_far_from_due(
    live: Any, listener: dict[str, str]
) -> None:
    harness = Harness(listener=listener)
    harness.engine.sinks = ()  # the harness's keeps what it is told of

    def one() -> None:
        live(harness)
        harness.settle()
        harness.upstreams.clear()
        harness.callers.clear()
        harness.dials.clear()

    one()
    before = count()
    for _ in range(5):
        one()
    assert count() == before
