"""What is to be run: a snapshot with its key material, as a source gives it, checked."""

from datetime import datetime
from typing import NamedTuple, Protocol, Self

from msgspec.structs import replace

from sidecar.agent.quota import check_installed
from sidecar.compiler.access import named_files
from sidecar.compiler.snapshot import check, version_of
from sidecar.errors import ConfigErrors
from sidecar.identity.certificates import read_pem
from sidecar.issuers import files
from sidecar.model.identity import Secret
from sidecar.model.snapshot import Snapshot


class Source(Protocol):
    """Where snapshots come from."""

    @property
    def name(self) -> str:
        """What to call it in messages."""

    def load(self) -> Snapshot:
        """Return the snapshot of now, or raise ConfigErrors."""

    def locate(self, errors: ConfigErrors) -> ConfigErrors:
        """Return `errors` with the places where they are."""

    def watched(self) -> tuple[str, ...]:
        """Return files whose change means: load again."""


class Config(NamedTuple):
    """A snapshot that compiles, and the key material that it names."""

    snapshot: Snapshot
    secret: Secret | None
    version: str

    @classmethod
    def of(cls, snapshot: Snapshot) -> Self:
        """Return `snapshot` with its key material.

        Raises:
            ConfigErrors: it does not compile, the material is not usable, or a package is not there.
        """
        secret = key_material(snapshot)
        check(snapshot, secret)
        check_installed(snapshot)
        return cls(snapshot, secret, version_of(snapshot))

    @property
    def addresses(self) -> set[str]:
        """Where it listens."""
        snapshot = self.snapshot
        return {x.address for x in snapshot.inbound} | {x.address for x in snapshot.outbound}

    def expiries(self) -> dict[str, datetime]:
        """Return when the first certificate of each part expires."""
        if self.secret is None:
            return {}
        parts = self.secret.parts().items()
        return {part: min(one.ends for one in read_pem(pem)) for part, pem in parts}


def key_material(snapshot: Snapshot) -> Secret | None:
    """Return what the files that `snapshot` names hold.

    Raises:
        ConfigErrors: something cannot be read, or is no key material.
    """
    secret, named = files.load(snapshot), named_files(snapshot)
    return replace(secret or Secret(), files=files.read(named)) if named else secret


def watched(snapshot: Snapshot) -> tuple[str, ...]:
    """Return the files that `snapshot` names, whose change means: load again."""
    return (*files.watched(snapshot), *(path for _, path in named_files(snapshot)))


def load(source: Source) -> Config:
    """Return what `source` says now.

    Raises:
        ConfigErrors: all that is wrong, each with its place.
    """
    snapshot = source.load()
    try:
        return Config.of(snapshot)
    except ConfigErrors as errors:
        raise source.locate(errors) from None
