"""The load tools: how each is asked, and what its output says."""

import json
import re
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.load.scenarios import Load

HERE: Final = Path(__file__).parent
REPLY: Final = 100  # octets of an ordinary answer's body, and of a gRPC message
PACED: Final = ("requests", "errors", "p50_ms", "p90_ms", "p99_ms", "p999_ms", "late_p99_ms")
# Ten with :authority; the same as heads.lua sends, but for being the same every time.
FIELDS: Final = (
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"),
    ("accept", "application/json"),
    ("accept-encoding", "gzip, deflate, br"),
    ("accept-language", "en-GB,en;q=0.9"),
    ("x-request-id", "0badcafe-3b1d-4a53-9c7e-0a1b2c3d4e5f"),
    ("traceparent", "00-4bf92f3577b34da6a3ce929d0badcafe-00f067aa0ba902b7-00"),
    ("cookie", "session=0badcafeabcdef0123456789abcdef; theme=dark"),
    ("cache-control", "no-cache"),
    ("x-forwarded-proto", "http"),
)
GRPC_FIELDS: Final = (
    ("content-type", "application/grpc"),
    ("te", "trailers"),
    ("user-agent", "grpc-python/1.76.0 grpc-c/52.0.0 (linux; chttp2)"),
    ("grpc-accept-encoding", "identity, deflate, gzip"),
    ("traceparent", "00-4bf92f3577b34da6a3ce929d0badcafe-00f067aa0ba902b7-00"),
)


@dataclass(frozen=True)
class Told:
    """What one run of a closed loop says."""

    requests: int
    errors: int


class GarbledError(Exception):
    """A load tool said something that cannot be read."""


def percentile(ascending: list[float], share: float) -> float:
    """Return the smallest value that at least `share` of the values do not exceed."""
    if not ascending:
        return 0.0
    rank = -(-len(ascending) * share // 1)  # the ceiling
    return ascending[max(0, min(len(ascending), int(rank)) - 1)]


def spread(values: list[float]) -> tuple[float, float, float]:
    """Return median, lowest and highest."""
    return statistics.median(values), min(values), max(values)


def wrk_command(load: Load, port: int, seconds: float, directory: Path) -> list[str]:
    """Return the command of a closed loop over HTTP/1.1."""
    script = [] if load.path.startswith("/files/") else ["-s", str(HERE / "configs" / "heads.lua")]
    close = ["env", "BENCH_CLOSE=1"] if load.close else []
    scheme = "https" if load.tls else "http"
    return [*close, "wrk", "-t1", f"-c{load.connections}", f"-d{max(1, round(seconds))}s",
            "--timeout", "10s", *script, f"{scheme}://127.0.0.1:{port}{load.path}"]  # fmt: skip


def wrk_told(text: str, load: Load) -> Told:
    """Count answers and everything that went wrong."""
    requests = re.search(r"(\d+) requests in", text)
    if requests is None:
        raise GarbledError(f"wrk: {text[-300:]!r}")
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    broken = re.search(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    errors = int(bad[1]) if bad else 0
    errors += sum(map(int, broken.groups())) if broken else 0
    return Told(int(requests[1]), errors)


def h2load_command(load: Load, port: int, seconds: float, directory: Path) -> list[str]:
    """Return the command of a closed loop over HTTP/2."""
    fields = [f"-H{name}: {value}" for name, value in (GRPC_FIELDS if load.grpc else FIELDS)]
    message = ["-d", str(directory / "message")] if load.grpc else []
    return ["h2load", f"-c{load.connections}", f"-m{load.streams}", f"-D{seconds:g}", *fields,
            *message, f"http://127.0.0.1:{port}{load.path}"]  # fmt: skip


def paced_command(load: Load, port: int, rate: float, seconds: float, seed: int) -> list[str]:
    """Ask at a fixed rate, whatever the answers take."""
    protocol = "grpc" if load.grpc else "http2" if load.streams > 1 else "http1"
    return ["python", "-m", "benchmarks.load.open_loop", str(port), protocol, load.path,
            f"{rate:g}", f"{seconds:g}", str(seed)]  # fmt: skip


def h2load_told(text: str, load: Load) -> Told:
    """Count what failed; for gRPC, what came without a whole message, too.

    A proxy that cannot forward a gRPC call answers 200 with a status in the trailers: only the
    octets of the bodies tell.
    """
    counts = re.search(
        r"(\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", text
    )
    data = re.search(r"\((\d+)\) data", text)
    if counts is None or data is None:
        raise GarbledError(f"h2load: {text[-300:]!r}")
    done, succeeded, failed, errored, timeout = map(int, counts.groups())
    # With -D, what is under way at the end counts neither as done nor as failed.
    errors = max(failed, errored) + timeout + (done - succeeded - failed)
    if load.grpc and not errors:
        errors = max(0, done - int(data[1]) // (5 + REPLY))
    return Told(succeeded, errors)


def paced_told(text: str) -> dict[str, float]:
    """Return the figures of an open loop, `errors` among them; the last line is their object."""
    try:
        told: dict[str, float] = json.loads(text.strip().splitlines()[-1])
        return {name: told[name] for name in PACED}
    except (ValueError, LookupError) as error:
        raise GarbledError(f"open loop: {text[-300:]!r}") from error


def differing_command(load: Load, port: int, seconds: float, directory: Path) -> list[str]:
    """Return the command of the load whose heads differ."""
    return ["python", "-m", "benchmarks.load.differing", str(port), load.coding,
            str(load.connections), str(load.streams), f"{seconds:g}"]  # fmt: skip


def differing_told(text: str, load: Load) -> Told:
    """Count answers and what was wrong with them."""
    try:
        told = json.loads(text)
        return Told(told["requests"], told["errors"])
    except (ValueError, KeyError) as error:
        raise GarbledError(f"differing: {text[-300:]!r}") from error


@dataclass(frozen=True)
class Tool:
    """One load tool: the command for a load, and the reading of what it prints."""

    command: Callable[[Load, int, float, Path], list[str]]
    told: Callable[[str, Load], Told]


TOOLS: Final[Mapping[str, Tool]] = {
    "wrk": Tool(wrk_command, wrk_told),
    "h2load": Tool(h2load_command, h2load_told),
    "differing": Tool(differing_command, differing_told),
}
