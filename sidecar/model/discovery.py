"""How the endpoints of a cluster are found where they are not listed."""

from typing import Annotated, Literal

from msgspec import Meta

from sidecar.model.base import Address, Duration, Model


class DnsLookup(Model, frozen=True, kw_only=True):
    """How names are looked up (Envoy: dns_lookup_family, respect_dns_ttl, dns_resolvers of a cluster)."""

    lookup_family: Literal["all", "v4_only", "v6_only", "v4_preferred", "v6_preferred"] = "all"
    """Which addresses count: A and AAAA together, one kind, or the one where there is any and the other where not."""

    respect_ttl: bool = True
    """An answer is asked for again when its TTL is over. false: every `dns_refresh`, whatever the TTL."""

    min_refresh: Annotated[float, Meta(ge=0.1, extra={"unit": "duration"})] = 1.0
    """Seconds between look-ups at the least, however short the TTL."""

    max_refresh: Duration = 300.0
    """Seconds between look-ups at the most, however long the TTL."""

    timeout: Annotated[float, Meta(ge=0.1, extra={"unit": "duration"})] = 5.0
    """Seconds for one look-up, all servers and search domains together."""

    servers: tuple[Address, ...] = ()
    """DNS servers to ask, as address and port: `[127.0.0.1:8600]`; names are then taken as they are written. Empty: as
    this machine looks names up, by nsswitch.conf, /etc/hosts and resolv.conf with its search domains."""
