"""Keys that tokens are verified by, from a JWKS (RFC 7517) or a shared secret.

Loaded only where a configuration has a `jwt`: PyJWT and with it `cryptography` are 15 MB.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import Algorithm, get_default_algorithms
from jwt.exceptions import InvalidKeyError

from sidecar.identity.token import Key

MIN_RSA_BITS: Final = 2048  # RFC 7518 §3.3
MAX_KEYS: Final = 100  # of one issuer; more is no key set but a mistake, or an attack

_KNOWN: Final[Mapping[str, Algorithm]] = get_default_algorithms()
_ALGORITHMS: Final = {**_KNOWN, "Ed25519": _KNOWN["EdDSA"]}
_RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_FITTING: Final[Mapping[tuple[object, object], tuple[str, ...]]] = {
    # By key type and curve: what such a key can sign.  Key and algorithm are tied here, so that no
    # header can have a key used for what it is not.
    ("RSA", None): _RSA,
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA", "Ed25519"),  # the second name since RFC 9864
}
_PUBLIC: Final = ("kty", "crv", "n", "e", "x", "y")
_SECRET_OCTETS: Final = {"HS256": 32, "HS384": 48, "HS512": 64}  # RFC 7518 §3.2


def load_jwks(data: bytes) -> tuple[Key, ...]:
    """Return the usable keys of a JWKS; what it holds for other purposes is passed over.

    Raises:
        ValueError: it is no JWKS, or holds no usable key; the text says why.
    """
    try:
        tree = msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        tree = None
    listed = tree.get("keys") if isinstance(tree, dict) else None
    if not isinstance(listed, list) or not all(isinstance(jwk, dict) for jwk in listed):
        raise ValueError("expected a JWKS: an object with a list of `keys`")
    if len(listed) > MAX_KEYS:
        raise ValueError(f"has {len(listed)} keys: expected at most {MAX_KEYS}")
    problems: list[str] = []
    found = []
    for index, jwk in enumerate(listed):
        try:
            found.append(_key(jwk))
        except ValueError as error:
            problems.append(f"keys[{index}]: {error}")
    if not found:
        raise ValueError("; ".join(["holds no usable key", *problems[:3]]))
    return tuple(found)


def load_secret(data: bytes) -> tuple[Key, ...]:
    """Return the one key that is a shared secret; a line end behind it is none of its octets.

    Raises:
        ValueError: it is too short for any algorithm.
    """
    secret = data.rstrip(b"\r\n")
    fitting = frozenset(name for name, size in _SECRET_OCTETS.items() if len(secret) >= size)
    if not fitting:
        raise ValueError(f"expected at least 32 octets (RFC 7518 §3.2), got {len(secret)}")
    if secret.startswith(b"-----BEGIN"):
        raise ValueError("holds a PEM key: a secret must be known to nobody else")
    return (Key(None, fitting, _verifier(secret)),)


def _key(jwk: dict[str, Any]) -> Key:
    kind, curve, kid, named = (jwk.get(name) for name in ("kty", "crv", "kid", "alg"))
    if kind == "oct":
        raise ValueError("a shared secret must come from `secret_file`")
    try:
        fitting = _FITTING[kind, None if kind == "RSA" else curve]
    except (KeyError, TypeError):
        raise ValueError(f"no signatures of type {kind!r}, curve {curve!r}") from None
    operations = jwk.get("key_ops")
    if jwk.get("use", "sig") != "sig" or (
        isinstance(operations, list) and "verify" not in operations
    ):
        raise ValueError("is not for signatures")
    if named is not None and named not in fitting:
        raise ValueError(f"`alg` {named!r} is not for keys of type {kind}")
    public: dict[str, Any] = {
        name: jwk[name] for name in _PUBLIC if name in jwk
    }  # nothing of a private one
    try:
        key = _ALGORITHMS[fitting[0]].from_jwk(public)
    except (
        InvalidKeyError,
        UnsupportedAlgorithm,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
    ) as error:
        raise ValueError(f"malformed: {error}") from None
    if isinstance(key, RSAPublicKey) and key.key_size < MIN_RSA_BITS:
        raise ValueError(f"expected {MIN_RSA_BITS} bits or more, got {key.key_size}")
    algorithms = frozenset(fitting if named is None else (named,))
    return Key(kid if isinstance(kid, str) else None, algorithms, _verifier(key))


def _verifier(key: Any) -> Any:
    def verify(algorithm: str, message: bytes, signature: bytes) -> bool:
        try:
            return bool(_ALGORITHMS[algorithm].verify(message, key, signature))
        except (InvalidSignature, ValueError):
            return False

    return verify
