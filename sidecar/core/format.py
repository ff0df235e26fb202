"""Texts with values in them: `%REQUEST_ID%` and the other names of Envoy, filled in per exchange."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from sidecar.errors import nearest

if TYPE_CHECKING:
    from sidecar.core.exchange import Exchange
    from sidecar.wire.fields import Fields

Value = Callable[["Exchange", "Fields | None"], bytes]
"""Fills a text in, for an exchange and the response's head once there is one."""

_PART: Final = re.compile(r"%%|%([A-Z0-9_]+)(?:\(([!#$&'*+.^_`|~0-9A-Za-z:-]+)\))?%|%")
_ASKS: Final = ("REQ", "RESP")  # those that take a field's name


def parse(text: str, *, response: bool) -> Value:
    """Return what fills `text` in; a value that is absent is filled in as `-`, as Envoy does.

    Raises:
        ValueError: a name that is not known, or known only with the response where there is none.
    """
    parts: list[bytes | Value] = []
    end = 0
    for found in _PART.finditer(text):
        parts.append(text[end : found.start()].encode())
        end = found.end()
        parts.append(b"%" if found[0] == "%%" else _value(found, response=response))
    parts.append(text[end:].encode())
    if all(isinstance(part, bytes) for part in parts):
        whole = b"".join(part for part in parts if isinstance(part, bytes))
        return lambda exchange, head: whole

    def fill(exchange: Exchange, head: Fields | None) -> bytes:
        return b"".join(
            [part if isinstance(part, bytes) else part(exchange, head) or b"-" for part in parts]
        )

    return fill


def _value(found: re.Match[str], *, response: bool) -> Value:
    name, argument = found[1], found[2]
    if name is None:
        raise ValueError("a single % begins a value: write %% for the sign itself")
    if name in _ASKS:
        if argument is None:
            raise ValueError(f"%{name}% needs a field: %{name}(x-tenant)%")
        if name == "RESP" and not response:
            raise ValueError(f"{found[0]} is not known before the response")
        return _field(name, argument.lower().encode())
    if argument is not None:
        raise ValueError(f"%{name}% takes nothing in parentheses")
    value = _VALUES.get(name) or (_LATER.get(name) if response else None)
    if value is None:
        if name in _LATER:
            raise ValueError(f"%{name}% is not known before the response")
        near = nearest(name, [*_VALUES, *_LATER, *_ASKS])
        hint = f" (did you mean %{near}%?)" if near else ""
        raise ValueError(f"no value is called %{name}%{hint}")
    return value


def _field(kind: str, name: bytes) -> Value:
    if kind == "RESP":
        return lambda exchange, head: (head.get(name) if head is not None else None) or b""
    pseudo = _PSEUDO.get(name)
    if pseudo is not None:
        return pseudo
    return lambda exchange, head: exchange.head.get(name) or b""


def _time(wall: float) -> bytes:
    """Return `2026-01-01T00:00:00.000Z`, Envoy's form of %START_TIME%."""
    text = datetime.fromtimestamp(int(wall), UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{int(wall % 1 * 1000):03d}Z".encode()


def _protocol(exchange: Exchange) -> bytes:
    version = exchange.head.version
    return b"HTTP/2" if version == 20 else b"HTTP/1.%d" % (version % 10)


_PSEUDO: Final[dict[bytes, Value]] = {
    b":method": lambda exchange, head: exchange.head.method,
    b":path": lambda exchange, head: exchange.head.target,
    b":authority": lambda exchange, head: exchange.head.authority,
}
_VALUES: Final[dict[str, Value]] = {
    "REQUEST_ID": lambda exchange, head: exchange.request_id,
    "TRACE_ID": lambda exchange, head: exchange.traceparent[3:35],
    "START_TIME": lambda exchange, head: _time(exchange.wall),
    "PROTOCOL": lambda exchange, head: _protocol(exchange),
    "PEER_IDENTITY": lambda exchange, head: exchange.caller.identity.encode(),
    "DOWNSTREAM_PEER_URI_SAN": lambda exchange, head: exchange.caller.identity.encode(),
    "DOWNSTREAM_PEER_FINGERPRINT_256": (
        lambda exchange, head: exchange.caller.certificate_hash.encode()
    ),
    "DOWNSTREAM_LOCAL_URI_SAN": lambda exchange, head: exchange.engine.identity.encode(),
    "DOWNSTREAM_REMOTE_ADDRESS": lambda exchange, head: exchange.caller.address.encode(),
    "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT": (
        lambda exchange, head: exchange.caller.host.encode()
    ),
    "DOWNSTREAM_LOCAL_PORT": lambda exchange, head: b"%d" % exchange.caller.local[1],
    "ROUTE_NAME": lambda exchange, head: (
        exchange.route.name.encode() if exchange.route is not None else b""
    ),
}
_LATER: Final[dict[str, Value]] = {
    "RESPONSE_CODE": lambda exchange, head: b"%d" % getattr(head, "status", 0),
    "RESPONSE_FLAGS": lambda exchange, head: exchange.flag.encode(),
    "UPSTREAM_CLUSTER": lambda exchange, head: (
        exchange.cluster.name.encode() if exchange.cluster is not None else b""
    ),
    "UPSTREAM_HOST": lambda exchange, head: (
        exchange.endpoint.address.encode() if exchange.endpoint is not None else b""
    ),
}
