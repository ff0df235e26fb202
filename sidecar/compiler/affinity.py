"""A route's hash policy to what is looked at per request."""

import re
from typing import Final

from sidecar.core.affinity import (
    AffinityCookie,
    CookieKey,
    HashKey,
    HeaderKey,
    QueryKey,
    SourceKey,
)
from sidecar.core.api import HttpFilter
from sidecar.core.plan import ClusterPlan
from sidecar.errors import ConfigError
from sidecar.model.balancing import HashCookie, HashPolicy
from sidecar.model.route import Route

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 §5.6.2, of cookies RFC 6265
_PATH: Final = re.compile(r"/[!-:<-~]*")  # no space and no semicolon
_KINDS: Final = ("header", "cookie", "query_parameter", "source_ip")


def hash_policy(
    route: Route,
    path: str,
    shares: tuple[tuple[int, ClusterPlan], ...],
    errors: list[ConfigError],
) -> tuple[tuple[HashKey, ...], tuple[HttpFilter, ...]]:
    """Return the keys of `route`'s policy, and the filters that give cookies."""
    keys: list[HashKey] = []
    cookies: list[HttpFilter] = []
    where = f"{path}.hash_policy"
    if route.hash_policy and not any(c.balancer.has_affinity for _, c in shares):
        names = ", ".join(cluster.name for _, cluster in shares)
        errors.append(
            ConfigError(where, f"needs a cluster with balancer ring_hash or maglev; got {names}")
        )
    for index, policy in enumerate(route.hash_policy):
        place = f"{where}[{index}]"
        given = [kind for kind in _KINDS if getattr(policy, kind)]
        if len(given) != 1:
            text = f"expected exactly one of {', '.join(_KINDS)}; got {given}"
            errors.append(ConfigError(place, text))
        elif policy.cookie is not None:
            key = _cookie(policy.cookie, f"{place}.cookie", policy, errors)
            keys.append(key)
            if policy.cookie.ttl is not None:
                cookie = policy.cookie
                name = cookie.name.encode()
                cookies.append(AffinityCookie(name, key, cookie.ttl or 0.0, cookie.path))
        else:
            keys.append(_key(policy, f"{place}.header", errors))
    return tuple(keys), tuple(cookies)


def _key(policy: HashPolicy, path: str, errors: list[ConfigError]) -> HashKey:
    if policy.query_parameter:
        return QueryKey(policy.query_parameter, terminal=policy.terminal)
    if policy.source_ip:
        return SourceKey(terminal=policy.terminal)
    _check_name(policy.header, "field", path, errors)
    return HeaderKey(policy.header.lower().encode(), terminal=policy.terminal)


def _cookie(
    cookie: HashCookie, path: str, policy: HashPolicy, errors: list[ConfigError]
) -> CookieKey:
    _check_name(cookie.name, "cookie", f"{path}.name", errors)
    if not _PATH.fullmatch(cookie.path):
        errors.append(
            ConfigError(f"{path}.path", f"expected a path from / on, got {cookie.path!r}")
        )
    return CookieKey(
        cookie.name.encode(), generated=cookie.ttl is not None, terminal=policy.terminal
    )


def _check_name(name: str, what: str, path: str, errors: list[ConfigError]) -> None:
    if not _TOKEN.fullmatch(name):
        errors.append(ConfigError(path, f"no {what} can be called {name!r}"))
