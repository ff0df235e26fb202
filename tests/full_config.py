"""The files that config/full.yaml names beside certificates, and the key material of its workload."""

from typing import Final

from msgspec.structs import replace

from sidecar.identity.hashed import key_line, password_line
from sidecar.issuers.ephemeral import Authority
from sidecar.model.identity import Secret
from sidecar.model.snapshot import Snapshot
from tests.tokens import public, rsa

FILES: Final = {
    "/etc/sidecar/batch-jwks.json": public(rsa()),
    "/etc/sidecar/legacy-secret": b"s" * 32,
    "/etc/sidecar/api-keys": key_line("batch", b"k").encode(),
    "/etc/sidecar/passwords": password_line("alice", b"p").encode(),
}


def secret_of(snapshot: Snapshot) -> Secret:
    """Return what the examples' workload would have, with all files that they name."""
    secret = Authority(snapshot.workload.trust_domain).issue(snapshot.workload.identity)
    return replace(secret, files=FILES)
