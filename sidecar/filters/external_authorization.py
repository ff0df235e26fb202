"""Ask a service whether a request may pass, by HTTP or by Envoy's gRPC protocol."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, final

from sidecar.core.api import Answer, HttpFilter, Verdict
from sidecar.core.call import CallPlan, CallResult, call_head, ids_of
from sidecar.core.tap import with_body
from sidecar.core.unary import unary_head, unary_result
from sidecar.plugin import Plugin
from sidecar.wire import ext_authz
from sidecar.wire.edits import FRAMING, settable
from sidecar.wire.ext_authz import ADD, ADD_IF_ABSENT, SET, SET_IF_PRESENT, Edit
from sidecar.wire.grpc import pack
from sidecar.wire.protobuf import MalformedError

if TYPE_CHECKING:
    from sidecar.core.exchange import Exchange
    from sidecar.wire.fields import Field, Fields, RequestHead, ResponseHead

Named = Callable[[bytes], bool]
"""Says whether a field's name, in lower case, is meant."""

COUNTER: Final = "sidecar_ext_authz_total"

ALLOWED, DENIED, FAILED = range(3)

_IDS: Final = frozenset({b"x-request-id", b"traceparent"})  # sent in any case
_PARTIAL: Final = b"x-envoy-auth-partial-body"
_TOLD: Final = frozenset(
    {
        b"content-type", b"location", b"proxy-authenticate", b"retry-after", b"set-cookie",
        b"www-authenticate",
    }
)  # fmt: skip


class Opinion(NamedTuple):
    """What a service has said of one request."""

    kind: int
    detail: str = ""
    removed: tuple[bytes, ...] = ()
    edits: tuple[Edit, ...] = ()
    response_edits: tuple[Edit, ...] = ()
    status: int = 0
    fields: tuple[Field, ...] = ()
    body: bytes = b""


_ALLOWED: Final = Opinion(ALLOWED)


class Service(Protocol):
    """How a service is spoken to."""

    def question(
        self, exchange: Exchange, body: bytes, *, whole: bool
    ) -> tuple[RequestHead, bytes]:
        """Return what it is asked about a request."""

    def opinion(self, exchange: Exchange, result: CallResult) -> Opinion:
        """Return what it has said."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One service, and what becomes of requests if it is silent."""

    call: CallPlan
    """How it is reached."""

    service: Service
    """What it is asked."""

    is_open: bool
    """Requests pass if it does not decide."""

    status_on_error: int
    """Or they are answered this."""

    max_body: int
    """Octets of a body that it is shown; 0: none, and requests do not wait for theirs."""

    is_partial: bool
    """Of a longer one it is shown the beginning."""


@final
class ExternalAuthorization(HttpFilter):
    """See the module."""

    __slots__ = ("_edits", "_settings")

    def __init__(self, settings: Settings) -> None:
        self._settings: Final = settings
        self._edits: Final[dict[Exchange, tuple[Edit, ...]]] = {}  # to responses still to come

    def on_request(self, exchange: Exchange) -> Verdict:
        """Have the request wait for the service's word."""
        limit = self._settings.max_body
        return with_body(exchange, limit, self._ask) if limit else self._ask(exchange, b"", True)

    def on_response(self, exchange: Exchange, head: ResponseHead) -> None:
        """Tell the caller what the service has told us to."""
        apply(self._edits.pop(exchange, ()), head)

    def on_finish(self, exchange: Exchange) -> None:
        """Forget it."""
        self._settings.call.forget(exchange)
        self._edits.pop(exchange, None)

    def _ask(self, exchange: Exchange, body: bytes, whole: bool) -> Verdict:
        settings = self._settings
        if not whole and not settings.is_partial:
            return "ext-authz-body-too-large"
        shown = body[: settings.max_body]
        head, octets = settings.service.question(exchange, shown, whole=whole)
        return settings.call.ask(exchange, head, octets, self._decide)

    def _decide(self, exchange: Exchange, result: CallResult) -> Verdict:
        settings = self._settings
        opinion = settings.service.opinion(exchange, result)
        if opinion.kind == FAILED:
            if settings.is_open:
                self._count(exchange, "failure_mode_allowed")
                exchange.fields = {**(exchange.fields or {}), "ext_authz": opinion.detail}
                return None
            self._count(exchange, "error")
            return Answer("ext-authz-error", status=settings.status_on_error, detail=opinion.detail)
        if opinion.kind == DENIED:
            self._count(exchange, "denied")
            return Answer(
                "ext-authz-denied",
                status=opinion.status,
                fields=opinion.fields,
                body=opinion.body or None,
                detail=opinion.detail,
            )
        self._count(exchange, "ok")
        for name in opinion.removed:
            _remove(exchange, name)
        for edit in opinion.edits:
            if edit.how == SET:
                _remove(exchange, edit.name)
        apply(opinion.edits, exchange.head)
        if opinion.response_edits:
            self._edits[exchange] = opinion.response_edits
        return None

    def _count(self, exchange: Exchange, result: str) -> None:
        labels = (("cluster", self._settings.call.cluster.name), ("result", result))
        exchange.engine.counts.tally(COUNTER, labels).value += 1


def apply(edits: tuple[Edit, ...], head: Fields) -> None:
    """Change the fields of `head`; names are in lower case."""
    for how, name, value in edits:
        if how == ADD or (how == ADD_IF_ABSENT and head.get(name) is None):
            head.add(name, value)
        elif how == SET or (how == SET_IF_PRESENT and head.get(name) is not None):
            head.set(name, value)


def _remove(exchange: Exchange, name: bytes) -> None:
    """Take a field out, whether the caller has sent it or we add it."""
    exchange.head.remove(name)
    exchange.extra[:] = [field for field in exchange.extra if field[0] != name]


@final
class HttpService:
    """It is asked by a request like the one in question."""

    __slots__ = ("_added", "_client", "_on_success", "_prefix", "_told", "_upstream")

    def __init__(
        self,
        prefix: bytes,
        added: tuple[Field, ...],
        told: Named,
        upstream: Named | None,
        client: Named,
        on_success: Named | None,
    ) -> None:
        self._prefix: Final = prefix
        self._added: Final = added
        self._told: Final = told  # of the request's fields, to the service
        self._upstream: Final = upstream  # of its fields, to the endpoint
        self._client: Final = client  # to a caller that is refused
        self._on_success: Final = on_success  # to one that is not

    def question(
        self, exchange: Exchange, body: bytes, *, whole: bool
    ) -> tuple[RequestHead, bytes]:
        """Return its head, with the fields that are allowed."""
        asked, told = exchange.head, self._told
        replaced = {name for name, _ in self._added} | FRAMING | _IDS
        fields = [
            (name, value)
            for name, value in (*asked.as_pairs(), *exchange.extra)
            if name not in replaced
            and (name == b"authorization" or (body and name == b"content-type") or told(name))
        ]
        fields += self._added
        fields += ids_of(exchange)
        if not whole:
            fields.append((_PARTIAL, b"true"))
        head = call_head(
            asked.method, self._prefix + asked.target, asked.authority, fields, len(body)
        )
        head.found.pop(b"content-type", None)  # it is about a gRPC call, maybe, and none itself
        return head, body

    def opinion(self, exchange: Exchange, result: CallResult) -> Opinion:
        """200 allows, 5xx is a failure, all else refuses."""
        if result.code:
            return Opinion(FAILED, f"{result.code} {result.detail}".rstrip())
        assert result.head is not None
        status = result.head.status
        if status >= 500:
            return Opinion(FAILED, f"status {status}")
        upstream, on_success = self._upstream, self._on_success
        if status == 200 and upstream is None and on_success is None:
            return _ALLOWED
        fields = [field for field in result.head.as_pairs() if field[0] not in FRAMING]
        if status != 200:
            client = self._client
            told = [field for field in fields if field[0] in _TOLD or client(field[0])]
            return Opinion(
                DENIED, f"status {status}", status=status, fields=tuple(told), body=result.body
            )
        spoofed: tuple[bytes, ...] = ()
        edits: list[Edit] = []
        if upstream is not None:
            spoofed = tuple({name for name, _ in exchange.head.as_pairs() if upstream(name)})
            edits = [Edit(ADD, *field) for field in fields if upstream(field[0])]
        answers: list[Edit] = []
        if on_success is not None:
            answers = [Edit(ADD, *field) for field in fields if on_success(field[0])]
        return Opinion(ALLOWED, "", spoofed, tuple(edits), tuple(answers))


@final
class GrpcService:
    """It is asked by `Authorization/Check`."""

    __slots__ = ("_authority", "_extensions", "_timeout", "_told")

    def __init__(
        self, authority: bytes, extensions: tuple[Field, ...], told: Named | None, timeout: float
    ) -> None:
        self._authority: Final = authority
        self._extensions: Final = extensions
        self._told: Final = told  # of the request's fields; None: all
        self._timeout: Final = timeout

    def question(
        self, exchange: Exchange, body: bytes, *, whole: bool
    ) -> tuple[RequestHead, bytes]:
        """Return a CheckRequest."""
        head, caller = exchange.head, exchange.caller
        scheme = b"https" if caller.secure else b"http"
        request = ext_authz.Request(
            source=(caller.host, caller.port),
            destination=caller.local,
            source_principal=caller.identity.encode(),
            destination_principal=exchange.engine.identity.encode(),
            seconds=exchange.wall,
            id=exchange.request_id,
            method=head.method,
            path=head.target,
            host=head.authority,
            scheme=scheme,
            protocol=b"HTTP/2" if head.version == 20 else b"HTTP/1.%d" % (head.version - 10),
            size=-1 if head.length is None else head.length,
            headers=self._headers(exchange, scheme, is_partial=not whole).items(),
            body=body,
        )
        octets = pack(ext_authz.encode_request(request, self._extensions))
        asked = unary_head(
            ext_authz.PATH, self._authority, self._timeout, len(octets), ids_of(exchange)
        )
        return asked, octets

    def opinion(self, exchange: Exchange, result: CallResult) -> Opinion:
        """Return what its CheckResponse says."""
        result = unary_result(result)
        if result.code:
            return Opinion(FAILED, f"{result.code} {result.detail}".rstrip())
        try:
            verdict = ext_authz.decode_response(result.body)
            edits, answers = _checked(verdict.edits), _checked(verdict.response_edits)
        except MalformedError as error:
            return Opinion(FAILED, f"bad answer: {error}")
        if not verdict.code:
            removed = tuple([name.lower() for name in verdict.removed])
            return Opinion(
                ALLOWED, "", tuple(n for n in removed if n not in FRAMING), edits, answers
            )
        status = verdict.status or 403
        if not 200 <= status <= 599:
            return Opinion(FAILED, f"bad answer: status {status}")
        text = verdict.message.decode()
        return Opinion(
            DENIED,
            f"code {verdict.code} {text}".rstrip(),
            status=status,
            fields=tuple([(name, value) for _, name, value in edits]),
            body=verdict.body,
        )

    def _headers(
        self, exchange: Exchange, scheme: bytes, *, is_partial: bool
    ) -> dict[bytes, bytes]:
        """Return the request's fields, each name once, and what Envoy has among them."""
        head, told = exchange.head, self._told
        found = {
            b":method": head.method,
            b":path": head.target,
            b":authority": head.authority,
            b":scheme": scheme,
        }
        for name, value in (*head.as_pairs(), *exchange.extra):
            if name == b"host" or (told is not None and not told(name)):
                continue
            old = found.get(name)
            between = b"; " if name == b"cookie" else b","
            found[name] = value if old is None else old + between + value
        if is_partial:
            found[_PARTIAL] = b"true"
        return found


def _checked(edits: tuple[Edit, ...]) -> tuple[Edit, ...]:
    """Return `edits` with names in lower case, without those to what frames a message.

    Raises:
        MalformedError: one is no field.
    """
    return tuple(
        [Edit(how, *field) for how, *pair in edits for field in settable([(pair[0], pair[1])])]
    )


PLUGIN = Plugin("external_authorization", Settings, ExternalAuthorization)
