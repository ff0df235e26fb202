"""What is generated from the model: complete, and of one mind with what the decoder takes."""

import re

import pytest

from sidecar.model.base import Model
from sidecar.sources.schema import field_docs, json_schema, markdown, structures


@pytest.mark.parametrize("model", structures(), ids=lambda model: model.__name__)
def test_every_field_says_what_it_means(model: type[Model]) -> None:
    docs = field_docs(model)

    assert set(docs) == set(model.__struct_fields__)
    assert all(text.endswith((".", "`")) and "\n" not in text for text in docs.values())


def test_the_schema_is_one_whole() -> None:
    schema = json_schema()
    defined = set(schema["$defs"])
    used = set(re.findall(r"'#/\$defs/(\w+)'", str(schema)))

    assert schema["$schema"].endswith("2020-12/schema")
    assert used == defined


def test_the_schema_takes_the_short_form_beside_the_long_one() -> None:
    short, long = json_schema()["$defs"]["Workload"]["anyOf"]

    assert short == {"type": "string"}
    assert (long["required"], long["additionalProperties"]) == (["name"], False)


@pytest.mark.parametrize(
    ("structure", "field", "good", "bad"),
    [
        ("Process", "drain_timeout", ["250ms", "15s", "1.5h"], ["15", "15 s", "-1s", "s"]),
        ("OutboundListener", "max_head_size", ["64KiB", "9B"], ["64KB", "64", "1.5MiB"]),
        ("Route", "timeout", ["15s"], ["15 s"]),
        ("Tracing", "sampling", ["1%", "0.5%"], ["nan%", "5", "%"]),
        ("Cluster", "dns", ["a:80", "[::1]:1"], ["a", ":80", "a:", "http://a:80", "off"]),
        ("Endpoint", "address", ["a:80", "unix:/run/x"], ["unix:", "unix:x", "off"]),
        ("Admin", "address", ["off", "a:80", "unix:/run/x"], ["on", "offf", "unix:off"]),
    ],
)
def test_the_schema_has_a_pattern_for_every_unit_of_required_and_optional_fields(
    structure: str, field: str, good: list[str], bad: list[str]
) -> None:
    definition = json_schema()["$defs"][structure]
    body = definition.get("anyOf", [definition])[-1]  # behind the short form, if there is one
    pattern = body["properties"][field]["pattern"]

    assert [text for text in good if not re.search(pattern, text)] == []
    assert [text for text in bad if re.search(pattern, text)] == []


def test_the_schema_knows_the_bounds_of_numbers_with_and_without_a_unit() -> None:
    definitions = json_schema()["$defs"]
    sampling = definitions["Tracing"]["properties"]["sampling"]
    workers = definitions["Process"]["properties"]["workers"]

    assert (sampling["minimum"], sampling["maximum"]) == (0, 100)
    assert (workers["minimum"], workers["maximum"]) == (1, 64)


def test_every_row_of_the_reference_has_four_cells() -> None:
    rows = [line for line in markdown().splitlines() if line.startswith("|")]

    assert len(rows) > 80
    assert {len(re.split(r"(?<!\\)\|", row)) for row in rows} == {6}
