"""How many instructions a unit takes: `python -m benchmarks.micro.instructions MODULE [CASE...]`.

MODULE is one of this directory whose CASES take a count: `exchange`, `head`, `frames`, `features`.
Times on a shared machine drift by tens of percent from run to run; instructions, counted by
valgrind's callgrind, by less than one, so they show whether a change pays even where times cannot.
They say nothing of system calls, caches or branches: a pattern's and an interpreter's instructions
are not equally dear.  A case runs twice, with COUNT units and with none; the difference is told.
"""

import importlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.micro.turns import Case, chosen

ROOT: Final = Path(__file__).parents[2]
COUNT: Final = 200
NONE: Final = 4  # units of the run that is taken off: as few as every case takes
TOTAL: Final = re.compile(r"^(?:summary|totals): (\d+)", re.MULTILINE)
CHILD: Final = """
import gc, sys
from benchmarks.micro.instructions import cases
found = cases(sys.argv[1])
gc.disable()
for line in sys.stdin:
    count, name = line.rstrip("\\n").split(" ", 1)
    found[name](int(count))
    print("done", flush=True)
"""


def cases(module: str) -> Mapping[str, Case]:
    """Return the cases of a module beside this one."""
    found: Mapping[str, Case] = importlib.import_module(f"benchmarks.micro.{module}").CASES
    return found


class Counted:
    """A Python under callgrind that runs cases when it is told."""

    def __init__(self, module: str, directory: Path) -> None:
        self._out = directory / "out"
        self._dumps = 0
        command = [
            "valgrind", "--tool=callgrind", "--quiet", f"--callgrind-out-file={self._out}",
            sys.executable, "-c", CHILD, module,
        ]  # fmt: skip
        # Hashes decide how often tables collide, so they must be the same every time.
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": "0"},
        )  # fmt: skip

    def run(self, name: str, count: int) -> int:
        """Return the instructions of one run of a case."""
        self._control("-z")
        self._ask(name, count)
        self._control("-d")
        self._dumps += 1
        found = TOTAL.search(Path(f"{self._out}.{self._dumps}").read_text())
        assert found is not None
        return int(found[1])

    def warm(self, name: str) -> None:
        """Run a case once uncounted, so that what is made once is made."""
        self._ask(name, NONE)

    def _ask(self, name: str, count: int) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{count} {name}\n")
        self.process.stdin.flush()
        if self.process.stdout.readline() != "done\n":
            raise RuntimeError(f"{name}: the counted process has ended")

    def _control(self, option: str) -> None:
        command = ["callgrind_control", option, str(self.process.pid)]
        subprocess.run(command, check=True, capture_output=True)


@contextmanager
def counted(module: str) -> Iterator[Counted]:
    """Start the counted process; end it."""
    with tempfile.TemporaryDirectory(prefix="sidecar-instructions-") as name:
        found = Counted(module, Path(name))
        try:
            yield found
        finally:
            found.process.communicate()


def a_unit(process: Counted, name: str) -> float:
    """Return the instructions of one unit of a case."""
    process.warm(name)
    without = process.run(name, NONE)
    return (process.run(name, COUNT + NONE) - without) / COUNT


def main() -> None:
    """Count and print."""
    if len(sys.argv) < 2:
        sys.exit("usage: python -m benchmarks.micro.instructions MODULE [CASE...]")
    if shutil.which("valgrind") is None or shutil.which("callgrind_control") is None:
        sys.exit("valgrind is not installed (Debian: valgrind)")
    module, names = sys.argv[1], sys.argv[2:]
    wanted = list(chosen(cases(module), names))
    print(f"Python {sys.version.split()[0]}, instructions a unit of {module}")
    with counted(module) as process:
        for name in wanted:
            print(f"  {name:28} {a_unit(process, name):12,.0f}", flush=True)


if __name__ == "__main__":
    main()
