"""Every protocol is one more pair of the two interfaces by which an exchange speaks."""

import pytest

from sidecar.core.http1_client import Http1Client
from sidecar.core.http1_server import Http1Server
from sidecar.core.http2_attempt import Http2Attempt
from sidecar.core.http2_server import Http2Side
from sidecar.core.sides import Downstream, Upstream


@pytest.mark.parametrize(
    ("side", "kind"),
    [
        (Downstream, Http1Server),
        (Downstream, Http2Side),
        (Upstream, Http1Client),
        (Upstream, Http2Attempt),
    ],
)
def test_a_side_has_all_that_an_exchange_says(side: type, kind: type) -> None:
    words = {name for name in vars(side) if not name.startswith("_")}
    assert len(words) > 5
    assert words <= set(dir(kind))
