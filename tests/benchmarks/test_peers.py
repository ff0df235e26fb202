"""Configurations of the peers: rules of the templates, and that ours compiles in every case."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from benchmarks.__main__ import arguments, planned
from benchmarks.load.measure import names
from benchmarks.load.peers import CONFIGS, ROOT, Peer, assignment, holds, prepare, render
from benchmarks.load.scenarios import CASES, MISSING, NAMES, Case, Hop
from sidecar.compiler.snapshot import check
from sidecar.model.identity import Secret
from sidecar.sources.file import FileSource


@pytest.mark.parametrize(
    ("condition", "flags", "answer"),
    [
        ("", set(), True),
        ("full", set(), False),
        ("full", {"full"}, True),
        ("full !tcp", {"full"}, True),
        ("full !tcp", {"full", "tcp"}, False),
    ],
)
def test_conditions(condition: str, flags: set[str], answer: bool) -> None:
    assert holds(condition, frozenset(flags)) is answer


def test_lines_stay_are_filled_in_and_repeat() -> None:
    template = (
        "a @{x} mail@@host\n"
        "tls #? tls\n"
        "plain  #? !tls\n"
        "- @{endpoint} #* endpoint\n"
        "- @{endpoint_port} tls #* endpoint ? tls\n"
        "# a comment stays"
    )

    assert render(template, frozenset(), {"x": 1}, [8, 9]) == (
        "a 1 mail@host\nplain\n- 127.0.0.1:8\n- 127.0.0.1:9\n# a comment stays\n"
    )
    assert "- 8 tls\n- 9 tls\n" in render(template, frozenset({"tls"}), {"x": 1}, [8, 9])


def hops() -> list[tuple[Case, Hop, str]]:
    return [
        (case, hop, features)
        for case in CASES
        for hop in case.hops
        for features in ("bare", "full")
    ]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("bench")
    prepare(found)
    return found


def made(template: str, case: Case, hop: Hop, features: str, directory: Path) -> str:
    blanks = {
        "port": 9000, "admin": 9001, "directory": directory, "workload": hop.workload,
        "tls": directory / "tls", "workers": case.workers,
    }  # fmt: skip
    flags = hop.with_features(features).flags | ({"many"} if case.workers > 1 else set())
    text = (CONFIGS / template).read_text()
    return render(text, flags, blanks, range(9100, 9100 + case.endpoints))


def secret(directory: Path, hop: Hop) -> Secret:
    place = directory / "tls"
    return Secret(
        certificate=(place / f"{hop.workload}.pem").read_bytes(),
        key=(place / f"{hop.workload}.key").read_bytes(),
        roots=(place / "roots.pem").read_bytes(),
    )


@pytest.mark.parametrize(
    ("case", "hop", "features"),
    [pytest.param(*each, id=f"{each[0].scenario}-{each[0].name}-{each[1].workload}-{each[2]}")
     for each in hops()],
)  # fmt: skip
def test_what_we_are_measured_with_compiles_and_envoys_has_as_many_endpoints(
    case: Case, hop: Hop, features: str, directory: Path
) -> None:
    path = directory / "sidecar.yaml"
    path.write_text(made("sidecar.yaml", case, hop, features, directory))

    snapshot = FileSource(str(path)).load()

    check(snapshot, secret(directory, hop))
    theirs = yaml.safe_load(made("envoy.yaml", case, hop, features, directory))
    app = next(c for c in theirs["static_resources"]["clusters"] if c["name"] == "app")
    places = app["load_assignment"]["endpoints"][0]["lb_endpoints"]
    assert len(snapshot.clusters[0].endpoints) == len(places) == case.endpoints
    assert ("transport_socket" in app) == ("mtls-out" in hop.flags)
    (chain,) = theirs["static_resources"]["listeners"][0]["filter_chains"]
    (network,) = chain["filters"]
    settings = network["typed_config"]
    assert ("access_log" in settings) == (features == "full")
    listener = snapshot.inbound[0] if snapshot.inbound else snapshot.outbound[0]
    (route,) = listener.routes
    filters = [one["name"].rpartition(".")[2] for one in settings.get("http_filters", ())]
    assert bool(route.rate_limits) == ("local_ratelimit" in filters)
    assert bool(listener.authorization) == ("rbac" in filters)
    ours = snapshot.telemetry.access_log.path
    assert (ours == "off") == (features == "bare")
    assert settings["@type"].endswith("TcpProxy" if "tcp" in hop.flags else "HttpConnectionManager")


CHECKS = {
    "envoy": (
        "envoy.yaml",
        (
            "--mode",
            "validate",
            "-l",
            "error",
            "--service-node",
            "x",
            "--service-cluster",
            "x",
            "-c",
        ),
    ),
    "haproxy": ("haproxy.cfg", ("-c", "-f")),
    "nginx": ("nginx.conf", ("-e", "stderr", "-t", "-c")),
}


@pytest.mark.parametrize("peer", sorted(CHECKS))
def test_peers_accept_what_they_are_measured_with(peer: str, directory: Path) -> None:
    program = shutil.which(peer) or str(ROOT / ".venv-envoy/bin/envoy" if peer == "envoy" else "")
    if not Path(program).is_file():
        pytest.skip(f"{peer} is not installed")
    template, options = CHECKS[peer]
    (directory / "large.json").write_text(assignment(["10.0.0.1"]))
    refused = {}
    for case, hop, features in hops():
        text = made(template, case, hop, features, directory)
        if peer not in case.peers or text in refused:
            continue
        (directory / template).write_text(text)
        command = [program, *options, str(directory / template)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        refused[text] = (done.stdout + done.stderr)[-500:] if done.returncode else ""

    assert len(refused) > 4
    assert set(refused.values()) == {""}


def test_every_scenario_of_the_command_line_is_there_or_says_why_not() -> None:
    promised = (
        "http1 tls-in mtls-in outbound http2 grpc mesh tcp bulk bodies churn idle push startup"
        " connections scaling config"
    )

    assert set(NAMES) == set(promised.split())
    assert not {case.scenario for case in CASES} & set(MISSING)


@pytest.mark.parametrize("scenario", sorted({case.scenario for case in CASES}))
def test_quick_asks_for_less_load_than_a_minute(scenario: str) -> None:
    found = {name: Peer(name, "", (), ()) for name in ("sidecar", "envoy", "haproxy", "nginx")}
    options = arguments().parse_args([scenario, "--quick"])
    cases = [case for case in CASES if case.scenario == scenario]

    load = 0.0
    for case in cases:
        plan = planned(case, len(cases), options, found)
        subjects = len(names(case, "bare", plan))
        assert subjects == 1 + len(set(case.peers) & set(found))
        load += subjects * (1 + plan.rounds * plan.seconds)

    assert 0 < load < 48


def test_endpoints_are_pushed_in_envoys_words() -> None:
    text = assignment(["10.0.0.1", "10.0.0.2"])

    assert text.count('"port_value": 8080') == 2
    assert '"cluster_name": "large"' in text
