"""Send a request on under another path or host than it came with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from sidecar.core.api import HttpFilter
from sidecar.plugin import Plugin

if TYPE_CHECKING:
    from sidecar.core.exchange import Exchange

_ORIGINAL: Final = b"x-envoy-original-path"


@dataclass(frozen=True, slots=True)
class Settings:
    """What becomes of the target and the authority."""

    target: Callable[[bytes], bytes] | None
    """The new target (path and query) for one that came; None: it stays."""

    host: bytes
    """The new authority; empty: it stays."""


@final
class Rewrite(HttpFilter):
    """See the module; the path as it came goes along as `x-envoy-original-path`."""

    __slots__ = ("_host", "_target")

    def __init__(self, settings: Settings) -> None:
        self._target: Final = settings.target
        self._host: Final = settings.host

    def on_request(self, exchange: Exchange) -> None:
        """Rewrite the target and the authority."""
        head = exchange.head
        if head.get(_ORIGINAL) is not None:  # ours to say: the log believes it
            head.remove(_ORIGINAL)
        if self._target is not None and head.target != b"*":
            target = self._target(head.target)
            if target != head.target:
                head.set(_ORIGINAL, head.target)
                head.target = target
        if self._host:
            head.authority = self._host
            if head.pairs is None:
                head.set(b"host", self._host)

    def on_finish(self, exchange: Exchange) -> None:
        """Let the log say what the caller has asked for."""
        head = exchange.head
        head.target = head.get(_ORIGINAL) or head.target


PLUGIN = Plugin("rewrite", Settings, Rewrite)
