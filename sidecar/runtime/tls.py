"""TLS as a layer between a plain transport and a protocol, on either event loop.

Theory of operation.  `ssl.MemoryBIO` pairs an OpenSSL object with two buffers; this class moves
octets between them and the transport below, and plays transport to the protocol above.  The loops'
own TLS cannot close one direction, which tcp sessions need, and cannot begin with octets that were
read before TLS was recognised (docs/decisions).
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, Final, cast, final

from sidecar.errors import IdentityError
from sidecar.identity.spiffe import refusal

# Octets: a record (RFC 8446 §5.1), which is all that OpenSSL returns at once.
READ_SIZE: Final = 16384


@final
class Tls(asyncio.Transport, asyncio.Protocol):
    """A TLS connection.

    `on_ready(tls)` is called after the handshake and returns the protocol to serve (None: refuse);
    `on_failed(error)` when it fails.  Each is called at most once, and one of them always is.
    `verifying` is the context that a server reads the caller's certificate by (`ServerTls`).
    """

    __slots__ = (
        "_app",
        "_closing",
        "_eof",
        "_incoming",
        "_on_failed",
        "_on_ready",
        "_outgoing",
        "_paused",
        "_raw",
        "_ready",
        "_shut",
        "_verifying",
        "ssl",
    )

    def __init__(
        self,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        server_name: str | None = None,
        verifying: ssl.SSLContext | None = None,
        on_ready: Callable[["Tls"], asyncio.Protocol | None],
        on_failed: Callable[[IdentityError], None],
    ) -> None:
        self._incoming: Final = ssl.MemoryBIO()
        self._outgoing: Final = ssl.MemoryBIO()
        self.ssl: Final = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=server_name
        )
        self._on_ready: Final = on_ready
        self._on_failed: Final = on_failed
        self._verifying = verifying
        self._raw: asyncio.Transport | None = None
        self._app: asyncio.Protocol | None = None
        self._ready = False
        self._closing = False
        self._paused = False
        self._eof = False  # the peer has said that it will send no more
        self._shut = False  # we have said so

    # The plain transport says:

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake; a server waits for the caller's hello."""
        transport = cast("asyncio.Transport", transport)  # uvloop does not inherit it
        self._raw = transport
        if not self.ssl.server_side:
            self._handshake()

    def data_received(self, data: bytes) -> None:
        """Octets of TLS records."""
        self._incoming.write(data)
        if self._ready:
            self._pump()
        else:
            self._handshake()

    def eof_received(self) -> bool:
        """The transport has ended; a peer that forgot its close_notify is taken to be done."""
        if not self._ready:
            self._fail(IdentityError("tls-handshake-failed", "the peer closed the connection"))
            return False
        return self._app_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is gone."""
        self._closing = True
        app, self._app = self._app, None
        if app is not None:
            app.connection_lost(exc)
        elif not self._ready:
            self._fail(IdentityError("tls-handshake-failed", "the peer closed the connection"))
        del self.ssl  # OpenSSL's memory, which would last for as long as somebody holds us

    def pause_writing(self) -> None:
        """The peer reads slowly."""
        if self._app is not None:
            self._app.pause_writing()

    def resume_writing(self) -> None:
        """It has caught up."""
        if self._app is not None:
            self._app.resume_writing()

    # The protocol above says:

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send `data`."""
        if self._closing or self._shut or self._raw is None or not data:
            return
        try:
            self.ssl.write(data)
        except ssl.SSLError as error:
            self._broken(error)
            return
        self._raw.write(self._outgoing.read())

    def can_write_eof(self) -> bool:
        """TLS can close one direction: close_notify."""
        return True

    def write_eof(self) -> None:
        """Say that no more will be sent; the peer may still send."""
        if not self._shut and not self._closing:
            self._notify()

    def close(self) -> None:
        """Close both directions, after what was written has gone out."""
        if self._closing:
            return
        self._notify()
        self._closing = True
        if self._raw is not None:
            self._raw.close()

    def abort(self) -> None:
        """Close at once."""
        self._closing = True
        if self._raw is not None:
            self._raw.abort()

    def is_closing(self) -> bool:
        """Say whether it is closed or about to be."""
        return self._closing

    def pause_reading(self) -> None:
        """Take no more from the peer."""
        self._paused = True
        if self._raw is not None and not self._raw.is_closing():
            self._raw.pause_reading()

    def resume_reading(self) -> None:
        """Go on."""
        if not self._paused:
            return
        self._paused = False
        if self._raw is not None and not self._raw.is_closing():
            self._raw.resume_reading()
            if self._incoming.pending or self.ssl.pending():
                asyncio.get_running_loop().call_soon(self._go_on)

    def is_reading(self) -> bool:
        """Say whether octets are taken from the peer."""
        return not self._paused and not self._closing

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set when `pause_writing` is called, in octets below TLS."""
        if self._raw is not None:
            self._raw.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        """Return octets not sent yet."""
        return 0 if self._raw is None else self._raw.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what the transport below knows, and `alpn`, the protocol agreed on."""
        if name == "alpn":
            return self.ssl.selected_alpn_protocol()
        return default if self._raw is None else self._raw.get_extra_info(name, default)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol above."""
        assert self._app is not None
        return self._app

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Put another protocol above."""
        assert isinstance(protocol, asyncio.Protocol)
        self._app = protocol

    # Inside:

    def _handshake(self) -> None:
        assert self._raw is not None
        try:
            self.ssl.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            if self._verifying is not None:  # our own certificate is out: see `ServerTls`
                self.ssl.context, self._verifying = self._verifying, None
            return
        except ssl.SSLError as error:
            self._flush()  # the alert that tells the peer why
            self._fail(refusal(error))
            return
        self._ready = True
        on_ready = self._on_ready
        del self._on_ready, self._on_failed  # who made us holds us: a cycle
        app = on_ready(self)
        if app is None:
            self.close()
            return
        self._app = app
        app.connection_made(self)
        if self._outgoing.pending:  # the last of the handshake, unless it went with the first data
            self._flush()
        if self._incoming.pending or self.ssl.pending():
            self._pump()

    def _go_on(self) -> None:
        if not self._closing:
            self._pump()

    def _pump(self) -> None:
        """Hand on what has come, as far as the protocol above wants it."""
        read, incoming = self.ssl.read, self._incoming
        while not self._paused and not self._closing and self._app is not None:
            pieces = []
            eof = False
            try:
                while True:
                    pieces.append(read(READ_SIZE))
                    if not pieces[-1]:
                        pieces.pop()
                        eof = True
                        break
                    if (not incoming.pending and not self.ssl.pending()) or len(pieces) >= 16:
                        break
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLZeroReturnError:
                eof = True
            except ssl.SSLError as error:
                if pieces:
                    self._app.data_received(b"".join(pieces))
                self._broken(error)
                return
            if self._outgoing.pending:
                self._flush()
            if pieces:
                self._app.data_received(pieces[0] if len(pieces) == 1 else b"".join(pieces))
            if eof:
                if not self._app_eof() and not self._closing:
                    self.close()
                return
            if len(pieces) < 16:
                return

    def _app_eof(self) -> bool:
        if self._eof or self._app is None:
            return False
        self._eof = True
        return bool(self._app.eof_received())

    def _notify(self) -> None:
        """Write our close_notify (RFC 8446 §6.1)."""
        if self._shut or not self._ready:
            return
        self._shut = True
        try:
            self.ssl.unwrap()
        except ssl.SSLError:
            pass  # it wants the peer's close_notify, for which we do not wait here
        except OSError:
            return
        self._flush()

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data and self._raw is not None and not self._raw.is_closing():
            self._raw.write(data)

    def _fail(self, error: IdentityError) -> None:
        if self._ready:
            return
        self._ready = True
        self._closing = True
        if self._raw is not None:
            self._raw.close()
        on_failed = self._on_failed
        del self._on_ready, self._on_failed
        on_failed(error)

    def _broken(self, error: ssl.SSLError) -> None:
        """A record that is none, or an alert: for a client, often why our certificate was refused."""
        reason = (error.reason or "broken record").lower().replace("_", " ")
        self._closing = True
        app, self._app = self._app, None
        if self._raw is not None:
            self._raw.abort()
        if app is not None:
            app.connection_lost(IdentityError("upstream-tls-failed", reason))
