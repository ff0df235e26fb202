"""Is what is exposed what was counted, as another implementation reads it?"""

import math
from typing import NamedTuple

import pytest
from hypothesis import given, strategies as st
from prometheus_client.parser import text_string_to_metric_families

from sidecar.telemetry.buckets import SIZE_BUCKETS
from sidecar.telemetry.prometheus import render


class Series(NamedTuple):
    name: str
    labels: tuple[tuple[str, str], ...]
    values: tuple[float, ...]


Rows = list[tuple[str, dict[str, str], float]]


def read(text: bytes) -> dict[str, tuple[str, Rows]]:
    """Return type and rows of each family; a family that begins twice is an error."""
    found: dict[str, tuple[str, Rows]] = {}
    for family in text_string_to_metric_families(text.decode()):
        assert family.name not in found
        rows = [(sample.name, sample.labels, sample.value) for sample in family.samples]
        found[family.name] = (family.type, rows)
    return found


@given(st.text(), st.floats(allow_nan=False))
def test_any_label_and_number_is_read_back(label: str, number: float) -> None:
    told = read(render([Series("sidecar_overload_pressure", (("resource", label),), (number,))]))

    rows = [("sidecar_overload_pressure", {"resource": label}, number)]
    assert told == {"sidecar_overload_pressure": ("gauge", rows)}


@pytest.mark.parametrize("number", [math.nan, 0, -0.0, 1e300, 12345678.0])
def test_numbers_are_written_as_the_format_has_them(number: float) -> None:
    ((_, _, value),) = read(render([Series("sidecar_workers", (), (number,))]))["sidecar_workers"][
        1
    ]

    assert value == number or (math.isnan(value) and math.isnan(number))


def test_a_family_begins_once_whatever_its_series_are_labelled_with() -> None:
    series = [
        Series("sidecar_retries_total", (("cluster", "a"),), (1.0,)),
        Series("sidecar_workers", (), (2.0,)),
        Series("sidecar_retries_total", (("zone", "z"), ("cluster", "b")), (3.0,)),
    ]

    told = read(render(series))

    assert told["sidecar_retries"] == (
        "counter",
        [
            ("sidecar_retries_total", {"cluster": "a"}, 1.0),
            ("sidecar_retries_total", {"cluster": "b", "zone": "z"}, 3.0),
        ],
    )


def test_a_histogram_adds_its_buckets_up() -> None:
    counts = (1.0, *([0.0] * (len(SIZE_BUCKETS) - 1)), 2.0)

    told = read(render([Series("istio_request_bytes", (("app", "web"),), (77.0, *counts))]))

    kind, rows = told["istio_request_bytes"]
    labels = {"app": "web"}
    edges = [str(edge) for edge in SIZE_BUCKETS]
    assert kind == "histogram"
    assert rows == [
        *(("istio_request_bytes_bucket", {**labels, "le": edge}, 1.0) for edge in edges),
        ("istio_request_bytes_bucket", {**labels, "le": "+Inf"}, 3.0),
        ("istio_request_bytes_count", labels, 3.0),
        ("istio_request_bytes_sum", labels, 77.0),
    ]


def test_a_histogram_without_labels_has_only_its_edges() -> None:
    counts = (0.0,) * (len(SIZE_BUCKETS) + 1)

    told = render([Series("istio_response_bytes", (), (0.0, *counts))])

    assert b'istio_response_bytes_bucket{le="1.0"} 0.0\n' in told
    assert b"istio_response_bytes_count 0.0\n" in told
