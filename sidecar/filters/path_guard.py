"""Refuse paths whose spelling would lead past the policy of a route."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from sidecar.core.api import Answer, HttpFilter
from sidecar.plugin import Plugin
from sidecar.wire.path import is_usual

if TYPE_CHECKING:
    from sidecar.core.exchange import Exchange
    from sidecar.wire.path import Read

_AMBIGUOUS: Final = Answer("ambiguous-path", detail="routes with a policy are found by path here")
_ELSEWHERE: Final = Answer(
    "ambiguous-path", detail="in its normal form the path may be another route's"
)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the route's request must be looked at by."""

    read: Read
    """How rules read a path."""

    tests: tuple[Callable[[bytes], bool], ...]
    """By path: whether each of the routes up to this one takes it."""


@final
class PathGuard(HttpFilter):
    """See the module.

    Routes are found by the path as it came, but the app behind may decode it: `/%61dmin` is not the
    route `/admin`, and is `/admin` to the app.  So where a route has a policy, a path that would be
    taken by another route once it is decoded is refused, and any other encoding goes through.
    """

    __slots__ = ("_read", "_tests")

    def __init__(self, settings: Settings) -> None:
        self._read: Final = settings.read
        self._tests: Final = settings.tests

    def on_request(self, exchange: Exchange) -> Answer | None:
        """Compare how the routes take the path and its normal form."""
        head = exchange.head
        if is_usual(head.target):  # as nearly all are: 0.5 us
            return None
        path = head.path
        form = self._read(path)
        if form is None:
            return _AMBIGUOUS
        if form != path:
            for takes in self._tests:
                if takes(form) != takes(path):
                    return _ELSEWHERE
        return None


PLUGIN = Plugin("path_guard", Settings, PathGuard)
