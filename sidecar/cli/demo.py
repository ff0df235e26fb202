"""`sidecar demo`: two workloads, each beside its own real sidecar, mutual TLS between them."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

from sidecar.admin.server import Request, Response, serve
from sidecar.agent import sockets
from sidecar.cli.demo_check import verify
from sidecar.errors import OperationError
from sidecar.issuers.ephemeral import Authority

TRUST_DOMAIN: Final = "demo.local"
WEB: Final = f"spiffe://{TRUST_DOMAIN}/ns/default/sa/web"
CATALOG: Final = f"spiffe://{TRUST_DOMAIN}/ns/default/sa/catalog"
START_TIMEOUT: Final = 15.0  # seconds until both sidecars must be ready


class Ports(NamedTuple):
    """Where everything listens, on 127.0.0.1."""

    outbound: int = 15001
    inbound_v1: int = 15006
    inbound_v2: int = 15007
    web_admin: int = 15000
    catalog_admin: int = 15010


def run_demo(*, check: bool, ports: Ports = Ports()) -> int:  # noqa: B008 - a constant
    """Run the demo until Ctrl-C, or check it; return the exit code.

    Raises:
        OperationError: a port is taken, or a sidecar does not become ready.
    """
    for port in ports:
        sockets.bind(f"127.0.0.1:{port}").close()  # raises with the owner's name
    with tempfile.TemporaryDirectory(prefix="sidecar-demo-") as directory:
        return asyncio.run(_demo(Path(directory), ports, check=check))


async def _demo(directory: Path, ports: Ports, *, check: bool) -> int:
    apps = [await serve(_app(version), "127.0.0.1", 0) for version in ("v1", "v2")]
    app_ports = [app.sockets[0].getsockname()[1] for app in apps]
    _write_configs(directory, ports, app_ports)
    processes: list[subprocess.Popen[bytes]] = []
    try:
        processes += [_start(directory, name) for name in ("catalog", "web")]
        await _until_ready(directory, ports, processes)
        if check:
            return await asyncio.to_thread(verify, ports, WEB)
        _introduce(ports)
        await _count(ports)
        return 0
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                await asyncio.to_thread(process.wait, 5)
            except subprocess.TimeoutExpired:
                process.kill()
        for app in apps:
            app.close()


def _start(directory: Path, name: str) -> subprocess.Popen[bytes]:
    """Start the sidecar of one workload; what it prints goes to a file."""
    with open(directory / f"{name}.log", "wb") as log:
        return subprocess.Popen(  # noqa: S603 - our own module, no shell
            [sys.executable, "-m", "sidecar", "run", str(directory / f"{name}.yaml")],
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for the demo, which ends them in order
            env={**os.environ, "XDG_STATE_HOME": str(directory / "state")},
        )


def _app(version: str) -> Callable[[Request], Any]:
    """Return one version of the catalog: it tells what it saw."""

    async def answer(request: Request) -> Response:
        caller = request.headers.get("x-forwarded-client-cert", "")
        seen = {"catalog": version, "path": request.path, "caller": caller}
        return Response(200, json.dumps(seen).encode() + b"\n", "application/json")

    return answer


def _write_configs(directory: Path, ports: Ports, app_ports: list[int]) -> None:
    authority = Authority(TRUST_DOMAIN)
    for name, identity in (("web", WEB), ("catalog", CATALOG)):
        secret = authority.issue(identity)
        for part in ("certificate", "key", "roots"):
            path = directory / f"{name}-{part}.pem"
            path.touch(mode=0o600)
            path.write_bytes(getattr(secret, part))
    (directory / "web.yaml").write_text(_WEB.format(d=directory, p=ports, catalog=CATALOG))
    (directory / "catalog.yaml").write_text(
        _CATALOG.format(d=directory, p=ports, a=app_ports, web=WEB)
    )


_WEB: Final = """\
workload: {{name: web, trust_domain: demo.local}}
admin: 127.0.0.1:{p.web_admin}
certificates: &pem
  certificate: {d}/web-certificate.pem
  key: {d}/web-key.pem
  roots: {d}/web-roots.pem
outbound:
  - address: 127.0.0.1:{p.outbound}
    routes:
      - name: canary
        match: {{headers: {{x-canary: v2}}}}
        cluster: catalog-v2
        faults: &faults [{{by_header: {{}}, lifetime: 0}}]
      - name: split
        faults: *faults
        clusters:
          - {{name: catalog-v1, weight: 90}}
          - {{name: catalog-v2, weight: 10}}
clusters:
  - name: catalog-v1
    service: catalog
    endpoints: [127.0.0.1:{p.inbound_v1}]
    tls: {{mode: mutual, identities: ["{catalog}"]}}
  - name: catalog-v2
    service: catalog
    endpoints: [127.0.0.1:{p.inbound_v2}]
    tls: {{mode: mutual, identities: ["{catalog}"]}}
process: {{state_dir: {d}/state-web, drain_timeout: 2s}}
"""

_CATALOG: Final = """\
workload: {{name: catalog, trust_domain: demo.local}}
admin: 127.0.0.1:{p.catalog_admin}
certificates:
  certificate: {d}/catalog-certificate.pem
  key: {d}/catalog-key.pem
  roots: {d}/catalog-roots.pem
inbound:
  - {{address: "127.0.0.1:{p.inbound_v1}", app: "127.0.0.1:{a[0]}", allow: ["{web}"]}}
  - {{address: "127.0.0.1:{p.inbound_v2}", app: "127.0.0.1:{a[1]}", allow: ["{web}"]}}
process: {{state_dir: {d}/state-catalog, drain_timeout: 2s}}
"""


async def _until_ready(
    directory: Path, ports: Ports, processes: list[subprocess.Popen[bytes]]
) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    for name, admin, process in (
        ("catalog", ports.catalog_admin, processes[0]),
        ("web", ports.web_admin, processes[1]),
    ):
        while not await asyncio.to_thread(_is_ready, admin):
            if process.poll() is not None or time.monotonic() > deadline:
                log = (directory / f"{name}.log").read_text(errors="replace")[-2000:]
                raise OperationError("demo-failed", f"the sidecar of {name} is not ready:\n{log}")
            await asyncio.sleep(0.05)


def _is_ready(admin: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{admin}/ready", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _introduce(ports: Ports) -> None:
    click.echo(f"""\
Two workloads run, each beside its own sidecar, with mutual TLS between them:

  you -> 127.0.0.1:{ports.outbound} (web's sidecar)
      -> mTLS -> 127.0.0.1:{ports.inbound_v1} (catalog's sidecar) -> catalog v1   90 %
      -> mTLS -> 127.0.0.1:{ports.inbound_v2} (catalog's sidecar) -> catalog v2   10 %

Worth trying:

  curl http://127.0.0.1:{ports.outbound}/items                    one request through both sidecars
  curl -H 'x-canary: v2' http://127.0.0.1:{ports.outbound}/items  the canary
  curl -i -H 'x-envoy-fault-abort-request: 503' http://127.0.0.1:{ports.outbound}/items   a fault, asked for by header
  curl -i -H 'x-envoy-fault-delay-request: 2000' http://127.0.0.1:{ports.outbound}/items  two seconds late
  curl http://127.0.0.1:{ports.inbound_v1}/items                    plaintext: refused
  curl http://127.0.0.1:{ports.web_admin}/metrics                  what web's sidecar has counted
  open http://127.0.0.1:{ports.catalog_admin}/                         the status page of catalog's sidecar

Ctrl-C ends it.
""")


async def _count(ports: Ports) -> None:
    """Show counts until Ctrl-C."""
    with contextlib.suppress(asyncio.CancelledError, KeyboardInterrupt):
        for _ in _forever():
            counts = await asyncio.to_thread(_requests, ports)
            line = "  ".join(f"{name}: {count:g} requests" for name, count in counts.items())
            if sys.stdout.isatty():
                click.echo(f"\r{line}", nl=False)
                await asyncio.sleep(1)
            else:
                click.echo(line)
                await asyncio.sleep(5)
        click.echo()


def _forever() -> Iterator[None]:
    while True:
        yield None


def _requests(ports: Ports) -> dict[str, float]:
    found = {}
    for name, admin in (("web", ports.web_admin), ("catalog", ports.catalog_admin)):
        url = f"http://127.0.0.1:{admin}/stats?format=json"
        with urllib.request.urlopen(url, timeout=2) as answer:
            rows = json.load(answer)
        found[name] = sum(r["values"][0] for r in rows if r["name"] == "istio_requests_total")
    return found
