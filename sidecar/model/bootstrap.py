"""What is settled when the process starts: the operator's address, the workers, the files kept."""

from typing import Annotated, ClassVar

from msgspec import Meta

from sidecar.model.base import AddressOrOff, Duration, Model


class Admin(Model, frozen=True, kw_only=True):
    """The operator's interface; keep it on loopback."""

    SHORT: ClassVar[str] = "address"

    address: AddressOrOff = "127.0.0.1:15000"
    """Where `/ready`, `/metrics`, the status page and the rest are served. `off` serves none."""


class Process(Model, frozen=True, kw_only=True):
    """How the processes run; changes take effect at the next start."""

    workers: Annotated[int, Meta(ge=1, le=64)] = 1
    """Worker processes; one core each."""

    state_dir: str = ""
    """Directory for the last good config and the workers' control sockets. Empty: `$STATE_DIRECTORY`, else
    `$XDG_STATE_HOME/sidecar/<workload>`, else `~/.local/state/sidecar/<workload>`."""

    drain_timeout: Duration = 30.0
    """Seconds that requests under way have to finish when the sidecar stops; what remains is then closed."""
