"""What a filter written in Python sees of an exchange and may do to it: for authors, and stable.

    from sidecar.filter import Filter, Reply, Request

    class Closed(Filter[None]):
        def on_request(self, request: Request) -> Reply | None:
            return None if request.peer else Reply(403)

docs/filters.md is the guide.  What stands here changes only as a release note says; nothing else of
the package is meant for filters.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, final

from sidecar.core.api import Answer
from sidecar.wire.fields import HOP_BY_HOP

if TYPE_CHECKING:
    from sidecar.core.exchange import Exchange
    from sidecar.wire.fields import Field, Fields, ResponseHead

Own = TypeVar("Own")

__all__ = ["Filter", "Headers", "Outcome", "Reply", "Request", "Response"]

_FRAMING: Final = HOP_BY_HOP | {b"content-length", b"expect", b"host", b"trailer"}
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 §5.1
_VALUE: Final = re.compile(r"(?:[!-~\x80-\xff](?:[ \t!-~\x80-\xff]*[!-~\x80-\xff])?)?")  # §5.5
_WORD: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_VALUE_LIMIT: Final = 64  # characters of a label's value: a caller may have chosen it
_LABEL_LIMIT: Final = 5
_OWN_LABEL: Final = "filter"
_BODILESS: Final = (204, 205, 304)


class Filter(Generic[Own]):
    """Base of every filter: `Filter[Settings]`, or `Filter[None]` where it has no settings.

    One is made for each place in the configuration and each worker, and made anew when its file or
    its entry changes; a change elsewhere leaves it, with all that it keeps, as it is.
    Override what you need.  `on_request` and `on_response` may be `async def`: then the exchange
    waits, all others go on, and the filter is cancelled after its `timeout`.
    """

    def __init__(self, settings: Own) -> None:
        self.settings: Final = settings

    def on_request(self, request: Request) -> Reply | Awaitable[Reply | None] | None:
        """Look at or change a request before it is sent on; return a reply to answer it instead."""
        return None

    def on_response(
        self, request: Request, response: Response
    ) -> Reply | Awaitable[Reply | None] | None:
        """Look at or change a response's head; return a reply to send that instead.

        It is called for what endpoints answer, not for what the sidecar answers by itself.  An
        `async def` sees the head as all other filters left it.
        """
        return None

    def on_finish(self, request: Request, outcome: Outcome) -> None:
        """Learn how the exchange ended; it is called once for each, whoever answered."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How an exchange ended."""

    status: int
    """The status of the response; 0: there was none."""

    reason: str
    """Why the sidecar answered or cut by itself, a word of its log (`upstream-timeout`); else empty."""

    flag: str
    """The response flag, Envoy's (`UT`), or empty."""

    seconds: float
    """From the request's head to the end of the response."""

    bytes_in: int
    """Octets of the request's body."""

    bytes_out: int
    """Octets of the response's body."""

    attempts: int
    """How often it was tried at endpoints."""

    endpoint: str
    """Address of the endpoint that was asked last, or empty."""


@final
@dataclass(frozen=True, slots=True)
class Reply:
    """An answer in place of the endpoint's; one that is always the same is best made once.

    Raises:
        ValueError: the status is none that answers, a header is malformed or frames the message, or
            there is a body where there can be none.
    """

    status: int
    """200 to 599."""

    body: str | bytes | None = None
    """None: the sidecar says what happened, and which filter decided."""

    headers: Mapping[str, str] = field(default_factory=dict)
    """Beside the length; with a `content-type`, in place of plain text."""

    grpc_status: int | None = None
    """What a gRPC caller is told, 0 to 16; None: what the status means to it."""

    _fields: tuple[Field, ...] = field(init=False, repr=False, compare=False, default=())

    def __post_init__(self) -> None:
        if not 200 <= self.status <= 599:
            raise ValueError(f"expected a status from 200 to 599, got {self.status}")
        if self.body and self.status in _BODILESS:
            raise ValueError(f"a {self.status} has no body")
        if self.grpc_status is not None and not 0 <= self.grpc_status <= 16:
            raise ValueError(f"expected a grpc_status from 0 to 16, got {self.grpc_status}")
        fields = tuple((checked_name(k), checked_value(v)) for k, v in self.headers.items())
        object.__setattr__(self, "_fields", fields)  # frozen, but not yet

    def answer(self, filter_name: str) -> Answer:
        """Return it as the engine has it."""
        body = self.body.encode() if isinstance(self.body, str) else self.body
        return Answer(
            "filter-answered",
            self.status,
            self._fields,
            body,
            -1 if self.grpc_status is None else self.grpc_status,
            f"filter {filter_name}",
        )


class Headers:
    """The header fields of a message; names in any case, values without surrounding blanks.

    Values are octets in ISO 8859-1, so that what was read can be set again unchanged.  The setters
    raise ValueError for what cannot be a name or a value, and for the fields that frame a message
    (`Content-Length`, `Host`, `Connection` and their like), which are the sidecar's.
    """

    __slots__ = ("_head",)

    def __init__(self, head: Fields) -> None:
        self._head: Final = head

    def header(self, name: str) -> str | None:
        """Return the value of `name`; a repeated field is joined with `, `."""
        value = self._head.get(name.lower().encode("latin-1"))
        return None if value is None else value.decode("latin-1")

    def headers(self) -> list[tuple[str, str]]:
        """Return all fields in order, with names in lower case."""
        return [(n.decode("latin-1"), v.decode("latin-1")) for n, v in self._head.as_pairs()]

    def set_header(self, name: str, value: str) -> None:
        """Replace every field of this name by one."""
        self._head.set(checked_name(name), checked_value(value))

    def add_header(self, name: str, value: str) -> None:
        """Add a field behind those of this name."""
        self._head.add(checked_name(name), checked_value(value))

    def remove_header(self, name: str) -> None:
        """Take every field of this name out."""
        self._head.remove(checked_name(name))


@final
class Request(Headers):
    """A request, from its head to its end; the same object in all hooks of one filter."""

    __slots__ = ("_exchange", "_filter", "state")

    def __init__(self, exchange: Exchange, filter_name: str) -> None:
        super().__init__(exchange.head)
        self._exchange: Final = exchange
        self._filter: Final = filter_name
        self.state: Final[dict[str, object]] = {}
        """The filter's own, from one hook to the next."""

    @property
    def method(self) -> str:
        """`GET`."""
        return self._exchange.head.method.decode("latin-1")

    @property
    def target(self) -> str:
        """Path and query as they came, percent-encoded; or `*`."""
        return self._exchange.head.target.decode("latin-1")

    @property
    def path(self) -> str:
        """The target without its query."""
        return self._exchange.head.path.decode("latin-1")

    @property
    def host(self) -> str:
        """As the caller named it, in lower case, with its port if it named one."""
        return self._exchange.head.authority.decode("latin-1")

    @property
    def peer(self) -> str:
        """The caller's SPIFFE ID, proved by its certificate; empty without one."""
        return self._exchange.caller.identity

    @property
    def source(self) -> str:
        """The caller's IP address; empty for a unix socket."""
        return self._exchange.caller.host

    @property
    def is_inbound(self) -> bool:
        """Say whether it goes to the workload beside us; else it comes from it."""
        return self._exchange.listener.role == "inbound"

    @property
    def listener(self) -> str:
        """The listener's name."""
        return self._exchange.listener.name

    @property
    def route(self) -> str:
        """The route's name."""
        route = self._exchange.route
        return "" if route is None else route.name

    @property
    def id(self) -> str:
        """The request id, as in the log."""
        return self._exchange.request_id.decode("latin-1")

    @property
    def time(self) -> float:
        """When it came, in seconds of the epoch."""
        return self._exchange.wall

    def header(self, name: str) -> str | None:
        """Return the value of `name`; fields that the sidecar sets are among them."""
        value = super().header(name)
        if value is not None or not self._exchange.extra:
            return value
        wanted = name.lower().encode("latin-1")
        found = [v for n, v in self._exchange.extra if n == wanted]
        return b", ".join(found).decode("latin-1") if found else None

    def headers(self) -> list[tuple[str, str]]:
        """Return all fields in order, those that the sidecar sets last."""
        ours = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in self._exchange.extra]
        return super().headers() + ours

    def cookie(self, name: str) -> str | None:
        """Return the value of a cookie, the first of its name."""
        for crumb in (self.header("cookie") or "").replace(",", ";").split(";"):
            key, equals, value = crumb.strip().partition("=")
            if equals and key == name:
                return value.strip('"')
        return None

    def set_header(self, name: str, value: str) -> None:
        """Replace every field of this name by one, those that the sidecar sets too."""
        checked_value(value)  # before anything changes
        self._disown(name)
        super().set_header(name, value)

    def remove_header(self, name: str) -> None:
        """Take every field of this name out, those that the sidecar sets too."""
        self._disown(name)
        super().remove_header(name)

    def log(self, name: str, value: object) -> None:
        """Add a field to the access log's line, as text.

        Raises:
            ValueError: the name is not lower-case letters, digits and `_`.
        """
        _check_word(name)
        exchange = self._exchange
        exchange.fields = {**(exchange.fields or {}), name: str(value)[:1024]}

    def count(self, name: str, amount: float = 1.0, **labels: str) -> None:
        """Add to the counter `filter_NAME_total`, which also has the filter's name as a label.

        Raises:
            ValueError: the name, or a label's, is not lower-case letters, digits and `_`; there are
                more than five labels; the amount is negative.
        """
        _check_word(name)
        if amount < 0 or len(labels) > _LABEL_LIMIT or _OWN_LABEL in labels:
            raise ValueError(f"expected an amount from 0 on and {_LABEL_LIMIT} labels of yours")
        for label in labels:
            _check_word(label)
        found = [(key, str(value)[:_VALUE_LIMIT]) for key, value in sorted(labels.items())]
        series = ((_OWN_LABEL, self._filter), *found)
        self._exchange.engine.counts.tally(f"filter_{name}_total", series).value += amount

    def _disown(self, name: str) -> None:
        gone = checked_name(name)
        exchange = self._exchange
        if any(n == gone for n, _ in exchange.extra):
            exchange.extra = [pair for pair in exchange.extra if pair[0] != gone]


@final
class Response(Headers):
    """The head of an endpoint's response."""

    __slots__ = ("status",)

    def __init__(self, head: ResponseHead) -> None:
        super().__init__(head)
        self.status: Final = head.status
        """Its status."""


def outcome_of(exchange: Exchange) -> Outcome:
    """Return what `on_finish` is told."""
    endpoint = exchange.endpoint
    return Outcome(
        status=exchange.status,
        reason=exchange.code,
        flag=exchange.flag,
        seconds=exchange.engine.now() - exchange.started,
        bytes_in=exchange.bytes_in,
        bytes_out=exchange.bytes_out,
        attempts=exchange.attempts,
        endpoint="" if endpoint is None else endpoint.address,
    )


def checked_name(name: str) -> bytes:
    """Return a field's name as the engine has it.

    Raises:
        ValueError: it is none, or frames the message.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"no field can be called {name[:80]!r}")
    lower = name.lower().encode()
    if lower in _FRAMING:
        raise ValueError(f"{name} frames the message and is the sidecar's")
    return lower


def checked_value(value: str) -> bytes:
    """Return a field's value as the engine has it.

    Raises:
        ValueError: it has line ends or other controls, blanks around it, or is beyond ISO 8859-1.
    """
    if not _VALUE.fullmatch(value):
        raise ValueError(f"no field can have the value {value[:80]!r}")
    return value.encode("latin-1")


def _check_word(name: str) -> None:
    if not _WORD.fullmatch(name):
        raise ValueError(f"expected lower-case letters, digits and _, got {name[:80]!r}")


HOOKS: Final[Mapping[str, Callable[..., object]]] = {
    "on_request": Filter.on_request,
    "on_response": Filter.on_response,
    "on_finish": Filter.on_finish,
}
"""Every hook that there is, and what does nothing in its place."""


def hooks_of(kind: type[Filter[Any]]) -> tuple[str, ...]:
    """Return the hooks that `kind` has of its own."""
    return tuple(hook for hook, nothing in HOOKS.items() if getattr(kind, hook) is not nothing)
