"""What we answer by ourselves, and why: one table from error code to status, flag and sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sidecar.wire.fields import ResponseHead

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sidecar.core.api import Answer
    from sidecar.core.exchange import Exchange
    from sidecar.wire.fields import Field

TEXT: Final[Field] = (b"Content-Type", b"text/plain; charset=utf-8")
_NO_CONTENT: Final = frozenset({204, 304})  # no length may be said, or none of ours: RFC 9110 §8.6


class Reply(NamedTuple):
    """A local reply; `flag` is Envoy's response flag."""

    status: int
    flag: str
    sentence: str
    grpc_status: int = -1
    """What a gRPC caller is told; -1: what the status means to it."""


REPLIES: Final[dict[str, Reply]] = {
    # The caller's doing.
    "bad-start-line": Reply(400, "DPE", "the request line is malformed"),
    "not-http": Reply(400, "DPE", "this port takes HTTP only"),
    "bad-field": Reply(400, "DPE", "a header field is malformed"),
    "bad-host": Reply(400, "DPE", "the Host field is missing, repeated or malformed"),
    "bad-target": Reply(400, "DPE", "the request target is malformed"),
    "bad-version": Reply(505, "DPE", "this version of HTTP is not served here"),
    "bad-content-length": Reply(400, "DPE", "the Content-Length field is malformed"),
    "bad-transfer-coding": Reply(501, "DPE", "only the chunked transfer coding is understood"),
    "bad-framing": Reply(400, "DPE", "the message's length is ambiguous"),
    "bad-expectation": Reply(417, "DPE", "only the 100-continue expectation is understood"),
    "bad-chunk": Reply(400, "DPE", "the chunked body is malformed"),
    "bad-chunk-size": Reply(400, "DPE", "a chunk size is malformed"),
    "chunk-extensions-too-large": Reply(400, "DPE", "the chunk extensions are too large"),
    "bad-trailer": Reply(400, "DPE", "a trailer field is malformed or not allowed"),
    "trailers-too-large": Reply(431, "DPE", "the trailer fields are too large"),
    "body-cut": Reply(400, "DC", "the request body ended early"),
    "connect-refused": Reply(405, "DPE", "CONNECT is not served here"),
    "head-too-large": Reply(431, "DPE", "the request head is too large"),
    "too-many-fields": Reply(431, "DPE", "the request has too many fields"),
    "target-too-long": Reply(414, "DPE", "the request target is too long"),
    "request-head-timeout": Reply(408, "DPE", "the request head did not arrive in time"),
    "bad-grpc-web": Reply(400, "DPE", "the gRPC-Web body is malformed"),
    "downstream-reset": Reply(499, "DR", "the caller reset the request"),
    "http2-connection-error": Reply(400, "DPE", "the caller broke the rules of HTTP/2"),
    "http2-stream-error": Reply(400, "DPE", "the request broke the rules of HTTP/2"),
    "http2-flood": Reply(400, "DPE", "the caller sent too much that carries nothing"),
    "downstream-closed": Reply(499, "DC", "the caller went away"),
    "request-timeout": Reply(408, "DPE", "the request did not arrive in time"),
    "request-too-slow": Reply(408, "DPE", "the request arrived too slowly"),
    "stream-duration": Reply(408, "DT", "the request took as long as one may", grpc_status=4),
    "connection-duration": Reply(408, "DT", "the connection lasted as long as one may"),
    "stream-idle": Reply(408, "SI", "nothing moved in either direction for too long"),
    "plaintext-refused": Reply(400, "DPE", "this port takes mutual TLS only"),
    "tls-required": Reply(400, "DPE", "this port takes TLS only"),
    "bad-proxy-header": Reply(400, "DPE", "the PROXY protocol header is malformed"),
    "bad-tls-hello": Reply(400, "DPE", "the TLS hello is malformed"),
    "tls-hello-too-large": Reply(400, "DPE", "the TLS hello is too large"),
    "tls-handshake-failed": Reply(400, "DPE", "the TLS handshake failed"),
    "handshake-timeout": Reply(408, "DPE", "the TLS handshake did not finish in time"),
    # The peer's identity.
    "peer-not-allowed": Reply(403, "RBAC", "the caller's identity is not allowed here"),
    "peer-no-certificate": Reply(403, "RBAC", "the peer showed no certificate"),
    "peer-certificate-expired": Reply(403, "RBAC", "the peer's certificate has expired"),
    "peer-certificate-not-yet-valid": Reply(403, "RBAC", "the peer's certificate is not valid yet"),
    "peer-unknown-root": Reply(403, "RBAC", "the peer's certificate is of an unknown root"),
    "peer-certificate-refused": Reply(403, "RBAC", "the peer's certificate was refused"),
    "peer-no-identity": Reply(403, "RBAC", "the peer's certificate names no SPIFFE ID"),
    # Who sends it, by what it brings along.
    "jwt-missing": Reply(401, "UAEX", "the request brings no token", grpc_status=16),
    "jwt-malformed": Reply(401, "UAEX", "the token is malformed", grpc_status=16),
    "jwt-issuer": Reply(401, "UAEX", "the token is of an unknown issuer", grpc_status=16),
    "jwt-key": Reply(401, "UAEX", "the token is signed with an unknown key", grpc_status=16),
    "jwt-signature": Reply(401, "UAEX", "the token's signature does not verify", grpc_status=16),
    "jwt-expired": Reply(401, "UAEX", "the token has expired", grpc_status=16),
    "jwt-not-yet-valid": Reply(401, "UAEX", "the token is not valid yet", grpc_status=16),
    "jwks-unavailable": Reply(503, "UAEX", "the keys of the token's issuer cannot be fetched"),
    "jwt-audience": Reply(401, "UAEX", "the token is for another audience", grpc_status=16),
    "key-missing": Reply(401, "UAEX", "the request brings no API key", grpc_status=16),
    "key-unknown": Reply(401, "UAEX", "the API key is not known", grpc_status=16),
    "password-missing": Reply(401, "UAEX", "the request brings no password", grpc_status=16),
    "password-wrong": Reply(401, "UAEX", "name or password is wrong", grpc_status=16),
    "password-overflow": Reply(503, "OM", "too many passwords wait to be looked at"),
    # Who may do what.
    "access-denied": Reply(403, "RBAC", "this is not allowed"),
    "requests-only": Reply(403, "RBAC", "this port takes HTTP only"),
    "ambiguous-path": Reply(400, "DPE", "the path can be read in more than one way"),
    # Routing and limits.
    "no-route": Reply(404, "NR", "no route takes this request"),
    "no-endpoint": Reply(503, "UH", "the cluster has no endpoint to send to"),
    "dns-failed": Reply(503, "DF", "the cluster's name does not resolve"),
    "requests-overflow": Reply(503, "UO", "the cluster's limit of requests is reached"),
    "pending-overflow": Reply(503, "UO", "the cluster's limit of waiting requests is reached"),
    "pending-timeout": Reply(503, "UO", "none of the cluster's connections became free in time"),
    "concurrency-overflow": Reply(
        503, "UO", "more at once would only wait, as the cluster's latency has it"
    ),
    "admission-denied": Reply(
        503, "UO", "the cluster fails so often that not all requests are sent to it"
    ),
    "overloaded": Reply(503, "OM", "this sidecar has too much to do"),
    "connections-overflow": Reply(503, "OM", "this sidecar's limit of connections is reached"),
    "descriptors-overflow": Reply(503, "OM", "this sidecar's limit of open files is reached"),
    "draining": Reply(503, "OM", "this sidecar is shutting down"),
    # What a route does by itself.
    "redirect": Reply(301, "", "the request belongs elsewhere"),
    "direct-response": Reply(200, "", "the route answers by itself"),
    "fault-abort": Reply(503, "FI", "a fault was injected on purpose"),
    "rate-limited": Reply(429, "RL", "too many requests came", grpc_status=8),
    "connection-limit": Reply(429, "RL", "the caller has too many connections"),
    "rate-limit-unavailable": Reply(503, "RLSE", "whether there is room could not be asked"),
    "filter-answered": Reply(200, "", "a filter written in Python answered"),
    "filter-failed": Reply(500, "LR", "a filter written in Python failed"),
    "filter-timeout": Reply(504, "LR", "a filter written in Python took too long"),
    "filter-off": Reply(503, "LR", "a filter written in Python is switched off: it took too long"),
    "ext-authz-denied": Reply(403, "UAEX", "the authorization service refuses the request"),
    "ext-authz-error": Reply(403, "UAEX", "the authorization service has not decided"),
    "ext-authz-body-too-large": Reply(413, "UAEX", "the body is too large to be authorized"),
    "cors-preflight": Reply(200, "", "the origin may ask"),
    # The endpoint's doing.
    "connect-failed": Reply(503, "UF", "no connection to the endpoint came about"),
    "connect-timeout": Reply(503, "UF", "the endpoint took no connection in time"),
    "upstream-tls-failed": Reply(503, "UF", "the TLS handshake with the endpoint failed"),
    "upstream-identity": Reply(503, "UF", "the endpoint's identity is not the expected one"),
    "upstream-closed": Reply(502, "UC", "the endpoint closed the connection"),
    "upstream-body-cut": Reply(502, "UC", "the endpoint closed in the middle of its response"),
    "upstream-protocol": Reply(502, "UPE", "the endpoint's response is malformed"),
    "upstream-reset": Reply(502, "UR", "the endpoint reset the request"),
    "upstream-refused": Reply(503, "UR", "the endpoint refused the request unseen"),
    "upstream-no-upgrade": Reply(502, "UPE", "the endpoint takes no upgrade over HTTP/2"),
    "upstream-timeout": Reply(504, "UT", "the endpoint did not answer in time"),
    "per-try-timeout": Reply(504, "UT", "the endpoint did not answer this try in time"),
    "per-try-idle-timeout": Reply(504, "UT", "the endpoint fell silent during this try"),
    "upstream-stream-duration": Reply(
        408, "UMSDR", "this try took as long as one may", grpc_status=4
    ),
    "grpc-deadline": Reply(504, "UT", "the deadline of the call has passed"),
    "retries-exhausted": Reply(503, "URX", "every allowed try has failed"),
    # Calls of our own; to the request that caused one, its filter says what that means.
    "call-too-large": Reply(502, "UPE", "the answer to the sidecar's own call is too large"),
    # Ours.
    "internal-error": Reply(500, "LR", "an error inside the sidecar ended this request"),
}
"""A test checks that every code raised in the tree stands here."""


def reply_for(code: str) -> Reply:
    """Return the reply for `code`; an unlisted one is a bug that must not reach a caller as such."""
    return REPLIES.get(code) or REPLIES["internal-error"]


def explain(exchange: Exchange, reply: Reply) -> bytes:
    """Say what happened and which object decided; names only to our app or a known peer."""
    parts = [f"code {exchange.code}", f"flag {reply.flag}"]
    if exchange.listener.role == "outbound" or exchange.caller.identity:
        if exchange.route is not None:
            parts.append(f"route {exchange.route.name}")
        if exchange.cluster is not None:
            parts.append(f"cluster {exchange.cluster.name}")
        if exchange.endpoint is not None:
            parts.append(f"endpoint {exchange.endpoint.address}")
        if exchange.attempts > 1:
            parts.append(f"attempts {exchange.attempts}")
        if exchange.detail:
            parts.append(exchange.detail)
    parts.append(f"request {exchange.request_id.decode('latin-1')}")
    return f"sidecar: {reply.sentence} ({', '.join(parts)})\n".encode()


def answer_with(exchange: Exchange, answer: Answer) -> None:
    """Send what `answer` says as the response of `exchange`; its state is the caller's to keep."""
    reply = reply_for(answer.code)
    if answer.status:
        reply = reply._replace(status=answer.status)
    if answer.grpc_status >= 0:
        reply = reply._replace(grpc_status=answer.grpc_status)
    exchange.status = reply.status
    text = explain(exchange, reply) if answer.body is None else answer.body
    fields: Sequence[Field] = answer.fields
    route = exchange.route
    if route is not None and route.on_reply:
        head = ResponseHead(reply.status, b"", 11, b"", {}, list(fields))
        for stop in route.on_reply:
            try:
                stop.on_reply(exchange, head)
            except Exception as error:  # noqa: BLE001 - a plug-in's bug must not keep the caller
                exchange.engine.bug("on_reply", error)
        fields = head.as_pairs()
    if exchange.grpc is None:
        exchange.bytes_out = len(text)
        exchange.downstream.reply(reply, text, fields)
    else:
        exchange.downstream.respond(exchange.grpc.reply(reply, text, fields), b"", end=True)


def own_fields(reply: Reply, text: bytes, fields: Sequence[Field]) -> list[Field]:
    """Return the fields of a response of our own, its type and length among them."""
    if reply.status in _NO_CONTENT:
        return list(fields)
    found = [(b"Content-Length", b"%d" % len(text)), *fields]
    if text and not any(name.lower() == b"content-type" for name, _ in fields):
        found.insert(0, TEXT)
    return found
