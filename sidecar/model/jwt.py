"""Whose tokens are accepted, and what becomes of what they say."""

from typing import Annotated, Literal

from msgspec import Meta

from sidecar.model.base import Duration, Model

JwtAlgorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519",
    "HS256", "HS384", "HS512",
]  # fmt: skip


class RemoteJwks(Model, frozen=True, kw_only=True):
    """Keys that are fetched (Envoy: RemoteJwks): before the first token of the issuer is verified, then behind the requests."""

    url: str
    """Where they are: `https://login.example.org/jwks.json`. Its host is what the request names; where it goes is `cluster`."""

    cluster: str
    """The cluster that is asked; for `https` one with `tls`."""

    refresh: Duration = 300.0
    """Seconds after which they are fetched again. A token of a key that is not among them has them fetched at once, at most
    every 10 s. If that fails the old ones stay."""

    timeout: Duration = 5.0
    """Seconds for a fetch."""


class JwtIssuer(Model, frozen=True, kw_only=True):
    """Who signs tokens, and with which keys; exactly one of `jwks`, `jwks_file` and `secret_file` is given."""

    issuer: str
    """The `iss` of its tokens, letter for letter."""

    audiences: tuple[str, ...]
    """Whom its tokens must be for: one of these among their `aud`. `["*"]`: it is not looked at."""

    jwks: RemoteJwks | None = None
    """Or its public keys are fetched."""

    jwks_file: str = ""
    """File with its public keys, a JWKS. Watched."""

    secret_file: str = ""
    """File with a secret that is shared with it, for HS256 (from 32 octets), HS384 (48) and HS512 (64). Watched. Whoever
    can verify such tokens can make them too."""

    algorithms: tuple[JwtAlgorithm, ...] = ()
    """Which ones are accepted of those that a key is for. Empty: all of them."""


class Jwt(Model, frozen=True, kw_only=True):
    """Tokens that requests must bring (Envoy: JwtAuthentication). Bad ones are answered 401."""

    issuers: tuple[JwtIssuer, ...]
    """Whose tokens are accepted."""

    locations: tuple[str, ...] = ("header:authorization",)
    """Where a token may stand, the first that has one counts: `header:NAME` (in `authorization` behind `Bearer`), `query:NAME`,
    `cookie:NAME`."""

    required: bool = True
    """Refuse requests without a token (401). False: they pass, and no rule on claims matches them; a bad token is refused
    all the same."""

    require_expiry: bool = True
    """Refuse tokens without `exp`, which would hold forever."""

    leeway: Duration = 60.0
    """Seconds that the issuer's clock may differ from ours."""

    forward: bool = False
    """Pass the token on. Otherwise it is taken out, so that the app cannot lose it."""

    claims_to_headers: dict[str, str] = {}
    """Fields set for the app, by name, from claims (with dots into objects; elements of a list with commas between). What the
    caller sends under these names is taken out, also with `_` for `-`."""

    cache_size: Annotated[int, Meta(ge=0, le=1000000)] = 10000
    """Verified tokens that each worker remembers until they expire; the next request with one costs no signature."""
