"""HTTP/2 options to how a connection is made."""

from functools import cache

from sidecar.core.plan import Http2Plan
from sidecar.model.http2 import Http2
from sidecar.wire.http2 import Link


@cache
def http2_plan(options: Http2) -> Http2Plan:
    """Return the plan of `options`; equal options share one."""
    return Http2Plan(
        Link,
        max_streams=options.max_concurrent_streams,
        window=options.stream_window,
        keepalive=options.keepalive,
        keepalive_timeout=options.keepalive_timeout,
        huffman=options.huffman,
    )
