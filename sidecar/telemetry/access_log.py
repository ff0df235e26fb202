"""One line for every exchange and session: Envoy's default text form, or JSON."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, final

import msgspec

from sidecar.core.api import Sink
from sidecar.core.plan import CALL
from sidecar.core.replies import reply_for

if TYPE_CHECKING:
    from sidecar.core.exchange import Exchange
    from sidecar.core.tcp import Session

VALUE_LIMIT: Final = 1024  # characters of any one value; a caller chooses most of them

_PROTOCOLS: Final = {10: "HTTP/1.0", 11: "HTTP/1.1", 20: "HTTP/2.0"}
_FINE: Final = bytes([0x0A, 0x20, 0x21, *range(0x23, 0x5C), *range(0x5D, 0x7F)])  # LF divides
_UNSAFE: Final = re.compile(r"[^\x20\x21\x23-\x5b\x5d-\x7e]")


@final
class AccessLogSink(Sink):
    """Formats lines and hands them to `write`, which must not wait."""

    __slots__ = ("_json", "_second", "_stamp", "_write")

    def __init__(self, write: Callable[[bytes], None], form: str) -> None:
        self._write: Final = write
        self._json: Final = form == "json"
        self._second = -1
        self._stamp = ""

    def exchange(self, exchange: Exchange) -> None:
        """Write the line of one exchange; the sidecar's own calls have none: metrics count them."""
        if exchange.listener.role == CALL:
            return
        if self._json:
            self._write(_JSON.encode(_record(exchange, self._time(exchange.wall))) + b"\n")
            return
        head = exchange.head
        found = head.found
        endpoint, route, ms = exchange.endpoint, exchange.route, exchange.upstream_ms
        spent = (exchange.ended - exchange.started) * 1000
        method, target, forwarded, agent, request_id, authority, trace = _texts(
            head.method,
            head.target,
            found.get(b"x-forwarded-for") or b"-",
            found.get(b"user-agent") or b"-",
            exchange.request_id or b"-",
            head.authority or b"-",
            exchange.traceparent[3:35] or b"-",
        )
        line = (
            f'[{self._time(exchange.wall)}] "{method} {target}'
            f' {_PROTOCOLS[head.version]}" {exchange.status} {exchange.flag or "-"}'
            f" {exchange.bytes_in} {exchange.bytes_out} {spent:.0f}"
            f" {f'{ms:.0f}' if ms >= 0 else '-'}"
            f' "{forwarded}" "{agent}" "{request_id}" "{authority}"'
            f' "{endpoint.address if endpoint is not None else "-"}"'
            f' reason="{exchange.code or "-"}" peer="{exchange.caller.identity or "-"}"'
            f' route="{route.name if route is not None else "-"}"'
            f" attempts={exchange.attempts} trace={trace}"
            f"{'' if exchange.fields is None else _said(exchange.fields)}\n"
        )
        self._write(line.encode())

    def session(self, session: Session) -> None:
        """Write the line of one session."""
        if self._json:
            self._write(_JSON.encode(_session(session, self._time(session.wall))) + b"\n")
            return
        endpoint = session.endpoint
        spent = (session.engine.now() - session.started) * 1000
        self._write(
            f'[{self._time(session.wall)}] "- - -" 0 {session.flag or "-"}'
            f" {session.bytes_in} {session.bytes_out} {spent:.0f} -"
            f' "-" "-" "-" "{_clean(session.server_name) or "-"}"'
            f' "{endpoint.address if endpoint is not None else "-"}"'
            f' reason="{session.code or "-"}" peer="{session.caller.identity or "-"}"'
            f' route="{session.route.name if session.route is not None else "-"}"'
            f" attempts={session.attempts}"
            f"{'' if session.fields is None else _said(session.fields)}\n".encode()
        )

    def refused(self, listener: str, code: str, peer: str) -> None:
        """Write the line of one refused connection."""
        flag = reply_for(code).flag
        if self._json:
            told = {"listener": listener, "reason": code, "response_flags": flag}
            self._write(_JSON.encode({**told, "downstream_address": peer}) + b"\n")
        else:
            self._write(
                f'[-] "- - -" 0 {flag} 0 0 0 - "-" "-" "-" "-" "-" reason="{code}"'
                f' listener="{_clean(listener)}" downstream="{peer}"\n'.encode()
            )

    def _time(self, wall: float) -> str:
        """Return `2026-01-01T00:00:00.000Z`; the part up to the second is kept."""
        second = int(wall)
        if second != self._second:
            self._second = second
            self._stamp = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        return f"{self._stamp}.{int((wall - second) * 1000):03d}Z"


def _record(exchange: Exchange, start: str) -> dict[str, object]:
    head = exchange.head
    found = head.found
    endpoint, route, cluster = exchange.endpoint, exchange.route, exchange.cluster
    return {
        **(exchange.fields or {}),  # first: what is ours cannot be said by others
        "start_time": start,
        "method": _text(head.method),
        "path": _text(head.target),
        "protocol": f"HTTP/{head.version / 10}",
        "response_code": exchange.status,
        "response_flags": exchange.flag or "-",
        "response_code_details": exchange.code or "via_upstream",
        "detail": _clean(exchange.detail),
        "bytes_received": exchange.bytes_in,
        "bytes_sent": exchange.bytes_out,
        "duration": round((exchange.ended - exchange.started) * 1000, 3),
        "upstream_service_time": round(exchange.upstream_ms, 3)
        if exchange.upstream_ms >= 0
        else None,
        "x_forwarded_for": _text(found.get(b"x-forwarded-for")),
        "user_agent": _text(found.get(b"user-agent")),
        "request_id": _text(exchange.request_id),
        "authority": _text(head.authority),
        "upstream_host": endpoint.address if endpoint is not None else None,
        "upstream_cluster": cluster.name if cluster is not None else None,
        "route_name": route.name if route is not None else None,
        "attempts": exchange.attempts,
        "peer": exchange.caller.identity or None,
        "downstream_address": exchange.caller.address,
        "trace_id": _text(exchange.traceparent[3:35]),
    }


def _session(session: Session, start: str) -> dict[str, object]:
    endpoint, cluster = session.endpoint, session.cluster
    return {
        **(session.fields or {}),  # first: what is ours cannot be said by others
        "start_time": start,
        "protocol": "tcp",
        "response_flags": session.flag or "-",
        "response_code_details": session.code or "closed",
        "detail": _clean(session.detail),
        "bytes_received": session.bytes_in,
        "bytes_sent": session.bytes_out,
        "duration": round((session.engine.now() - session.started) * 1000, 3),
        "requested_server_name": _clean(session.server_name) or None,
        "upstream_host": endpoint.address if endpoint is not None else None,
        "upstream_cluster": cluster.name if cluster is not None else None,
        "attempts": session.attempts,
        "peer": session.caller.identity or None,
        "downstream_address": session.caller.address,
    }


def _said(fields: dict[str, str]) -> str:
    """Return what filters add, for the end of a line."""
    return "".join([f' {name}="{_clean(value)}"' for name, value in fields.items()])


def _texts(*values: bytes) -> list[str]:
    """Return octets that a caller chose, fit for a terminal: nearly always all of them are."""
    octets = b"\n".join(values)
    if len(octets) <= VALUE_LIMIT and not octets.translate(None, _FINE):
        texts = octets.decode("latin-1").split("\n")
        if len(texts) == len(values):
            return texts
    return [_text(value) for value in values]


def _text(value: bytes | None) -> str:
    """Return octets that a caller chose, fit for a terminal; `-` for none."""
    if not value:
        return "-"
    return _clean(value.decode("latin-1"))


def _clean(text: str) -> str:
    if len(text) > VALUE_LIMIT:
        text = text[:VALUE_LIMIT]
    if _UNSAFE.search(text) is None:
        return text
    return _UNSAFE.sub(lambda m: f"\\x{ord(m[0]):02x}", text)


_JSON: Final = msgspec.json.Encoder()
