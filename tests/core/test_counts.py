"""What filters count is bounded."""

from sidecar.core.counts import SERIES, Counts


def test_a_number_is_found_again_by_its_labels() -> None:
    counts = Counts()
    counts.tally("a", (("x", "1"),)).value += 2
    counts.tally("a", (("x", "1"),)).value += 1
    counts.tally("a", (("x", "2"),)).value += 1
    counts.tally("b", ()).value += 5
    assert list(counts.rows()) == [
        ("a", (("x", "1"),), (3,)),
        ("a", (("x", "2"),), (1,)),
        ("b", (), (5,)),
    ]


def test_what_is_too_many_is_counted_together() -> None:
    counts = Counts()
    for index in range(SERIES + 3):
        counts.tally("a", (("filter", "f"), ("y", str(index)))).value += 1
    rows = {labels: values for _, labels, values in counts.rows()}
    assert len(rows) == SERIES + 1
    assert rows[("filter", "f"), ("y", "other")] == (3,)
