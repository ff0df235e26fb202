"""What is no load of so many seconds: idle memory, start-up, a large push."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from benchmarks.load import processes
from benchmarks.load.measure import PROXIES, Plan, Row, Subject, named, names, pace, stage
from benchmarks.load.peers import assignment, launch, origin, stop
from benchmarks.load.scenarios import Case

IDLE: Final = 1000  # connections
ENDPOINTS: Final = 10_000
Procedure = Callable[[Case, str, Plan, Path], list[Row]]
One = Callable[[Case, str, str, int, Plan, Path, int], Row]
"""Case, features, subject, round, plan, directory, port of the app -> what was measured."""


def idle(case: Case, features: str, plan: Plan, directory: Path) -> list[Row]:
    """Measure PSS without connections and with 1000 that have answered one request each."""
    rows: list[Row] = []
    for number in range(plan.rounds):
        with stage(case, features, plan, directory) as subjects:
            for subject in (one for one in subjects if one.pids):
                empty = processes.pss(subject.pids)
                with contextlib.ExitStack() as stack:
                    errors = open_idle(subject.port, stack)
                    full = processes.pss(subject.pids)
                figures = {
                    "pss_mb": round(empty / 1e6, 1),
                    "mb_per_1000_idle": round((full - empty) / 1e6 * 1000 / IDLE, 2),
                    "errors": errors,
                }
                rows.append(named(case, features, subject.name, number, figures))
                plan.told(f"idle {features}: round {number + 1}")
    return rows


def open_idle(port: int, stack: contextlib.ExitStack) -> int:
    """Open connections that stay until `stack` ends; return how many got no 200."""
    errors = 0
    for _ in range(IDLE):
        sock = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
        sock.sendall(b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n")
        errors += sock.recv(65536)[:12] != b"HTTP/1.1 200"
    return errors


def startup(case: Case, features: str, plan: Plan, directory: Path) -> list[Row]:
    """Measure the time from the command to the first 200, and the CPU until then."""
    return each_alone("startup", started, case, features, plan, directory)


def each_alone(
    what: str, one: One, case: Case, features: str, plan: Plan, directory: Path
) -> list[Row]:
    """Have `one` measure one subject after the other, round by round, before an app that answers."""
    rows: list[Row] = []
    port = processes.free_port()
    answering = origin("http1", directory, processes.LAST, [port])
    try:
        processes.await_port(port, directory / "origin-http1" / "log")
        for number in range(plan.rounds):
            for name in names(case, features, plan):
                rows.append(one(case, features, name, number, plan, directory, port))
                plan.told(f"{what} {features}: round {number + 1}")
    finally:
        stop([answering])
    return rows


def started(
    case: Case, features: str, name: str, number: int, plan: Plan, directory: Path, port: int
) -> Row:
    """Start one subject once; return its row."""
    listening = processes.free_port()
    hop = case.hops[0].with_features(features)
    begin = time.monotonic()
    process = launch(
        plan.proxies[name], hop, directory / f"{name}-start{number}",
        core=PROXIES, port=listening, endpoints=[port],
    )  # fmt: skip
    try:
        while not (ready := processes.answers(listening)) and time.monotonic() < begin + 20:
            time.sleep(0.005)
        took = time.monotonic() - begin
        figures = {
            "ready_ms": round(took * 1000, 1),
            "cpu_ms": round(processes.cpu([process.pid]) * 1000),
            "pss_mb": round(processes.pss([process.pid]) / 1e6, 1),
            "errors": int(not ready),
        }
    finally:
        stop([process])
    return named(case, features, name, number, figures)


def push(case: Case, features: str, plan: Plan, directory: Path) -> list[Row]:
    """Measure the open-loop latency before and during a push of 10,000 endpoints."""
    rows: list[Row] = []
    for number in range(plan.rounds):
        with stage(case, features, plan, directory) as subjects:
            for subject in (one for one in subjects if one.pids):
                rows.append(pushed(case, features, subject, number, plan, directory))
                plan.told(f"push {features}: round {number + 1}")
    return rows


def pushed(
    case: Case, features: str, subject: Subject, number: int, plan: Plan, directory: Path
) -> Row:
    """Push to one subject under load; return its row."""
    before = pace(subject, case.load, plan.seconds, number)
    spent = processes.cpu(subject.pids)
    pushing = threading.Timer(
        plan.seconds / 4, rewrite, (subject.name, directory / f"{subject.name}-web")
    )
    pushing.start()
    during = pace(subject, case.load, max(plan.seconds, 4), number)
    pushing.join()
    figures = {
        "p50_ms": during.get("p50_ms"),
        "p99_ms": during.get("p99_ms"),
        "p99_before_ms": before.get("p99_ms"),
        "p99_during_by_before": by(during, before),
        "cpu_ms": round((processes.cpu(subject.pids) - spent) * 1000),
        "pss_mb": round(processes.pss(subject.pids) / 1e6, 1),
        "errors": before["errors"] + during["errors"],
    }
    return named(case, features, subject.name, number, figures)


def by(during: Row, before: Row) -> float | None:
    """Return the p99 of one open loop by another's; none where one failed."""
    if during["errors"] or before["errors"]:
        return None
    return float(round(during["p99_ms"] / max(before["p99_ms"], 0.001), 2))


def rewrite(name: str, home: Path) -> None:
    """Give cluster `large`, which no route uses, 10,000 endpoints: nobody asks them, all hold them."""
    addresses = [f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in range(ENDPOINTS)]
    path = home / ("sidecar.yaml" if name == "sidecar" else "large.json")
    if name == "sidecar":
        more = ", ".join(f"{address}:8080" for address in addresses)
        text = path.read_text().replace("[10.0.0.1:8080]", f"[{more}]")
    else:
        text = assignment(addresses)
    spare = path.with_suffix(".new")
    spare.write_text(text)
    spare.rename(path)


PROCEDURES: Final[Mapping[str, Procedure]] = {"idle": idle, "startup": startup, "push": push}
