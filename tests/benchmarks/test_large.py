"""The large configuration: what it holds on both sides, and that a push changes all of it."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from benchmarks.load.large import CLUSTERS, ENDPOINTS, ROUTES, envoy, sidecar, write
from benchmarks.load.peers import CONFIGS, ROOT, render
from sidecar.compiler.snapshot import check
from sidecar.sources.file import FileSource

COUNT = CLUSTERS * ENDPOINTS


def small(name: str, directory: Path) -> None:
    blanks = {"port": 9000, "admin": 9001, "directory": directory, "workload": "web",
              "tls": directory, "workers": 1}  # fmt: skip
    text = render((CONFIGS / f"{name}.yaml").read_text(), frozenset(), blanks, [9100])
    (directory / f"{name}.yaml").write_text(text)


def test_ours_compiles_and_a_push_changes_every_route_and_endpoint(tmp_path: Path) -> None:
    small("sidecar", tmp_path)
    seen = []
    for version in (0, 1):
        write("sidecar", tmp_path, version)
        snapshot = FileSource(str(tmp_path / "sidecar.yaml")).load()
        check(snapshot, None)
        (listener,) = snapshot.outbound
        large = [cluster for cluster in snapshot.clusters if cluster.name != "app"]
        endpoints = {end.address for cluster in large for end in cluster.endpoints}
        prefixes = {route.match.prefix for route in listener.routes if route.match.prefix}
        assert (len(prefixes), len(endpoints)) == (ROUTES, COUNT)
        assert listener.routes[-1].cluster == "app"
        seen.append((prefixes, endpoints))

    assert not seen[0][0] & seen[1][0]
    assert not seen[0][1] & seen[1][1]


def test_envoy_is_given_as_much(tmp_path: Path) -> None:
    small("envoy", tmp_path)
    base = yaml.safe_load((tmp_path / "envoy.yaml").read_text())

    files = envoy(base, 1)

    clusters = json.loads(files["clusters.json"])["resources"]
    (table,) = json.loads(files["routes.json"])["resources"]
    places = [
        place["endpoint"]["address"]["socket_address"]["address"]
        for cluster in clusters
        for place in cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    ]
    assert len(set(places)) == COUNT
    assert len(table["virtual_hosts"][0]["routes"]) == ROUTES + 2
    small("sidecar", tmp_path)
    ours = yaml.safe_load((tmp_path / "sidecar.yaml").read_text())
    assert len(json.loads(sidecar(ours, 1)["sidecar.yaml"])["outbound"][0]["routes"]) == ROUTES + 2


def test_envoy_accepts_it(tmp_path: Path) -> None:
    program = shutil.which("envoy") or str(ROOT / ".venv-envoy/bin/envoy")
    if not Path(program).is_file():
        pytest.skip("envoy is not installed")
    small("envoy", tmp_path)
    write("envoy", tmp_path, 0)
    command = [program, "--mode", "validate", "-l", "error", "-c", str(tmp_path / "envoy.yaml")]

    done = subprocess.run(
        [*command, "--service-node", "x", "--service-cluster", "x"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
