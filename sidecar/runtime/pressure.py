"""How much a worker has of what there is an end to: memory, time, descriptors."""

import contextlib
import gc
import os
import resource
from collections.abc import Callable, Iterable
from typing import Final, final

from sidecar.core.book import Book
from sidecar.core.overload import ACTIONS, DESCRIPTORS, LAG, MEMORY, UNLIMITED, press
from sidecar.core.types import Engine
from sidecar.model.overload import Overload
from sidecar.traffic.pressure import Lasting, connections_for, memory_of_worker, scaled

COUNTED: Final = 2000  # connections up to which the open descriptors are counted one by one
COLLECT_EVERY: Final = 10.0  # seconds between collections of garbage while memory is short

Labels = tuple[tuple[str, str], ...]
Row = tuple[str, Labels, tuple[float, ...]]


@final
class Files:
    """Where the kernel tells it."""

    def __init__(self, proc: str = "/proc/self", groups: str = "/sys/fs/cgroup") -> None:
        self._proc: Final = proc
        self._groups: Final = groups

    def resident(self) -> int:
        """Return the octets that are in memory of this process; 0 if nobody says."""
        words = self._read(f"{self._proc}/statm").split()
        return int(words[1]) * resource.getpagesize() if len(words) > 1 else 0

    def descriptors(self) -> int:
        """Return how many are open."""
        with contextlib.suppress(OSError):
            return len(os.listdir(f"{self._proc}/fd"))
        return 0

    def memory_limit(self) -> int:
        """Return the least limit of the control groups that this process is in; 0 if there is none.

        `memory.high` counts as well: beyond it the kernel makes everything slow.
        """
        found = []
        for line in self._read(f"{self._proc}/cgroup").splitlines():
            number, _, rest = line.partition(":")
            controllers, _, path = rest.partition(":")
            if number == "0":
                found += self._limits("", path, ("memory.max", "memory.high"))
            elif "memory" in controllers.split(","):
                found += self._limits("/memory", path, ("memory.limit_in_bytes",))
        return min(found, default=0)

    def _limits(self, root: str, path: str, names: Iterable[str]) -> list[int]:
        """Return the limits of a group and of those above it, as far as they can be seen."""
        found = []
        while True:
            for name in names:
                text = self._read(f"{self._groups}{root}{path.rstrip('/')}/{name}").strip()
                # Version 1 says `none` by a number that no machine has.
                if text.isdecimal() and int(text) < 1 << 60:
                    found.append(int(text))
            if path in ("", "/"):
                return found
            path = path.rpartition("/")[0]

    def _read(self, path: str) -> str:
        with contextlib.suppress(OSError), open(path, encoding="ascii", errors="replace") as file:
            return file.read(65536)
        return ""


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open files to the hard one; return it.

    The soft one is 1024 so often because of `select`, which nothing here uses.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            return hard
    return soft


@final
class Monitor:
    """Looks at the resources, and has the engine do what that asks for."""

    def __init__(
        self,
        engine: Engine,
        book: Book,
        interval: float,
        descriptor_limit: int,
        files: Files | None = None,
        collect: Callable[[], object] = gc.collect,
    ) -> None:
        self._engine: Final = engine
        self._book: Final = book
        self._interval: Final = interval  # seconds between ticks
        self._descriptor_limit: Final = descriptor_limit
        self._files: Final = files or Files()
        self._collect: Final = collect
        self._lasting: Final = Lasting()
        self._thresholds: dict[str, tuple[float, float]] = {}
        self._memory_limit = 0
        self._ticked = 0.0
        self._collected = 0.0
        self._other = 0  # descriptors that are no connections
        self._values: Final = {MEMORY: 0.0, LAG: 0.0, DESCRIPTORS: 0.0}
        self.resident = 0
        self.pressures = dict(self._values)  # those that the engine knows of

    def configure(self, settings: Overload, workers: int) -> None:
        """Look by `settings` from now on."""
        memory, lag, files = settings.memory, settings.loop_lag, settings.descriptors
        self._thresholds = {
            MEMORY: (memory.scaling_threshold, memory.saturation_threshold),
            LAG: (lag.scaling_threshold, lag.saturation_threshold),
            DESCRIPTORS: (files.scaling_threshold, files.saturation_threshold),
        }
        group = 0 if settings.memory.limit else self._files.memory_limit()
        self._memory_limit = settings.memory.limit or memory_of_worker(group, workers)
        self._engine.gate.limit = settings.max_connections or UNLIMITED

    def tick(self) -> None:
        """Note how late this comes; to be called every `interval`."""
        now = self._engine.now()
        if self._ticked:
            self._values[LAG] = self._lasting.add(max(0.0, now - self._ticked - self._interval))
        self._ticked = now
        self._press()

    def sample(self) -> None:
        """Look at memory and descriptors; to be called every second."""
        self.resident = self._files.resident()
        limit = self._memory_limit
        self._values[MEMORY] = self.resident / limit * 100 if limit else 0.0
        gate = self._engine.gate
        downstream = gate.connections
        upstream = sum(state.connections for state in self._book.clusters.values())
        if downstream + upstream < COUNTED:
            # Else it would take time; what is no connection changes with pushes only.
            self._other = max(0, self._files.descriptors() - downstream - upstream)
        most = self._descriptor_limit
        used = self._other + downstream + upstream
        self._values[DESCRIPTORS] = used / most * 100
        gate.ceiling = UNLIMITED
        saturation = self._thresholds[DESCRIPTORS][1] if self._thresholds else 0.0
        if saturation:  # for the connections that come before the next look
            reserve = 1 - saturation / 100
            gate.ceiling = connections_for(most, self._other, downstream, upstream, reserve)
        self._press()

    def rows(self, worker: int) -> list[Row]:
        """Return numbers: name, labels, values."""
        own = (("worker", str(worker)),)
        overload = self._engine.overload
        actions = overload.actions() if overload is not None else dict.fromkeys(ACTIONS, 0.0)
        found: list[Row] = [
            ("sidecar_worker_resident_bytes", own, (float(self.resident),)),
            ("sidecar_worker_loop_lag_seconds", own, (self._values[LAG],)),
        ]
        for name, pressure in self.pressures.items():
            found.append(("sidecar_overload_pressure", (*own, ("resource", name)), (pressure,)))
        for action, extent in actions.items():
            found.append(("sidecar_overload_active", (*own, ("action", action)), (extent,)))
        return found

    def _press(self) -> None:
        values = self._values
        pressures = {
            name: scaled(values[name], *thresholds) for name, thresholds in self._thresholds.items()
        }
        if pressures.get(MEMORY):
            self._shrink()
        if pressures and pressures != self.pressures:
            self.pressures = pressures
            press(self._engine, pressures)

    def _shrink(self) -> None:
        """Give back what only the collector finds (Envoy: shrink_heap)."""
        now = self._engine.now()
        if now >= self._collected + COLLECT_EVERY:
            self._collected = now
            self._collect()
