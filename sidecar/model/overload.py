"""When a worker has too much, and does less, before anything breaks."""

from sidecar.model.base import Count, Duration, Model, Percent, Size


class MemoryPressure(Model, frozen=True, kw_only=True):
    """The resident memory of one worker, as a share of what it may take."""

    limit: Size = 0
    """Octets that one worker may take. 0: its part of the memory limit of the control group (container, systemd unit), less
    128 MiB for the agent; where there is none, memory is not looked at."""

    scaling_threshold: Percent = 90.0
    """From here on a growing share of new requests is answered 503 (flag OM), and HTTP/1.1 connections end with
    their response."""

    saturation_threshold: Percent = 98.0
    """From here on all new requests are, and new connections are refused. 0: memory is not looked at."""


class LoopLag(Model, frozen=True, kw_only=True):
    """How late a worker comes to what is due, in three looks in a row, 0.2 s apart."""

    scaling_threshold: Duration = 1.0
    """From so many seconds on a growing share of new requests is answered 503 (flag OM)."""

    saturation_threshold: Duration = 5.0
    """From here on all new requests are, and new connections are refused. 0: lag is not looked at."""


class Descriptors(Model, frozen=True, kw_only=True):
    """The open files of one worker, as a share of its limit (`ulimit -n`, which it raises to the hard one)."""

    scaling_threshold: Percent = 80.0
    """From here on HTTP/1.1 connections end with their response."""

    saturation_threshold: Percent = 90.0
    """From here on new connections are refused, so that the rest is there for endpoints, logs and the agent. 0: descriptors
    are not looked at."""


class Overload(Model, frozen=True, kw_only=True):
    """What a worker may have at once (Envoy: OverloadManager); routes and listeners with `bypass_overload` are spared."""

    memory: MemoryPressure = MemoryPressure()
    """Of each worker."""

    loop_lag: LoopLag = LoopLag()
    """Of each worker."""

    descriptors: Descriptors = Descriptors()
    """Of each worker."""

    max_connections: Count = 0
    """Connections of all listeners together, per worker; one more is closed at once (Envoy:
    global_downstream_max_connections). 0: only each listener's own limit holds."""
