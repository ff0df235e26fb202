"""What a look-up of endpoints can end with."""

from typing import Final, NamedTuple

from sidecar.model.endpoint import Endpoint


class Found(NamedTuple):
    """Endpoints, sorted; good for `ttl` seconds, None: nobody said how long."""

    endpoints: tuple[Endpoint, ...]
    ttl: float | None


class NoSuchName(Exception):  # noqa: N818 - an answer, no error
    """There is nothing of this name; `ttl` as in Found."""

    def __init__(self, text: str, ttl: float | None) -> None:
        super().__init__(text)
        self.ttl: Final = ttl


class LookupFailed(Exception):  # noqa: N818
    """Nobody could say; `partial` is what there is of an answer."""

    def __init__(self, text: str, partial: tuple[Endpoint, ...] = ()) -> None:
        super().__init__(text)
        self.partial: Final = partial
