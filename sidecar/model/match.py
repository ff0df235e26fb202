"""Conditions on texts and on requests."""

from typing import ClassVar

from sidecar.model.base import Model, Percent, Port


class StringMatch(Model, frozen=True, kw_only=True):
    """A condition on one text (Envoy: type.matcher.v3.StringMatcher); exactly one kind is given."""

    SHORT: ClassVar[str] = "exact"

    exact: str | None = None
    """The text is this, letter for letter."""

    prefix: str | None = None
    """The text begins with this."""

    suffix: str | None = None
    """The text ends with this."""

    regex: str | None = None
    """The whole text matches this RE2 pattern (linear time, so no look-around)."""

    present: bool | None = None
    """True: it is there, whatever its value; false: it is absent."""

    invert: bool = False
    """Turn the answer around."""


class RouteMatch(Model, frozen=True, kw_only=True):
    """What a request must have for the route to take it; all that is given must hold."""

    hosts: tuple[str, ...] = ()
    """Host names, without port: exact, `*.example.org` for any name below it, or `*`. Empty: any."""

    path: str | None = None
    """The whole path, without the query."""

    prefix: str | None = None
    """The path begins with this, by segments: `/api` takes `/api` and `/api/x`, not `/apix`."""

    regex: str | None = None
    """The whole path, without the query, matches this RE2 pattern."""

    template: str | None = None
    """The whole path, without the query, by segments: `*` or `{name}` stands for one, `**` or `{name=**}` for any
    number at the end: `/users/{id}/orders/**`."""

    methods: tuple[str, ...] = ()
    """Request methods, in capitals. Empty: any."""

    headers: dict[str, StringMatch] = {}
    """Conditions on request fields, by name; a repeated field is joined with `, ` first."""

    query: dict[str, StringMatch] = {}
    """Conditions on query parameters, by name; percent-decoded, the first of each name counts."""

    cookies: dict[str, StringMatch] = {}
    """Conditions on cookies of the request, by name; the first of each name counts."""

    peer: StringMatch | None = None
    """Condition on the caller's identity, its SPIFFE ID; absent where it showed no certificate."""

    ports: tuple[Port, ...] = ()
    """Ports that the caller has connected to. Empty: any."""

    percent: Percent = 100.0
    """The share of requests that the route takes of those that match, drawn anew for each; the rest goes on to
    the next route (Envoy: runtime_fraction)."""

    sni: tuple[str, ...] = ()
    """For `protocol: tcp`: server names in the caller's TLS hello; same forms as `hosts`."""
