"""Who may do what: rules on callers and on what they ask."""

from typing import ClassVar, Literal

from sidecar.model.base import Model, Port
from sidecar.model.match import StringMatch


class PathMatch(Model, frozen=True, kw_only=True):
    """A condition on the path, without its query; exactly one kind is given.

    The path is looked at in its normal form (see the listener's `ambiguous_paths`): `/%61` is `/a`, `/é` is `/%C3%A9`.
    """

    SHORT: ClassVar[str] = "path"

    path: str | None = None
    """The whole path is this."""

    prefix: str | None = None
    """It begins with this, by segments: `/api` takes `/api` and `/api/x`, not `/apix`."""

    template: str | None = None
    """By segments: `*` or `{name}` stands for one, `**` or `{name=**}` for any number at the end."""

    regex: str | None = None
    """The whole path matches this RE2 pattern."""


class AccessMatch(Model, frozen=True, kw_only=True):
    """A condition on a caller and what it asks; of each list one must hold, and all that are given (Istio: Rule).

    `identities` to `server_names` are about the connection, the others about requests.
    """

    identities: tuple[StringMatch, ...] = ()
    """The caller's SPIFFE ID, whole or by `prefix`, `suffix`, `regex`; `{present: false}` is a caller without a certificate."""

    namespaces: tuple[str, ...] = ()
    """The name space in its SPIFFE ID: `shop` of `spiffe://example.org/ns/shop/sa/web`."""

    trust_domains: tuple[str, ...] = ()
    """The trust domain of its SPIFFE ID. The listener's `allow` decides first which ones may connect."""

    sources: tuple[str, ...] = ()
    """Its address: `10.0.0.0/8`, `2001:db8::/32`, or one address. With PROXY protocol, the one that the header names."""

    ports: tuple[Port, ...] = ()
    """The port that it has connected to."""

    server_names: tuple[str, ...] = ()
    """The name in its TLS hello (SNI): exact, or `*.example.org` for any name below it."""

    hosts: tuple[str, ...] = ()
    """Host that it asks for, without port: exact, or `*.example.org` for any name below it."""

    methods: tuple[str, ...] = ()
    """Request methods, in capitals."""

    paths: tuple[PathMatch, ...] = ()
    """Paths; a bare text is the whole path."""

    headers: dict[str, StringMatch] = {}
    """Conditions on request fields, by name: all must hold. A repeated field is joined with `, ` first."""

    claims: dict[str, StringMatch] = {}
    """Conditions on claims of the verified token, by name, with dots into objects (`realm.tenant`): all must hold. Of a
    list, and of `scope`, one element must; numbers and truth values are compared as JSON writes them."""

    users: tuple[StringMatch, ...] = ()
    """The name that an API key or a password was found under."""


class AuthorizationRule(Model, frozen=True, kw_only=True):
    """One rule. A request that a `deny` rule matches is refused; if there are `allow` rules, one must match it.

    The rules of a listener and those of the route are decided apart, and both must let the request through. Conditions
    on requests cannot be seen on opaque sessions: there an `allow` rule that has one matches nothing, and a `deny` rule
    matches by its other conditions alone.
    """

    name: str = ""
    """Its name in log, metrics and reply. Empty: its place, `authorization[0]`."""

    action: Literal["allow", "deny"]
    """What becomes of what it matches."""

    match: AccessMatch = AccessMatch()
    """What it matches. Empty: everything."""

    unless: AccessMatch | None = None
    """Exceptions: what this matches as well, the rule does not."""

    shadow: bool = False
    """Decide nothing; count (`sidecar_authorization_shadow_total`) and log (`authorization_shadow`) where the decision
    would have been another with this rule."""
