"""Key material to TLS contexts; new material makes new contexts, old connections keep theirs."""

import os
import ssl
from collections.abc import Callable
from typing import Final, final

from sidecar.errors import IdentityError
from sidecar.wire.http2_frames import ALPN_SIDECAR

ALPN: Final = {
    # By what the protocol above can speak.  ALPN_SIDECAR is HTTP/2 between two of us: it says that
    # the other end understands what we add for it (docs/decisions).
    "http1": ("http/1.1",),
    "http2": (ALPN_SIDECAR, "h2"),
    "auto": (ALPN_SIDECAR, "h2", "http/1.1"),
    "": (),
}
WEB: Final = ("h2", "http/1.1")  # for callers from outside the mesh


class NamedTls(ssl.SSLObject):
    """The server side of one connection, which remembers the name that the caller asked for."""

    asked_name = ""


@final
class ServerTls:
    """How callers are met; whether `context` demands a certificate is the listener's `mtls`.

    With mTLS, `context` knows no roots: from those that a context knows OpenSSL builds the chain of
    our own certificate anew in every handshake, verifies it (12 % of the handshake) and sends
    the root along, for the caller to parse.  So a connection begins with `context` and goes on with
    `verifying`, once our certificate is out and before the caller's is read.  Each is whole but for
    that: `context` alone refuses every caller, `verifying` alone is merely slower.
    """

    __slots__ = ("context", "verifying")

    def __init__(self, context: ssl.SSLContext, verifying: ssl.SSLContext | None = None) -> None:
        self.context: Final = context
        self.verifying: Final = verifying


@final
class ClientTls:
    """How endpoints are met: one context for each of the protocol lists in `ALPN`."""

    __slots__ = ("contexts", "mutual")

    def __init__(self, contexts: dict[str, ssl.SSLContext], *, mutual: bool) -> None:
        self.contexts: Final = contexts
        self.mutual: Final = mutual  # the peer's SPIFFE ID counts, not its host name


def server_tls(
    certificate: bytes, key: bytes, roots: bytes, *, notes_names: bool = False
) -> ServerTls:
    """Return the server side of mTLS, from PEM; `notes_names` if somebody asks for server names.

    Raises:
        IdentityError: `bad-key-material`.
    """

    def make() -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        _prepare(context, certificate, key)
        context.verify_mode = ssl.CERT_REQUIRED
        # A ticket would let a caller back in after its certificate has expired, and with OpenSSL
        # 3.0 the making of two costs 30 % of the handshake (docs/decisions).
        context.num_tickets = 0
        return _serving(context, ALPN["auto"], notes_names=notes_names)

    verifying = make()
    _trust(verifying, roots)
    return ServerTls(make(), verifying)


def simple_server_tls(
    certificate: bytes, key: bytes, *, is_http: bool, notes_names: bool = False
) -> ServerTls:
    """Return the server side of TLS whose callers show nothing, from PEM.

    Raises:
        IdentityError: `bad-key-material`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _prepare(context, certificate, key)
    context.num_tickets = 1  # as many as a caller uses up, if it uses any
    # What opaque octets mean is no matter of ours, so nothing is agreed on about them.
    return ServerTls(_serving(context, WEB if is_http else (), notes_names=notes_names))


def _serving(
    context: ssl.SSLContext, protocols: tuple[str, ...], *, notes_names: bool
) -> ssl.SSLContext:
    if protocols:
        context.set_alpn_protocols(list(protocols))
    if notes_names:
        context.sslobject_class = NamedTls
        context.sni_callback = _note_name
    return context


def asked_name(tls: ssl.SSLObject) -> str:
    """Return the server name of the caller's hello, in lower case; empty if it was not noted."""
    return tls.asked_name if isinstance(tls, NamedTls) else ""


def _note_name(tls: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
    assert isinstance(tls, NamedTls)
    tls.asked_name = (name or "").lower()


def mutual_tls(certificate: bytes, key: bytes, roots: bytes) -> ClientTls:
    """Return the client side of mTLS, from PEM; the caller checks the peer's SPIFFE ID.

    Raises:
        IdentityError: `bad-key-material`.
    """

    def make() -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False  # workloads are known by SPIFFE ID, not by name
        _prepare(context, certificate, key)
        _trust(context, roots)
        return context

    return ClientTls(_each(make), mutual=True)


def simple_tls(roots: str) -> ClientTls:
    """Return TLS towards servers of the open net; `roots` is a PEM file, empty for the system's.

    Raises:
        IdentityError: `bad-key-material`.
    """

    def make() -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=roots or None)
        except (OSError, ssl.SSLError) as error:
            raise IdentityError("bad-key-material", f"roots {roots!r}: {error}") from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context

    return ClientTls(_each(make), mutual=False)


# OpenSSL's words for a key that is another certificate's; a key of another kind looks for one of its own.
_NOT_ITS_KEY: Final = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")


def key_fault(certificate: bytes, key: bytes) -> str:
    """Return what is wrong with `key` as that of `certificate`, both PEM; empty if nothing is."""
    try:
        _load_chain(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), certificate + b"\n" + key)
    except ssl.SSLError as error:
        if error.reason in _NOT_ITS_KEY:
            return "is not the key of the certificate"
        return f"holds no usable PEM key: {error}"
    return ""


def _each(make: Callable[[], ssl.SSLContext]) -> dict[str, ssl.SSLContext]:
    """Return a context for each list of protocols: a context can offer only one."""
    contexts = {}
    for kind, protocols in ALPN.items():
        context = contexts[kind] = make()
        if protocols:
            context.set_alpn_protocols(list(protocols))
    return contexts


def _prepare(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    try:
        _load_chain(context, certificate + b"\n" + key)
    except (ssl.SSLError, ValueError, OSError) as error:
        raise IdentityError("bad-key-material", f"unusable key material: {error}") from error


def _trust(context: ssl.SSLContext, roots: bytes) -> None:
    try:
        context.load_verify_locations(cadata=roots.decode("ascii"))
    except (ssl.SSLError, ValueError, OSError) as error:
        raise IdentityError("bad-key-material", f"unusable key material: {error}") from error


def _load_chain(context: ssl.SSLContext, pem: bytes) -> None:
    """Load PEM from memory: the ssl module takes files only, so it gets one that no disk sees."""
    handle = os.memfd_create("sidecar-key", os.MFD_CLOEXEC)
    try:
        os.write(handle, pem)
        # A key that is encrypted is refused; without a password here, a terminal would be asked.
        context.load_cert_chain(f"/proc/self/fd/{handle}", password=b"")
    finally:
        os.close(handle)
