"""Whose tokens a listener or route accepts, as its filter."""

from __future__ import annotations

import re
from collections.abc import Callable
from hashlib import sha256
from typing import Final

from sidecar.compiler.context import Context
from sidecar.compiler.locations import header_names, location
from sidecar.core.credential import lookalikes
from sidecar.core.fetched import Fetched, Place
from sidecar.errors import ConfigError
from sidecar.filters import jwt
from sidecar.identity.token import Terms
from sidecar.model.jwt import Jwt, JwtIssuer, RemoteJwks

_URL: Final = re.compile(
    r"(?P<scheme>https?)://(?P<host>[A-Za-z0-9._-]+(?::[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](?::[0-9]{1,5})?)"
    r"(?P<target>(?:[/?][!\"$-~]*)?)"
)
_KINDS: Final = ("jwks", "jwks_file", "secret_file")
MAX_SIZE: Final = 1 << 20  # octets of a JWKS


Read = Callable[[bytes], "jwt.Keys"]
Source = tuple[Fetched["jwt.Keys"], Place["jwt.Keys"] | None]


def jwt_filter(model: Jwt, path: str, context: Context) -> jwt.Jwt:
    """Return the filter for `model`."""
    errors = context.errors
    issuers: dict[str, jwt.Issuer] = {}
    if not model.issuers:
        errors.append(ConfigError(f"{path}.issuers", "expected at least one"))
    for index, issuer in enumerate(model.issuers):
        where = f"{path}.issuers[{index}]"
        if not issuer.issuer:
            errors.append(ConfigError(f"{where}.issuer", "expected a text, got an empty one"))
        if issuer.issuer in issuers:
            errors.append(ConfigError(f"{where}.issuer", f"{issuer.issuer!r} is there twice"))
        issuers[issuer.issuer] = _issuer(issuer, model, where, context)
    if not model.locations:
        errors.append(ConfigError(f"{path}.locations", "expected at least one"))
    headers = header_names(model.claims_to_headers, f"{path}.claims_to_headers", errors)
    contents = [context.files.get(f, b"") for i in model.issuers for f in files_of(i)]
    digest = sha256(b"".join(sha256(data).digest() for data in contents)).hexdigest()
    return jwt.Jwt(
        jwt.Settings(
            issuers,
            tuple(
                location(word, f"{path}.locations[{index}]", errors)
                for index, word in enumerate(model.locations)
            ),
            model.required,
            model.forward,
            tuple(zip(headers, model.claims_to_headers.values(), strict=True)),
            lookalikes(headers) if headers else None,
            model.cache_size,
            context.keep(("jwt", path, repr(model), digest), dict),
        )
    )


def files_of(issuer: JwtIssuer) -> list[str]:
    """Return the files that `issuer` names."""
    return [file for file in (issuer.jwks_file, issuer.secret_file) if file]


def _issuer(model: JwtIssuer, jwt_model: Jwt, path: str, context: Context) -> jwt.Issuer:
    errors = context.errors
    if not model.audiences or (len(model.audiences) > 1 and "*" in model.audiences):
        detail = 'expected those whom tokens must be for, or ["*"] alone'
        errors.append(ConfigError(f"{path}.audiences", detail))
    keys, place = _keys(model, path, context)
    for index, algorithm in enumerate(model.algorithms):
        if keys.value and not any(algorithm in key.algorithms for key in keys.value):
            where = f"{path}.algorithms[{index}]"
            errors.append(ConfigError(where, f"no key of this issuer is for {algorithm}"))
    audiences = frozenset(model.audiences) - {"*"}
    terms = Terms(
        audiences, frozenset(model.algorithms), jwt_model.leeway, jwt_model.require_expiry
    )
    return jwt.Issuer(keys, place, terms)


def _keys(model: JwtIssuer, path: str, context: Context) -> Source:
    """Return the keys of `model`; those of a file are read once for every content of it."""
    errors = context.errors
    nothing: Source = (Fetched(), None)
    named = [kind for kind in _KINDS if getattr(model, kind)]
    if len(named) != 1:
        errors.append(ConfigError(path, f"expected exactly one of {', '.join(_KINDS)}"))
        return nothing
    try:
        from sidecar.identity import keys  # noqa: PLC0415 - 15 MB that only a worker with it loads
    except ImportError as error:
        detail = f"needs PyJWT (pip install 'sidecar[jwt]'): {error}"
        errors.append(ConfigError(path, detail))
        return nothing
    where = f"{path}.{named[0]}"
    if model.jwks is not None:
        return _remote(model.jwks, where, context, keys.load_jwks)
    data = context.read(getattr(model, named[0]), where)
    if data is None:
        return nothing
    read = keys.load_jwks if model.jwks_file else keys.load_secret
    try:
        found = context.keep((*named, sha256(data).digest()), lambda: Fetched(read(data)))
    except ValueError as error:
        errors.append(ConfigError(where, str(error)))
        return nothing
    return found, None


def _remote(model: RemoteJwks, path: str, context: Context, read: Read) -> Source:
    """Return the keys at a URL, those that are there already among them."""
    errors = context.errors
    found = _URL.fullmatch(model.url)
    if found is None:
        detail = f"expected http:// or https:// with a host, without a fragment; got {model.url!r}"
        errors.append(ConfigError(f"{path}.url", detail))
    if not model.timeout:
        errors.append(ConfigError(f"{path}.timeout", "expected more than 0"))
    call = context.call("jwks", model.cluster, f"{path}.cluster", model.timeout, keeps=MAX_SIZE)
    held: Fetched[jwt.Keys] = context.keep(("jwks", model.url, model.cluster), Fetched)
    if found is None or call is None:
        return held, None
    if found["scheme"] == "https" and call.cluster.tls is None:
        detail = f"https needs a cluster with `tls`, {model.cluster!r} has none"
        errors.append(ConfigError(f"{path}.cluster", detail))
    target = found["target"] if found["target"].startswith("/") else "/" + found["target"]
    host = found["host"].lower().encode()
    return held, Place(call, target.encode(), host, read, model.refresh)
