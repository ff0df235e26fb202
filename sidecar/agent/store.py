"""What is kept on disk: the last good config, and where workers wait for their next agent."""

import hashlib
import os
from typing import Final, final

import msgspec

from sidecar.agent.config import Config
from sidecar.agent.logs import log
from sidecar.errors import ConfigErrors
from sidecar.model.snapshot import Snapshot


def state_dir(snapshot: Snapshot) -> str:
    """Return the state directory, made if need be."""
    directory = snapshot.process.state_dir or os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    directory = directory or os.path.join(_state_home(), snapshot.workload.name)
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
    except OSError as error:
        import tempfile  # noqa: PLC0415 - it brings compression along, 0.4 MB that few need

        fallback = tempfile.mkdtemp(prefix="sidecar-")
        log.warning("state directory %s: %s; using %s", directory, error.strerror, fallback)
        return fallback
    return directory


@final
class LastGood:
    """The last config of one source that every worker ran.

    Where it lies does not depend on what the config says: it is needed when that cannot be read.
    No key material is kept.
    """

    def __init__(self, source: str) -> None:
        name = hashlib.sha256(os.path.abspath(source).encode()).hexdigest()[:12]
        self._path: Final = os.path.join(_state_home(), f"last-good-{name}.msgpack")

    def load(self) -> Config | None:
        """Return it, if it is kept and still compiles."""
        try:
            with open(self._path, "rb") as file:
                return Config.of(msgspec.msgpack.decode(file.read(), type=Snapshot))
        except (OSError, msgspec.MsgspecError, ConfigErrors):
            return None

    def save(self, config: Config) -> None:
        """Keep `config`: whole or not at all."""
        try:
            os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
            spare = os.path.splitext(self._path)[0] + ".new"
            handle = os.open(spare, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(msgspec.msgpack.encode(config.snapshot))
                file.flush()
                os.fsync(handle)  # or a power cut could leave the new name with nothing in it
            os.rename(spare, self._path)
        except OSError as error:
            log.warning("the last good config is not kept: %s", error)


def _state_home() -> str:
    """Return where state is kept unless the configuration says otherwise."""
    given = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    if given:
        return given
    home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.path.join(home, "sidecar")
