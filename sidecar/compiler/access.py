"""Which filters keep a listener and its routes from those who may not use them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from sidecar.compiler.authorization import (
    Ground,
    authorization_filter,
    wants_server_names,
)
from sidecar.compiler.context import Context
from sidecar.compiler.credentials import api_keys_filter, basic_auth_filter
from sidecar.compiler.jwt import jwt_filter
from sidecar.compiler.patterns import PathTest, path_test
from sidecar.core.api import HttpFilter, NetworkFilter
from sidecar.errors import ConfigError
from sidecar.filters import external_authorization, path_guard, requests_only
from sidecar.model.listener import Listener
from sidecar.model.route import Route
from sidecar.model.snapshot import Snapshot
from sidecar.wire.path import READS


@dataclass(frozen=True, slots=True)
class Access:
    """The policy of a listener."""

    ground: Ground
    """What it stands on."""

    filters: tuple[HttpFilter, ...]
    """What it asks of every request."""

    external: external_authorization.ExternalAuthorization | None = None
    """Who is asked after that, on routes that do not say it themselves."""


VERIFIED: Final = ("jwt", "api_keys", "basic_auth")
"""Fields of listeners and routes by which requests show who sends them."""

OPEN: Final = Access(Ground(), ())


def access_filters(
    holder: Listener | Route, path: str, ground: Ground, context: Context
) -> tuple[HttpFilter, ...]:
    """Return the filters of a listener or route, in the order in which they are asked."""
    found: list[HttpFilter] = []
    for kind in VERIFIED:
        model = getattr(holder, kind)
        where = f"{path}.{kind}"
        if model is not None and kind in ground.taken:
            detail = f"comes too late: the listener's `{kind}` takes it out (set its `forward`)"
            context.errors.append(ConfigError(where, detail))
        if model is not None and ground.is_tcp and isinstance(holder, Listener):
            context.errors.append(ConfigError(where, "a tcp listener sees no requests"))
    if holder.jwt is not None:
        found.append(jwt_filter(holder.jwt, f"{path}.jwt", context))
    if holder.api_keys is not None:
        found.append(api_keys_filter(holder.api_keys, f"{path}.api_keys", context))
    if holder.basic_auth is not None:
        found.append(basic_auth_filter(holder.basic_auth, f"{path}.basic_auth", context))
    if holder.authorization:
        rules = holder.authorization
        where = f"{path}.authorization"
        found.append(authorization_filter(rules, where, knows(ground, holder), context.errors))
    return tuple(found)


def knows(ground: Ground, holder: Listener | Route) -> Ground:
    """Return `ground` with what `holder` has verified of its requests."""
    models = {kind: getattr(holder, kind) for kind in VERIFIED}
    taken = {kind for kind, model in models.items() if model is not None and not model.forward}
    return replace(
        ground,
        has_claims=ground.has_claims or holder.jwt is not None,
        has_users=ground.has_users or bool(holder.api_keys or holder.basic_auth),
        taken=ground.taken | taken,
    )


def session_filters(listener: Listener, access: Access) -> list[NetworkFilter]:
    """Return what opaque sessions are asked."""
    found: list[NetworkFilter] = [s for s in access.filters if isinstance(s, NetworkFilter)]
    checks = _verifies(listener) or access.external is not None
    if listener.protocol == "auto" and (checks or any(map(has_policy, listener.routes))):
        found.append(requests_only.RequestsOnly(requests_only.Settings()))
    return found


def has_policy(route: Route) -> bool:
    """Say whether it matters for who may do what that a request takes this route and no other."""
    asks = _verifies(route) or route.external_authorization is not None
    return asks or bool(route.authorization)


def _verifies(holder: Listener | Route) -> bool:
    return any(getattr(holder, kind) is not None for kind in VERIFIED)


def path_guards(routes: tuple[Route, ...], ground: Ground) -> list[HttpFilter | None]:
    """Return the guard of each route, where some routes have a policy and are found by path."""
    tests: list[PathTest] = []
    found: list[HttpFilter | None] = []
    guarded = any(map(has_policy, routes))
    read = READS[ground.ambiguous_paths]
    for route in routes:
        test = path_test(route.match, "", [])  # what is wrong is told where it is matched by
        if test is not None:
            tests.append(test)
        found.append(None)
        if guarded:
            found[-1] = path_guard.PathGuard(path_guard.Settings(read, tuple(tests)))
    return found if tests else [None] * len(routes)


def named_files(snapshot: Snapshot) -> list[tuple[str, str]]:
    """Return the files that policies name, each with the place that names it."""
    found = []
    for role in ("inbound", "outbound"):
        for index, listener in enumerate(getattr(snapshot, role)):
            path = f"{role}[{index}]"
            found += _files(listener, path)
            for number, route in enumerate(listener.routes):
                found += _files(route, f"{path}.routes[{number}]")
    return found


def _files(holder: Listener | Route, path: str) -> list[tuple[str, str]]:
    found = []
    if holder.jwt is not None:
        for index, issuer in enumerate(holder.jwt.issuers):
            for kind in ("jwks_file", "secret_file"):
                file = getattr(issuer, kind)
                if file:
                    found.append((f"{path}.jwt.issuers[{index}].{kind}", file))
    for kind in ("api_keys", "basic_auth"):
        model = getattr(holder, kind)
        if model is not None:
            found.append((f"{path}.{kind}.file", model.file))
    return found


def notes_names(snapshot: Snapshot) -> bool:
    """Say whether inbound listeners must note the server names of TLS hellos."""
    holders: list[Listener | Route] = []
    for listener in snapshot.inbound:
        holders += [listener, *listener.routes]
    return any(wants_server_names(holder.authorization) for holder in holders)
