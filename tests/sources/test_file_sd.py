"""Endpoints from Prometheus's format: what its files say, and what is wrong in bad ones."""

import os
from pathlib import Path

import pytest

from sidecar.errors import ConfigErrors
from sidecar.model.endpoint import Endpoint
from sidecar.sources.file_sd import read

YAML = """\
- targets: ["10.0.0.2:9100", "10.0.0.1:9100"]
  labels:
    job: node
    weight: 3
    priority: "1"
    zone: eu-1
    hostname: node.internal
    __meta_shelf: "7"
- targets:
    - unix:/run/app.sock
    - 10.0.0.1:9100
"""


def write(directory: Path, text: str) -> str:
    path = directory / "targets.yaml"
    path.write_text(text)
    return str(path)


def test_labels_become_what_an_endpoint_has(tmp_path: Path) -> None:
    labels = {"job": "node", "weight": "3", "priority": "1", "zone": "eu-1"}
    labels["hostname"] = "node.internal"
    more = {"weight": 3, "priority": 1, "zone": "eu-1", "hostname": "node.internal"}
    assert read(write(tmp_path, YAML)) == (
        Endpoint(address="10.0.0.1:9100", labels=labels, **more),  # type: ignore[arg-type]
        Endpoint(address="10.0.0.2:9100", labels=labels, **more),  # type: ignore[arg-type]
        Endpoint(address="unix:/run/app.sock"),
    )


def test_json_is_read_as_well(tmp_path: Path) -> None:
    text = '[{"targets": ["a.internal:80"], "labels": {"env": "prod", "weight": "2"}}]'
    labels = {"env": "prod", "weight": "2"}
    expected = (Endpoint(address="a.internal:80", weight=2, labels=labels),)
    assert read(write(tmp_path, text)) == expected


def test_a_list_of_nothing_is_no_endpoint(tmp_path: Path) -> None:
    assert read(write(tmp_path, "[]")) == ()


@pytest.mark.parametrize(
    ("text", "line", "detail"),
    [
        ("", 1, "the file is empty"),
        ("targets: [a:1]", 1, "expected a list of targets with labels"),
        ("- targets: [a:1]\n- targets: [b]", 2, "[1].targets[0]: expected host:port"),
        (
            "- targets: [a:1]\n  labels:\n    x: y\n    weight: 0",
            4,
            "[0].labels.weight: expected a",
        ),
        ("- targets: [a:1]\n  labels: {priority: high}", 2, "from 0 to 128, got 'high'"),
        ("- targets: [a:1]\n  lables: {}", 2, "[0].lables: unknown key; did you mean 'labels'"),
        ("- labels: {a: b}", 1, "[0].targets: is required"),
        ("- targets: [a:1]\n  labels: {a: [b]}", 2, "[0].labels.a: expected a text, got a list"),
        ("- targets: [a:1\n", 2, "a bracket or brace is not closed"),
    ],
)
def test_what_is_wrong_is_told_with_file_and_line(
    tmp_path: Path, text: str, line: int, detail: str
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigErrors) as caught:
        read(path)
    first = str(caught.value.errors[0])
    assert first.startswith(f"{path}:{line}: ")
    assert detail in first


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, detail in (("none", "No such file"), ("pipe", "no regular file"), (".", "")):
        with pytest.raises(ConfigErrors, match=f"cannot be read: .*{detail}"):
            read(str(tmp_path / name))
