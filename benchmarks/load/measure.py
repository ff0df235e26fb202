"""Running a case: everything is started, rounds are interleaved, everything is ended.

The proxies under test have the first core, load tool and origin the last one.  A row is one round of
one subject: `scenario, case, features, subject, round, cpu_us_per_request, rps, p50_ms, p99_ms,
pss_mb, errors`; a figure that the case does not have is null, and a row with errors is void.
"""

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from benchmarks.load import processes
from benchmarks.load.peers import AbsentError, Peer, launch, origin, peers, stop
from benchmarks.load.scenarios import Case, Hop, Load
from benchmarks.load.tools import TOOLS, GarbledError, Told, paced_command, paced_told, percentile

Row = dict[str, Any]
PROXIES: Final = 0
LOADS: Final = processes.LAST
SLACK: Final = 30.0  # seconds a load tool may take beyond its time


@dataclass(frozen=True)
class Subject:
    """A started proxy (or two in a row); `direct` has no process."""

    name: str
    port: int
    pids: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """What one run is asked for."""

    rounds: int
    seconds: float
    features: tuple[str, ...]
    proxies: Mapping[str, Peer]
    quick: bool
    told: Callable[[str], None] = lambda _: None
    """Called after every step with what was done."""


@contextlib.contextmanager
def stage(case: Case, features: str, plan: Plan, directory: Path) -> Iterator[list[Subject]]:
    """Start the origin and every subject of a case; end them."""
    started: list[subprocess.Popen[bytes]] = []
    ports = [processes.free_port() for _ in range(case.endpoints)]
    try:
        started.append(origin(case.origin, directory, LOADS, ports))
        processes.await_port(ports[0], directory / f"origin-{case.origin}" / "log")
        subjects: list[Subject] = []
        for name in names(case, plan):
            port, pids = line_up(plan.proxies[name], case, features, directory, ports, started)
            subjects.append(Subject(name, port, pids))
        if case.direct and not plan.quick:
            subjects.append(Subject("direct", ports[0], ()))
        yield subjects
    finally:
        stop(started)


def line_up(
    peer: Peer,
    case: Case,
    features: str,
    directory: Path,
    ports: list[int],
    started: list[subprocess.Popen[bytes]],
) -> tuple[int, tuple[int, ...]]:
    """Start one subject's proxies from the origin outwards; return its port and processes."""
    pids: list[int] = []
    towards = ports
    for hop in reversed(case.hops):
        port = processes.free_port()
        home = directory / f"{peer.name}-{hop.workload}"
        process = launch(
            peer, hop.with_features(features), home, core=PROXIES, port=port, endpoints=towards
        )
        started.append(process)
        pids.append(process.pid)
        processes.await_port(port, home / "log")
        towards = [port]
    if case.caller:
        # Not measured: it runs beside the load tool and is the same for every subject.
        port = processes.free_port()
        flags = frozenset({"mtls-out", "close"} if case.load.close else {"mtls-out"})
        caller = peers(["haproxy"]).get("haproxy")
        if caller is None:
            raise AbsentError("haproxy")
        home = directory / f"caller-{peer.name}"
        started.append(launch(caller, Hop(flags), home, core=LOADS, port=port, endpoints=towards))
        processes.await_port(port, home / "log")
        towards = [port]
    return towards[0], tuple(pids)


def names(case: Case, plan: Plan) -> list[str]:
    """Return who takes part."""
    return [name for name in plan.proxies if name == "sidecar" or name in case.peers]


def run(command: list[str], during: Callable[[], None] | None = None, wait: float = 0.0) -> str:
    """Run a load tool on its core; `during` is called after `wait` seconds."""
    program = [sys.executable, *command[1:]] if command[0] == "python" else command
    with subprocess.Popen(
        ["taskset", "-c", str(LOADS), *program],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as tool:  # fmt: skip
        if during is not None:
            time.sleep(wait)
            during()
        try:
            return tool.communicate(timeout=SLACK + 60)[0]
        except subprocess.TimeoutExpired:
            tool.kill()
            raise


def saturate(subject: Subject, load: Load, seconds: float, directory: Path) -> tuple[Told, Row]:
    """Run a closed loop; return what the tool says, and the processes' figures."""
    held: list[int] = []
    tool = TOOLS[load.tool]
    before = processes.cpu(subject.pids)
    text = run(
        tool.command(load, subject.port, seconds, directory),
        lambda: held.append(processes.pss(subject.pids)),
        seconds / 2,
    )
    spent = processes.cpu(subject.pids) - before
    try:
        told = tool.told(text, load)
    except GarbledError as error:
        sys.stderr.write(f"bench: {subject.name}: {error}\n")
        told = Told(0, 1)
    proxied = bool(subject.pids) and told.requests > 0
    return told, {
        "cpu_us_per_request": round(spent / told.requests * 1e6, 2) if proxied else None,
        "rps": round(told.requests / seconds),
        "pss_mb": round(held[0] / 1e6, 1) if proxied else None,
        "errors": told.errors,
    }


def pace(subject: Subject, load: Load, seconds: float, directory: Path) -> Row:
    """Run an open loop; return latencies in milliseconds."""
    log = directory / "paced.log"
    log.write_text("")
    text = run(paced_command(load, subject.port, seconds, directory))
    told = paced_told(text, log.read_text())
    shares = (("p50_ms", 0.5), ("p90_ms", 0.9), ("p99_ms", 0.99), ("p999_ms", 0.999))
    figures: Row = {name: round(percentile(told.latencies, share), 3) for name, share in shares}
    return {**figures, "errors": told.errors}


def measure(case: Case, features: str, plan: Plan, directory: Path) -> list[Row]:
    """Return the rows of one case with one set of features."""
    rows: list[Row] = []
    with stage(case, features, plan, directory) as subjects:
        for subject in subjects:
            saturate(subject, case.load, 1.0 if plan.quick else 2.0, directory)
            plan.told(f"{case.scenario} {case.name} {features}: {subject.name} is warm")
        for number in range(plan.rounds):
            turn = number % len(subjects)  # nobody is always first
            for subject in subjects[turn:] + subjects[:turn]:
                _, row = saturate(subject, case.load, plan.seconds, directory)
                if case.paced:
                    paced = pace(subject, case.load, plan.seconds, directory)
                    row = {**row, **paced, "errors": row["errors"] + paced["errors"]}
                rows.append(named(case, features, subject.name, number, row))
                plan.told(f"{case.scenario} {case.name} {features}: round {number + 1}")
    return rows


def named(case: Case, features: str, subject: str, number: int, figures: Row) -> Row:
    """Return a row with every column."""
    empty = dict.fromkeys(("cpu_us_per_request", "rps", "p50_ms", "p99_ms", "pss_mb"))
    head = {
        "scenario": case.scenario, "case": case.name, "features": features, "subject": subject,
        "round": number,
    }  # fmt: skip
    row = {**head, **empty, **figures}
    if case.octets and row["cpu_us_per_request"] is not None:
        row["cpu_us_per_mib"] = round(row["cpu_us_per_request"] * (1 << 20) / case.octets, 2)
    return row


def shorter(case: Case) -> Case:
    """Return the case as `--quick` runs it: no open loop."""
    return replace(case, paced=False)
