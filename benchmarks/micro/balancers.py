"""What a pick costs by each balancer, and what goes around it: `python -m benchmarks.micro.balancers`.

Medians of rounds in which the cases take turns, in microseconds a pick among ten endpoints, as the
compiler has made the balancer; a session is placed, hashed by its source address where that counts.
"""

import statistics
import sys
import time
from typing import Any, Final

from sidecar.compiler.snapshot import compile_snapshot, no_dial
from sidecar.core.api import Balancer
from sidecar.core.book import Book
from sidecar.core.tcp import Session
from sidecar.core.timers import Wheel
from sidecar.core.types import Caller, Engine, ListenerState
from sidecar.model.snapshot import Snapshot
from sidecar.sources.decode import decode

ROUNDS: Final = 15
PICKS: Final = 5000  # a round
ENDPOINTS: Final = 10

OFF: Final = {"outlier_detection": False}
CASES: Final[dict[str, dict[str, Any]]] = {
    "random": {"balancer": "random", **OFF},
    "round_robin": {"balancer": "round_robin", **OFF},
    "least_request": OFF,
    "least_request, ejection on": {},
    "least_request, two priorities": {**OFF, "priorities": 2},
    "least_request, slow start": {**OFF, "slow_start": "30s"},
    "peak_ewma": {"balancer": "peak_ewma", **OFF},
    "ring_hash": {"balancer": "ring_hash", **OFF},
    "maglev": {"balancer": "maglev", **OFF},
}


def compiled(cluster: dict[str, Any]) -> tuple[Balancer, Session]:
    """Return the balancer of `cluster`, and a session to be placed by it."""
    priorities = cluster.pop("priorities", 1)
    endpoints = [
        {"address": f"10.0.0.{number}:80", "priority": number % priorities}
        for number in range(ENDPOINTS)
    ]
    hashes = cluster.get("balancer") in ("ring_hash", "maglev")
    route = {"cluster": "app", "hash_policy": [{"source_ip": True}] if hashes else []}
    tree = {
        "workload": "web",
        "outbound": [{"protocol": "tcp", "routes": [route]}],
        "clusters": [{"name": "app", "endpoints": endpoints, **cluster}],
    }
    plan = compile_snapshot(decode(tree, Snapshot), None, Book(), no_dial)
    (listener,) = plan.listeners.values()
    engine = Engine(time.monotonic, time.time, Wheel(lambda when: None))  # noqa: TID251 - to measure
    session = Session(ListenerState(engine, listener), Caller("10.9.9.9", 5000))
    session.route = listener.routes.find_name("")
    return plan.clusters["app"].balancer, session


def main() -> None:
    """Measure and print."""
    made = {name: compiled(dict(cluster)) for name, cluster in CASES.items()}
    seconds: dict[str, list[float]] = {name: [] for name in made}
    for _ in range(ROUNDS):
        for name, (balancer, session) in made.items():
            pick = balancer.pick
            begin = time.perf_counter()
            for _ in range(PICKS):
                pick(session, ())
            seconds[name].append(time.perf_counter() - begin)
    print(f"Python {sys.version.split()[0]}, µs a pick, median of {ROUNDS} rounds (least)")
    for name, rounds in seconds.items():
        per_pick = [1e6 * s / PICKS for s in rounds]
        print(f"  {name:32} {statistics.median(per_pick):6.2f} ({min(per_pick):.2f})")


if __name__ == "__main__":
    main()
