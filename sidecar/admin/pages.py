"""What the operator can ask, and the answers."""

import asyncio
import ipaddress
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final

import msgspec

from sidecar.admin.filters import filter_rows
from sidecar.admin.operator import Operator
from sidecar.admin.server import Request, Response, serve
from sidecar.admin.status import STATUS_PAGE
from sidecar.errors import ConfigErrors
from sidecar.identity.certificates import read_pem
from sidecar.model.fault import AddedFault
from sidecar.model.listener import InboundListener
from sidecar.runtime.messages import EndpointStatus
from sidecar.sources.decode import decode
from sidecar.telemetry.prometheus import render

Page = Callable[[Operator, Request], Awaitable[Response]]


async def start(operator: Operator, address: str) -> asyncio.Server:
    """Serve the operator's interface on `address` (`host:port`).

    Raises:
        OSError: it cannot be bound.
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]")

    async def handle(request: Request) -> Response:
        return await answer(operator, request, host)

    return await serve(handle, host, int(port))


async def answer(operator: Operator, request: Request, bound: str) -> Response:
    """Return the answer to `request`."""
    if not _is_host_ours(request.headers.get("host", ""), bound):
        return Response(403, b"the Host of the request is not this interface (DNS rebinding)\n")
    if request.path in POSTS:
        if request.method != "POST":
            text = f"{request.path} changes state: use POST\n".encode()
            return Response(405, text, headers=(("Allow", "POST"),))
        if "origin" in request.headers:
            return Response(403, b"pages of other origins may not change state here\n")
        return await POSTS[request.path](operator, request)
    if request.path == "/logging" and request.method == "POST" and "origin" not in request.headers:
        return await _logging(operator, request)
    page = PAGES.get(request.path)
    if page is None:
        paths = "\n".join(sorted((*PAGES, *POSTS)))
        return Response(404, f"no such page; there are:\n{paths}\n".encode())
    if request.method not in ("GET", "HEAD"):
        return Response(405, b"use GET\n", headers=(("Allow", "GET, HEAD"),))
    return await page(operator, request)


def _is_host_ours(host: str, bound: str) -> bool:
    """Say whether a browser that was led here by a foreign name would be refused."""
    name = host[1 : host.find("]")] if host.startswith("[") else host.partition(":")[0]
    if name in ("", "localhost", bound):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _json(value: object) -> Response:
    body = json.dumps(value, indent=2, default=str).encode() + b"\n"
    return Response(200, body, "application/json")


async def _ready(operator: Operator, request: Request) -> Response:
    ready, text = operator.readiness()
    return Response(200 if ready else 503, f"{text}\n".encode())


async def _live(operator: Operator, request: Request) -> Response:
    return Response(200, b"live\n")


async def _metrics(operator: Operator, request: Request) -> Response:
    samples, _ = await operator.statistics()
    return Response(200, render(samples), "text/plain; version=0.0.4; charset=utf-8")


async def _stats(operator: Operator, request: Request) -> Response:
    samples, _ = await operator.statistics()
    if request.query.get("format") == "json":
        return _json(
            [{"name": s.name, "labels": dict(s.labels), "values": s.values} for s in samples]
        )
    lines = []
    for sample in sorted(samples, key=lambda s: (s.name, s.labels)):
        labels = ",".join(f"{k}={v}" for k, v in sample.labels)
        value = sum(sample.values[1:]) if len(sample.values) > 1 else sample.values[0]
        lines.append(f"{sample.name}{{{labels}}} {value:g}\n")
    return Response(200, "".join(lines).encode())


async def _config_dump(operator: Operator, request: Request) -> Response:
    snapshot = operator.snapshot()
    if snapshot is None:
        return Response(503, b"no configuration runs yet\n")
    body = msgspec.json.format(msgspec.json.encode(snapshot), indent=2) + b"\n"
    return Response(200, body, "application/json")


async def _clusters(operator: Operator, request: Request) -> Response:
    _, endpoints = await operator.statistics()
    rows = [msgspec.to_builtins(e) for e in endpoints]
    if request.query.get("format") == "json":
        return _json(rows)
    lines = [
        "cluster  endpoint  available  health  active  connections  idle  requests  failures"
        "  last_health_failure\n"
    ]
    lines += [
        f"{e.cluster}  {e.address}  {_available(e)}  {e.health or '-'}"
        f"  {e.active}  {e.connections}  {e.idle}  {e.requests}  {e.failures}"
        f"  {e.last_failure or '-'}\n"
        for e in endpoints
    ]
    return Response(200, "".join(lines).encode())


def _available(endpoint: EndpointStatus) -> str:
    """Return `yes`, `no`, or why not: `ejected:consecutive-5xx`."""
    if endpoint.available:
        return "yes"
    return f"ejected:{endpoint.ejected}" if endpoint.ejected else "no"


async def _listeners(operator: Operator, request: Request) -> Response:
    snapshot = operator.snapshot()
    if snapshot is None:
        return Response(503, b"no configuration runs yet\n")
    rows = [
        {"role": "inbound", "address": x.address, "protocol": x.protocol, "mtls": _security(x)}
        for x in snapshot.inbound
    ]
    rows += [
        {"role": "outbound", "address": x.address, "protocol": x.protocol, "mtls": "-"}
        for x in snapshot.outbound
    ]
    if request.query.get("format") == "json":
        return _json(rows)
    return Response(200, "".join("  ".join(r.values()) + "\n" for r in rows).encode())


def _security(listener: InboundListener) -> str:
    return listener.mtls if listener.tls is None else "off (tls)"


async def _certs(operator: Operator, request: Request) -> Response:
    secret = operator.certificates()
    if secret is None:
        return _json([])
    rows = []
    for part, pem in secret.parts().items():
        for certificate in read_pem(pem):
            left = certificate.ends - datetime.now(UTC)
            rows.append(
                {
                    "from": part,
                    "identity": certificate.uris,
                    "serial": f"{certificate.serial:x}",
                    "valid_from": certificate.begins.isoformat(),
                    "valid_until": certificate.ends.isoformat(),
                    "days_left": round(left.total_seconds() / 86400, 2),
                }
            )
    return _json(rows)


async def _server_info(operator: Operator, request: Request) -> Response:
    return _json(operator.info())


async def _overload(operator: Operator, request: Request) -> Response:
    samples, _ = await operator.statistics()
    rows = [
        {**dict(s.labels), "value": round(s.values[0], 4)}
        for s in sorted(samples, key=lambda s: (s.labels, s.name))
        if s.name in ("sidecar_overload_pressure", "sidecar_overload_active")
    ]
    if request.query.get("format") == "json":
        return _json(rows)
    lines = ["worker  resource or action  value\n"]
    lines += [f"{r['worker']}  {r.get('resource') or r['action']}  {r['value']:g}\n" for r in rows]
    return Response(200, "".join(lines).encode())


async def _logging(operator: Operator, request: Request) -> Response:
    level = request.query.get("level")
    if level is not None and level.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        return Response(400, b"expected level=debug, info, warning or error\n")
    if level is not None and request.method != "POST":
        return Response(405, b"use POST to set the level\n", headers=(("Allow", "POST"),))
    return Response(200, f"{operator.log_level(level)}\n".encode())


async def _drain(operator: Operator, request: Request) -> Response:
    operator.drain()
    return Response(200, b"draining\n")


async def _reopen(operator: Operator, request: Request) -> Response:
    operator.reopen()
    return Response(200, b"log files are opened again\n")


async def _faults(operator: Operator, request: Request) -> Response:
    return _json(msgspec.to_builtins(operator.faults()))


async def _fault_add(operator: Operator, request: Request) -> Response:
    try:
        wanted = decode(msgspec.json.decode(request.body), AddedFault)
        number = operator.add_fault(wanted)
    except msgspec.DecodeError as error:
        return Response(400, f"not JSON: {error}\n".encode())
    except ConfigErrors as errors:
        return Response(400, f"{errors}\n".encode())
    return Response(200, f"fault {number} begins\n".encode())


async def _fault_remove(operator: Operator, request: Request) -> Response:
    number = request.query.get("id", "")
    if not number.isdecimal() or not operator.remove_fault(int(number)):
        return Response(404, b"no such fault: expected id=N of one in /faults\n")
    return Response(200, f"fault {int(number)} ends\n".encode())


async def _filters(operator: Operator, request: Request) -> Response:
    snapshot = operator.snapshot()
    if snapshot is None:
        return Response(503, b"no configuration runs yet\n")
    samples, _ = await operator.statistics()
    return _json(filter_rows(snapshot, samples))


async def _status(operator: Operator, request: Request) -> Response:
    policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"
    return Response(
        200,
        STATUS_PAGE,
        "text/html; charset=utf-8",
        (("Content-Security-Policy", policy), ("X-Content-Type-Options", "nosniff")),
    )


PAGES: Final[dict[str, Page]] = {
    "/": _status,
    "/certs": _certs,
    "/clusters": _clusters,
    "/config_dump": _config_dump,
    "/faults": _faults,
    "/filters": _filters,
    "/listeners": _listeners,
    "/live": _live,
    "/logging": _logging,
    "/metrics": _metrics,
    "/overload": _overload,
    "/ready": _ready,
    "/server_info": _server_info,
    "/stats": _stats,
}
POSTS: Final[dict[str, Page]] = {
    "/drain": _drain,
    "/faults/add": _fault_add,
    "/faults/remove": _fault_remove,
    "/reopen": _reopen,
}
