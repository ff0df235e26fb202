"""How long requests of a route may take, by what it and its listener say."""

from typing import Final, NamedTuple

from sidecar.core.api import HttpFilter
from sidecar.core.durations import WholeStream
from sidecar.errors import ConfigError
from sidecar.model.listener import Listener
from sidecar.model.route import Route

_HTTP_ONLY: Final = ("request_timeout", "min_request_rate", "max_stream_duration")


class Times(NamedTuple):
    """What holds where a route does not say."""

    stream_idle: float = 300.0
    max_stream: float = 0.0
    request: float = 0.0
    bypass_overload: bool = False
    rate: int = 0

    def idle(self, route: Route) -> float:
        """Return how long an exchange of `route` may be silent."""
        own = route.stream_idle_timeout
        return self.stream_idle if own is None else own

    def filters(self, route: Route) -> tuple[HttpFilter, ...]:
        """Return what limits the exchanges of `route` as a whole: nothing, where nothing does."""
        own = route.max_stream_duration
        most = self.max_stream if own is None else own
        if not (most or self.request or self.rate):
            return ()
        return (WholeStream(most, self.request, self.rate),)


def listener_times(listener: Listener, path: str, errors: list[ConfigError]) -> Times:
    """Return what `listener` says; what it cannot keep goes to the errors."""
    if listener.protocol == "tcp":
        errors += [
            ConfigError(f"{path}.{name}", "a tcp listener sees no requests")
            for name in _HTTP_ONLY
            if getattr(listener, name)
        ]
    return Times(
        listener.stream_idle_timeout,
        listener.max_stream_duration,
        listener.request_timeout,
        listener.bypass_overload,
        listener.min_request_rate,
    )
