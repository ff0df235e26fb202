"""How the agent finds out whether endpoints can be sent to."""

from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from sidecar.model.base import Model, Percent

Pace = Annotated[float, Meta(ge=0.1, extra={"unit": "duration"})]
"""Seconds, not so few that checks would be a load."""

Threshold = Annotated[int, Meta(ge=1)]
"""Answers in a row."""


class HttpHealthCheck(Model, frozen=True, kw_only=True):
    """Ask by `GET`, over HTTP/1.1 or, where the cluster's `protocol` or ALPN says so, HTTP/2."""

    SHORT: ClassVar[str] = "path"

    path: str
    """What is asked for: `/healthz`."""

    host: str = ""
    """The authority of the request. Empty: the cluster's name."""

    expected_statuses: tuple[str, ...] = ("200",)
    """Statuses that mean healthy, single ones and ranges with both ends: `[200-299, 404]`."""


class TcpHealthCheck(Model, frozen=True, kw_only=True):
    """Connect, the TLS handshake included; then, if asked for, say and expect something."""

    send: str = ""
    """What is sent: `"PING\\r\\n"`. Empty: nothing."""

    receive: str = ""
    """What must be among the first 4096 octets of the answer. Empty: no answer is waited for."""


class GrpcHealthCheck(Model, frozen=True, kw_only=True):
    """Call `grpc.health.v1.Health/Check`; `SERVING` means healthy."""

    SHORT: ClassVar[str] = "service_name"

    service_name: str = ""
    """The service that is asked about. Empty: the server as a whole."""

    authority: str = ""
    """The authority of the call. Empty: the cluster's name."""

    unimplemented: Literal["unhealthy", "healthy"] = "unhealthy"
    """What an endpoint is that answers, but does not have the health service."""


class CommandHealthCheck(Model, frozen=True, kw_only=True):
    """Run a program beside the agent, as its user; exit code 0 means healthy."""

    argv: tuple[str, ...]
    """The program and its arguments; no shell is between. In its environment, `SIDECAR_CLUSTER` and
    `SIDECAR_ENDPOINT` say what is asked about. Its last words on standard error are the reason shown."""


class HealthCheck(Model, frozen=True, kw_only=True):
    """One question to each endpoint (Envoy: HealthCheck); exactly one of `http`, `tcp`, `grpc` and `command`."""

    http: HttpHealthCheck | None = None
    """Ask by HTTP; a bare path is enough."""

    tcp: TcpHealthCheck | None = None
    """Connect; `{}` is enough."""

    grpc: GrpcHealthCheck | None = None
    """Ask the gRPC health service; `{}` or a bare service name is enough."""

    command: CommandHealthCheck | None = None
    """Run a program."""

    interval: Pace = 10.0
    """Seconds from an answer to the next question."""

    interval_jitter_percent: Percent = 10.0
    """Up to this share of `interval` is added to each, by chance, so that many sidecars do not ask in step."""

    timeout: Pace = 2.0
    """Seconds for one answer, connecting and TLS included; later is a failure."""

    healthy_threshold: Threshold = 2
    """Good answers in a row until an unhealthy endpoint is healthy. The very first answer counts at once."""

    unhealthy_threshold: Threshold = 3
    """Failures in a row until a healthy endpoint is unhealthy. The very first answer counts at once."""
