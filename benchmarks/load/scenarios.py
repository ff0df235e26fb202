"""What is measured: one table of cases, each a way through a proxy and a load for it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

FEATURES: Final[Mapping[str, str]] = {
    "bare": "routing; also what cannot be off: metrics (Sidecar, Envoy, HAProxy), request id (Sidecar, Envoy), "
    "trace context (Sidecar)",
    "full": "on all sides: access log to a file, metrics, request id, trace context and 1 % sampling, "
    "one authorization rule (a path is refused, on its normal form), local rate limit, retries armed; "
    "opaque TCP: access log and metrics",
}
# What issue and README promise of *full* and one side lacks is off on both, and said in the report.
LEFT_OUT: Final = (
    "spans: nobody makes any that are collected; Sidecar, HAProxy and nginx mark traces, Envoy makes spans of "
    "the 1 % and has no collector to send them to",
    "metrics: nginx has none",
)


MAIN_RATE: Final = "1000"
HALF: Final = "half"
# Rates of the open loops, with what the names of their figures end in.
RATES: Final[Mapping[str, str]] = {
    "200": "_at_200", MAIN_RATE: "", "5000": "_at_5000", HALF: "_at_half",
}  # fmt: skip


@dataclass(frozen=True)
class Hop:
    """One proxy's job; the flags are those of the templates in `configs/`."""

    flags: frozenset[str] = frozenset()
    workload: str = "web"

    def with_features(self, features: str) -> "Hop":
        """Return the hop with what `features` switches on."""
        return replace(self, flags=self.flags | {"full"}) if features == "full" else self


@dataclass(frozen=True)
class Load:
    """What asks: `tool` is a function of `tools.TOOLS`."""

    tool: str
    path: str = "/api/v1/items/1234?page=3&sort=asc"
    connections: int = 32
    streams: int = 1
    coding: str = ""
    """For `differing`: `plain` or `huffman`."""
    close: bool = False
    """A new connection for every request."""
    grpc: bool = False
    tls: bool = False
    """The load tool itself opens TLS, without a certificate of its own."""


@dataclass(frozen=True)
class Case:
    """One row of the table; a `scenario` has one or more of them."""

    scenario: str
    name: str
    says: str
    load: Load
    hops: tuple[Hop, ...] = (Hop(),)
    origin: str = "http1"
    """What answers: `http1`, `http2`, `mtls-http2` (nginx) or `grpc` (nghttpd)."""
    endpoints: int = 1
    peers: tuple[str, ...] = ("envoy", "haproxy", "nginx")
    direct: bool = False
    """The load tool can also ask the origin itself."""
    paced: bool = False
    """There is an open-loop run for latency as well, with h2load."""
    caller: bool = False
    """A HAProxy on the load's core opens the mTLS connections: the load tools have no certificate."""
    unit: str = "request"
    kind: str = "load"
    """`load`, or a procedure of its own: `idle`, `startup`, `push`, `config`."""
    workers: int = 1
    """Workers, threads or processes of each proxy, with as many cores, the load's among them on a small machine."""
    octets: int = 0
    """Of one unit's body, where the cost of moving octets is the question."""


def hop(*flags: str, workload: str = "web") -> Hop:
    """Return a hop, as the table below writes it; `secure` is TLS of either kind on its listener."""
    secure = {"secure"} if {"tls-in", "mtls-in"} & set(flags) else set()
    return Hop(frozenset(flags) | secure, workload)


MIB: Final = 1 << 20
BIG: Final = ("envoy", "haproxy")
OPTIONAL: Final = ("caddy", "traefik", "mitmproxy")
"""Installed and measured only when --peers asks: http1, bare."""

CASES: Final = (
    Case("http1", "", "HTTP/1.1, ten fields, five of them new in every request",
         Load("wrk"), direct=True, paced=True, peers=("envoy", "haproxy", "nginx", *OPTIONAL)),
    Case("tls-in", "", "TLS in, callers without a certificate, HTTP/1.1 to the app",
         Load("wrk", tls=True), (hop("tls-in", workload="catalog"),)),
    Case("mtls-in", "", "the inbound role: mTLS in, HTTP/1.1 to the app",
         Load("wrk"), (hop("mtls-in", workload="catalog"),), caller=True, paced=True),
    Case("outbound", "", "the outbound role: plaintext HTTP/1.1 in, mTLS HTTP/2 out, 8 endpoints",
         Load("wrk"), (hop("h2-out", "mtls-out"),), "mtls-http2", 8, BIG, paced=True),
    Case("http2", "repeat", "HTTP/2 to HTTP/2, ten fields that repeat",
         Load("h2load", connections=4, streams=16), (hop("h2-in", "h2-out"),), "http2", peers=BIG, direct=True,
         paced=True),
    Case("http2", "differing-plain", "HTTP/2 to HTTP/2, five fields new in every request, plain",
         Load("differing", coding="plain", connections=4, streams=16), (hop("h2-in", "h2-out"),), "http2",
         peers=BIG),
    Case("http2", "differing-huffman", "the same, Huffman-coded",
         Load("differing", coding="huffman", connections=4, streams=16), (hop("h2-in", "h2-out"),), "http2",
         peers=BIG),
    Case("http2", "h1-h2", "HTTP/1.1 to HTTP/2",
         Load("wrk"), (hop("h2-out"),), "http2", peers=BIG),
    Case("http2", "h2-h1", "HTTP/2 to HTTP/1.1",
         Load("h2load", connections=4, streams=16), (hop("h2-in"),)),
    Case("grpc", "unary", "gRPC, one message of 100 octets each way, through one proxy",
         Load("h2load", "/bench.Echo/Unary.grpc", 4, 16, grpc=True), (hop("h2-in", "h2-out"),),
         "grpc", direct=True, paced=True),
    Case("grpc", "pair", "gRPC unary through two proxies with mTLS between them",
         Load("h2load", "/bench.Echo/Unary.grpc", 4, 16, grpc=True),
         (hop("h2-in", "h2-out", "mtls-out"), hop("h2-out", "mtls-in", workload="catalog")),
         "grpc", peers=BIG, paced=True),
    Case("grpc", "download", "gRPC, an answer of 100 messages of 1 KiB, through one proxy",
         Load("h2load", "/bench.Echo/Stream.grpc", 4, 16, grpc=True), (hop("h2-in", "h2-out"),),
         "grpc", peers=BIG),
    Case("mesh", "", "HTTP/1.1 client, proxy, mTLS HTTP/2, proxy, HTTP/1.1 server",
         Load("wrk"), (hop("h2-out", "mtls-out"), hop("mtls-in", workload="catalog")),
         peers=BIG, paced=True),
    Case("tcp", "", "opaque TCP, small messages (the requests of http1)",
         Load("wrk"), (hop("tcp"),), peers=BIG),
    Case("bulk", "", "opaque TCP, 10 MiB each way down",
         Load("wrk", "/files/10m", connections=4), (hop("tcp"),), peers=BIG, octets=10 * MIB),
    Case("bodies", "1k", "HTTP/1.1, bodies of 1 KiB", Load("wrk", "/files/1k"), octets=1 << 10),
    Case("bodies", "100k", "HTTP/1.1, bodies of 100 KiB",
         Load("wrk", "/files/100k"), octets=100 << 10),
    Case("bodies", "10m", "HTTP/1.1, bodies of 10 MiB",
         Load("wrk", "/files/10m", connections=4), octets=10 * MIB),
    Case("churn", "plain", "a new connection for every request", Load("wrk", close=True),
         unit="connection"),
    Case("churn", "mtls", "a new mTLS connection for every request",
         Load("wrk", close=True), (hop("mtls-in", workload="catalog"),), caller=True,
         unit="connection"),
    Case("churn", "tls", "a new TLS connection for every request; the caller resumes where it is given a ticket",
         Load("wrk", close=True, tls=True), (hop("tls-in", workload="catalog"),), unit="connection"),
    Case("connections", "1", "HTTP/1.1 over one connection: no two requests at a time",
         Load("wrk", connections=1), direct=True),
    Case("connections", "1000", "HTTP/1.1 over 1000 connections",
         Load("wrk", connections=1000), direct=True),
    Case("scaling", "two", "HTTP/1.1, two workers, threads or processes on two cores (http1 is with one)",
         Load("wrk", connections=64), workers=2),
    Case("idle", "", "memory of 1000 idle connections", Load("wrk"), kind="idle"),
    Case("startup", "", "from the command to the first answer", Load("wrk"), kind="startup"),
    Case("push", "", "10,000 endpoints pushed while 1000 requests a second are served",
         Load("wrk"), (hop("push"),), peers=("envoy",), kind="push"),
    Case("config", "", "1000 routes to 100 clusters of 100 endpoints, loaded, then changed under load",
         Load("wrk"), peers=("envoy",), kind="config"),
)  # fmt: skip

# Asked for by name and refused with the reason.
MISSING: Final[Mapping[str, str]] = {}
NAMES: Final = tuple(dict.fromkeys([case.scenario for case in CASES])) + tuple(MISSING)
