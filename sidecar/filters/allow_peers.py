"""Let only listed workloads in, by the SPIFFE ID of their certificate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from sidecar.core.api import HttpFilter, NetworkFilter
from sidecar.plugin import Plugin

if TYPE_CHECKING:
    from sidecar.core.exchange import Exchange
    from sidecar.core.tcp import Session

_FORBIDDEN: Final = "peer-not-allowed"


@dataclass(frozen=True, slots=True)
class Settings:
    """Who may call."""

    peers: tuple[str, ...]
    """SPIFFE IDs, compared whole, and `spiffe://DOMAIN/*`. Empty: any identity of `trust_domain`."""

    trust_domain: str
    """The realm that callers must be of when `peers` is empty."""

    anonymous: bool
    """Whether a caller without any certificate may pass (listeners that take plaintext too)."""


@final
class AllowPeers(HttpFilter, NetworkFilter):
    """See the module; for requests and for opaque sessions alike."""

    __slots__ = ("_anonymous", "_peers", "_prefixes")

    def __init__(self, settings: Settings) -> None:
        peers = settings.peers or (f"spiffe://{settings.trust_domain}/*",)
        self._peers: Final = frozenset(peers)
        self._prefixes: Final = tuple(peer[:-1] for peer in peers if peer.endswith("/*"))
        self._anonymous: Final = settings.anonymous

    def on_request(self, exchange: Exchange) -> str | None:
        """Refuse the request of a caller that is not listed."""
        return None if self._allows(exchange.caller.identity) else _FORBIDDEN

    def on_session(self, session: Session) -> str | None:
        """Refuse its session."""
        return None if self._allows(session.caller.identity) else _FORBIDDEN

    def _allows(self, identity: str) -> bool:
        if not identity:
            return self._anonymous
        return identity in self._peers or identity.startswith(self._prefixes)


PLUGIN = Plugin("allow_peers", Settings, AllowPeers)
