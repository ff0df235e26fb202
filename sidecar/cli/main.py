"""The way in: the agent at once, or a command line for everything else."""

import sys

from sidecar.cli.run import run


def main() -> None:
    """Do what the arguments ask for, and exit.

    `sidecar run CONFIG` is read here, since its process is to stay small: a library for command
    lines and a client for HTTP would be 4 MB that an agent never uses again.
    """
    match sys.argv[1:]:
        case ["run", config] if not config.startswith("-"):
            run(config)
        case _:
            from sidecar.cli.commands import commands  # noqa: PLC0415 - what `run` does not need

            commands()
