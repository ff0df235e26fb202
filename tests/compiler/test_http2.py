"""HTTP/2 options: every one reaches the plan, equal ones share it."""

import pytest

from sidecar.compiler.http2 import http2_plan
from sidecar.core.plan import Codec
from sidecar.model.http2 import Http2
from sidecar.wire.http2 import Link
from sidecar.wire.http2_reference import ReferenceLink


@pytest.mark.parametrize(
    ("options", "codec"),
    [(Http2(), Link), (Http2(codec="own"), Link), (Http2(codec="reference"), ReferenceLink)],
)
def test_the_codec_is_the_one_that_is_chosen(options: Http2, codec: Codec) -> None:
    assert http2_plan(options).codec is codec


def test_every_option_reaches_the_plan() -> None:
    plan = http2_plan(
        Http2(
            max_concurrent_streams=7,
            stream_window=70_000,
            keepalive=3.0,
            keepalive_timeout=4.0,
            huffman=True,
        )
    )
    assert (plan.max_streams, plan.window, plan.huffman) == (7, 70_000, True)
    assert (plan.keepalive, plan.keepalive_timeout) == (3.0, 4.0)


def test_equal_options_share_one_plan() -> None:
    assert http2_plan(Http2(huffman=True)) is http2_plan(Http2(huffman=True))
    assert http2_plan(Http2()) is not http2_plan(Http2(huffman=True))
