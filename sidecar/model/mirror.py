"""Copies of requests that nobody waits for."""

from typing import Annotated, ClassVar

from msgspec import Meta

from sidecar.model.base import Model, Percent, Size, Timeout


class Mirror(Model, frozen=True, kw_only=True):
    """A copy of a share of the requests for another cluster (Envoy: RequestMirrorPolicy); its answer is thrown away.

    It is sent once the request is whole, as the route's edits have left it, and never delays or fails the request. With an
    answer of ours in place of the endpoint's, by a filter before, there is no copy.
    """

    SHORT: ClassVar[str] = "cluster"

    cluster: str
    """Where it goes."""

    percent: Percent = 100.0
    """The share of requests that are copied."""

    max_body: Size = 65536
    """Octets of a request's body; a request with a longer one is not copied (`sidecar_mirror_skipped_total`)."""

    max_active: Annotated[int, Meta(ge=1)] = 100
    """Copies under way at once, per worker; one more request is not copied, so that a cluster that hangs takes no memory."""

    timeout: Timeout = 15.0
    """Seconds for one copy, until its answer is whole."""

    host_suffix: str = "-shadow"
    """What the copy's host has behind its name, before the port, so that logs tell it from the request. Empty: nothing."""
