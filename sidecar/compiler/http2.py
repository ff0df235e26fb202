"""HTTP/2 options to how a connection is made."""

from functools import cache

from sidecar.core.plan import Codec, Http2Plan
from sidecar.model.http2 import Http2
from sidecar.wire.http2 import Link


@cache
def http2_plan(options: Http2) -> Http2Plan:
    """Return the plan of `options`; equal options share one."""
    return Http2Plan(
        _reference() if options.codec == "reference" else Link,
        max_streams=options.max_concurrent_streams,
        window=options.stream_window,
        keepalive=options.keepalive,
        keepalive_timeout=options.keepalive_timeout,
        huffman=options.huffman,
    )


def _reference() -> Codec:
    # Not at the top: h2 costs every worker memory, and only those that choose it need it.
    from sidecar.wire.http2_reference import ReferenceLink  # noqa: PLC0415

    return ReferenceLink
