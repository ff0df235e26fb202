"""Tokens that an independent library signed, and the attacks that are known on who verifies them."""

import hashlib
import hmac
import json
from typing import Any

import pytest
from hypothesis import given, strategies as st
from joserfc.jwk import OctKey

from sidecar.errors import IdentityError
from sidecar.identity import keys, token
from sidecar.identity.token import Key, Terms
from tests import tokens
from tests.tokens import AnyKey, claims, forged, part, sign

NOW = 1_800_000_000.0
RSA, EC, ED = tokens.rsa(), tokens.ec(), tokens.ed()
EC384, EC521 = tokens.ec("ec384", "P-384"), tokens.ec("ec521", "P-521")
KEYS = keys.load_jwks(tokens.public(RSA, EC, ED, EC384, EC521))
TERMS = Terms(frozenset({"shop", "till"}), frozenset(), 60.0, True)


def judge(
    text: str | bytes, held: tuple[Key, ...] = KEYS, terms: Terms = TERMS, now: float = NOW
) -> str:
    """Return why a token is refused, empty if it is not."""
    try:
        said = token.read(text.encode() if isinstance(text, str) else text)
        found = token.candidates(said, held, terms)
        if not found:
            return "no key"
        token.verify(said, found, terms, now)
    except IdentityError as error:
        return error.code
    return ""


@pytest.mark.parametrize(
    ("key", "algorithms"),
    [
        (RSA, ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")),
        (EC, ("ES256",)),
        (EC384, ("ES384",)),
        (EC521, ("ES512",)),
        (ED, ("EdDSA", "Ed25519")),
    ],
    ids=["RSA", "P-256", "P-384", "P-521", "Ed25519"],
)
def test_what_a_key_can_sign_is_accepted_and_a_change_of_it_is_not(
    key: AnyKey, algorithms: tuple[str, ...]
) -> None:
    for algorithm in algorithms:
        text = sign(key, claims(NOW), alg=algorithm)
        assert judge(text) == ""
        head, _, signature = text.split(".")
        assert judge(f"{head}.{part(claims(NOW, sub='mallory'))}.{signature}") == "jwt-signature"
        assert judge(sign(key, claims(NOW), alg=algorithm, kid=None)) == ""
        assert judge(f"{head}.{part(claims(NOW))}.") == "jwt-signature"


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE", "", "HS256", "ES256K", "RS1"])
def test_no_token_chooses_an_algorithm_that_no_key_is_for(name: str) -> None:
    for kid in ("rsa", "ec", None):
        head = {"alg": name, **({"kid": kid} if kid else {})}
        assert judge(forged(head, claims(NOW))) == "no key"


def test_a_public_key_is_no_secret() -> None:
    pem = RSA.as_pem(private=False)
    for secret in (pem, pem.strip(), RSA.as_der(private=False), tokens.public(RSA)):
        message = f"{part({'alg': 'HS256', 'kid': 'rsa'})}.{part(claims(NOW))}"
        mac = hmac.digest(secret, message.encode(), hashlib.sha256)
        assert judge(f"{message}.{part(mac)}") == "no key"


def test_a_key_that_the_token_brings_along_is_not_looked_at() -> None:
    own = tokens.rsa("mine")
    brought = {
        "jwk": own.as_dict(private=False),
        "jku": "https://evil.example/jwks.json",
        "x5u": "https://evil.example/x.pem",
        "x5c": ["MIIB"],
    }
    for name, value in brought.items():
        head = {"alg": "RS256", "kid": "rsa", name: value}
        message = f"{part(head)}.{part(claims(NOW))}"
        signed = sign(own, claims(NOW), alg="RS256", header={"kid": "rsa"}, kid="rsa")
        assert judge(f"{message}.{signed.split('.')[2]}") == "jwt-signature"


@pytest.mark.parametrize(
    "kid", ["../../dev/null", "/etc/passwd", "' OR 1=1 --", "rsa\x00", "http://evil.example", "RSA"]
)
def test_a_kid_is_a_name_and_nothing_else(kid: str) -> None:
    assert judge(sign(RSA, claims(NOW), alg="RS256", kid=kid)) == "no key"


def test_a_key_of_another_issuer_does_not_do() -> None:
    assert judge(sign(tokens.ec(), claims(NOW))) == "jwt-signature"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ""),
        ({"exp": NOW - 59}, ""),
        ({"exp": NOW - 60}, "jwt-expired"),
        ({"exp": NOW + 0.5}, ""),
        ({"exp": None}, "jwt-malformed"),
        ({"exp": str(NOW + 300)}, "jwt-malformed"),
        ({"exp": True}, "jwt-malformed"),
        ({"exp": 1e300}, "jwt-malformed"),
        ({"exp": [NOW + 300]}, "jwt-malformed"),
        ({"nbf": NOW + 60}, ""),
        ({"nbf": NOW + 61}, "jwt-not-yet-valid"),
        ({"nbf": "soon"}, "jwt-malformed"),
        ({"iat": NOW + 60}, ""),
        ({"iat": NOW + 61}, "jwt-not-yet-valid"),
        ({"aud": ["other", "till"]}, ""),
        ({"aud": "other"}, "jwt-audience"),
        ({"aud": ["other", 7, None]}, "jwt-audience"),
        ({"aud": []}, "jwt-audience"),
        ({"aud": None}, "jwt-audience"),
        ({"aud": {"shop": 1}}, "jwt-audience"),
        ({"aud": "SHOP"}, "jwt-audience"),
        ({"iss": None}, "jwt-malformed"),
        ({"iss": 7}, "jwt-malformed"),
    ],
)
def test_times_and_audience(changes: dict[str, Any], expected: str) -> None:
    assert judge(sign(EC, claims(NOW, **changes))) == expected


def test_a_token_without_end_may_be_allowed_and_the_audience_be_anyones() -> None:
    terms = Terms(frozenset(), frozenset(), 0.0, False)
    assert judge(sign(EC, claims(NOW, exp=None, aud=None)), terms=terms) == ""


def test_algorithms_may_be_fewer_than_the_keys_are_for() -> None:
    terms = TERMS._replace(algorithms=frozenset({"PS256"}))
    assert judge(sign(RSA, claims(NOW), alg="PS256"), terms=terms) == ""
    assert judge(sign(RSA, claims(NOW), alg="RS256"), terms=terms) == "no key"


def test_a_shared_secret_is_for_hmac_alone() -> None:
    secret = b"s" * 48
    held = keys.load_secret(secret + b"\n")
    key = OctKey.import_key(secret)
    assert judge(sign(key, claims(NOW), alg="HS256", kid=None), held) == ""
    assert judge(sign(key, claims(NOW), alg="HS384", kid=None), held) == ""
    assert (
        judge(sign(key, claims(NOW), alg="HS512", kid=None), held) == "no key"
    )  # too short for it
    assert judge(forged({"alg": "none"}, claims(NOW)), held) == "no key"
    assert judge(forged({"alg": "HS256"}, claims(NOW), b"x" * 32), held) == "jwt-signature"


MALFORMED: list[str | bytes] = [
    "",
    "a.b",
    "a.b.c.d.e",  # JWE
    "..",
    "a b.c.d",
    "a.b.c\n",
    part({"alg": "ES256"}) + "=." + part({}) + ".x",
    forged(b"{", {"iss": "x"}),
    forged([], {"iss": "x"}),
    forged(b"\xff", {"iss": "x"}),
    forged({"kid": "ec"}, {"iss": "x"}),
    forged({"alg": ["ES256"]}, {"iss": "x"}),
    forged({"alg": "ES256", "kid": 7}, {"iss": "x"}),
    forged({"alg": "ES256", "crit": ["exp"]}, {"iss": "x"}),
    forged({"alg": "ES256", "b64": False}, {"iss": "x"}),
    forged({"alg": "ES256"}, b"not json"),
    forged({"alg": "ES256"}, b'{"iss": "x", "exp": Infinity}'),
    forged({"alg": "ES256"}, b'{"iss": "x", "exp": NaN}'),
    forged({"alg": "ES256"}, b"[" * 5000),
    f"{part({'alg': 'ES256'})}.{part({'iss': 'x'})}.a",  # no whole octet
    "a" * (token.MAX_SIZE - 3) + ".b.c",  # huge: refused before anything of it is decoded
]


@pytest.mark.parametrize("text", MALFORMED, ids=range(len(MALFORMED)))
def test_what_is_no_token_is_told_so(text: str | bytes) -> None:
    assert judge(text) == "jwt-malformed"


def test_the_largest_token_is_read_and_a_larger_one_is_not() -> None:
    room = 10_000
    text = sign(EC, claims(NOW, pad="x" * room))
    assert len(text) < token.MAX_SIZE
    assert judge(text) == ""
    assert judge(sign(EC, claims(NOW, pad="x" * 13_000))) == "jwt-malformed"


@given(st.binary(max_size=300))
def test_no_octets_break_it(data: bytes) -> None:
    assert judge(data) in {"jwt-malformed", "no key", "jwt-signature"}


@given(st.recursive(st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
                    max_leaves=8),
       st.sampled_from(["exp", "nbf", "iat", "aud", "iss", "sub"]))  # fmt: skip
def test_no_claim_of_a_real_issuer_breaks_it(value: object, name: str) -> None:
    text = sign(EC, {**claims(NOW), name: value})
    assert judge(text) in {"", "jwt-malformed", "jwt-expired", "jwt-not-yet-valid", "jwt-audience"}


def test_few_keys_are_tried() -> None:
    many = keys.load_jwks(tokens.public(*[tokens.ec(f"k{i}") for i in range(9)]))
    said = token.read(sign(EC, claims(NOW), kid=None).encode())
    assert len(token.candidates(said, many, TERMS)) == token.MAX_TRIES


# Key sets:


def jwks(*found: dict[str, Any]) -> bytes:
    return json.dumps({"keys": list(found)}).encode()


def test_keys_for_other_purposes_are_passed_over() -> None:
    good = EC.as_dict(private=False)
    data = jwks(
        {**RSA.as_dict(private=False), "use": "enc"},
        {**RSA.as_dict(private=False), "key_ops": ["encrypt"]},
        {"kty": "oct", "k": "c2VjcmV0"},
        {"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA"},
        {"kty": ["RSA"]},
        good,
    )
    (found,) = keys.load_jwks(data)
    assert found.kid == "ec"


def test_a_key_may_say_what_it_is_for() -> None:
    named = {**RSA.as_dict(private=False), "alg": "PS256", "use": "sig", "key_ops": ["verify"]}
    held = keys.load_jwks(jwks(named))
    assert judge(sign(RSA, claims(NOW), alg="PS256"), held) == ""
    assert judge(sign(RSA, claims(NOW), alg="RS256"), held) == "no key"


def test_a_private_key_in_a_set_is_used_as_a_public_one() -> None:
    held = keys.load_jwks(jwks(EC.as_dict(private=True)))
    assert judge(sign(EC, claims(NOW)), held) == ""


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (b"", "expected a JWKS"),
        (b"[]", "expected a JWKS"),
        (b'{"keys": {}}', "expected a JWKS"),
        (b'{"keys": [7]}', "expected a JWKS"),
        (b"\xff", "expected a JWKS"),
        (b'{"keys": []}', "no usable key"),
        (jwks(*[{}] * 101), "has 101 keys"),
        (jwks({"kty": "oct", "k": "c2VjcmV0"}), "must come from `secret_file`"),
        (jwks({"kty": "RSA", "n": "AQAB"}), "malformed"),
        (jwks({"kty": "RSA", "n": 7, "e": []}), "malformed"),
        (jwks({"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}), "malformed"),
        (jwks({"kty": "OKP", "crv": "Ed25519", "x": "AA"}), "malformed"),
        (jwks({"kty": "OKP", "crv": "X25519", "x": "AA"}), "no signatures"),
        (jwks({**RSA.as_dict(private=False), "alg": "HS256"}), "is not for keys of type RSA"),
        (jwks({**EC.as_dict(private=False), "alg": "none"}), "is not for keys of type EC"),
        (jwks({"kty": "RSA", "e": "AQAB", "n": part((1 << 1023 | 1).to_bytes(128))}), "expected 2048 bits or more, got 1024"),
    ],
)  # fmt: skip
def test_what_is_no_key_set_is_told_so(data: bytes, detail: str) -> None:
    with pytest.raises(ValueError, match=detail):
        keys.load_jwks(data)


@pytest.mark.parametrize(
    ("data", "detail"),
    [(b"short\n", "at least 32 octets"), (EC.as_pem(private=False), "holds a PEM key")],
)
def test_what_is_no_secret_is_told_so(data: bytes, detail: str) -> None:
    with pytest.raises(ValueError, match=detail):
        keys.load_secret(data)
