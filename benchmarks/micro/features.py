"""What each feature costs when it is on, and that it costs nothing when it is off.

`python -m benchmarks.micro.features [FEATURE...]`: an exchange over HTTP/1.1 in memory, as in
`exchange`, with one feature more than `nothing`; told is the median of the rounds' differences, in
µs of CPU.  `nothing, again` shows what a difference of nothing looks like: more than that is real.
`all but policy, elsewhere` has every feature configured where this traffic does not go, which
is what "free when off" has to hold for.  A policy is never off beside it: where a route has one, the
requests of the other routes are looked at too, lest another spelling of a path leads around it
(`policy, elsewhere`).
"""

import math
import random
import time
from typing import Any, Final

from benchmarks.micro.exchange import HTTP1_ANSWER, Stand, http1_request
from benchmarks.micro.turns import Case, tell_differences
from sidecar.core.limit import spell
from sidecar.core.quota import Desk
from sidecar.filters.shared_rate_limit import SharedRateLimit

ROUNDS: Final = 60
EXCHANGES: Final = 300  # a round
WARM: Final = 50

PLAIN: Final = {"name": "all", "cluster": "app", "retry": {"attempts": 1}}
HOOK: Final = (
    "from sidecar.filter import Filter\n"
    "class Hook(Filter[None]):\n"
    "    def on_request(self, request):\n"
    "        request.set_header('x-hook', request.path)\n"
)
# Of a route, by the name of the feature.
ROUTE: Final[dict[str, dict[str, Any]]] = {
    "retries": {"retry": {"attempts": 3, "on": ["connect-failure", "reset"]}},
    "retry by status": {"retry": {"on": ["retriable-status-codes"], "status_codes": [503]}},
    "timeout a try": {"retry": {"attempts": 1, "per_try_timeout": "2s"}},
    "rate limit": {"rate_limits": [{"requests": 1000000}]},
    "rate limit, shared, leased": {"rate_limits": [{"requests": 1000000, "shared": {}}]},
    "bandwidth of bodies": {"bandwidth_limits": [{"up": "1GiB", "down": "1GiB"}]},
    "rate limit by header": {"rate_limits": [{"requests": 1000000, "by": ["header:x-tenant"]}]},
    "authorization by path": {
        "authorization": [{"action": "deny", "match": {"paths": [{"prefix": "/closed"}]}}]
    },
    "authorization by header": {
        "authorization": [{"action": "deny", "match": {"headers": {"x-tenant": "none"}}}]
    },
    "rewrite of a prefix": {"match": {"prefix": "/api"}, "rewrite": {"prefix": "/v2"}},
    "request field set": {"request_headers": {"set": {"x-seen": "%REQUEST_ID%"}}},
    "response field set": {"response_headers": {"set": {"x-upstream": "%UPSTREAM_HOST%"}}},
    "cors": {"cors": {"origins": ["https://shop.example.org"]}},
    "fault that strikes nobody": {"faults": [{"abort": {"status": 503, "percent": "0%"}}]},
    "mirror of nothing": {"mirror": [{"cluster": "app", "percent": "0%"}]},
    "match of a header": {"match": {"headers": {"x-tenant": {"prefix": "tenant"}}}},
    "match by pattern": {"match": {"regex": "/api/v[0-9]+/.*"}},
    "hedging that is not due": {"hedge": {"delay": "500ms"}, "retry": {"attempts": 2}},
    "split over two": {"cluster": "", "clusters": [{"name": "app", "weight": 1}] * 2},
    "filter in Python": {"filters": [{"name": "hook", "code": HOOK}]},
}
# Of a cluster; `outlier_detection` is on by default, and off in `nothing`.
CLUSTER: Final[dict[str, dict[str, Any]]] = {
    "outlier detection": {"outlier_detection": {}},
    "adaptive concurrency": {"adaptive_concurrency": True},
    "admission control": {"admission_control": True},
    "ring hash by header": {"balancer": "ring_hash"},
    "peak ewma": {"balancer": "peak_ewma"},
}
# Of a listener.
LISTENER: Final[dict[str, dict[str, Any]]] = {
    "connection limit": {"connection_limits": [{"connections": 1000}]},
    "bandwidth of connections": {"bandwidth_limits": [{"up": "1GiB", "down": "1GiB"}]},
}
NOTHING: Final = {"outlier_detection": False}
ELSEWHERE: Final = {"name": "elsewhere", "match": {"path": "/nowhere"}}


def merged(features: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the options of all `features` in one route: lists are joined, of the others the last holds."""
    found: dict[str, Any] = {}
    for options in features.values():
        for key, value in options.items():
            is_list = isinstance(value, list) and isinstance(found.get(key), list)
            found[key] = [*found[key], *value] if is_list else value
    found.pop("clusters", None)
    return {**PLAIN, **found, **ELSEWHERE, "cluster": "app"}


def asked(stand: Stand, count: int) -> float:
    """Return the seconds of CPU of `count` exchanges through `stand`."""
    caller = stand.open()
    chance = random.Random(7541)  # noqa: S311 - no secret
    requests = [http1_request(number, chance) for number in range(100)]
    begin = 0.0
    for number in range(count + WARM):
        if number == WARM:
            begin = time.process_time()
        caller.protocol.data_received(requests[number % 100])
        stand.upstreams[0].protocol.data_received(HTTP1_ANSWER)
    spent = time.process_time() - begin
    assert caller.writes == count + WARM, "an exchange was not answered, or answered twice"
    return spent


def leased(stand: Stand) -> None:
    """Have enough of every shared rate in advance, as a worker has of one that many meet."""
    stand.engine.desk = Desk(stand.engine, lambda asks: True)
    for row in stand.listener.plan.routes._any:
        for stop in row[1].on_request:
            if isinstance(stop, SharedRateLimit):
                lease = stop.settings.share.held((), spell, 0.0).lease
                lease.held, lease.until = 10**9, math.inf


def case(routes: list[dict[str, Any]], cluster: dict[str, Any] | None = None, **more: Any) -> Case:
    """Return exchanges through what is configured so; the plan is made once."""
    made: list[Stand] = []

    def run(count: int) -> float:
        if not made:
            options = {**NOTHING, **(cluster or {})}
            made.append(Stand(upstream="http1", cluster=options, routes=routes, **more))
            leased(made[0])
        return asked(made[0], count)

    return run


def cases() -> dict[str, Case]:
    """Return what is measured, `nothing` first."""
    found = {"nothing": case([PLAIN]), "nothing, again": case([PLAIN])}
    for name, options in ROUTE.items():
        found[name] = case([{**PLAIN, **options}])
    for name, options in CLUSTER.items():
        hashes = {"hash_policy": [{"header": "x-tenant"}]} if "ring" in name else {}
        found[name] = case([{**PLAIN, **hashes}], options)
    for name, options in LISTENER.items():
        found[name] = case([PLAIN], **options)
    found["access log, text"] = case([PLAIN], full=True)
    found["access log, json"] = case([PLAIN], full=True, log_format="json")
    # The other route must be looked at before this traffic's, so it is compared with a plain one.
    found["nothing, two routes"] = case([{**PLAIN, **ELSEWHERE}, PLAIN])
    policies = {name: options for name, options in ROUTE.items() if "authorization" in options}
    others = {name: options for name, options in ROUTE.items() if name not in policies}
    found["all but policy, elsewhere"] = case([merged(others), PLAIN])
    found["policy, elsewhere"] = case([merged(policies), PLAIN])
    return found


CASES: Final = cases()
BASES: Final = dict.fromkeys(
    ("all but policy, elsewhere", "policy, elsewhere"), "nothing, two routes"
)
"""What a case is compared with, if not with `nothing`."""


def main() -> None:
    """Measure and print."""
    tell_differences(CASES, BASES, EXCHANGES, ROUNDS)


if __name__ == "__main__":
    main()
