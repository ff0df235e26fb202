"""The messages of `envoy.service.auth.v3.Authorization/Check` (envoy/service/auth/v3/external_auth.proto)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from sidecar.wire.protobuf import (
    MalformedError,
    check_text,
    last_number,
    last_text,
    merged,
    message,
    number,
    pair,
    read,
    text,
    texts,
)

PATH: Final = b"/envoy.service.auth.v3.Authorization/Check"

_DENIED, _OK, _ERROR = 2, 3, 5  # the fields of CheckResponse.http_response

ADD, ADD_IF_ABSENT, SET, SET_IF_PRESENT = range(4)  # in the order of HeaderAppendAction


class Edit(NamedTuple):
    """One change to a head; the name is as the service wrote it."""

    how: int
    name: bytes
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the service is told of a request (AttributeContext)."""

    source: tuple[str, int]
    """Address and port of the caller; without an address it came over a unix socket."""

    destination: tuple[str, int]
    """Where it was accepted."""

    source_principal: bytes
    """The caller's identity, if any."""

    destination_principal: bytes
    """Ours."""

    seconds: float
    """Of the epoch, when the request began."""

    id: bytes
    method: bytes
    path: bytes
    """With its query."""

    host: bytes
    scheme: bytes
    protocol: bytes
    size: int
    """Octets of the body; -1: not known."""

    headers: Iterable[tuple[bytes, bytes]]
    """Names in lower case, each once."""

    body: bytes
    """What is passed on of it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the service says."""

    code: int
    """Of google.rpc.Status: 0 allows."""

    message: bytes
    """Of the same."""

    status: int
    """For a caller that is refused; 0: it does not say."""

    body: bytes
    """For the same."""

    edits: tuple[Edit, ...]
    """To the request if it is allowed, to the refusal if it is not."""

    removed: tuple[bytes, ...]
    """Fields taken from the request."""

    response_edits: tuple[Edit, ...]
    """To the response of a request that is allowed."""


def encode_request(request: Request, extensions: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Return a CheckRequest; `extensions` are what the config adds to each."""
    whole = int(request.seconds)
    nanos = int((request.seconds - whole) * 1e9)
    http = [text(1, request.id), text(2, request.method)]
    http += [pair(3, _utf8(name), _utf8(value)) for name, value in request.headers]
    http += [
        text(4, _utf8(request.path)),
        text(5, _utf8(request.host)),
        text(6, request.scheme),
        number(9, request.size),
        text(10, request.protocol),
        _body(request.body),
    ]
    attributes = [
        message(1, _peer(request.source, request.source_principal)),
        message(2, _peer(request.destination, request.destination_principal)),
        message(4, message(1, number(1, whole) + number(2, nanos)) + message(2, b"".join(http))),
        *[pair(10, key, value) for key, value in extensions],
    ]
    return message(1, b"".join(attributes))


def decode_response(data: bytes) -> Verdict:
    """Return what a CheckResponse says.

    Raises:
        MalformedError: it is none.
    """
    fields = read(data)
    status = read(merged(fields, 1) or b"")
    code = last_number(status, 1)
    which, octets = _http_response(fields)
    if which == _ERROR:
        raise MalformedError("the service reports an error of its own")
    denied = read(octets) if which == _DENIED else []
    allowed = read(octets) if which == _OK else []
    return Verdict(
        code,
        last_text(status, 2),
        last_number(read(merged(denied, 1) or b""), 1),
        last_text(denied, 3),
        _edits(denied or allowed, 2),
        tuple([check_text(name) for name in texts(allowed, 5)]),
        _edits(allowed, 6),
    )


def _http_response(fields: list[tuple[int, int | bytes]]) -> tuple[int, bytes]:
    """Return which of the kinds of response there is, of which the last one counts, and what it says."""
    which, octets = 0, b""
    for field, value in fields:
        if field in (_DENIED, _OK, _ERROR) and isinstance(value, bytes):
            which, octets = field, octets + value if field == which else value
    return which, octets


def _peer(place: tuple[str, int], principal: bytes) -> bytes:
    host, port = place
    address = b""
    if host:  # Address.socket_address, of which TCP is 0
        address = message(1, message(1, text(2, host.encode()) + number(3, port)))
    return address + text(4, principal)


def _body(body: bytes) -> bytes:
    """Return it as text if it is one, else as octets (`raw_body`)."""
    try:
        body.decode()
    except UnicodeDecodeError:
        return text(12, body)
    return text(11, body)


def _utf8(value: bytes) -> bytes:
    """Return a field's octets as the text that they have to be; what is none is read as Latin-1."""
    if value.isascii():
        return value
    try:
        value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1").encode()
    return value


def _edits(fields: list[tuple[int, int | bytes]], field: int) -> tuple[Edit, ...]:
    """Return the HeaderValueOptions of a field."""
    found = []
    for option in texts(fields, field):
        parts = read(option)
        header = read(merged(parts, 1) or b"")
        value = last_text(header, 2)
        raw = texts(header, 3)
        if raw and raw[-1]:
            value = raw[-1]
        append = merged(parts, 2)
        how = last_number(parts, 3)
        if append is not None:  # a BoolValue: the older way to say it
            how = ADD if last_number(read(append), 1, 64) else SET
        elif how == ADD:
            how = SET  # in these messages nothing said means this
        if how > SET_IF_PRESENT:
            raise MalformedError(f"append action {how}")
        found.append(Edit(how, last_text(header, 1), value))
    return tuple(found)
