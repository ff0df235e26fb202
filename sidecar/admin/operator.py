"""What the operator's interface needs of the agent."""

from typing import Protocol

from sidecar.model.fault import AddedFault
from sidecar.model.identity import Secret
from sidecar.model.snapshot import Snapshot
from sidecar.runtime.messages import EndpointStatus, Sample


class Operator(Protocol):
    """The agent, as the operator sees it."""

    def readiness(self) -> tuple[bool, str]:
        """Say whether traffic is served, and if not, why."""

    def snapshot(self) -> Snapshot | None:
        """Return the running configuration."""

    def info(self) -> dict[str, object]:
        """Return what runs here."""

    async def statistics(self) -> tuple[list[Sample], list[EndpointStatus]]:
        """Return fresh numbers, summed over the workers."""

    def certificates(self) -> Secret | None:
        """Return the key material in use."""

    def drain(self) -> None:
        """Begin to drain, and exit."""

    def reopen(self) -> None:
        """Open log files again."""

    def faults(self) -> list[dict[str, object]]:
        """Return the faults that were added and are under way."""

    def add_fault(self, wanted: AddedFault) -> int:
        """Begin one and return its number, or raise ConfigErrors."""

    def remove_fault(self, number: int) -> bool:
        """End one; say whether there was such a one."""

    def log_level(self, level: str | None) -> str:
        """Return the level of the agent's log, after setting it if one is given."""
