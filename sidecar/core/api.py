"""What plug-ins see of the engine: the interfaces of filters, balancers and sinks."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:  # the engine imports these interfaces, not the other way round
    from sidecar.core.book import Endpoint
    from sidecar.core.exchange import Exchange
    from sidecar.core.tcp import Session
    from sidecar.wire.fields import Field, Fields, ResponseHead

Draw = Callable[[], float]
"""A source of chance: uniform in [0, 1)."""


class Balancer:
    """Picks the endpoint; made anew for every plan, the endpoints themselves survive pushes."""

    __slots__ = ()

    has_affinity = False
    """It looks at the route's hash policy."""

    def pick(self, exchange: Exchange | Session, tried: Container[Endpoint]) -> Endpoint | None:
        """Return an available endpoint, not among `tried` if there is another; None if there is none.

        `exchange` is what is to be placed; most policies do not look at it.
        """
        raise NotImplementedError


BalancerFactory = Callable[[Sequence["Endpoint"], Draw, float, Any], Balancer]
"""What a plug-in offers: endpoints, chance, the share of available ones below which all are used, and
an instance of its settings (None where they are of type None)."""


class Watcher:
    """Told what became of the attempts at one endpoint."""

    __slots__ = ()

    def answered(self, exchange: Exchange, head: ResponseHead, now: float) -> None:
        """Learn of a response's head."""

    def ended(self, exchange: Exchange, trailers: Fields, now: float) -> None:
        """Learn of the trailers of a gRPC response."""

    def connected(self, session: Session, now: float) -> None:
        """Learn that a session has its connection."""

    def failed(self, placed: Exchange | Session, code: str, now: float) -> None:
        """Learn that there was no answer, and why."""

    def outrun(self, exchange: Exchange, now: float) -> None:
        """Learn that there was no answer yet when another attempt of the same exchange had one."""


class Answer(NamedTuple):
    """A local reply that differs from what the table has for `code`."""

    code: str
    status: int = 0
    """0: the table's."""

    fields: tuple[Field, ...] = ()
    """What is sent beside the length; with a `content-type`, in place of ours."""

    body: bytes | None = None
    """None: the explanation of what happened, and who decided it."""

    grpc_status: int = -1
    """What a gRPC caller is told; -1: what the status means to it."""

    detail: str = ""
    """For the explanation and the log."""

    cut: bool = False
    """No answer: the connection ends, over HTTP/2 the stream."""


class Wait(NamedTuple):
    """Not yet: the filters go on in `seconds`, or when `Exchange.go_on` is called before.

    The time counts towards no timeout.  `then` is asked first when it is over, unless the exchange
    has ended meanwhile.
    """

    seconds: float
    then: Callable[[Exchange], Verdict] | None = None


Verdict = str | Answer | Wait | None
"""Of a filter on a request: the code of a local reply, a whole one, a wait, or None: go on."""


class HttpFilter:
    """One stop of a request; override what you need, the plan leaves the rest off its lists."""

    __slots__ = ()

    def on_request(self, exchange: Exchange) -> Verdict:
        """Look at or change the request; return what to answer, or how long to wait."""
        return None

    def on_response(self, exchange: Exchange, head: ResponseHead) -> str | Answer | None:
        """Look at or change the response's head before it goes downstream.

        Return what to answer in its place.  Who must wait for that shuts the response in:
        `core.late`.
        """
        return None

    def on_reply(self, exchange: Exchange, head: ResponseHead) -> None:
        """Look at or change the fields of a local reply; its length and type are not among them."""

    def on_finish(self, exchange: Exchange) -> None:
        """Learn how the exchange ended."""


class Pause(NamedTuple):
    """Of a session: not yet, or, without end, never: it hangs until its caller gives up."""

    seconds: float
    refusal: Answer | None = None
    """What becomes of it then; None: it goes on."""


class NetworkFilter:
    """One stop of a connection that is served as opaque bytes."""

    __slots__ = ()

    def on_session(self, session: Session) -> str | Answer | Pause | None:
        """Return the code of a refusal, or one with its detail, or a pause; None lets it through.

        Only what a route asks may pause a session.
        """
        return None

    def on_session_end(self, session: Session) -> None:
        """Learn that a session has ended; only what a route asks is told."""


class Sink:
    """Told about every end."""

    __slots__ = ()

    def exchange(self, exchange: Exchange) -> None:
        """Record one finished exchange, maybe a while after its end."""

    def session_opened(self, session: Session) -> None:
        """Record that a session has begun."""

    def session(self, session: Session) -> None:
        """Record one finished session."""

    def refused(self, listener: str, code: str, peer: str) -> None:
        """Record a connection refused before it became an exchange or a session."""
