"""Does a proxy give back what the origin said?  Asked once per subject and case, before any round.

A proxy that answers by itself, cuts bodies or mixes them up would be fast; such a case is void.
"""

import http.client
import socket
import ssl
from pathlib import Path
from typing import Final

import h2.config
import h2.connection
import h2.events
import h2.exceptions

from benchmarks.load.scenarios import Case
from benchmarks.load.tools import GRPC_FIELDS

WAIT: Final = 10.0
Answer = tuple[int, bytes, bytes]
"""Status, body, and the `grpc-status` of a gRPC call."""


def difference(case: Case, port: int, origin: Answer) -> str:
    """Return how the answer at `port` differs from the origin's, or nothing."""
    try:
        got = ask_http1(case, port) if case.load.tool == "wrk" else ask_http2(case, port)
    except (OSError, http.client.HTTPException, h2.exceptions.ProtocolError) as error:
        return f"no answer: {error!r}"
    if got[0] != 200:
        return f"status {got[0]}"
    if got[1] != origin[1]:
        return f"the body is another: {len(got[1])} octets, the origin's {len(origin[1])}"
    if got[2] != origin[2]:
        return f"grpc-status {got[2]!r}, the origin's {origin[2]!r}"
    return ""


def from_origin(case: Case, port: int, directory: Path) -> Answer:
    """Return what the origin itself answers.

    Raises: OSError, or what the protocols raise: there is nothing to measure then.
    """
    if case.origin == "http1":
        return ask_http1(case, port, is_origin=True)
    context = None
    if case.origin == "mtls-http2":
        tls = directory / "tls"
        context = ssl.create_default_context(cafile=str(tls / "roots.pem"))
        context.check_hostname = False
        context.load_cert_chain(tls / "web.pem", tls / "web.key")
        context.set_alpn_protocols(["h2"])
    return ask_http2(case, port, context)


def ask_http1(case: Case, port: int, *, is_origin: bool = False) -> Answer:
    """Ask once over HTTP/1.1."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT)
    if case.load.tls and not is_origin:
        # Not verified: the certificate is the harness's own, for a workload and not for 127.0.0.1.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=WAIT, context=context)
    try:
        connection.request("GET", case.load.path)
        answer = connection.getresponse()
        return answer.status, answer.read(), b""
    finally:
        connection.close()


def ask_http2(case: Case, port: int, context: ssl.SSLContext | None = None) -> Answer:
    """Ask once over HTTP/2, with a message where it is gRPC."""
    codec = h2.connection.H2Connection(h2.config.H2Configuration())
    codec.initiate_connection()
    grpc = case.load.grpc
    pseudo = ((":method", "POST" if grpc else "GET"), (":scheme", "http"),
              (":authority", "127.0.0.1"), (":path", case.load.path))  # fmt: skip
    codec.send_headers(1, [*pseudo, *(GRPC_FIELDS if grpc else ())], end_stream=not grpc)
    if grpc:
        codec.send_data(1, b"\x00\x00\x00\x00\x01m", end_stream=True)
    with socket.create_connection(("127.0.0.1", port), timeout=WAIT) as plain:
        sock = plain if context is None else context.wrap_socket(plain)
        try:
            return exchanged(codec, sock)
        finally:
            sock.close()


def exchanged(codec: h2.connection.H2Connection, sock: socket.socket) -> Answer:
    """Send what is ready and read until the answer's end."""
    status, body, grpc_status = 0, b"", b""
    while True:
        sock.sendall(codec.data_to_send())
        data = sock.recv(262144)
        if not data:
            raise ConnectionError("closed before the answer's end")
        for event in codec.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                fields = dict(event.headers)
                status = int(fields.get(b":status", status))
                grpc_status = fields.get(b"grpc-status", grpc_status)
            elif isinstance(event, h2.events.DataReceived):
                body += event.data
                codec.acknowledge_received_data(event.flow_controlled_length, 1)
            elif isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated):
                raise ConnectionError(f"reset: {event.error_code}")
            elif isinstance(event, h2.events.StreamEnded):
                return status, body, grpc_status
