"""What is told about the traffic, and to whom."""

from typing import ClassVar, Literal

from sidecar.model.base import Count, Model, Percent


class AccessLog(Model, frozen=True, kw_only=True):
    """One line for every request and every tcp session."""

    SHORT: ClassVar[str] = "path"

    path: str = "stdout"
    """`stdout`, `off`, or a file; the file is opened again on SIGHUP, so that it can be rotated."""

    format: Literal["text", "json"] = "text"
    """`text`: Envoy's default line, with reason and peer identity appended. `json`: one object a line."""


class Metrics(Model, frozen=True, kw_only=True):
    """Prometheus series."""

    max_series: Count = 2000
    """Label sets kept per worker; what comes beyond is counted under `other`."""


class Tracing(Model, frozen=True, kw_only=True):
    """W3C trace context."""

    sampling: Percent = 1.0
    """Share of the traces begun here that are marked as sampled; a caller's decision is always kept."""


class Telemetry(Model, frozen=True, kw_only=True):
    """What is told about the traffic."""

    access_log: AccessLog = AccessLog()
    """Where the access log goes."""

    metrics: Metrics = Metrics()
    """What `/metrics` holds."""

    tracing: Tracing = Tracing()
    """How traces begun here are marked."""
