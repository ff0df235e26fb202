"""Ratios, medians, table and page: what becomes of the rows."""

from typing import Any

import pytest

from benchmarks.load.report import latencies, main_figure, medians, page, plot, ratios, table


def row(subject: str, number: int, cost: float | None, **more: Any) -> dict[str, Any]:
    return {
        "scenario": "http2", "case": "repeat", "features": "bare", "subject": subject,
        "round": number, "cpu_us_per_request": cost, "rps": 1000, "p50_ms": None, "p99_ms": None,
        "pss_mb": None, "errors": 0, **more,
    }  # fmt: skip


def cpu(found: list[dict[str, Any]]) -> dict[str, float]:
    return {r["peer"]: r["ratio"] for r in found if r["figure"] == "cpu_us_per_request"}


def test_the_ratio_is_the_median_of_the_rounds_ratios_not_the_ratio_of_medians() -> None:
    ours, theirs = (10.0, 20.0, 90.0), (20.0, 10.0, 30.0)
    rows = [row("sidecar", n, cost) for n, cost in enumerate(ours)]
    rows += [row("envoy", n, cost) for n, cost in enumerate(theirs)]

    found = ratios(rows)

    assert cpu(found) == {"envoy": 2.0}  # of 0.5, 2 and 3; the medians' ratio is 1
    first = next(r for r in found if r["figure"] == "cpu_us_per_request")
    assert (first["low"], first["high"], first["rounds"]) == (0.5, 3.0, 3)
    assert (first["scenario"], first["case"], first["features"]) == ("http2", "repeat", "bare")


@pytest.mark.parametrize("void", ["sidecar", "envoy"])
def test_a_round_with_errors_on_either_side_counts_nowhere(void: str) -> None:
    rows = [row("sidecar", 0, 10.0), row("envoy", 0, 20.0)]
    rows += [
        row(name, 1, 99.0 if name == "sidecar" else 1.0, errors=int(name == void))
        for name in ("sidecar", "envoy")
    ]

    assert cpu(ratios(rows)) == {"envoy": 0.5}
    line = next(line for line in medians(rows) if line["subject"] == void)
    assert (line["rounds"], line["void"]) == (1, 1)


def test_a_figure_that_one_side_lacks_has_no_ratio() -> None:
    rows = [row("sidecar", 0, 10.0), row("direct", 0, None)]

    assert {r["figure"] for r in ratios(rows)} == {"rps"}


def test_a_zero_divides_nothing() -> None:
    assert cpu(ratios([row("sidecar", 0, 10.0), row("envoy", 0, 0.0)])) == {}


def test_cases_and_features_are_not_mixed() -> None:
    rows = [row("sidecar", 0, 10.0), row("envoy", 0, 20.0, features="full")]

    assert ratios(rows) == []
    assert len(medians(rows)) == 2


@pytest.mark.parametrize(
    ("more", "figure"),
    [
        ({}, "cpu_us_per_request"),
        ({"cpu_us_per_mib": 3.0}, "cpu_us_per_mib"),
        ({"ready_ms": 200.0}, "ready_ms"),
        ({"mb_per_1000_idle": 4.0}, "mb_per_1000_idle"),
    ],
)
def test_a_line_is_about_the_figure_its_scenario_asks_for(more: Any, figure: str) -> None:
    (line,) = medians([row("sidecar", 0, 10.0, **more)])

    assert main_figure(line) == figure


def report() -> dict[str, Any]:
    rows = [row("sidecar", 0, 10.0), row("envoy", 0, 20.0), row("direct", 0, None)]
    return {
        "environment": {"cpu": "2 x <fast>"},
        "results": rows,
        "ratios": ratios(rows),
    }


def test_the_table_shows_cost_ratio_and_the_unit_of_meshes() -> None:
    lines = table(report()).splitlines()

    ours = next(line for line in lines if "sidecar" in line)
    theirs = next(line for line in lines if "envoy" in line)
    assert "10.0 (10.0-10.0)" in ours
    assert "0.010" in ours  # 10 µs a request are 0.01 CPU for 1000 requests a second
    assert theirs.endswith("0.50")


def test_the_page_needs_nothing_else_and_escapes() -> None:
    text = page(report())

    assert "2 x &lt;fast&gt;" in text
    assert "http2 repeat bare" in text
    assert "ours / theirs 0.50" in text
    assert not {"src=", "href=", "<script"} & set(text.split())


def test_a_comparison_in_which_every_round_is_void_has_no_plot() -> None:
    assert plot([row("sidecar", 0, 10.0, errors=1)], []) == ""


def test_open_loops_are_told_by_rate_with_what_a_proxy_adds() -> None:
    figures = {"p50_ms": 0.5, "p99_ms": 3.0, "p50_ms_at_half": 0.7, "half_rps": 4000,
               "cpu_us_per_request_at_1000": 80.0}  # fmt: skip
    floor = {**figures, "p50_ms": 0.2, "cpu_us_per_request_at_1000": None}
    rows = [row("sidecar", 0, 10.0, **figures), row("direct", 0, None, **floor)]

    lines = latencies(rows)

    ours = [line.split() for line in lines if " sidecar " in line]
    assert [(line[4], line[5]) for line in ours] == [("1000", "0.50"), ("4000", "0.70")]
    assert ours[0][9] == "0.30"  # added
    assert ours[0][11] == "0.080"  # vCPU at 1000 requests a second
    assert latencies([row("sidecar", 0, 10.0)]) == []
