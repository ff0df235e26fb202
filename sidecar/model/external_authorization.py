"""Who else is asked whether a request may pass."""

from typing import Annotated, ClassVar

from msgspec import Meta

from sidecar.model.action import AnswerStatus
from sidecar.model.base import Model, Timeout
from sidecar.model.match import StringMatch


class HttpAuthorizer(Model, frozen=True, kw_only=True):
    """A service that is asked by HTTP (Envoy: ext_authz HttpService).

    It gets the request's method, host, path and `authorization`, and no body unless `request_body` is given. 200 allows; a
    5xx is a failure of the service; with any other status the caller is refused by that status and the service's body.
    """

    SHORT: ClassVar[str] = "cluster"

    cluster: str
    """Who is asked."""

    path_prefix: str = ""
    """What the path has in front of it there."""

    headers_to_add: dict[str, str] = {}
    """Fields of the question besides the request's."""

    allowed_upstream_headers: tuple[StringMatch, ...] = ()
    """Names of fields that the service may set on a request that it allows. Where the caller has sent such a field it is
    taken out, so that nobody else can say what the service is to say."""

    allowed_client_headers: tuple[StringMatch, ...] = ()
    """Names of the service's fields that go to a caller that is refused, besides `content-type`, `location`, `retry-after`,
    `set-cookie`, `proxy-authenticate` and `www-authenticate`."""

    allowed_client_headers_on_success: tuple[StringMatch, ...] = ()
    """Names of the service's fields that go to a caller that is allowed, with the endpoint's response."""


class GrpcAuthorizer(Model, frozen=True, kw_only=True):
    """A service that speaks `envoy.service.auth.v3.Authorization`.

    It is told both ends with their identities, the time, and the request's head; its changes to fields are made. What it
    says of query parameters and dynamic metadata is passed over.
    """

    SHORT: ClassVar[str] = "cluster"

    cluster: str
    """Who is asked; it speaks HTTP/2 (`protocol: http2` where there is no TLS)."""

    authority: str = ""
    """The host that is named. Empty: the cluster's name."""

    context_extensions: dict[str, str] = {}
    """What the service is told besides, with each request."""


class RequestBody(Model, frozen=True, kw_only=True):
    """How much of a body is shown to the service (Envoy: BufferSettings)."""

    SHORT: ClassVar[str] = "max_request_bytes"

    max_request_bytes: Annotated[int, Meta(ge=1, extra={"unit": "size"})] = 8192
    """Octets, at most. The request waits until they are there."""

    allow_partial_message: bool = False
    """Of a longer body show the beginning (`x-envoy-auth-partial-body: true`). Else it is answered 413."""


class ExternalAuthorization(Model, frozen=True, kw_only=True):
    """A service that is asked about every request before it goes on (Envoy: ext_authz); flag UAEX for what it refuses.

    It is asked after our own rules of access and before quotas.
    """

    enabled: bool = True
    """`{enabled: false}` on a route turns the listener's off there."""

    http: HttpAuthorizer | None = None
    """Asked by HTTP. Exactly one of `http` and `grpc` is given."""

    grpc: GrpcAuthorizer | None = None
    """Asked by gRPC."""

    timeout: Timeout = 0.2
    """Seconds for an answer, tries included; in steps of 10 ms."""

    failure_mode_allow: bool = False
    """What becomes of requests when the service does not answer, or with an error. False: they are answered `status_on_error`.
    True: they pass."""

    status_on_error: AnswerStatus = 403
    """The answer then."""

    allowed_headers: tuple[StringMatch, ...] = ()
    """Names of the request's fields that the service gets. Empty: over gRPC all of them, over HTTP none besides
    `authorization`."""

    request_body: RequestBody | None = None
    """Show it the body as well. None: it sees the head alone, and the body need not wait."""
