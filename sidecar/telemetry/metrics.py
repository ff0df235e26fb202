"""Counts of the worker: plain numbers in slots, labels worked out once per series."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, final

from sidecar.core.api import Sink
from sidecar.core.plan import INBOUND, OUTBOUND
from sidecar.core.quota import Share
from sidecar.identity.spiffe import workload
from sidecar.telemetry.buckets import DURATION_BUCKETS, SIZE_BUCKETS

if TYPE_CHECKING:
    from sidecar.core.book import Book
    from sidecar.core.exchange import Exchange
    from sidecar.core.plan import ClusterPlan
    from sidecar.core.tcp import Session

# Fields that filters set: the rule that has refused, or what one would have done.
SHADOW: Final = "rate_limit_shadow"
DENIED: Final = "authorization_denied"
DENIED_SHADOW: Final = "authorization_shadow"
_MARKS: Final = frozenset({SHADOW, DENIED, DENIED_SHADOW})

Labels = tuple[tuple[str, str], ...]
Key = tuple[str, str, str, int, str, str]
"""Role, peer identity, cluster name, status (-1: tcp), response flag, gRPC status (-: not gRPC)."""

Row = tuple[str, Labels, tuple[float, ...]]


@final
class _Requests:
    """One label set of the request metrics."""

    __slots__ = (
        "count",
        "duration",
        "duration_sum",
        "labels",
        "messages_in",
        "messages_out",
        "request",
        "request_sum",
        "response",
        "response_sum",
    )

    def __init__(self, labels: Labels) -> None:
        self.labels: Final = labels
        self.count = 0
        self.duration: Final = [0] * (len(DURATION_BUCKETS) + 1)
        self.duration_sum = 0.0
        self.request: Final = [0] * (len(SIZE_BUCKETS) + 1)
        self.request_sum = 0
        self.response: Final = [0] * (len(SIZE_BUCKETS) + 1)
        self.response_sum = 0
        self.messages_in = 0
        self.messages_out = 0


@final
class MetricsSink(Sink):
    """Counts exchanges and sessions by label set, as many sets as `max_series` allows."""

    __slots__ = (
        "_authorization",
        "_max",
        "_refused",
        "_requests",
        "_sessions",
        "_shadow",
        "_workload",
        "overflow",
        "retries",
    )

    def __init__(self, name: str, identity: str, max_series: int) -> None:
        self._workload: Final = (name, identity)
        self._max: Final = max_series
        self._requests: Final[dict[Key, _Requests]] = {}
        self._sessions: Final[dict[Key, tuple[Labels, list[int]]]] = {}
        self._refused: Final[dict[tuple[str, str], int]] = {}
        self._shadow: Final[dict[str, int]] = {}
        self._authorization: Final[dict[tuple[str, str, str], int]] = {}
        self.overflow = 0
        self.retries = 0

    def exchange(self, exchange: Exchange) -> None:
        """Count one finished exchange."""
        cluster = exchange.cluster
        call = exchange.grpc
        key = (
            exchange.listener.role,
            exchange.caller.identity,
            "" if cluster is None else cluster.name,
            exchange.status,
            exchange.flag,
            "-" if call is None else _GRPC_STATUSES.get(call.status, ""),
        )
        series = self._requests.get(key)
        if series is None:
            series = self._series(key, cluster)
        series.count += 1
        if exchange.fields is not None and not _MARKS.isdisjoint(exchange.fields):
            self._noted(exchange.fields, exchange.caller.identity)
        if exchange.attempts > 1:
            self.retries += exchange.attempts - 1
        spent = (exchange.ended - exchange.started) * 1000
        series.duration[bisect_left(DURATION_BUCKETS, spent)] += 1
        series.duration_sum += spent
        size = exchange.bytes_in
        if size:
            series.request[bisect_left(SIZE_BUCKETS, size)] += 1
            series.request_sum += size
        else:
            series.request[0] += 1
        size = exchange.bytes_out
        series.response[bisect_left(SIZE_BUCKETS, size)] += 1
        series.response_sum += size
        if call is not None:
            series.messages_in += call.requests.count
            series.messages_out += call.responses.count

    def session_opened(self, session: Session) -> None:
        """Count one session that has begun."""
        self._session(session)[0] += 1

    def session(self, session: Session) -> None:
        """Count one session that has ended, with its octets."""
        row = self._session(session)
        row[1] += 1
        row[2] += session.bytes_out
        row[3] += session.bytes_in
        if session.fields is not None:
            self._noted(session.fields, session.caller.identity)

    def refused(self, listener: str, code: str, peer: str) -> None:
        """Count one connection or request that was refused before it became an exchange."""
        key = (listener, code)
        self._refused[key] = self._refused.get(key, 0) + 1

    def rows(self) -> Iterator[Row]:
        """Return all series: name, labels, values (histograms: sum, then bucket counts)."""
        for series in self._requests.values():
            labels = series.labels
            yield "istio_requests_total", labels, (series.count,)
            yield (
                "istio_request_duration_milliseconds",
                labels,
                (series.duration_sum, *series.duration),
            )
            yield "istio_request_bytes", labels, (series.request_sum, *series.request)
            yield "istio_response_bytes", labels, (series.response_sum, *series.response)
            if series.messages_in or series.messages_out:
                yield "istio_request_messages_total", labels, (series.messages_in,)
                yield "istio_response_messages_total", labels, (series.messages_out,)
        for labels, row in self._sessions.values():
            yield "istio_tcp_connections_opened_total", labels, (row[0],)
            yield "istio_tcp_connections_closed_total", labels, (row[1],)
            yield "istio_tcp_sent_bytes_total", labels, (row[2],)
            yield "istio_tcp_received_bytes_total", labels, (row[3],)
        for (listener, code), count in self._refused.items():
            yield (
                "sidecar_refused_total",
                (("listener", listener), ("reason", code)),
                (count,),
            )
        for rule, count in self._shadow.items():
            yield "sidecar_rate_limit_shadow_total", (("limit", rule),), (count,)
        for (mark, rule, peer), count in self._authorization.items():
            labels = (("rule", rule), ("source_principal", peer or "unknown"))
            if mark == DENIED:
                yield "sidecar_authorization_denied_total", labels, (count,)
            else:
                decision, _, rule = rule.partition(" ")
                labels = (("decision", decision), ("rule", rule), labels[1])
                yield "sidecar_authorization_shadow_total", labels, (count,)
        yield "sidecar_retries_total", (), (self.retries,)
        yield "sidecar_series_overflow_total", (), (self.overflow,)

    def _noted(self, fields: dict[str, str], peer: str) -> None:
        """Count what filters say of a rule."""
        limit = fields.get(SHADOW)
        if limit is not None:
            self._shadow[limit] = self._shadow.get(limit, 0) + 1
        for mark in (DENIED, DENIED_SHADOW):
            rule = fields.get(mark)
            if rule is None:
                continue
            key = (mark, rule, peer)
            if key not in self._authorization and len(self._authorization) >= self._max:
                self.overflow += 1
                key = (mark, rule, "other")
            self._authorization[key] = self._authorization.get(key, 0) + 1

    def _series(self, key: Key, cluster: ClusterPlan | None) -> _Requests:
        if len(self._requests) >= self._max:
            self.overflow += 1
            key, cluster = _OTHER, None
        series = self._requests.get(key)
        if series is None:
            series = self._requests[key] = _Requests(self._labels(key, cluster))
        return series

    def _session(self, session: Session) -> list[int]:
        cluster = session.cluster
        key = (
            session.plan.role,
            session.caller.identity,
            "" if cluster is None else cluster.name,
            -1,
            session.flag,
            "-",
        )
        found = self._sessions.get(key)
        if found is None:
            if len(self._sessions) >= self._max:
                self.overflow += 1
                key, cluster = _OTHER, None
            found = self._sessions.setdefault(key, (self._labels(key, cluster), [0, 0, 0, 0]))
        return found[1]

    def _labels(self, key: Key, cluster: ClusterPlan | None) -> Labels:
        """Return Istio's labels for a key of ours."""
        role, peer, _, status, flag, grpc = key
        name, identity = self._workload
        if role == "other":
            return (("reporter", "other"), ("response_code", "other"))
        inbound = role == INBOUND
        upstream = ""
        if not inbound and cluster is not None:
            identities = cluster.identities
            upstream = next(iter(identities)) if identities and len(identities) == 1 else ""
        secure = bool(peer) if inbound else cluster is not None and cluster.tls is not None
        labels = [
            ("reporter", _REPORTERS.get(role, role)),
            ("source_workload", (workload(peer) if peer else "unknown") if inbound else name),
            ("source_principal", (peer or "unknown") if inbound else identity),
            ("destination_workload", name if inbound else workload(upstream)),
            ("destination_principal", identity if inbound else upstream or "unknown"),
            ("destination_service", "unknown" if cluster is None else cluster.service),
            ("request_protocol", "tcp" if status == -1 else "http" if grpc == "-" else "grpc"),
            ("response_flags", flag or "-"),
            ("connection_security_policy", "mutual_tls" if secure else "none"),
        ]
        if status != -1:
            labels.append(("response_code", str(status)))
        if grpc != "-":
            labels.append(("grpc_response_status", grpc))
        return tuple(labels)


def grpc_status(status: bytes) -> str:
    """Return a `grpc-status` for a label; an endpoint chooses it, so only the known ones (0 to 16)."""
    return _GRPC_STATUSES.get(status, "")


_GRPC_STATUSES: Final = {b"%d" % code: str(code) for code in range(17)}


def ejections(book: Book) -> Iterator[Row]:
    """Return the series of outlier ejection, of clusters that had any."""
    for name, state in book.clusters.items():
        detector = state.detector
        for reason, count in detector.ejections.items():
            labels = (("cluster", name), ("reason", reason))
            yield "sidecar_outlier_ejections_total", labels, (count,)
        if detector.ejections:
            yield "sidecar_outlier_ejected_endpoints", (("cluster", name),), (detector.out,)


def guards(book: Book) -> Iterator[Row]:
    """Return the series of clusters that refuse requests by latency or failures."""
    for name, state in book.clusters.items():
        guard = state.guard
        if guard is None:
            continue
        if guard.gradient is not None:
            yield "sidecar_concurrency_limit", (("cluster", name),), (guard.gradient.limit,)
        for code, count in guard.refused.items():
            yield "sidecar_admission_refused_total", (("cluster", name), ("reason", code)), (count,)


def quotas(book: Book) -> Iterator[Row]:
    """Return the series of shared quota."""
    for share in book.kept.values():
        if not isinstance(share, Share):
            continue
        label = ("limit", share.name)
        for kind in ("asks", "granted", "returned"):
            yield f"sidecar_rate_limit_{kind}_total", (label,), (share.counts[kind],)
        for decision in ("open", "closed", "local", "refused"):
            count = share.counts[decision]
            if count:
                labels = (label, ("decision", decision))
                yield "sidecar_rate_limit_unasked_total", labels, (count,)


def hedges(book: Book) -> Iterator[Row]:
    """Return the series of second attempts beside slow ones."""
    for name, state in book.clusters.items():
        if state.hedges is not None:
            for result, count in state.hedges.counts.items():
                yield "sidecar_hedges_total", (("cluster", name), ("result", result)), (count,)


_REPORTERS: Final = {INBOUND: "destination", OUTBOUND: "source"}  # Istio's names
_OTHER: Final[Key] = ("other", "", "other", 0, "", "-")
