"""Which workers there are: started, replaced when they end or are stuck, adopted, drained."""

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Final, final

from sidecar import __version__
from sidecar.agent.logs import log
from sidecar.agent.process import Process
from sidecar.agent.worker import (
    GONE,
    GREETED,
    LINGER,
    RUNNING,
    STARTING,
    STATE_NAMES,
    Watch,
    Worker,
)
from sidecar.runtime.messages import Ack, Asks, Nack, Sample

TICK: Final = 1.0  # seconds; a worker reports as often
SILENCE: Final = 10  # ticks without a word from a worker that runs: its loop is stuck
PATIENCE: Final = 30  # ticks without a word from one that starts or takes up a large plan
UNANSWERED: Final = 40  # ticks until one that talks must have answered a push
QUICK_DEATH: Final = 5.0  # seconds; a worker that lives shorter is replaced ever more slowly
BACKOFF: Final = (0.0, 0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0)  # seconds, by quick deaths in a row

Launch = Callable[[int], tuple[Process, socket.socket]]


@final
class Place:
    """One of the workers that are wanted; the processes in it change, one at a time."""

    __slots__ = ("index", "quick", "restarts", "retry", "worker")

    def __init__(self, index: int) -> None:
        self.index: Final = index
        self.worker: Worker | None = None
        self.quick = 0  # quick deaths in a row
        self.restarts = 0
        self.retry: asyncio.TimerHandle | None = None

    @property
    def state(self) -> str:
        """What to tell the operator."""
        return STATE_NAMES[self.worker.state] if self.worker is not None else "backing off"


@final
class Supervisor(Watch):
    """Keeps a worker in every place; `watch` is told of those in a place, and of no other.

    `launch(index)` starts a process and returns it with our end of its channel; `on_gone(samples)`
    is given the last numbers of each that has ended; `on_asked` the questions of any about quota.
    """

    def __init__(
        self,
        launch: Launch,
        watch: Watch,
        on_gone: Callable[[tuple[Sample, ...]], None],
        on_asked: Callable[[Worker, Asks], None] = lambda worker, asks: None,
    ) -> None:
        self._loop: Final = asyncio.get_running_loop()
        self._launch: Final = launch
        self._watch: Final = watch
        self._on_gone: Final = on_gone
        self._on_asked: Final = on_asked
        self._leaving: Final[set[Worker]] = set()  # they drain, and no place waits for them
        self._stopping = False
        self.places: tuple[Place, ...] = ()
        self.restarts: Final[Counter[str]] = Counter(ended=0, stuck=0, refused=0)

    # Who is there:

    def workers(self) -> Iterator[Worker]:
        """Yield the workers in places, whatever their state."""
        for place in self.places:
            if place.worker is not None:
                yield place.worker

    def everyone(self) -> list[Worker]:
        """Return those that are leaving as well."""
        return [*self.workers(), *self._leaving]

    def serving(self) -> int:
        """Return how many workers run a plan and were heard of lately."""
        return sum(w.state == RUNNING and w.silent < SILENCE for w in self.workers())

    # What is done:

    def adopt(
        self, orphans: Iterable[Worker], count: int, drain: float
    ) -> dict[str, socket.socket]:
        """Make `count` places, and put `orphans` there; return the sockets they hand over.

        One of another release, or that finds no place, has `drain` seconds to finish.
        """
        self.places = tuple(map(Place, range(count)))
        sockets: dict[str, socket.socket] = {}
        for worker in sorted(orphans, key=lambda w: w.index):
            for address, sock in worker.handed_over.items():
                if address in sockets:
                    sock.close()
                else:
                    sockets[address] = sock
            worker.handed_over = {}
            worker.watch = self
            place = self._room_for(worker)
            if worker.state != GREETED:
                continue
            if place is not None and worker.release == __version__:
                log.info("adopted worker %d, pid %d", place.index, worker.pid)
                place.worker, worker.index = worker, place.index
                continue
            why = "is one too many" if place is None else f"is of release {worker.release}"
            log.info("orphaned worker, pid %d, %s: it drains", worker.pid, why)
            self._leaving.add(worker)
            worker.drain(drain)
        for worker in self.workers():
            self._watch.greeted(worker)
        return sockets

    def fill(self) -> None:
        """Start a worker in every empty place."""
        for place in self.places:
            if place.worker is None and place.retry is None:
                self._start(place)

    def tick(self) -> None:
        """Count the silence of workers, and replace who is stuck; to be called every TICK.

        Ticks and not seconds: while the agent itself stands still, nobody's silence grows.
        """
        for worker in self.workers():
            if worker.state > RUNNING:
                continue  # its end is arranged
            worker.silent += 1
            worker.unanswered += worker.is_busy
            limit = PATIENCE if worker.state == STARTING or worker.is_busy else SILENCE
            if worker.silent < limit and worker.unanswered < UNANSWERED:
                continue
            log.error(
                "worker %d (pid %d) is stuck (%d s without a word, %d without an answer): "
                "it is replaced",
                worker.index,
                worker.pid,
                worker.silent * TICK,
                worker.unanswered * TICK,
            )
            worker.dump_and_end("stuck")

    def drain(self, seconds: float) -> None:
        """Have all finish within `seconds`; nobody is replaced any more."""
        self._stop()
        for worker in self.everyone():
            worker.drain(seconds)

    async def wait(self, seconds: float) -> None:
        """Wait until nobody is left; who remains after `seconds` is ended."""
        if not await self._all_parted(seconds):
            for worker in self.everyone():
                worker.end("drain")
            await self._all_parted(LINGER)

    async def abandon(self) -> None:
        """End what we started, and leave alone what was there before us: it serves on."""
        self._stop()
        for worker in self.everyone():
            if worker.is_ours:
                worker.end("abandoned")
            else:
                worker.let_be()
                self._leaving.discard(worker)
        self.places = tuple(p for p in self.places if p.worker is not None and p.worker.is_ours)
        await self._all_parted(LINGER)

    # What workers tell (Watch):

    def greeted(self, worker: Worker) -> None:
        """See Watch."""
        if self._place_of(worker) is not None:
            self._watch.greeted(worker)

    def answered(self, worker: Worker, answer: Ack | Nack) -> None:
        """See Watch."""
        if self._place_of(worker) is not None:
            self._watch.answered(worker, answer)

    def asked(self, worker: Worker, asks: Asks) -> None:
        """See Watch."""
        self._on_asked(worker, asks)

    def gone(self, worker: Worker) -> None:
        """See Watch."""
        self._on_gone(worker.samples)
        self._leaving.discard(worker)
        place = self._place_of(worker)
        if place is None:
            return
        place.worker = None
        self._watch.gone(worker)
        if self._stopping:
            return
        place.restarts += 1
        self.restarts[worker.cause or "ended"] += 1
        self._start_later(place, lived=self._loop.time() - worker.started)

    # Inside:

    def _place_of(self, worker: Worker) -> Place | None:
        return next((place for place in self.places if place.worker is worker), None)

    def _room_for(self, worker: Worker) -> Place | None:
        empty = [place for place in self.places if place.worker is None]
        same = [place for place in empty if place.index == worker.index]
        return next(iter(same or empty), None)

    def _start(self, place: Place) -> None:
        place.retry = None
        try:
            process, sock = self._launch(place.index)
        except OSError as error:
            log.error("worker %d cannot be started: %s", place.index, error)
            self._start_later(place, lived=0.0)
            return
        place.worker = Worker(place.index, process, sock, self, is_ours=True)

    def _start_later(self, place: Place, lived: float) -> None:
        place.quick = place.quick + 1 if lived < QUICK_DEATH else 0
        delay = BACKOFF[min(place.quick, len(BACKOFF) - 1)]
        log.warning("worker %d is gone: another starts in %g s", place.index, delay)
        place.retry = self._loop.call_later(delay, self._start, place)

    def _stop(self) -> None:
        self._stopping = True
        for place in self.places:
            if place.retry is not None:
                place.retry.cancel()
                place.retry = None

    async def _all_parted(self, seconds: float) -> bool:
        waits = [w.parted.wait() for w in self.everyone() if w.state != GONE]
        try:
            await asyncio.wait_for(asyncio.gather(*waits), seconds)
        except TimeoutError:
            return False
        return True
