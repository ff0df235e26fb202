"""Key material to TLS contexts; new material makes new contexts, old connections keep theirs."""

import os
import ssl
from typing import Final, final

from sidecar.errors import IdentityError

ALPN_HTTP: Final = ("http/1.1",)


@final
class ServerTls:
    """How callers are met; `context` demands a certificate of our roots."""

    __slots__ = ("context",)

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context: Final = context


@final
class ClientTls:
    """How endpoints are met; `opaque` is for tcp sessions, which offer no ALPN."""

    __slots__ = ("http", "mutual", "opaque")

    def __init__(self, http: ssl.SSLContext, opaque: ssl.SSLContext, *, mutual: bool) -> None:
        self.http: Final = http
        self.opaque: Final = opaque
        self.mutual: Final = mutual  # the peer's SPIFFE ID counts, not its host name


def server_tls(certificate: bytes, key: bytes, roots: bytes) -> ServerTls:
    """Return the server side of mTLS, from PEM.

    Raises:
        IdentityError: `bad-key-material`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _prepare(context, certificate, key, roots)
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(list(ALPN_HTTP))
    return ServerTls(context)


def mutual_tls(certificate: bytes, key: bytes, roots: bytes) -> ClientTls:
    """Return the client side of mTLS, from PEM; the caller checks the peer's SPIFFE ID.

    Raises:
        IdentityError: `bad-key-material`.
    """
    contexts = []
    for _ in range(2):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False  # workloads are known by SPIFFE ID, not by name
        _prepare(context, certificate, key, roots)
        contexts.append(context)
    contexts[0].set_alpn_protocols(list(ALPN_HTTP))
    return ClientTls(contexts[0], contexts[1], mutual=True)


def simple_tls(roots: str) -> ClientTls:
    """Return TLS towards servers of the open net; `roots` is a PEM file, empty for the system's.

    Raises:
        IdentityError: `bad-key-material`.
    """
    contexts = []
    for _ in range(2):
        try:
            context = ssl.create_default_context(cafile=roots or None)
        except (OSError, ssl.SSLError) as error:
            raise IdentityError("bad-key-material", f"roots {roots!r}: {error}") from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        contexts.append(context)
    contexts[0].set_alpn_protocols(list(ALPN_HTTP))
    return ClientTls(contexts[0], contexts[1], mutual=False)


def _prepare(context: ssl.SSLContext, certificate: bytes, key: bytes, roots: bytes) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    try:
        _load_chain(context, certificate + b"\n" + key)
        context.load_verify_locations(cadata=roots.decode("ascii"))
    except (ssl.SSLError, ValueError, OSError) as error:
        raise IdentityError("bad-key-material", f"unusable key material: {error}") from error


def _load_chain(context: ssl.SSLContext, pem: bytes) -> None:
    """Load PEM from memory: the ssl module takes files only, so it gets one that no disk sees."""
    handle = os.memfd_create("sidecar-key", os.MFD_CLOEXEC)
    try:
        os.write(handle, pem)
        context.load_cert_chain(f"/proc/self/fd/{handle}")
    finally:
        os.close(handle)
