"""How the config of a filter names the cluster that it asks."""

from typing import Any

import pytest

from sidecar.compiler.clusters import make_endpoint
from sidecar.compiler.context import Context
from sidecar.compiler.snapshot import no_dial
from sidecar.core.api import Balancer
from sidecar.core.book import ClusterState
from sidecar.core.call import CallPlan
from sidecar.core.connect import begin
from sidecar.core.plan import PROTOCOL_HTTP1, PROTOCOL_HTTP2, ClusterPlan
from sidecar.wire.http1_head import HeadReader


def context(
    *listeners: str, endpoint: str = "10.0.0.1:80", protocol: int = PROTOCOL_HTTP1
) -> Context:
    plan = ClusterPlan(
        "auth", ClusterState(), (make_endpoint(endpoint),), Balancer(), no_dial, HeadReader(), begin
    )  # fmt: skip
    plan.protocol = protocol
    return Context(
        clusters={"auth": plan},
        subset=lambda cluster, labels, path: cluster,
        keep=lambda key, begin: begin(),
        workers=1,
        stores=(),
        draw=lambda: 0.5,
        errors=[],
        listeners=listeners,
    )


def call(of: Context, cluster: str = "auth", **options: Any) -> CallPlan | None:
    return of.call("check", cluster, "a.cluster", 0.2, **options)


def test_a_cluster_is_asked_by_its_name() -> None:
    here = context("0.0.0.0:15006")
    found = call(here, keeps=7)
    assert here.errors == []
    assert found is not None
    assert (found.cluster, found.timeout, found.keeps) == (here.clusters["auth"], 0.2, 7)
    assert found.listener.name == "call|check"


def test_a_name_that_is_none_is_told_with_the_nearest() -> None:
    here = context()
    assert call(here, "aut") is None
    assert [str(e) for e in here.errors] == [
        "a.cluster: no cluster is named 'aut' (did you mean 'auth'?)"
    ]


@pytest.mark.parametrize("protocol", [PROTOCOL_HTTP1, PROTOCOL_HTTP2])
def test_grpc_needs_http2(protocol: int) -> None:
    here = context(protocol=protocol)
    call(here, grpc=True)
    told = [] if protocol == PROTOCOL_HTTP2 else [
        "a.cluster: gRPC needs HTTP/2: set `protocol: http2` for cluster 'auth'"
    ]  # fmt: skip
    assert [str(e) for e in here.errors] == told


@pytest.mark.parametrize(
    ("endpoint", "listener", "is_own"),
    [
        ("127.0.0.1:15001", "127.0.0.1:15001", True),
        ("127.0.0.1:15006", "0.0.0.0:15006", True),
        ("[::1]:15006", "[::]:15006", True),
        ("localhost:15006", "0.0.0.0:15006", True),
        ("unix:/run/s.sock", "unix:/run/s.sock", True),
        ("127.0.0.1:15002", "127.0.0.1:15001", False),
        ("127.0.0.1:80", "0.0.0.0:15006", False),
        ("10.0.0.1:15006", "0.0.0.0:15006", False),
    ],
)
def test_a_call_may_not_lead_back_here(endpoint: str, listener: str, is_own: bool) -> None:
    here = context(listener, endpoint=endpoint)
    call(here)
    told = f"a.cluster: {endpoint} of cluster 'auth' is a listener of this sidecar"
    assert [str(e) for e in here.errors] == ([told] if is_own else [])
