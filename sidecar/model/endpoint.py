"""One address of a cluster."""

from typing import Annotated, ClassVar

from msgspec import Meta

from sidecar.model.base import Address, Model


class Endpoint(Model, frozen=True, kw_only=True):
    """One address that requests may be sent to (Envoy: config.endpoint.v3.LbEndpoint)."""

    SHORT: ClassVar[str] = "address"

    address: Address
    """Where it listens: `10.0.0.5:8080`, `[::1]:8080` or `unix:/run/app.sock`."""

    weight: Annotated[int, Meta(ge=1, le=1000000)] = 1
    """Its share of the traffic relative to the other endpoints of the cluster."""

    priority: Annotated[int, Meta(ge=0, le=128)] = 0
    """0 gets the traffic while 71 % of its endpoints are available; what they cannot carry goes to 1, and so on."""

    zone: str = ""
    """Where it runs, for `zone_aware`."""

    labels: dict[str, str] = {}
    """Free words about it, shown in the status page: `{version: v2}`."""

    hostname: str = ""
    """Its name for TLS: sent as SNI and, for `simple`, expected in the certificate, unless `tls.sni` of the cluster says
    another. Empty: the host of the address."""
