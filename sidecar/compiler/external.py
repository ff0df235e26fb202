"""The service that is asked whether a request may pass, as a filter."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from sidecar.compiler.actions import check_field
from sidecar.compiler.context import Context
from sidecar.compiler.fields import text_test
from sidecar.errors import ConfigError
from sidecar.filters import external_authorization as filters
from sidecar.model import external_authorization as model
from sidecar.model.match import StringMatch
from sidecar.model.route import Route
from sidecar.wire.edits import FRAMING

PURPOSE: Final = "ext_authz"


def external_authorization_filter(
    said: model.ExternalAuthorization | None, path: str, context: Context
) -> filters.ExternalAuthorization | None:
    """Return the filter, or None where nobody is asked."""
    if said is None or not said.enabled:
        return None
    errors = context.errors
    if (said.http is None) == (said.grpc is None):
        errors.append(ConfigError(path, "expected exactly one of http and grpc"))
        return None
    told = _named(said.allowed_headers, f"{path}.allowed_headers", errors)
    if said.http is not None:
        kind, cluster = "http", said.http.cluster
    else:
        assert said.grpc is not None
        kind, cluster = "grpc", said.grpc.cluster
    call = context.call(
        PURPOSE, cluster, f"{path}.{kind}.cluster", said.timeout,
        repeatable=True, grpc=kind == "grpc",
    )  # fmt: skip
    service: filters.Service
    if said.http is not None:
        service = _http(said.http, told, f"{path}.http", errors)
    else:
        assert said.grpc is not None
        service = filters.GrpcService(
            (said.grpc.authority or cluster).encode(),
            tuple([(k.encode(), v.encode()) for k, v in said.grpc.context_extensions.items()]),
            told,
            said.timeout,
        )
    if call is None:
        return None
    body = said.request_body
    settings = filters.Settings(
        call,
        service,
        said.failure_mode_allow,
        said.status_on_error,
        0 if body is None else body.max_request_bytes,
        body is not None and body.allow_partial_message,
    )
    return filters.ExternalAuthorization(settings)


def own_filter(
    route: Route, path: str, context: Context, otherwise: filters.ExternalAuthorization | None
) -> tuple[filters.ExternalAuthorization, ...]:
    """Return what is asked of a route's requests: what it says itself, or else what its listener says."""
    if route.external_authorization is not None:
        where = f"{path}.external_authorization"
        otherwise = external_authorization_filter(route.external_authorization, where, context)
    return () if otherwise is None else (otherwise,)


def _http(
    said: model.HttpAuthorizer, told: filters.Named | None, path: str, errors: list[ConfigError]
) -> filters.HttpService:
    prefix = said.path_prefix
    if prefix and (not prefix.startswith("/") or set(prefix) & set("?# ") or not prefix.isascii()):
        detail = f"expected a path without query, with a leading /; got {prefix!r}"
        errors.append(ConfigError(f"{path}.path_prefix", detail))
    added = []
    for name, value in said.headers_to_add.items():
        check_field(name, value, f"{path}.headers_to_add", errors)
        added.append((name.lower().encode(), value.encode()))
    names = {
        kind: _named(getattr(said, kind), f"{path}.{kind}", errors)
        for kind in (
            "allowed_upstream_headers",
            "allowed_client_headers",
            "allowed_client_headers_on_success",
        )
    }
    return filters.HttpService(
        prefix.rstrip("/").encode(),
        tuple(added),
        told or _nobody,
        names["allowed_upstream_headers"],
        names["allowed_client_headers"] or _nobody,
        names["allowed_client_headers_on_success"],
    )


def _named(
    matches: tuple[StringMatch, ...], path: str, errors: list[ConfigError]
) -> filters.Named | None:
    """Return the test of a field's name; None where there are no matches."""
    if not matches:
        return None
    exact: set[bytes] = set()
    tests = []
    for index, match in enumerate(matches):
        where = f"{path}[{index}]"
        if match.exact is not None and match.exact.lower().encode() in FRAMING:
            errors.append(ConfigError(where, f"{match.exact} is the sidecar's"))
        if match.exact is not None and not match.invert:
            exact.add(match.exact.lower().encode())
        lower = {kind: getattr(match, kind) for kind in ("exact", "prefix", "suffix")}
        lower = {kind: text.lower() for kind, text in lower.items() if text is not None}
        tests.append(text_test(replace(match, **lower), where, errors))
    if len(exact) == len(matches):
        return frozenset(exact).__contains__
    return lambda name: name in exact or any(test(name) for test in tests)


def _nobody(name: bytes) -> bool:
    return False
