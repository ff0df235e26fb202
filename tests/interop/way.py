"""The ways from a caller to an app: direct, through Envoy, through one sidecar, through pairs.

A way is a list of hops, the caller's end first. Every suite of this room runs over the same ways;
`direct` and `envoy` show that the suite itself is right.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sidecar.issuers.ephemeral import Authority
from sidecar.model.http2 import Http2
from tests.e2e.stand import Sidecar, free_port
from tests.e2e.test_mesh import CATALOG, DOMAIN, WEB, envoy, write
from tests.interop.envoy import Line, Security, config
from tests.interop.peer import running


@dataclass(frozen=True)
class App:
    """Where an app listens on loopback, in plaintext."""

    port: int
    http2: bool = True


@dataclass
class Front:
    """Where callers come in."""

    name: str
    """The way's, as in HOPS."""

    ports: dict[App, int]
    """App -> the port to call it by."""

    material: Path
    """certificate.pem, key.pem and roots.pem of a caller that `inbound` lets in."""

    sidecars: list[Sidecar] = field(default_factory=list)
    """The sidecars on the way, the caller's end last."""


# Who listens and dials how: `alone` has plaintext on both sides, `near` dials with mTLS, `far`
# accepts it.
HOPS = {
    "direct": (),
    "envoy": (("envoy", "alone"),),
    "sidecar": (("sidecar", "alone"),),
    "pair": (("sidecar", "near"), ("sidecar", "far")),
    "envoy-sidecar": (("envoy", "near"), ("sidecar", "far")),
    "sidecar-envoy": (("sidecar", "near"), ("envoy", "far")),
    "reference-pair": (("reference", "near"), ("reference", "far")),
    "inbound": (("sidecar", "far"),),  # the caller brings the certificate in `Front.material`
    "reference": (("reference", "alone"),),
}
WAYS = ("direct", "envoy", "sidecar", "pair", "envoy-sidecar", "sidecar-envoy", "reference-pair")
PROXIES = WAYS[1:]
OURS = WAYS[2:]


@contextlib.contextmanager
def way(name: str, apps: Sequence[App], directory: Path) -> Iterator[Front]:
    """Open the way called `name` to all `apps`; on leaving, every sidecar must end well."""
    if any(kind == "reference" for kind, _ in HOPS[name]) and not hasattr(Http2, "codec"):
        pytest.skip("this sidecar has no second HTTP/2 codec")
    authority = Authority(DOMAIN)
    front = Front(name, {app: app.port for app in apps}, directory / "caller")
    write(front.material, authority.issue(WEB))
    with contextlib.ExitStack() as stack:
        for number, (kind, role) in enumerate(reversed(HOPS[name])):
            room = directory / f"{number}-{kind}-{role}"
            room.mkdir()
            lines = [
                # Only the last hop needs telling what the app speaks; the others find out by ALPN.
                Line(free_port(), front.ports[app], app.http2 if role != "near" else True)
                for app in apps
            ]
            identity = CATALOG if role == "far" else WEB
            certificates = write(room / "pem", authority.issue(identity))
            if kind == "envoy":
                security = Security(room / "pem", WEB if role == "far" else CATALOG)
                stack.enter_context(_envoy(room, lines, role, security))
            else:
                sidecar = Sidecar(room, _sidecar(lines, role, certificates, kind == "reference"))
                stack.callback(sidecar.end)
                front.sidecars.append(sidecar)
            front.ports = {app: line.port for app, line in zip(apps, lines, strict=True)}
        yield front


@contextlib.contextmanager
def _envoy(room: Path, lines: Sequence[Line], role: str, security: Security) -> Iterator[None]:
    path = room / "envoy.json"
    far, near = (security if role == name else None for name in ("near", "far"))
    path.write_text(config(lines, near, far))
    arguments = [envoy(), "-c", str(path), "--concurrency", "1", "--use-dynamic-base-id"]
    with running([*arguments, "-l", "error"], [line.port for line in lines], room / "envoy.log"):
        yield


def _sidecar(lines: Sequence[Line], role: str, certificates: str, reference: bool) -> str:
    """Return the YAML of a sidecar in `role`."""
    codec = ", http2: {codec: reference}" if reference else ""
    mutual = f", tls: {{mode: mutual, identities: ['{CATALOG}']}}"
    # How fast this machine is, is no suite's business: a try may take longer than the default.
    timeout = "" if role == "far" else ", timeout: 60s"
    listeners, clusters = [], []
    for line in lines:
        allow = f", allow: ['{WEB}']" if role == "far" else ""
        listeners.append(
            f"  - {{address: '127.0.0.1:{line.port}'{allow}{codec},"
            f" routes: [{{cluster: to-{line.port}{timeout}}}]}}\n"
        )
        protocol = "http2" if line.http2 else "http1"
        how = mutual if role == "near" else f", protocol: {protocol}"
        clusters.append(
            f"  - {{name: to-{line.port}, endpoints: ['127.0.0.1:{line.endpoint}']{how}{codec},"
            " limits: {connections: 20000, pending: 20000, requests: 20000}}\n"
        )
    workload = "catalog" if role == "far" else "web"
    return (
        f"workload: {{name: {workload}, trust_domain: {DOMAIN}}}\n{certificates}"
        f"{'inbound' if role == 'far' else 'outbound'}:\n{''.join(listeners)}"
        f"clusters:\n{''.join(clusters)}"
    )
