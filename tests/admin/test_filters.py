"""What the operator is told of filters in Python."""

from sidecar.admin.filters import filter_rows
from sidecar.model.snapshot import Snapshot
from sidecar.runtime.messages import Sample
from sidecar.sources.decode import decode
from tests.core.harness import tree

LABELS = (("filter", "guard"), ("hook", "on_request"))


def test_each_place_has_a_row_with_the_numbers_of_its_name() -> None:
    config = tree(
        listener={"filters": ["/etc/guard.py"]},
        route={"filters": [{"code": "x", "name": "other", "on_error": "open"}]},
    )
    samples = [
        Sample("sidecar_filter_calls_total", LABELS, (4.0,)),
        Sample("sidecar_filter_seconds_total", LABELS, (0.001,)),
        Sample("sidecar_filter_overruns_total", LABELS, (1.0,)),
        Sample("sidecar_filter_off", LABELS[:1], (2.0,)),
        Sample("filter_mine_total", LABELS[:1], (2.0,)),
    ]
    guard, other = filter_rows(decode(config, Snapshot), samples)
    assert guard == {
        "name": "guard",
        "place": "127.0.0.1:15001",
        "file": "/etc/guard.py",
        "on_error": "closed",
        "workers_off": 2,
        "hooks": {
            "on_request": {
                "calls": 4, "errors": 0, "overruns": 1, "timeouts": 0, "mean_microseconds": 250.0,
            }
        },
    }  # fmt: skip
    assert (other["place"], other["file"], other["workers_off"], other["hooks"]) == (
        "127.0.0.1:15001 all", None, 0, {},
    )  # fmt: skip


def test_a_filter_that_was_never_called_has_no_mean() -> None:
    config = tree(listener={"filters": [{"code": "x"}]})
    samples = [Sample("sidecar_filter_calls_total", (("filter", "inline"), LABELS[1]), (0.0,))]
    (row,) = filter_rows(decode(config, Snapshot), samples)
    assert row["hooks"]["on_request"]["mean_microseconds"] == 0
