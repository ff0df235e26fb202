"""How the agent is run from a command line, and how any command ends that fails."""

import sys

from sidecar.errors import ConfigErrors, SidecarError


def run(config: str) -> None:
    """Run the sidecar that the file `config` describes until it is told to stop, and exit."""
    from sidecar.agent.app import run as run_agent  # noqa: PLC0415 - other commands need none
    from sidecar.sources.file import FileSource  # noqa: PLC0415

    try:
        sys.exit(run_agent(FileSource(config)))
    except SidecarError as error:
        sys.exit(explain(error))


def explain(error: SidecarError) -> str:
    """Return the sentences that an operator reads, with which a command ends."""
    return str(error) if isinstance(error, ConfigErrors) else f"sidecar: {error.detail}"
