"""Mirrors of a route, as its filters."""

import re
from typing import Final

from sidecar.compiler.context import Context
from sidecar.core.api import HttpFilter
from sidecar.errors import ConfigError
from sidecar.filters import mirror
from sidecar.model.route import Route

_SUFFIX: Final = re.compile(r"[A-Za-z0-9._-]*")


def mirror_filters(route: Route, path: str, context: Context) -> list[HttpFilter]:
    """Return a filter for each mirror of `route`; they are asked after all that may change it."""
    found: list[HttpFilter] = []
    if route.mirror and (route.redirect is not None or route.respond is not None):
        context.errors.append(ConfigError(f"{path}.mirror", "nothing is sent on by this route"))
    for index, model in enumerate(route.mirror):
        where = f"{path}.mirror[{index}]"
        if not _SUFFIX.fullmatch(model.host_suffix):
            detail = f"expected part of a host name, got {model.host_suffix!r}"
            context.errors.append(ConfigError(f"{where}.host_suffix", detail))
        call = context.call(
            "mirror", model.cluster, f"{where}.cluster", model.timeout, keeps=-1, attempts=1
        )
        if call is not None:
            settings = mirror.Settings(
                call,
                model.percent / 100,
                model.max_body,
                model.max_active,
                model.host_suffix.encode(),
            )
            found.append(mirror.Mirror(settings))
    return found
