"""What the rows say: ratios, a table for the terminal, and a page that needs nothing else."""

import html
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from benchmarks.load.scenarios import CASES, FEATURES, HALF, LEFT_OUT, RATES

Row = Mapping[str, Any]
# Figures that are compared, with the words of the table; lower is better but for rps.
FIGURES: Final[Mapping[str, str]] = {
    "cpu_us_per_request": "CPU µs per request",
    "cpu_us_per_mib": "CPU µs per MiB",
    "connections_per_cpu_s": "new connections per CPU second",
    "rps": "requests per second, closed loop",
    "p50_ms": "p50 ms at 1000 rps, open loop",
    "p90_ms": "p90 ms at 1000 rps, open loop",
    "p99_ms": "p99 ms at 1000 rps, open loop",
    "p999_ms": "p99.9 ms at 1000 rps, open loop",
    "cpu_us_per_request_at_1000": "CPU µs per request at 1000 rps",
    "pss_mb_at_1000": "PSS MB at 1000 rps",
    "p50_ms_at_200": "p50 ms at 200 rps",
    "p99_ms_at_200": "p99 ms at 200 rps",
    "p50_ms_at_5000": "p50 ms at 5000 rps",
    "p99_ms_at_5000": "p99 ms at 5000 rps",
    "p50_ms_at_half": "p50 ms at half of the slowest subject's saturation",
    "p99_ms_at_half": "p99 ms at half of the slowest subject's saturation",
    "pss_mb": "PSS MB",
    "mb_per_1000_idle": "MB per 1000 idle connections",
    "ready_ms": "ms to the first answer",
    "push_ms": "ms until a push is in force",
    "push_cpu_ms": "CPU ms of a push and the traffic meanwhile",
    "cpu_ms": "CPU ms",
    "p99_during_by_before": "p99 during / before the push",
}
HIGHER_IS_BETTER: Final = frozenset({"rps", "connections_per_cpu_s"})
COLORS: Final = {
    "sidecar": "#1a6fb5", "envoy": "#b5481a", "haproxy": "#4d8f3c", "nginx": "#7b5aa6",
    "direct": "#888888", "caddy": "#c2a21d", "traefik": "#2aa5a0", "mitmproxy": "#c0508f",
}  # fmt: skip


def valid(rows: Iterable[Row]) -> list[Row]:
    """Return the rows that are not void."""
    return [row for row in rows if not row["errors"]]


def key(row: Row) -> tuple[str, str, str]:
    """Return what only rows of one comparison share."""
    return row["scenario"], row["case"], row["features"]


def values(rows: Iterable[Row], subject: str, figure: str) -> dict[int, float]:
    """Return a subject's figure by round."""
    return {
        row["round"]: row[figure]
        for row in rows
        if row["subject"] == subject and row.get(figure) is not None
    }


def groups(rows: Iterable[Row]) -> dict[tuple[str, str, str], list[Row]]:
    """Return the rows by comparison, in the order they were measured."""
    found: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return found


def ratios(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Return, for each figure and peer, the median of the rounds' ratios, ours by theirs.

    Only rounds in which neither is void count, and only where theirs is not 0.
    """
    found: list[dict[str, Any]] = []
    for (scenario, case, features), group in groups(valid(rows)).items():
        peers = dict.fromkeys(row["subject"] for row in group if row["subject"] != "sidecar")
        for figure in FIGURES:
            ours = values(group, "sidecar", figure)
            for peer in peers:
                theirs = values(group, peer, figure)
                each = [ours[number] / theirs[number] for number in ours if theirs.get(number)]
                if each:
                    found.append(
                        {
                            "scenario": scenario, "case": case, "features": features,
                            "figure": figure, "peer": peer,
                            "ratio": round(statistics.median(each), 3),
                            "low": round(min(each), 3), "high": round(max(each), 3),
                            "rounds": len(each),
                        }
                    )  # fmt: skip
    return found


def medians(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Return one line per comparison and subject: medians, spread of the CPU, void rounds."""
    lines: list[dict[str, Any]] = []
    for (scenario, case, features), group in groups(rows).items():
        for subject in dict.fromkeys(row["subject"] for row in group):
            mine = [row for row in group if row["subject"] == subject]
            good = valid(mine)
            line: dict[str, Any] = {
                "scenario": scenario, "case": case, "features": features, "subject": subject,
                "rounds": len(good), "void": len(mine) - len(good),
            }  # fmt: skip
            for figure in FIGURES:
                some = list(values(good, subject, figure).values())
                if some:
                    line[figure] = statistics.median(some)
                    line[f"{figure}_range"] = (min(some), max(some))
            lines.append(line)
    return lines


def ratio_of(all_ratios: Sequence[Row], line: Row, figure: str) -> float | None:
    """Return ours by this line's subject."""
    for ratio in all_ratios:
        if (
            ratio["peer"] == line["subject"]
            and ratio["figure"] == figure
            and key(ratio) == key(line)
        ):
            return float(ratio["ratio"])
    return None


def main_figure(line: Row) -> str:
    """Return the figure that a line is about."""
    order = ("mb_per_1000_idle", "ready_ms", "p99_during_by_before", "cpu_us_per_mib")
    return next((figure for figure in order if figure in line), "cpu_us_per_request")


def table(report: Mapping[str, Any]) -> str:
    """Return the table for the terminal."""
    text = [
        f"{'':38} {'subject':8} {'CPU µs/request':>22} {'vCPU/1000rps':>12} {'rps':>7} {'p50 ms':>7}"
        f" {'p99 ms':>7} {'PSS MB':>7} {'void':>4}  ours/theirs"
    ]
    for line in medians(report["results"]):
        name = " ".join(filter(None, (line["scenario"], line["case"], line["features"])))
        figure = main_figure(line)
        low, high = line.get(f"{figure}_range", (0.0, 0.0))
        cost = f"{line[figure]:8.1f} ({low:.1f}-{high:.1f})" if figure in line else "-"
        if figure != "cpu_us_per_request":
            cost = f"{figure} {cost.strip()}"
        cpu = line.get("cpu_us_per_request")
        ratio = ratio_of(report["ratios"], line, figure)
        text.append(
            f"{name:38} {line['subject']:8} {cost:>22} {cell(cpu and cpu / 1000, 12, 3)}"
            f" {cell(line.get('rps'), 7, 0)} {cell(line.get('p50_ms'), 7, 2)}"
            f" {cell(line.get('p99_ms'), 7, 2)} {cell(line.get('pss_mb'), 7, 1)}"
            f" {line['void']:4}  {'' if ratio is None else f'{ratio:.2f}'}"
        )
    return "\n".join(text + latencies(report["results"]))


def latencies(rows: Sequence[Row]) -> list[str]:
    """Return a table of the open loops: a line for each case, subject and rate, in Istio's units too.

    What a proxy adds is its figure less that of the origin asked directly, round by round.
    """
    text: list[str] = []
    for (scenario, case, features), group in groups(valid(rows)).items():
        name = " ".join(filter(None, (scenario, case, features)))
        rates = [rate for rate, end in RATES.items() if told_at(group, end)]
        subjects = dict.fromkeys(row["subject"] for row in group)
        text += [
            f"{name:38} {subject:8} {latency_cells(group, subject, rate)}"
            for rate in rates
            for subject in subjects
        ]
    head = (
        f"{'':38} {'subject':8} {'rate':>6} {'p50 ms':>7} {'p90 ms':>7} {'p99 ms':>7} {'p99.9 ms':>8}"
        f" {'+p50 ms':>7} {'+p99 ms':>7} {'vCPU':>7} {'PSS MB':>7} {'sent late p99':>13}"
    )
    return ["", head, *text] if text else []


def told_at(group: Iterable[Row], end: str) -> bool:
    """Was there an open loop at the rate whose figures' names end in `end`?"""
    return any(row.get(f"p50_ms{end}") is not None for row in group)


def latency_cells(group: Sequence[Row], subject: str, rate: str) -> str:
    """Return the cells behind the name of one line: medians over the rounds."""
    end = RATES[rate]

    def middle(figure: str) -> float | None:
        found = list(values(group, subject, figure).values())
        return statistics.median(found) if found else None

    def added(figure: str) -> float | None:
        ours, floor = values(group, subject, figure), values(group, "direct", figure)
        each = [ours[number] - floor[number] for number in ours if number in floor]
        return statistics.median(each) if each and subject != "direct" else None

    told = middle("half_rps") if rate == HALF else float(rate)
    cost = middle(f"cpu_us_per_request_at_{rate}")
    shares = [middle(f"{name}{end}") for name in ("p50_ms", "p90_ms", "p99_ms")]
    return " ".join(
        [
            cell(told, 6, 0),
            *(cell(share, 7, 2) for share in shares),
            cell(middle(f"p999_ms{end}"), 8, 2),
            cell(added(f"p50_ms{end}"), 7, 2),
            cell(added(f"p99_ms{end}"), 7, 2),
            cell(cost and told and cost * told / 1e6, 7, 3),
            cell(middle(f"pss_mb_at_{rate}"), 7, 1),
            cell(middle(f"late_p99_ms{end}"), 13, 2),
        ]
    )


def cell(value: float | None, width: int, places: int) -> str:
    """Return a figure of the table, or the dash of one that is not there."""
    return f"{'-':>{width}}" if value is None else f"{value:{width}.{places}f}"


def page(report: Mapping[str, Any]) -> str:
    """Return a page with the table, a plot for each comparison, and how it was measured."""
    plots = [plot(group, report["ratios"]) for group in groups(report["results"]).values()]
    facts = "".join(
        f"<tr><th>{html.escape(str(name))}</th><td>{html.escape(str(value))}</td></tr>"
        for name, value in report["environment"].items()
    )
    told = "".join(f"<li>{html.escape(text)}</li>" for text in LEFT_OUT)
    says = "".join(
        f"<li><b>{name}</b>: {html.escape(text)}</li>" for name, text in FEATURES.items()
    )
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Sidecar beside other proxies</title>
<style>body{{font:15px/1.5 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em}}
th{{text-align:left;padding-right:1em}} pre{{overflow-x:auto;font-size:12px}} svg{{max-width:100%}}</style>
<h1>Sidecar beside other proxies</h1>
<p>Every dot is one round; the bar is the median of the rounds without errors. Rounds of all subjects
take turns. Only the ratio of one run means anything; the microseconds are this machine's.</p>
<ul>{says}</ul><h2>Left out</h2><ul>{told}</ul>
{"".join(plots)}
<h2>Table</h2><pre>{html.escape(table(report))}</pre>
<h2>Environment</h2><table>{facts}</table>
</html>
"""


def plot(group: Sequence[Row], all_ratios: Sequence[Row]) -> str:
    """Return one comparison as a heading and an SVG: a bar and the rounds' dots per subject."""
    scenario, case, features = key(group[0])
    lines = medians(group)
    figure = main_figure(lines[0])
    lines = [line for line in lines if figure in line]
    if not lines:
        return ""
    most = max(line[f"{figure}_range"][1] for line in lines) or 1.0
    says = next((c.says for c in CASES if (c.scenario, c.name) == (scenario, case)), "")
    drawn: list[str] = []
    for place, line in enumerate(lines):
        top, color = 26 * place + 4, COLORS.get(line["subject"], "#333333")
        width = 520 * line[figure] / most
        ratio = ratio_of(all_ratios, line, figure)
        note = f"{line[figure]:.1f}" + (f" (ours / theirs {ratio:.2f})" if ratio else "")
        drawn.append(
            f'<text x="0" y="{top + 13}">{html.escape(line["subject"])}</text>'
            f'<rect x="70" y="{top}" width="{width:.1f}" height="18" fill="{color}" opacity=".35"/>'
            f'<text x="600" y="{top + 13}">{note}</text>'
        )
        drawn += [
            f'<circle cx="{70 + 520 * value / most:.1f}" cy="{top + 9}" r="3" fill="{color}"/>'
            for value in values(valid(group), line["subject"], figure).values()
        ]
    title = html.escape(" ".join(filter(None, (scenario, case, features))))
    return (
        f"<h2>{title}</h2><p>{html.escape(says)}: {html.escape(FIGURES[figure])}</p>"
        f'<svg viewBox="0 0 800 {26 * len(lines) + 8}" width="800" font-size="13"'
        f' font-family="system-ui,sans-serif">{"".join(drawn)}</svg>'
    )
