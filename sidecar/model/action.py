"""What else a route does with a request than sending it on as it came."""

from typing import Annotated, Literal

from msgspec import Meta

from sidecar.model.base import Duration, Model, Port
from sidecar.model.match import StringMatch

AnswerStatus = Annotated[int, Meta(ge=200, le=599)]
"""A final response code of HTTP."""


class RegexRewrite(Model, frozen=True, kw_only=True):
    """Every match of a pattern in the path, replaced (Envoy: RegexMatchAndSubstitute)."""

    pattern: str
    """An RE2 pattern, sought in the path without its query."""

    substitution: str
    r"""What takes the place of a match; `\1` is its first group."""


class Rewrite(Model, frozen=True, kw_only=True):
    """Another path or host for the endpoint; the path as it came goes along as `x-envoy-original-path`."""

    path: str | None = None
    """The whole new path; the query stays. At most one of `path`, `prefix` and `regex` is given."""

    prefix: str | None = None
    """What takes the place of the match's `prefix` (or `path`): with `/api` and `/`, `/api/x` becomes `/x`."""

    regex: RegexRewrite | None = None
    """A pattern and its substitution."""

    host: str = ""
    """The new host, with its port if any. Empty: as the caller named it."""


class Redirect(Model, frozen=True, kw_only=True):
    """Another place for the caller to go to (Envoy: RedirectAction); what is not given stays."""

    status: Literal[301, 302, 303, 307, 308] = 301
    """301 and 308: for good; 307 and 308 keep the method."""

    scheme: Literal["http", "https"] | None = None
    """The new scheme."""

    host: str = ""
    """The new host, without port."""

    port: Port | None = None
    """The new port. None: as it was, or the scheme's own where scheme or host is new."""

    path: str | None = None
    """The whole new path. At most one of `path`, `prefix` and `regex` is given."""

    prefix: str | None = None
    """What takes the place of the match's `prefix` (or `path`)."""

    regex: RegexRewrite | None = None
    """A pattern and its substitution."""

    strip_query: bool = False
    """Leave the query out."""


class Respond(Model, frozen=True, kw_only=True):
    """An answer of our own (Envoy: DirectResponseAction)."""

    status: AnswerStatus = 200
    """Its code."""

    body: str = ""
    """Its body; plain text unless `headers` has a `content-type`."""

    headers: dict[str, str] = {}
    """Its fields."""


class HeaderEdit(Model, frozen=True, kw_only=True):
    """Fields removed, then set, then added.

    Values may hold `%REQUEST_ID%`, `%PEER_IDENTITY%` (or `%DOWNSTREAM_PEER_URI_SAN%`), `%START_TIME%`,
    `%TRACE_ID%`, `%PROTOCOL%`, `%ROUTE_NAME%`, `%DOWNSTREAM_REMOTE_ADDRESS%` (and `..._WITHOUT_PORT`),
    `%DOWNSTREAM_LOCAL_PORT%`, `%DOWNSTREAM_LOCAL_URI_SAN%`, `%DOWNSTREAM_PEER_FINGERPRINT_256%`, `%REQ(name)%`; on
    responses also `%RESP(name)%`, `%RESPONSE_CODE%`, `%RESPONSE_FLAGS%`, `%UPSTREAM_CLUSTER%`, `%UPSTREAM_HOST%`.
    What is absent is filled in as `-`; `%%` is the sign itself. Fields that frame a message cannot be edited.
    """

    set: dict[str, str] = {}
    """Fields by name, in place of any of that name."""

    add: dict[str, str] = {}
    """Fields by name, behind those of that name."""

    remove: tuple[str, ...] = ()
    """Names of fields."""


class Cors(Model, frozen=True, kw_only=True):
    """Who may read answers from a page of another origin (Envoy: CorsPolicy).

    Preflights of an allowed origin are answered by the sidecar, so the route must match the method OPTIONS.
    """

    origins: tuple[StringMatch, ...]
    """Allowed origins, like `https://shop.example.org`."""

    methods: tuple[str, ...] = ("GET", "HEAD", "POST")
    """Allowed methods."""

    headers: tuple[str, ...] = ()
    """Allowed request fields besides those that are always allowed."""

    expose: tuple[str, ...] = ()
    """Response fields that the page may read besides those that it always may."""

    max_age: Duration | None = None
    """Seconds for which a browser remembers a preflight. None: the browser's own."""

    credentials: bool = False
    """Whether cookies and authentication may come along."""
