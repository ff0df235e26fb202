"""Who the workload is, and the key material that proves it."""

from typing import ClassVar

from sidecar.model.base import Model


class Workload(Model, frozen=True, kw_only=True):
    """Who runs beside this sidecar."""

    SHORT: ClassVar[str] = "name"

    name: str
    """The workload's name in metrics, logs and the status page: `web`."""

    namespace: str = "default"
    """The name space it belongs to; part of its identity."""

    service_account: str = ""
    """The account it runs as; part of its identity. Empty means the workload's name."""

    trust_domain: str = "cluster.local"
    """The realm whose certificate authority vouches for it; part of its identity."""

    version: str = ""
    """The version of the workload, for metrics and the status page."""

    zone: str = ""
    """Where it runs, for clusters that are `zone_aware`: `eu-west-1a`."""

    @property
    def identity(self) -> str:
        """The SPIFFE ID that the workload's certificate should carry."""
        account = self.service_account or self.name
        return f"spiffe://{self.trust_domain}/ns/{self.namespace}/sa/{account}"


class Certificates(Model, frozen=True, kw_only=True):
    """Key material in PEM files; watched, and swapped without dropping a connection."""

    certificate: str
    """File with this workload's certificate, followed by any intermediate certificates."""

    key: str
    """File with the private key of `certificate`; not encrypted."""

    roots: str
    """File with the root certificates that peers must chain to."""


class Secret(Model, frozen=True, kw_only=True):
    """Key material itself, as it travels from the agent to the worker; never written to a log."""

    certificate: bytes = b""
    """PEM: this workload's certificate chain."""

    key: bytes = b""
    """PEM: its private key."""

    roots: bytes = b""
    """PEM: the roots that peers must chain to."""

    def __repr__(self) -> str:
        """Show nothing of the key."""
        return f"Secret({len(self.certificate)} + {len(self.roots)} octets)"
