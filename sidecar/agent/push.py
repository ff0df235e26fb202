"""How a config comes into force: in every worker, or in none."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final, final

from sidecar.agent.config import Config
from sidecar.agent.logs import log
from sidecar.agent.sockets import Listening
from sidecar.agent.worker import Watch, Worker
from sidecar.errors import OperationError
from sidecar.model.endpoint import Endpoint
from sidecar.model.snapshot import Snapshot
from sidecar.runtime.messages import Ack, Apply, Message, Nack, Secrets

ANSWER_TIMEOUT: Final = 30.0  # seconds for all workers to compile and run a plan
LIVES: Final = (
    2  # workers of one place that may end while they take a plan up, until it is to blame
)

Resolved = Callable[[Snapshot], dict[str, tuple[Endpoint, ...]]]
Healths = Callable[[Snapshot], dict[str, dict[str, bool]]]


@final
class Pusher(Watch):
    """Brings configs to the workers, those of now and those that come later.

    One push at a time.  While it is under way, `target` is what a worker that says hello is given;
    `running` is what all workers ran last, and what is gone back to when one refuses.
    """

    def __init__(
        self,
        listening: Listening,
        resolved: Resolved,
        answer_timeout: float = ANSWER_TIMEOUT,
        health: Healths = lambda snapshot: {},
    ) -> None:
        self._listening: Final = listening
        self._resolved: Final = resolved
        self._health: Final = health
        self._answer_timeout: Final = answer_timeout
        self._workers: Final[dict[int, Worker]] = {}  # those that can be pushed to, by place
        self._waiting: dict[int, asyncio.Future[str]] = {}  # what is wrong there; empty: nothing
        self._deaths: Final[Counter[int]] = Counter()
        self._serial = 0
        self.target: Config | None = None
        self.running: Config | None = None

    async def push(self, config: Config, places: Iterable[int]) -> None:
        """Return when the worker of every place runs `config`; else all run the one before.

        Raises:
            OperationError: a worker refuses it, ends by it, or does not answer.
        """
        before = self.running
        wrong = await self._round(config, places)
        if not wrong:
            self.running = config
            return
        if before is not None:
            log.error("plan %s is taken back: %s goes on", config.version, before.version)
            await self._round(before, list(self._workers))
            for worker in list(self._workers.values()):
                if worker.acked != self._serial:
                    worker.end("refused")  # the one after it starts with what all others run
        raise OperationError("push-refused", "; ".join(dict.fromkeys(wrong)))

    def tell(self, message: Message) -> None:
        """Send what needs no answer to every worker."""
        for worker in self._workers.values():
            worker.send(message)

    # What workers tell (Watch):

    def greeted(self, worker: Worker) -> None:
        """See Watch."""
        self._workers[worker.index] = worker
        if self.target is not None:
            self._send(worker)

    def answered(self, worker: Worker, answer: Ack | Nack) -> None:
        """See Watch."""
        if answer.serial != self._serial:
            return  # to a push that is given up
        if isinstance(answer, Ack):
            self._settle(worker, "")
            return
        worker.holds = set(answer.addresses)
        self._settle(worker, "; ".join(f"{p}: {d}" if p else d for p, d in answer.errors))

    def gone(self, worker: Worker) -> None:
        """See Watch."""
        if self._workers.get(worker.index) is worker:
            del self._workers[worker.index]
        if worker.serial == self._serial and worker.index in self._waiting:
            self._deaths[worker.index] += 1
            if self._deaths[worker.index] >= LIVES:
                self._settle(worker, "workers end when they are given it")

    # Inside:

    async def _round(self, config: Config, places: Iterable[int]) -> list[str]:
        """Send `config` to all, and return what is wrong in `places`."""
        self._serial += 1
        self._deaths.clear()
        self.target = config
        loop = asyncio.get_running_loop()
        self._waiting = {place: loop.create_future() for place in places}
        answers = list(self._waiting.values())
        for worker in list(self._workers.values()):
            self._send(worker)
        if answers:
            await asyncio.wait(answers, timeout=self._answer_timeout)
        self._waiting = {}
        late = f"a worker did not answer in {self._answer_timeout:g} s"
        return [said for a in answers if (said := a.result() if a.done() else late)]

    def _settle(self, worker: Worker, wrong: str) -> None:
        waiting = self._waiting.get(worker.index)
        if waiting is not None:
            if not waiting.done():
                waiting.set_result(wrong)
        elif wrong:
            log.error("worker %d refuses what the others run: %s", worker.index, wrong)
            worker.end("refused")

    def _send(self, worker: Worker) -> None:
        config = self.target
        assert config is not None
        if not worker.is_reachable:
            return  # the one after it is sent the same when it says hello
        is_current = worker.acked == worker.serial and worker.version == config.version
        if worker.is_busy:
            worker.holds.clear()  # the answer decides which it will keep
        worker.serial = self._serial
        try:
            if is_current and config.secret is not None:
                worker.send(Secrets(self._serial, config.version, config.secret))
                return
            worker.holds &= config.addresses
            new = tuple(sorted(config.addresses - worker.holds))
            worker.send(
                Apply(
                    self._serial,
                    config.version,
                    config.snapshot,
                    config.secret,
                    new,
                    self._resolved(config.snapshot),
                    self._health(config.snapshot),
                ),
                self._listening.handles(new),
            )
            worker.holds |= set(new)
        except OSError as error:  # the limit of open files
            self._settle(worker, f"listening sockets cannot be sent: {error.strerror}")
