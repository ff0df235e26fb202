"""What load tools print, read; texts as wrk 4.1 and h2load 1.52 write them."""

import json

import pytest

from benchmarks.load.scenarios import Load
from benchmarks.load.tools import (
    REPLY,
    TOOLS,
    GarbledError,
    Told,
    paced_command,
    paced_told,
    percentile,
)

WRK = """\
Running 2s test @ http://127.0.0.1:8080
  1 threads and 32 connections
  40238 requests in 2.00s, 10.28MB read
{more}Requests/sec:  20104.21
Transfer/sec:      5.14MB
"""
H2LOAD = """\
finished in 1.00s, 12967.00 req/s, 1.94MB/s
requests: {total} total, {total} started, {total} done, {good} succeeded, {failed} failed, {failed} errored, {timeout} timeout
status codes: {ok} 2xx, 0 3xx, 0 4xx, {bad} 5xx
traffic: 1.94MB (2035819) total, 25.33KB (25934) headers (space savings 98.40%), 1.24MB ({data}) data
"""


def h2load(total: int, failed: int = 0, bad: int = 0, timeout: int = 0, data: int = 0) -> str:
    good = total - failed - bad - timeout
    return H2LOAD.format(
        total=total, good=good, failed=failed, ok=good, bad=bad, timeout=timeout, data=data
    )


@pytest.mark.parametrize(
    ("more", "errors"),
    [
        ("", 0),
        ("  Non-2xx or 3xx responses: 7\n", 7),
        ("  Socket errors: connect 1, read 2, write 3, timeout 4\n", 10),
        (
            "  Socket errors: connect 0, read 2, write 0, timeout 0\n"
            "  Non-2xx or 3xx responses: 7\n",
            9,
        ),
    ],
)
def test_wrk(more: str, errors: int) -> None:
    assert TOOLS["wrk"].told(WRK.format(more=more), Load("wrk")) == Told(40238, errors)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (h2load(1000), Told(1000, 0)),
        (h2load(1000, failed=3), Told(997, 3)),
        (h2load(1000, timeout=2), Told(998, 4)),
        (h2load(1000, bad=5), Told(995, 5)),
    ],
)
def test_h2load(text: str, told: Told) -> None:
    assert TOOLS["h2load"].told(text, Load("h2load")) == told


@pytest.mark.parametrize(("missing", "errors"), [(0, 0), (4, 4)])
def test_a_grpc_answer_without_its_message_is_an_error_though_its_status_is_200(
    missing: int, errors: int
) -> None:
    text = h2load(1000, data=(1000 - missing) * (5 + REPLY))

    assert TOOLS["h2load"].told(text, Load("h2load", grpc=True)).errors == errors


def test_the_open_loop_tells_its_figures_in_its_last_line() -> None:
    figures = {"requests": 3, "errors": 1, "p50_ms": 0.3, "p90_ms": 0.9, "p99_ms": 0.9,
               "p999_ms": 0.9, "late_p99_ms": 0.1}  # fmt: skip

    assert paced_told(f"open loop: reset\n{json.dumps(figures)}\n") == figures


@pytest.mark.parametrize("text", ["", "{}", "Traceback\nKeyError: 1"])
def test_an_open_loop_that_failed_is_no_figure(text: str) -> None:
    with pytest.raises(GarbledError):
        paced_told(text)


@pytest.mark.parametrize("tool", sorted(TOOLS))
def test_what_cannot_be_read_is_said(tool: str) -> None:
    with pytest.raises(GarbledError, match="Segmentation"):
        TOOLS[tool].told("Segmentation fault", Load(tool))


@pytest.mark.parametrize(("share", "value"), [(0.5, 50), (0.99, 99), (0.999, 100), (1.0, 100)])
def test_percentiles_are_values_that_were_measured(share: float, value: int) -> None:
    assert percentile([float(n) for n in range(1, 101)], share) == value


@pytest.mark.parametrize(("values", "value"), [([], 0.0), ([3.0], 3.0)])
def test_percentiles_of_little(values: list[float], value: float) -> None:
    assert percentile(values, 0.99) == value


@pytest.mark.parametrize(
    ("load", "protocol"),
    [
        (Load("wrk"), "http1"),
        (Load("h2load", streams=16), "http2"),
        (Load("h2load", streams=16, grpc=True), "grpc"),
    ],
)
def test_the_open_loop_speaks_the_protocol_of_the_closed_one(load: Load, protocol: str) -> None:
    command = paced_command(load, 8080, 200, 2.5, 7)

    assert command[3:] == ["8080", protocol, load.path, "200", "2.5", "7"]
