"""What `sidecar demo --check` verifies, with its own eyes."""

import http.client
import json
import math
import urllib.request
from collections.abc import Iterator
from typing import Final, NamedTuple, Protocol

import click

REQUESTS: Final = 500
CANARY: Final = 20
SHARE: Final = 0.1  # of requests that go to v2


class PortsLike(Protocol):
    """The ports of the demo."""

    @property
    def outbound(self) -> int: ...
    @property
    def inbound_v1(self) -> int: ...
    @property
    def web_admin(self) -> int: ...
    @property
    def catalog_admin(self) -> int: ...


class Finding(NamedTuple):
    """One thing that was looked at."""

    what: str
    is_good: bool
    seen: str


def verify(ports: PortsLike, caller: str) -> int:
    """Send requests, look at everything, print a table; return the exit code."""
    findings = list(_findings(ports, caller))
    width = max(len(f.what) for f in findings)
    for finding in findings:
        word = click.style("ok    ", "green") if finding.is_good else click.style("FAILED", "red")
        click.echo(f"{word}  {finding.what:{width}}  {finding.seen}")
    return 0 if all(f.is_good for f in findings) else 1


def _findings(ports: PortsLike, caller: str) -> Iterator[Finding]:
    statuses: dict[int, int] = {}
    versions: dict[str, int] = {}
    callers = set()
    connection = http.client.HTTPConnection("127.0.0.1", ports.outbound, timeout=10)
    for index in range(REQUESTS):
        connection.request("GET", f"/items/{index}")
        answer = connection.getresponse()
        body = answer.read()
        statuses[answer.status] = statuses.get(answer.status, 0) + 1
        if answer.status == 200:
            seen = json.loads(body)
            versions[seen["catalog"]] = versions.get(seen["catalog"], 0) + 1
            callers.add(seen["caller"])
    yield Finding(f"{REQUESTS} requests answered 200", statuses == {200: REQUESTS}, str(statuses))
    v2 = versions.get("v2", 0)
    spread = 4.5 * math.sqrt(REQUESTS * SHARE * (1 - SHARE))  # 1 in 150,000 by chance
    yield Finding("90 % to v1, 10 % to v2", abs(v2 - REQUESTS * SHARE) <= spread, f"v2 got {v2}")
    canary = set()
    for _ in range(CANARY):
        connection.request("GET", "/items", headers={"x-canary": "v2"})
        canary.add(json.loads(connection.getresponse().read())["catalog"])
    connection.request("GET", "/items", headers={"x-envoy-fault-abort-request": "418"})
    answer = connection.getresponse()
    text = answer.read().decode(errors="replace").strip()
    seen_fault = f"{answer.status}: {text[:60]}"
    yield Finding("a fault is injected on request", answer.status == 418, seen_fault)
    connection.close()
    yield Finding("the canary header leads to v2", canary == {"v2"}, f"{sorted(canary)}")
    known = all(f"URI={caller}" in c.split(";") for c in callers) and bool(callers)
    yield Finding("catalog saw web's identity", known, "; ".join(sorted(callers))[-80:])
    for name, admin in (("web", ports.web_admin), ("catalog", ports.catalog_admin)):
        total = _total(admin)
        yield Finding(f"metrics of {name} count them", total >= REQUESTS, f"{total:g} requests")
    yield _plaintext(ports.inbound_v1)


def _plaintext(port: int) -> Finding:
    """A plaintext request to the mTLS port: refused, never served."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/items")
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace").strip()
        return Finding(
            "plaintext is refused", answer.status == 400, f"{answer.status}: {text[:60]}"
        )
    except (http.client.HTTPException, OSError) as error:
        return Finding("plaintext is refused", True, type(error).__name__)
    finally:
        connection.close()


def _total(admin: int) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    rows = [line for line in text.splitlines() if line.startswith("istio_requests_total{")]
    return sum(float(row.rpartition(" ")[2]) for row in rows)
