"""Running a case: everything is started, rounds are interleaved, everything is ended.

The proxies under test have the first core, load tool and origin the last one.  A row is one round of
one subject: `scenario, case, features, subject, round, cpu_us_per_request, rps, p50_ms, p99_ms,
pss_mb, errors`; a figure that the case does not have is null, and a row with errors is void.
Latencies are those of an open loop at 1000 requests a second; at another rate their names say so:
`p99_ms_at_200`, `p99_ms_at_half`.
"""

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.load import answers, processes
from benchmarks.load.peers import AbsentError, Peer, launch, origin, peers, stop
from benchmarks.load.scenarios import HALF, MAIN_RATE, OPTIONAL, RATES, Case, Hop, Load
from benchmarks.load.tools import TOOLS, GarbledError, Told, paced_command, paced_told

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
    origin: int
    """The first port of what is behind it."""


@dataclass(frozen=True)
class Plan:
    """What one run is asked for."""

    rounds: int
    seconds: float
    features: tuple[str, ...]
    proxies: Mapping[str, Peer]
    quick: bool
    rates: tuple[str, ...] = (MAIN_RATE,)
    """Of the open loops, in requests a second; `half` is of the slowest subject's saturation."""
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
        for name in names(case, features, plan):
            port, pids = line_up(plan.proxies[name], case, features, directory, ports, started)
            subjects.append(Subject(name, port, pids, ports[0]))
        if case.direct and not plan.quick:
            subjects.append(Subject("direct", ports[0], (), ports[0]))
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
            peer, hop.with_features(features), home,
            core=PROXIES, port=port, endpoints=towards, workers=case.workers,
        )  # fmt: skip
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


def names(case: Case, features: str, plan: Plan) -> list[str]:
    """Return who takes part; in full only those that have all of it."""
    able = set(case.peers) - set(OPTIONAL if features == "full" else ())
    return [name for name in plan.proxies if name == "sidecar" or name in able]


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


def pace(
    subject: Subject, load: Load, seconds: float, number: int, rate: float = float(MAIN_RATE)
) -> Row:
    """Run an open loop; return latencies in milliseconds, CPU and memory meanwhile."""
    held: list[int] = []
    before = processes.cpu(subject.pids)
    text = run(
        paced_command(load, subject.port, rate, seconds, number),
        lambda: held.append(processes.pss(subject.pids)),
        seconds / 2,
    )
    spent = processes.cpu(subject.pids) - before
    try:
        figures: Row = paced_told(text)
    except GarbledError as error:
        sys.stderr.write(f"bench: {subject.name}: {error}\n")
        return {"errors": 1}
    answered = figures.pop("requests")
    if subject.pids and answered:
        figures["cpu_us_per_request"] = round(spent / answered * 1e6, 2)
        figures["pss_mb"] = round(held[0] / 1e6, 1)
    return figures


def paced(subject: Subject, case: Case, plan: Plan, number: int, half: float) -> Row:
    """Run the open loops of one round; return all their figures by their names."""
    row: Row = {"errors": 0}
    for rate in plan.rates:
        each = half if rate == HALF else float(rate)
        figures = pace(subject, case.load, plan.seconds, number, each)
        row["errors"] += figures.pop("errors")
        for name, value in figures.items():
            is_cost = name in ("cpu_us_per_request", "pss_mb")  # of the closed loop, if plain
            row[f"{name}_at_{rate}" if is_cost else name + RATES[rate]] = value
        if rate == HALF:
            row["half_rps"] = round(each)
    return row


def measure(case: Case, features: str, plan: Plan, directory: Path) -> list[Row]:
    """Return the rows of one case with one set of features."""
    rows: list[Row] = []
    with stage(case, features, plan, directory) as started:
        wrong = compared(case, started, directory)
        for subject, reason in wrong.items():
            title = " ".join(filter(None, (case.scenario, case.name, features)))
            sys.stderr.write(f"bench: {title}: {subject.name} is void: {reason}\n")
            void = {"errors": 1, "void": reason}
            rows += [named(case, features, subject.name, n, void) for n in range(plan.rounds)]
        subjects = [subject for subject in started if subject not in wrong]
        fastest: list[float] = []
        for subject in subjects:
            _, warm = saturate(subject, case.load, 1.0 if plan.quick else 2.0, directory)
            fastest += [warm["rps"]] if subject.pids else []
            plan.told(f"{case.scenario} {case.name} {features}: {subject.name} is warm")
        half = max(1.0, min(fastest, default=0.0) / 2)
        for number in range(plan.rounds):
            turn = number % max(1, len(subjects))  # nobody is always first
            for subject in subjects[turn:] + subjects[:turn]:
                _, row = saturate(subject, case.load, plan.seconds, directory)
                if case.paced:
                    latencies = paced(subject, case, plan, number, half)
                    row = {**row, **latencies, "errors": row["errors"] + latencies["errors"]}
                rows.append(named(case, features, subject.name, number, row))
                plan.told(f"{case.scenario} {case.name} {features}: round {number + 1}")
    return rows


def compared(case: Case, subjects: Sequence[Subject], directory: Path) -> dict[Subject, str]:
    """Return whose answer is not the origin's, and how it differs."""
    expected = answers.from_origin(case, subjects[0].origin, directory)
    each = {one: answers.difference(case, one.port, expected) for one in subjects}
    return {subject: reason for subject, reason in each.items() if reason}


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
    if case.unit == "connection" and row["cpu_us_per_request"]:
        row["connections_per_cpu_s"] = round(1e6 / row["cpu_us_per_request"])
    return row
