"""What is measured, and that it is acted upon; the kernel's files are the test's own."""

from pathlib import Path
from typing import Any

import pytest

from sidecar.core.book import Book
from sidecar.core.overload import DESCRIPTORS, LAG, MEMORY, UNLIMITED
from sidecar.core.timers import Wheel
from sidecar.core.types import Engine
from sidecar.model.overload import Descriptors, LoopLag, MemoryPressure, Overload
from sidecar.runtime.pressure import COLLECT_EVERY, Files, Monitor, raise_descriptor_limit

MIB = 1 << 20
PAGE = 4096


class Machine:
    """A worker's surroundings: what the kernel says, and a clock."""

    def __init__(self, root: Path, descriptors: int = 1000) -> None:
        self.root = root
        self.now = 1000.0
        self.collected = 0
        (root / "proc" / "fd").mkdir(parents=True)
        self.say("proc/cgroup", "")
        self.use(50 * MIB)
        self.engine = Engine(lambda: self.now, lambda: 0.0, Wheel(lambda when: None))
        self.book = Book()
        self.files = Files(f"{root}/proc", f"{root}/cgroup")
        self.monitor = Monitor(self.engine, self.book, 0.2, descriptors, self.files, self._collect)

    def _collect(self) -> None:
        self.collected += 1

    def say(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def use(self, octets: int) -> None:
        self.say("proc/statm", f"99999 {octets // PAGE} 12 1 0 2 0\n")

    def open(self, count: int) -> None:
        """Have so many descriptors that are no connections."""
        for path in (self.root / "proc" / "fd").iterdir():
            path.unlink()
        for number in range(count):
            (self.root / "proc" / "fd" / str(number)).touch()

    def connect(self, count: int) -> None:
        """Have so many connections to endpoints."""
        self.book.cluster("app").connections = count

    def configure(self, workers: int = 1, **parts: Any) -> None:
        self.monitor.configure(Overload(**parts), workers)

    def tick(self, *lags: float) -> None:
        for lag in lags:
            self.now += 0.2 + lag
            self.monitor.tick()

    def pressure(self, resource: str) -> float:
        return self.monitor.pressures[resource]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


LIMITED = MemoryPressure(limit=100 * MIB)


def test_memory_is_measured_against_the_configured_limit(machine: Machine) -> None:
    machine.configure(memory=LIMITED)
    machine.monitor.sample()
    assert (machine.monitor.resident, machine.engine.overload) == (50 * MIB, None)
    machine.use(94 * MIB)
    machine.monitor.sample()
    assert machine.pressure(MEMORY) == pytest.approx(0.5)
    assert machine.engine.overload is not None
    assert machine.engine.overload.share == pytest.approx(0.5)
    assert machine.engine.gate.refusal() is None
    machine.use(99 * MIB)
    machine.monitor.sample()
    assert machine.engine.gate.refusal() == "overloaded"
    machine.use(60 * MIB)
    machine.monitor.sample()
    assert not machine.engine.gate.overloaded
    assert machine.pressure(MEMORY) == 0.0


def test_garbage_is_collected_while_memory_is_short_but_not_all_the_time(machine: Machine) -> None:
    machine.configure(memory=LIMITED)
    machine.use(95 * MIB)
    machine.monitor.sample()
    machine.tick(0, 0, 0)
    assert machine.collected == 1
    machine.now += COLLECT_EVERY
    machine.tick(0)
    assert machine.collected == 2


V2 = "0::/system.slice/sidecar.service\n"
V1 = "9:name=systemd:/x\n4:cpu,memory:/box/sidecar\n0::/\n"


@pytest.mark.parametrize(
    ("cgroup", "limits", "expected"),
    [
        (V2, {"system.slice/sidecar.service/memory.max": "max"}, 0),
        (V2, {"system.slice/sidecar.service/memory.max": f"{512 * MIB}"}, 512 * MIB),
        (
            V2,
            {
                "system.slice/sidecar.service/memory.max": f"{512 * MIB}",
                "system.slice/sidecar.service/memory.high": f"{400 * MIB}",
                "system.slice/memory.max": f"{300 * MIB}",
                "memory.max": "max",
            },
            300 * MIB,
        ),
        ("0::/\n", {"memory.max": f"{256 * MIB}\n"}, 256 * MIB),
        (V1, {"memory/box/memory.limit_in_bytes": f"{1 << 29}"}, 1 << 29),
        (V1, {"memory/box/sidecar/memory.limit_in_bytes": "9223372036854771712"}, 0),
        (V1, {}, 0),
        ("", {"memory.max": "5"}, 0),
    ],
)
def test_the_least_limit_of_the_control_groups_is_found(
    machine: Machine, cgroup: str, limits: dict[str, str], expected: int
) -> None:
    machine.say("proc/cgroup", cgroup)
    for path, text in limits.items():
        machine.say(f"cgroup/{path}", text)
    assert machine.files.memory_limit() == expected


def test_a_worker_looks_at_its_part_of_the_group_s_limit(machine: Machine) -> None:
    machine.say("proc/cgroup", V2)
    machine.say("cgroup/system.slice/sidecar.service/memory.max", f"{528 * MIB}")
    machine.configure(workers=2)
    machine.use(188 * MIB)  # 94 % of 200 MiB
    machine.monitor.sample()
    assert machine.pressure(MEMORY) == pytest.approx(0.5)


def test_without_any_limit_memory_is_not_looked_at(machine: Machine) -> None:
    machine.configure()
    machine.use(4000 * MIB)
    machine.monitor.sample()
    assert machine.pressure(MEMORY) == 0.0


def test_files_that_are_not_there_say_nothing(tmp_path: Path) -> None:
    files = Files(f"{tmp_path}/no", f"{tmp_path}/no")
    assert (files.resident(), files.descriptors(), files.memory_limit()) == (0, 0, 0)


def test_a_lag_must_last(machine: Machine) -> None:
    machine.configure(loop_lag=LoopLag(scaling_threshold=1.0, saturation_threshold=5.0))
    machine.tick(0, 0, 8.0, 0, 0)
    assert machine.engine.overload is None
    machine.tick(3.0, 3.0)
    assert machine.engine.overload is None
    machine.tick(3.0)
    assert machine.pressure(LAG) == pytest.approx(0.5)
    machine.tick(9.0, 9.0, 9.0)
    assert machine.engine.gate.refusal() == "overloaded"
    machine.tick(0)
    assert machine.engine.overload is None


@pytest.mark.parametrize(
    ("used", "pressure"), [(0, 0.0), (750, 0.0), (800, 0.5), (880, 1.0), (950, 1.0)]
)
def test_descriptors_are_what_is_open(machine: Machine, used: int, pressure: float) -> None:
    machine.configure(descriptors=Descriptors(scaling_threshold=77, saturation_threshold=87))
    machine.open(20 + used)
    machine.connect(used)
    machine.monitor.sample()
    assert machine.pressure(DESCRIPTORS) == pytest.approx(pressure)


def test_many_connections_are_not_counted_one_by_one(tmp_path: Path) -> None:
    machine = Machine(tmp_path, 10_000)
    machine.configure()
    machine.open(30)
    machine.monitor.sample()
    machine.open(0)
    machine.connect(8500 - 30)
    machine.monitor.sample()
    assert machine.pressure(DESCRIPTORS) == pytest.approx(0.5)


def test_callers_are_taken_as_long_as_there_are_descriptors_for_their_requests(
    machine: Machine,
) -> None:
    machine.configure()
    machine.open(20)
    machine.monitor.sample()
    assert machine.engine.gate.ceiling == 440
    machine.configure(descriptors=Descriptors(saturation_threshold=0))
    machine.monitor.sample()
    assert machine.engine.gate.ceiling is UNLIMITED


def test_the_limit_of_all_connections_is_the_configured_one(machine: Machine) -> None:
    machine.configure(max_connections=7)
    assert machine.engine.gate.limit == 7
    machine.configure()
    assert machine.engine.gate.limit is UNLIMITED


def test_before_the_first_plan_nothing_is_done(machine: Machine) -> None:
    machine.use(4000 * MIB)
    machine.monitor.sample()
    machine.tick(9, 9, 9, 9)
    assert machine.engine.overload is None


def test_numbers_are_told_by_worker(machine: Machine) -> None:
    def value(name: str, **labels: str) -> float:
        rows = machine.monitor.rows(3)
        wanted = (("worker", "3"), *labels.items())
        return next(v[0] for n, found, v in rows if (n, found) == (name, wanted))

    machine.configure(memory=LIMITED)
    machine.monitor.sample()
    assert value("sidecar_worker_resident_bytes") == 50 * MIB
    assert value("sidecar_overload_active", action="stop_accepting_requests") == 0.0
    machine.use(94 * MIB)
    machine.monitor.sample()
    assert value("sidecar_overload_pressure", resource="memory") == pytest.approx(0.5)
    assert value("sidecar_overload_active", action="stop_accepting_requests") == pytest.approx(0.5)
    assert value("sidecar_overload_active", action="disable_http_keepalive") == 1.0
    machine.tick(0.5, 0.5, 0.5)
    assert value("sidecar_worker_loop_lag_seconds") == pytest.approx(0.3, abs=0.3)


def test_this_process_can_be_measured() -> None:
    files = Files()
    assert files.resident() > 10 * MIB
    assert files.descriptors() > 2
    assert raise_descriptor_limit() > 2
