"""What can be said wrongly about overload, and what is taken over."""

import pytest

from sidecar.compiler.snapshot import check, compile_snapshot, no_dial
from sidecar.core.book import Book
from sidecar.errors import ConfigErrors
from sidecar.model.cluster import Cluster
from sidecar.model.endpoint import Endpoint
from sidecar.model.identity import Workload
from sidecar.model.listener import OutboundListener
from sidecar.model.overload import Descriptors, LoopLag, MemoryPressure, Overload
from sidecar.model.route import Route
from sidecar.model.snapshot import Snapshot


def one(overload: Overload, listener: OutboundListener | None = None) -> Snapshot:
    return Snapshot(
        workload=Workload(name="web"),
        clusters=(Cluster(name="app", endpoints=(Endpoint(address="a:1"),)),),
        outbound=(listener or OutboundListener(cluster="app"),),
        overload=overload,
    )


@pytest.mark.parametrize(
    ("overload", "path", "detail"),
    [
        (
            Overload(memory=MemoryPressure(scaling_threshold=95.0, saturation_threshold=90.0)),
            "overload.memory.scaling_threshold",
            "expected saturation_threshold, 90, or less; got 95",
        ),
        (
            Overload(loop_lag=LoopLag(saturation_threshold=0.5)),
            "overload.loop_lag.scaling_threshold",
            "expected saturation_threshold, 0.5, or less; got 1",
        ),
        (
            Overload(descriptors=Descriptors(saturation_threshold=10.0)),
            "overload.descriptors.scaling_threshold",
            "expected saturation_threshold, 10, or less; got 80",
        ),
        (
            Overload(memory=MemoryPressure(limit=1000)),
            "overload.memory.limit",
            "expected 100663296 octets or more, got 1000",
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_path(overload: Overload, path: str, detail: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        check(one(overload), None)
    (error,) = caught.value.errors
    assert (error.path, error.detail.startswith(detail)) == (path, True)


def test_nothing_need_be_looked_at() -> None:
    off = Overload(
        memory=MemoryPressure(saturation_threshold=0.0),
        loop_lag=LoopLag(saturation_threshold=0.0),
        descriptors=Descriptors(saturation_threshold=0.0),
    )
    check(one(off), None)


@pytest.mark.parametrize(
    ("listener", "route", "expected"),
    [(False, False, False), (True, False, True), (False, True, True)],
)
def test_a_route_bypasses_it_by_itself_or_with_its_listener(
    listener: bool, route: bool, expected: bool
) -> None:
    outbound = OutboundListener(
        bypass_overload=listener, routes=(Route(cluster="app", bypass_overload=route),)
    )
    plan = compile_snapshot(one(Overload(), outbound), None, Book(), no_dial)
    (found,) = plan.listeners.values()
    assert found.bypass_overload is listener
    table = found.routes.find_name("any")
    assert table is not None
    assert table.bypass_overload is expected
