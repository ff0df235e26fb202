"""CPU, latency and memory beside Envoy, HAProxy and nginx, in one run: `./dev bench SCENARIO...`.

Rounds of all subjects take turns; the proxies have the first core, load tool and origin the last.
CPU is user + system time of all of a proxy's processes; a round with errors is void.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks.load.check import judged, verdicts
from benchmarks.load.interpreter import Chosen, UnusableError, choose, compile_modules
from benchmarks.load.large import config
from benchmarks.load.measure import Plan, Row, measure, names
from benchmarks.load.peers import KNOWN, ROOT, AbsentError, Peer, needed, peers, prepare, version
from benchmarks.load.procedures import PROCEDURES
from benchmarks.load.report import page, ratios, table
from benchmarks.load.scenarios import CASES, HALF, LEFT_OUT, MAIN_RATE, MISSING, NAMES, RATES, Case

TOOLS: Final = ("wrk", "h2load", "nginx", "nghttpd", "taskset")
QUICK_SECONDS: Final = 36.0  # of load that one scenario may have; the rest of 60 is starting


def main() -> int:
    """Measure, print a table, write JSON and a page; 1 if a round was void, 2 if a ratio is worse."""
    options = arguments().parse_args()
    try:
        for tool in TOOLS:
            needed(tool)
        python = choose(options.python)
    except AbsentError as error:
        sys.stderr.write(f"bench: {error} is not installed (see .ci/run for the packages)\n")
        return 1
    except UnusableError as error:
        sys.stderr.write(f"bench: {error}\n")
        return 1
    asked = options.scenario or [name for name in NAMES if name not in MISSING]
    for name in (name for name in asked if name in MISSING):
        sys.stderr.write(f"bench: {name} is left out: {MISSING[name]}\n")
    cases = [case for case in CASES if case.scenario in asked]
    if not cases:
        return 1
    stored = None if options.check is None else json.loads(options.check.read_text())["ratios"]
    compile_modules(python.python)
    found = peers(options.peers, python.python)
    before = os.getloadavg()
    rows = measured(cases, options, found)
    report: dict[str, Any] = {
        "environment": environment(found, options, before, python),
        "results": rows,
        "ratios": ratios(rows),
    }
    print(table(report))
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
        options.json.with_suffix(".html").write_text(page(report))
    if stored is not None:
        lines = judged(report["ratios"], stored)
        print(verdicts(lines))
        if any(line.is_worse for line in lines):
            return 2
    return 1 if any(row["errors"] for row in rows) else 0


def arguments() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    parser.add_argument("scenario", nargs="*", metavar="SCENARIO", type=known,
                        help=f"none means all of: {' '.join(NAMES)}")  # fmt: skip
    parser.add_argument("--features", choices=("bare", "full"), help="default: one after the other")
    parser.add_argument("--peers", type=chosen, default=["envoy", "haproxy", "nginx"], metavar="NAME,...",
                        help=f"of {', '.join(KNOWN)}; default: the first three; the others for http1, bare")  # fmt: skip
    parser.add_argument("--python", metavar="PATH",
                        help="what our side runs on; default: the fastest interpreter found")  # fmt: skip
    parser.add_argument("--rounds", type=int, help="default: 5")
    parser.add_argument("--duration", type=float, help="seconds of one round of one subject: 4")
    parser.add_argument("--rates", type=rates, metavar="RATE,...",
                        help=f"of the open loops: some of {','.join(RATES)} requests a second, `{HALF}` being half"
                        f" of what the slowest takes, or `all`; default: {MAIN_RATE}, with --quick none")  # fmt: skip
    parser.add_argument("--check", type=Path, metavar="FILE",
                        help="compare the ratios with those of FILE, a result of --json; 2 if one is worse")  # fmt: skip
    parser.add_argument("--quick", action="store_true",
                        help="one scenario in under 60 s: bare, short rounds, no open loop unless --rates asks")  # fmt: skip
    parser.add_argument("--json", type=Path, help="where the figures go; a page goes beside it")
    return parser


def known(text: str) -> str:
    """Read one SCENARIO."""
    if text not in NAMES:
        raise argparse.ArgumentTypeError(f"no scenario {text!r}; there are {' '.join(NAMES)}")
    return text


def chosen(text: str) -> list[str]:
    """Read `--peers`."""
    names_given = [name for name in text.split(",") if name]
    for name in names_given:
        if name not in KNOWN:
            raise argparse.ArgumentTypeError(f"{name} is none of {', '.join(KNOWN)}")
    return names_given


def rates(text: str) -> tuple[str, ...]:
    """Read `--rates`."""
    if text == "all":
        return tuple(RATES)
    found = tuple(name for name in text.split(",") if name)
    for name in found:
        if name not in RATES:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(RATES)}, all")
    return found


def planned(case: Case, alike: int, options: argparse.Namespace, found: dict[str, Peer]) -> Plan:
    """Return rounds and seconds for a case of a scenario that has `alike` of them."""
    features = (options.features,) if options.features else ("bare", "full")
    rounds, seconds = options.rounds or 5, options.duration or 4.0
    asked = (MAIN_RATE,) if options.rates is None else options.rates
    if options.quick:
        asked = options.rates or ()
        features = (options.features or "bare",)
        subjects = len(names(case, features[0], Plan(0, 0, features, found, True)))
        rounds = options.rounds or (1 if case.kind == "config" else 3)  # its starts take long
        loops = alike * subjects * (1 + (len(asked) if case.paced else 0))
        seconds = options.duration or max(1.0, QUICK_SECONDS / loops / (rounds + 1) // 1)
        while rounds > 1 and loops * (rounds * seconds + 1) > QUICK_SECONDS + 6:
            rounds -= 1
    return Plan(rounds, seconds, features, found, options.quick, asked)


def measured(cases: list[Case], options: argparse.Namespace, found: dict[str, Peer]) -> list[Row]:
    """Run all cases under one progress bar."""
    rows: list[Row] = []
    runs = []
    for case in cases:
        alike = sum(other.scenario == case.scenario for other in cases)
        plan = planned(case, alike, options, found)
        runs += [(case, one, plan) for one in plan.features]
    steps = sum((len(names(case, one, plan)) + case.direct) * (plan.rounds + 1)
                for case, one, plan in runs)  # fmt: skip
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("bench", total=steps)

        def told(text: str) -> None:
            progress.update(task, advance=1, description=f"bench: {text}")

        for case, features, plan in runs:
            with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as name:
                directory = Path(name)
                prepare(directory)
                telling = replace(plan, told=told)
                procedure = {**PROCEDURES, "config": config}.get(case.kind, measure)
                rows += procedure(case, features, telling, directory)
    return rows


def environment(
    found: dict[str, Peer],
    options: argparse.Namespace,
    before: tuple[float, float, float],
    python: Chosen,
) -> dict[str, Any]:
    """Return on what this was measured, and how."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=10"],
        capture_output=True, text=True, check=False, cwd=ROOT,
    ).stdout.strip()  # fmt: skip
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit or "unknown",
        "cpu": f"{os.cpu_count()} x {model[1] if model else platform.machine()}",
        "kernel": platform.release(),
        "python": python.version,
        "interpreter": python.says,
        **{name: version(peer) for name, peer in found.items()},
        "load_average": f"{before[0]:.2f} before, {os.getloadavg()[0]:.2f} after",
        "quick": options.quick,
        "rounds": options.rounds or "default",
        "seconds": options.duration or "default",
        "left_out": list(LEFT_OUT),
    }


if __name__ == "__main__":
    sys.exit(main())
