"""A large configuration: 1000 routes to 100 clusters of 100 endpoints, loaded and then changed whole.

Load time is from the command to the first 200, push time from the moment the new files are in place
to the first answer that only the new configuration gives.  Every route and every endpoint is another
after the push; the traffic meanwhile goes by the last route, to an endpoint that stays.
"""

import http.client
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import yaml

from benchmarks.load import processes
from benchmarks.load.measure import PROXIES, Plan, Row, Subject, named, pace
from benchmarks.load.peers import configured, start, stop
from benchmarks.load.procedures import each_alone
from benchmarks.load.scenarios import Case

ROUTES: Final = 1000
CLUSTERS: Final = 100
ENDPOINTS: Final = 100  # of each cluster
MARK: Final = "/bench/version"
PATIENCE: Final = 60.0  # seconds for either
TYPE: Final = "type.googleapis.com/envoy.config"


def address(version: int, cluster: int, endpoint: int) -> str:
    """Return an address that nobody asks."""
    return f"10.{version % 200}.{cluster}.{endpoint + 1}"


def sidecar(base: dict[str, Any], version: int) -> dict[str, str]:
    """Return our one file."""
    (listener,) = base["outbound"]
    routes = [
        {
            "name": f"r{number}",
            "match": {"prefix": f"/v{version}/service-{number}"},
            "cluster": f"c{number % CLUSTERS}",
        }
        for number in range(ROUTES)
    ]
    mark = {"name": "mark", "match": {"path": MARK}, "respond": {"body": str(version)}}
    clusters = [
        {
            "name": f"c{number}",
            "endpoints": [f"{address(version, number, place)}:8080" for place in range(ENDPOINTS)],
        }
        for number in range(CLUSTERS)
    ]
    last = {**listener["routes"][0], "name": "last"}
    tree = {
        **base,
        "outbound": [{**listener, "routes": [mark, *routes, last]}],
        "clusters": [*base["clusters"], *clusters],
    }
    return {"sidecar.yaml": json.dumps(tree)}


def envoy(base: dict[str, Any], version: int) -> dict[str, str]:
    """Return Envoy's files: the listener, and clusters and routes that are watched, in this order."""
    resources = base["static_resources"]
    (network,) = resources["listeners"][0]["filter_chains"][0]["filters"]
    settings = network["typed_config"]
    last = settings.pop("route_config")["virtual_hosts"][0]["routes"][0]
    settings["rds"] = {"route_config_name": "all", "config_source": watched("routes.json")}
    base["dynamic_resources"] = {"cds_config": watched("clusters.json")}
    routes = [
        {
            "match": {"path_separated_prefix": f"/v{version}/service-{number}"},
            "route": {"cluster": f"c{number % CLUSTERS}"},
        }
        for number in range(ROUTES)
    ]
    mark = {
        "match": {"path": MARK},
        "direct_response": {"status": 200, "body": {"inline_string": str(version)}},
    }
    table = {
        "@type": f"{TYPE}.route.v3.RouteConfiguration", "name": "all",
        "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [mark, *routes, last]}],
    }  # fmt: skip
    clusters = [
        {
            "@type": f"{TYPE}.cluster.v3.Cluster", "name": f"c{number}", "type": "STATIC",
            "lb_policy": "LEAST_REQUEST",
            "load_assignment": {"cluster_name": f"c{number}", "endpoints": [{"lb_endpoints": [
                {"endpoint": {"address": {"socket_address": {
                    "address": address(version, number, place), "port_value": 8080}}}}
                for place in range(ENDPOINTS)
            ]}]},
        }
        for number in range(CLUSTERS)
    ]  # fmt: skip
    return {
        "envoy.yaml": json.dumps(base),
        "clusters.json": json.dumps({"version_info": str(version), "resources": clusters}),
        "routes.json": json.dumps({"version_info": str(version), "resources": [table]}),
    }


def watched(name: str) -> dict[str, Any]:
    """Return where Envoy finds a file; the directory is filled in by `write`."""
    return {"path_config_source": {"path": f"DIRECTORY/{name}"}, "resource_api_version": "V3"}


MAKERS: Final = {"sidecar": sidecar, "envoy": envoy}


def write(name: str, home: Path, version: int) -> None:
    """Put the files of `version` in place of the small configuration, or of the version before."""
    kept = home / "small"
    if not kept.exists():
        kept.write_text((home / f"{name}.yaml").read_text())
    for file, text in MAKERS[name](yaml.safe_load(kept.read_text()), version).items():
        spare = home / f"{file}.spare"
        spare.write_text(text.replace("DIRECTORY", str(home)))
        spare.rename(
            home / file
        )  # Envoy reads its first file only once, so it may be written again


def config(case: Case, features: str, plan: Plan, directory: Path) -> list[Row]:
    """Measure loading and pushing, one subject after the other, round by round."""
    return each_alone("config", one, case, features, plan, directory)


def one(
    case: Case, features: str, name: str, number: int, plan: Plan, directory: Path, port: int
) -> Row:
    """Start one subject with the large configuration, push another to it; return its row."""
    listening = processes.free_port()
    home = directory / f"{name}-config{number}"
    hop = case.hops[0].with_features(features)
    command = configured(plan.proxies[name], hop, home, port=listening, endpoints=[port])
    write(name, home, 0)
    begin = time.monotonic()
    process = start(PROXIES, command, home / "log")
    try:
        subject = Subject(name, listening, (process.pid,), port)
        ready = until(lambda: processes.answers(listening), begin)
        if ready is None:
            return named(case, features, name, number, {"errors": 1})
        figures: Row = {
            "ready_ms": ready,
            "cpu_ms": round(processes.cpu(subject.pids) * 1000),
            "pss_mb": round(processes.pss(subject.pids) / 1e6, 1),
        }
        return named(case, features, name, number, {**figures, **pushed(case, plan, subject, home)})
    finally:
        stop([process])


def pushed(case: Case, plan: Plan, subject: Subject, home: Path) -> Row:
    """Change everything under load; return the figures of it."""
    before = pace(subject, case.load, plan.seconds, 0)
    spent = processes.cpu(subject.pids)
    took: list[float | None] = []
    pushing = threading.Timer(plan.seconds / 4, lambda: took.append(push(subject, home)))
    pushing.start()
    during = pace(subject, case.load, max(plan.seconds, 4), 0)
    pushing.join()
    wrong = before["errors"] + during["errors"] + (took[0] is None)
    if wrong:
        return {"errors": wrong}
    return {
        "push_ms": took[0],
        "push_cpu_ms": round((processes.cpu(subject.pids) - spent) * 1000),
        "p50_ms": during["p50_ms"],
        "p99_ms": during["p99_ms"],
        "p99_before_ms": before["p99_ms"],
        "p99_during_by_before": round(during["p99_ms"] / max(before["p99_ms"], 0.001), 2),
        "pss_after_mb": round(processes.pss(subject.pids) / 1e6, 1),
        "errors": 0,
    }


def push(subject: Subject, home: Path) -> float | None:
    """Write the new files, and return the milliseconds until they are in force."""
    write(subject.name, home, 1)
    begin = time.monotonic()
    if subject.name == "sidecar":
        os.kill(subject.pids[0], signal.SIGHUP)  # by itself it looks once a second
    return until(lambda: version_at(subject.port) == b"1", begin)


def version_at(port: int) -> bytes:
    """Return which version answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", MARK)
        return connection.getresponse().read()
    except OSError:
        return b""
    finally:
        connection.close()


def until(holds: Callable[[], bool], begin: float) -> float | None:
    """Return the milliseconds since `begin` when `holds()` is true; none if it never is."""
    while not holds():
        if time.monotonic() > begin + PATIENCE:
            return None
        time.sleep(0.005)
    return round((time.monotonic() - begin) * 1000, 1)
