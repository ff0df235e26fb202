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


class ServerCertificate(Model, frozen=True, kw_only=True):
    """What a listener shows to callers from outside the mesh; watched, and swapped without dropping a connection."""

    certificate: str
    """PEM file with the server's certificate, followed by any intermediate certificates."""

    key: str
    """PEM file with the private key of `certificate`; not encrypted."""


class KeyPair(Model, frozen=True, kw_only=True):
    """A server certificate itself."""

    certificate: bytes
    """PEM: the chain."""

    key: bytes
    """PEM: the private key."""

    def __repr__(self) -> str:
        """Show nothing of the key."""
        return f"KeyPair({len(self.certificate)} octets)"


class Secret(Model, frozen=True, kw_only=True):
    """Key material itself, as it travels from the agent to the worker; never written to a log."""

    certificate: bytes = b""
    """PEM: this workload's certificate chain."""

    key: bytes = b""
    """PEM: its private key."""

    roots: bytes = b""
    """PEM: the roots that peers must chain to."""

    servers: dict[str, KeyPair] = {}
    """What listeners with `tls` show, by the listener's address."""

    files: dict[str, bytes] = {}
    """What is in the files that policies name, by path: keys of token issuers, hashes of API keys and passwords."""

    @property
    def has_identity(self) -> bool:
        """Is there a certificate of the workload itself, or only ones of servers?"""
        return self.certificate != b""

    def parts(self) -> dict[str, bytes]:
        """Return the certificates of it, by where they are from: `certificate`, `roots`, `tls ADDRESS`."""
        own = {"certificate": self.certificate, "roots": self.roots} if self.has_identity else {}
        return own | {f"tls {address}": pair.certificate for address, pair in self.servers.items()}

    def __repr__(self) -> str:
        """Show nothing of the key."""
        sizes = f"{len(self.certificate)} + {len(self.roots)} octets"
        return f"Secret({sizes}, {len(self.files)} files)"
