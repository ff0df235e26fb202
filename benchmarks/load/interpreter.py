"""Which Python our side is measured on: an optimized one where there is one, as users run it.

Envoy's wheel is a release build and the official container images are built with PGO and LTO, while
the Python of a development environment is often neither, and a fifth slower for it.  How an
interpreter was built cannot be read with certainty (Debian strips the flags of its own), so each
that is found runs the same short loop in turns, and the fastest is taken.  Unless it is the one that
runs the harness, it gets an environment of its own, `.venv-bench`, from the hash-pinned lock; the
code measured is always that of the working tree.
"""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PLACE: Final = ROOT / ".venv-bench"
LOCK: Final = ROOT / "requirements.lock"
NAMES: Final = ("python3", "python3.14", "python3.13", "python3.12", "python3.11")
PLACES: Final = ("/usr/bin", "/usr/local/bin")
TURNS: Final = 5
# Less is noise of the loop, and a reason to leave things as they are.
MARGIN: Final = 0.05
# What forwarding is made of: a pattern over octets, dictionaries, slots, calls, joins.
PROBE: Final = r"""
import json, os, platform, re, sys, sysconfig, time
if sys.version_info < (3, 11): sys.exit(1)
HEAD = b"GET /items/17 HTTP/1.1\r\nhost: a\r\n" + b"x-field: some value 0123456789\r\n" * 8 + b"\r\n"
FIELD = re.compile(rb"([!-9;-~]+):[ \t]*([^\r\n]*)\r\n")
class Slot:
    __slots__ = ("count", "table")
    def __init__(self): self.count, self.table = 0, {}
    def put(self, name, value):
        self.count += 1
        self.table[name] = self.table.get(name, 0) + len(value)
def slice_():
    begin = time.process_time()
    for _ in range(150):
        slot, parts = Slot(), []
        for found in FIELD.finditer(HEAD):
            name, value = found.groups()
            slot.put(name, value)
            parts += (name, b": ", value, b"\r\n")
        b"".join(parts)
    return time.process_time() - begin
args = sysconfig.get_config_var("CONFIG_ARGS") or ""
print(json.dumps({
    "path": os.path.realpath(getattr(sys, "_base_executable", sys.executable)),
    "version": platform.python_version(),
    "compiler": platform.python_compiler(),
    "flags": [f for f in ("--enable-optimizations", "--with-lto", "--disable-gil", "--with-pydebug",
                          "--enable-experimental-jit") if f in args],
    "seconds": min(slice_() for _ in range(60)),
}))
"""
# One of each kind of dependency: an environment that has these was made for Sidecar.
COMPLETE: Final = "import click, cryptography, msgspec, prometheus_client, re2, rich, uvloop, yaml"


class UnusableError(Exception):
    """An interpreter that was asked for does not run, or packages cannot be installed for it."""


@dataclass(frozen=True)
class Interpreter:
    """An interpreter, by what it says of itself."""

    path: str
    version: str
    build: str
    seconds: float
    """The least time of the loop."""


@dataclass(frozen=True)
class Chosen:
    """What our side runs on, and why."""

    python: str
    """The executable to start, in an environment that has the packages."""
    version: str
    says: str


def probed(path: str) -> Interpreter | None:
    """Return what the interpreter at `path` says, or None if it does not run or is too old."""
    try:
        told = subprocess.run(
            [path, "-I", "-c", PROBE], capture_output=True, text=True, check=True, timeout=30
        )
        found = json.loads(told.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    build = " ".join([found["compiler"], *found["flags"]])
    return Interpreter(found["path"], found["version"], build, found["seconds"])


def candidates() -> list[str]:
    """Return where interpreters may be: the running one first."""
    paths = [sys.executable]
    paths += [found for name in NAMES if (found := shutil.which(name)) is not None]
    paths += [str(Path(place, name)) for place in PLACES for name in NAMES]
    return list(dict.fromkeys(path for path in paths if Path(path).exists()))


def compared(paths: Iterable[str], turns: int = TURNS) -> list[Interpreter]:
    """Return the interpreters behind `paths`, each once, with the least time of all turns."""
    known = {found.path: found for path in paths if (found := probed(path)) is not None}
    for _ in range(turns - 1):
        for path, before in list(known.items()):
            again = probed(path)
            if again is not None and again.seconds < before.seconds:
                known[path] = again
    return list(known.values())


def fastest(found: list[Interpreter]) -> Interpreter:
    """Return the fastest; the first, which runs already, unless another is clearly faster."""
    best = min(found, key=lambda one: one.seconds)
    return best if best.seconds < found[0].seconds * (1 - MARGIN) else found[0]


def choose(asked: str | None) -> Chosen:
    """Return what to run our side on: `asked`, or the fastest there is.

    Raises: UnusableError.
    """
    if asked is not None:
        only = probed(asked)
        if only is None:
            raise UnusableError(f"{asked} is not a working Python 3.11 or newer")
        python = asked if complete(asked) else installed(only)
        return Chosen(python, only.version, f"{only.path}, {only.build}: asked for")
    found = compared(candidates())
    best = fastest(found)
    others = ", ".join(
        f"{other.path} {other.version}: {other.seconds / best.seconds:.2f} of its time in a short loop"
        for other in found
        if other is not best
    )
    says = f"{best.path}, {best.build}: the fastest here ({others or 'the only one'})"
    try:
        python = sys.executable if best is found[0] else installed(best)
    except UnusableError as error:
        sys.stderr.write(f"bench: {error}; measuring on {found[0].path}\n")
        return Chosen(
            sys.executable, found[0].version, f"{found[0].path}, {found[0].build}: {error}"
        )
    return Chosen(python, best.version, says)


def compile_modules(python: str) -> None:
    """Have every module compiled for `python`, as they are in whatever an installer has put there.

    Without, each start compiles hundreds of files, and a process keeps 2 MB more from then on; where
    PYTHONDONTWRITEBYTECODE is set, that is never over.
    """
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    told = subprocess.run([python, "-c", where], capture_output=True, text=True, check=True)
    places = [told.stdout.strip(), str(ROOT / "sidecar")]
    # Not checked: among the packages are files for other versions of Python.
    subprocess.run([python, "-m", "compileall", "-qq", *places], check=False)


def complete(python: str) -> bool:
    """Has the environment of `python` what Sidecar needs?"""
    return not subprocess.run([python, "-c", COMPLETE], capture_output=True, check=False).returncode


def installed(base: Interpreter) -> str:
    """Return the Python of `.venv-bench`, made of `base` and the lock if it is not yet.

    Raises: UnusableError.
    """
    python = PLACE / "bin" / "python"
    stamp = PLACE / ".made-of"
    pinned = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    made_of = f"{base.path} {base.version} {PLACE} {pinned}\n"
    if stamp.exists() and stamp.read_text() == made_of and complete(str(python)):
        return str(python)
    sys.stderr.write(f"bench: installing the packages into .venv-bench (Python {base.version})\n")
    for command in steps(base.path, str(python), uv=shutil.which("uv") is not None):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise UnusableError(f"no environment for {base.path}: {done.stderr.strip()[-300:]}")
    stamp.write_text(made_of)
    return str(python)


def steps(base: str, python: str, *, uv: bool) -> list[list[str]]:
    """Return the commands that make the environment: with uv, else with what Python brings along."""
    pinned = ["--quiet", "--no-deps", "--require-hashes", "-r", str(LOCK)]
    if uv:
        return [
            ["uv", "venv", "--quiet", "--clear", "--no-project", "--python", base, str(PLACE)],
            ["uv", "pip", "install", "--python", python, *pinned],
        ]
    # Without pip: Debian's Python lacks ensurepip; ours can install for another.
    return [
        [base, "-m", "venv", "--clear", "--without-pip", str(PLACE)],
        [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check",
         "install", *pinned],
    ]  # fmt: skip
