"""What agent and worker say to each other."""

import signal
from typing import Final

import msgspec

from sidecar.model.endpoint import Endpoint
from sidecar.model.identity import Secret
from sidecar.model.snapshot import Snapshot
from sidecar.traffic.lease import Ask, Granted

DUMP: Final = signal.SIGUSR2  # has a worker, even one that is stuck, write its stacks to stderr


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """One series, cumulated since the worker's start.

    `values` is (value,) of a counter or gauge; (sum, count per bucket, the last for +Inf) of a histogram.
    """

    name: str
    labels: tuple[tuple[str, str], ...]
    values: tuple[float, ...]


class EndpointStatus(msgspec.Struct, frozen=True):
    """One endpoint as one worker sees it; `health` and `last_failure` are the agent's to add."""

    cluster: str
    address: str
    weight: int
    active: int
    connections: int
    idle: int
    requests: int
    failures: int
    available: bool
    health: str = ""
    last_failure: str = ""
    ejected: str = ""  # why, if it is ejected


class Message(msgspec.Struct, frozen=True, tag=True):
    """Base of all messages; the class name is the tag."""


class Apply(Message, frozen=True):
    """Down: run this; one listening socket is attached per address that the worker has not got.

    `serial` numbers the pushes of one agent, so that an answer is never taken for another's.
    `resolved` has the endpoints that were found by now for each cluster that does not list them;
    `health` what health checks found, as in `Health`, by cluster.
    """

    serial: int
    version: str
    snapshot: Snapshot
    secret: Secret | None
    addresses: tuple[str, ...]
    resolved: dict[str, tuple[Endpoint, ...]]
    health: dict[str, dict[str, bool]] = {}


class Endpoints(Message, frozen=True):
    """Down: what is found for a cluster now; `kind` and `target` are its `discovery`."""

    cluster: str
    kind: str
    target: str
    endpoints: tuple[Endpoint, ...]


class Health(Message, frozen=True):
    """Down: what health checks found, by address; endpoints not named are as they were."""

    cluster: str
    endpoints: dict[str, bool]


class Secrets(Message, frozen=True):
    """Down: renewed key material; answered like Apply."""

    serial: int
    version: str
    secret: Secret


class Drain(Message, frozen=True):
    """Down: take nothing new, finish within `seconds`, exit."""

    seconds: float


class Reopen(Message, frozen=True):
    """Down: open the log file again."""


class Report(Message, frozen=True):
    """Down: send Stats now."""


class Grants(Message, frozen=True):
    """Down: answers to Asks."""

    answers: tuple[Granted, ...]


class Hello(Message, frozen=True):
    """Up, first: who is there; `addresses` are the sockets it holds (attached when adopted).

    An agent must understand the Hello and the frames of every release before it: fields may be
    added with a default, none may go.
    """

    pid: int
    release: str
    version: str
    addresses: tuple[str, ...]


class Ack(Message, frozen=True):
    """Up: the push of this number is in force."""

    serial: int
    version: str


class Nack(Message, frozen=True):
    """Up: refused; the plan before runs on.  `errors` are (config path, detail).

    `addresses` are the sockets that the worker still holds: those of the plan that runs.
    """

    serial: int
    version: str
    errors: tuple[tuple[str, str], ...]
    addresses: tuple[str, ...]


class Stats(Message, frozen=True):
    """Up: all series and endpoints."""

    samples: tuple[Sample, ...]
    endpoints: tuple[EndpointStatus, ...]


class Asks(Message, frozen=True):
    """Up: questions about quota that is shared, all of one turn of the loop."""

    asks: tuple[Ask, ...]


class Drained(Message, frozen=True):
    """Up: nothing is left; the worker exits next."""


Down = Apply | Endpoints | Health | Secrets | Drain | Reopen | Report | Grants
Up = Hello | Ack | Nack | Stats | Asks | Drained
