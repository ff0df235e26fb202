"""A real service of Envoy's rate limit protocol: a grpcio server with Envoy's own messages."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from envoy.config.core.v3.base_pb2 import HeaderValue
from envoy.service.ratelimit.v3.rls_pb2 import RateLimitResponse
from envoy.service.ratelimit.v3.rls_pb2_grpc import (
    RateLimitServiceServicer,
    add_RateLimitServiceServicer_to_server,
)

from tests.e2e.stand import Sidecar, Upstream, echo, free_port, wait_for

CONFIG = """\
workload: web
outbound:
  - address: 127.0.0.1:{port}
    routes:
      - match: {{prefix: /closed}}
        cluster: app
        rate_limits: [{{service: {{cluster: absent, domain: shop, on_failure: closed}}}}]
      - match: {{prefix: /open}}
        cluster: app
        rate_limits: [{{service: {{cluster: absent, domain: shop}}}}]
      - cluster: app
        rate_limits:
          - name: per-tenant
            by: ["header:x-tenant"]
            service: {{cluster: limits, domain: shop, timeout: 5s}}
clusters:
  - {{name: app, endpoints: ["127.0.0.1:{app}"]}}
  - {{name: limits, endpoints: ["127.0.0.1:{limits}"], protocol: http2}}
  - {{name: absent, endpoints: ["127.0.0.1:{absent}"], protocol: http2}}
"""


class Limits(RateLimitServiceServicer):  # type: ignore[misc] # generated, without annotations
    """Two for each tenant."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.counts: Counter[str] = Counter()

    def ShouldRateLimit(self, request: Any, context: Any) -> Any:  # noqa: N802 - the service's name
        ((entry,),) = [descriptor.entries for descriptor in request.descriptors]
        assert (request.domain, entry.key) == ("shop", "x-tenant")
        with self.lock:
            self.counts[entry.value] += 1
            left = 2 - self.counts[entry.value]
        limit = RateLimitResponse.RateLimit(
            requests_per_unit=2, unit=RateLimitResponse.RateLimit.HOUR
        )
        code = RateLimitResponse.OK if left >= 0 else RateLimitResponse.OVER_LIMIT
        status = RateLimitResponse.DescriptorStatus(
            code=code, current_limit=limit, limit_remaining=max(left, 0)
        )
        fields = [HeaderValue(key="x-left", value=str(left))]
        return RateLimitResponse(
            overall_code=code, statuses=[status], response_headers_to_add=fields
        )


@pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])
def test_a_service_keeps_the_rate(tmp_path: Path, http2: bool) -> None:
    app = Upstream(echo)
    server = grpc.server(ThreadPoolExecutor(4))
    add_RateLimitServiceServicer_to_server(Limits(), server)
    limits = server.add_insecure_port("127.0.0.1:0")
    server.start()
    port = free_port()
    sidecar = Sidecar(
        tmp_path, CONFIG.format(port=port, app=app.port, limits=limits, absent=free_port())
    )
    base = f"http://127.0.0.1:{port}"
    with httpx.Client(base_url=base, http1=not http2, http2=http2, timeout=20) as client:
        for tenant in ("a", "b"):
            answers = [client.get("/", headers={"x-tenant": tenant}) for _ in range(3)]
            assert [answer.status_code for answer in answers] == [200, 200, 429]
            assert [answer.headers["x-left"] for answer in answers] == ["1", "0", "-1"]
            assert answers[2].headers["ratelimit-policy"] == "2;w=3600"
            assert answers[2].headers["x-envoy-ratelimited"] == "true"
            assert "flag RL, " in answers[2].text
        assert client.get("/").status_code == 200  # no tenant, no descriptor
        closed = client.get("/closed")
        assert (closed.status_code, "flag RLSE" in closed.text) == (503, True)
        assert client.get("/open").status_code == 200
    counted = 'sidecar_rate_limit_service_total{limit="per-tenant",result="over_limit"} 2.0'
    wait_for(lambda: counted in sidecar.get("/metrics")[1])
    sidecar.end()
    server.stop(0).wait()
    app.close()
