"""How HTTP/2 is spoken."""

from typing import Annotated, Literal

from msgspec import Meta

from sidecar.model.base import Duration, Model

Streams = Annotated[int, Meta(ge=1, le=2147483647)]
"""Streams of one connection."""

Window = Annotated[int, Meta(ge=65535, le=2147483647, extra={"unit": "size"})]
"""Octets of a flow-control window; a file may write `256KiB`."""


class Http2(Model, frozen=True, kw_only=True):
    """HTTP/2 on one side (Envoy: Http2ProtocolOptions)."""

    max_concurrent_streams: Streams = 100
    """Requests at once on one connection. On a cluster the endpoint's own limit counts as well."""

    stream_window: Window = 262144
    """Octets of body that the other end may send ahead of a slow reader, per request."""

    keepalive: Duration = 0.0
    """Clusters: seconds of silence, while requests are under way, before the endpoint is sent a PING; one that
    does not answer is given up. 0: none, but 10 s towards another sidecar (gRPC servers refuse frequent PINGs)."""

    keepalive_timeout: Duration = 10.0
    """Seconds that the answer to a PING may take."""

    huffman: bool = False
    """Huffman-code what is sent: some octets fewer on the wire for more CPU at both ends."""

    codec: Literal["own", "reference"] = "own"
    """What reads and writes the frames: our own code, or the h2 library, which costs several times the CPU. To fall
    back on, should a peer and our own code not understand each other."""
