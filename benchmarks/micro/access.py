"""What it costs to decide who may do what: `python -m benchmarks.micro.access [CASE...]`.

An exchange over HTTP/1.1 in memory, as in `exchange`, with a policy more than its base, which brings
the same token or key along and looks at nothing; told is the median of the rounds' differences, in
µs of CPU.  Tokens are made with PyJWT here: nothing depends on who signed them.
"""

import random
import time
from base64 import b64encode
from collections.abc import Callable
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from benchmarks.micro.exchange import HTTP1_ANSWER, Stand, http1_request
from benchmarks.micro.features import NOTHING, PLAIN
from benchmarks.micro.turns import Case, tell_differences
from sidecar.filters.basic_auth import BasicAuth
from sidecar.identity.hashed import key_line, mark, password_line
from sidecar.runtime.clock import wall

ROUNDS: Final = 60
EXCHANGES: Final = 200  # a round
WARM: Final = 20

ISSUER: Final = {"issuer": "https://login.example.org", "audiences": ["web"]}
RSA: Final = rsa.generate_private_key(65537, 2048)
EC: Final = ec.generate_private_key(ec.SECP256R1())
FILES: Final = {
    "/rsa": b'{"keys": [%b]}' % RSAAlgorithm.to_jwk(RSA.public_key()).encode(),
    "/ec": b'{"keys": [%b]}' % ECAlgorithm.to_jwk(EC.public_key()).encode(),
    "/keys": "\n".join(key_line(f"k{n}", b"key%d" % n) for n in range(1000)).encode(),
    "/passwords": password_line("alice", b"open sesame").encode(),
}


def token(key: Any, algorithm: str, number: int) -> bytes:
    """Return a request line with a token of its own for `number`."""
    claims = {
        "iss": ISSUER["issuer"], "aud": "web", "sub": "alice", "exp": wall() + 3600,
        "jti": str(number), "roles": ["reader", "writer"],
    }  # fmt: skip
    return b"Authorization: Bearer %b\r\n" % jwt.encode(claims, key, algorithm=algorithm).encode()


def lines(make: Callable[[int], bytes], count: int) -> list[bytes]:
    """Return requests that bring `count` different lines along."""
    chance = random.Random(7541)  # noqa: S311 - no secret
    plain = [http1_request(number, chance) for number in range(100)]
    made = [make(number) for number in range(count)]
    return [
        plain[number % 100][:-2] + made[number % count] + b"\r\n"
        for number in range(max(count, 100))
    ]


def case(
    route: dict[str, Any], make: Callable[[int], bytes] = lambda number: b"", different: int = 1
) -> Case:
    """Return exchanges by a route of these options, with `different` lines of `make` in turns."""
    made: list[tuple[Stand, list[bytes]]] = []

    def run(count: int) -> float:
        if not made:
            stand = Stand(
                upstream="http1", cluster=NOTHING, routes=[{**PLAIN, **route}], files=FILES
            )
            for stop in stand.listener.plan.routes.find_name("").on_request:  # type: ignore[union-attr] # there is one
                if isinstance(stop, BasicAuth):  # as after the first request: no thread is here
                    stop._settings.state.remember(mark(b"alice", b"open sesame"), "alice")
            made.append((stand, lines(make, different)))
        stand, requests = made[0]
        caller = stand.open()
        begin = 0.0
        for number in range(count + WARM):
            if number == WARM:
                begin = time.process_time()
            caller.protocol.data_received(requests[number % len(requests)])
            stand.upstreams[0].protocol.data_received(HTTP1_ANSWER)
        spent = time.process_time() - begin
        assert caller.writes == count + WARM, "an exchange was not answered, or answered twice"
        assert len(stand.upstreams) == 1, "a request was not let through"
        return spent

    return run


def ruled(*rules: dict[str, Any]) -> dict[str, Any]:
    """Return a route's options with `rules`."""
    return {"authorization": list(rules)}


def tokens(file: str, **more: Any) -> dict[str, Any]:
    """Return a route's options for tokens of the issuer whose keys are in `file`."""
    return {"jwt": {"issuers": [{**ISSUER, "jwks_file": file}], **more}}


def rsa_token(number: int) -> bytes:
    """Return the line of one more token."""
    return token(RSA, "RS256", number)


def ec_token(number: int) -> bytes:
    """Return the line of one more token."""
    return token(EC, "ES256", number)


def api_key(number: int) -> bytes:
    """Return the line of a key."""
    return b"X-API-Key: key%d\r\n" % number


def password(number: int) -> bytes:
    """Return the line of a name and its password."""
    return b"Authorization: Basic %b\r\n" % b64encode(b"alice:open sesame")


DENY: Final[dict[str, Any]] = {"action": "deny"}
CLOSED: Final = {"paths": ["/closed", {"prefix": "/admin"}]}
HEADERS: Final = {"claims_to_headers": {"x-user": "sub", "x-roles": "roles"}}
NEW: Final = {"cache_size": 0}
CASES: Final[dict[str, Case]] = {
    "nothing": case({}),
    "nothing, again": case({}),
    "deny by method": case(ruled({**DENY, "match": {"methods": ["DELETE"]}})),
    "deny by two paths": case(ruled({**DENY, "match": CLOSED})),
    "deny by two paths, as shadow": case(ruled({**DENY, "match": CLOSED, "shadow": True})),
    "allow by source network": case(ruled({"action": "allow", "match": {"sources": ["10.0.0.0/8"]}})),
    "allow by header": case(
        ruled({"action": "allow", "match": {"headers": {"accept": {"present": True}}}})
    ),
    "a token along": case({}, rsa_token),
    "token, known": case(tokens("/rsa"), rsa_token),
    "token, known, to fields": case(tokens("/rsa", **HEADERS), rsa_token),
    "token, new, RS256": case(tokens("/rsa", **NEW), rsa_token, 50),
    "token, new, ES256": case(tokens("/ec", **NEW), ec_token, 50),
    "a key along": case({}, api_key),
    "key, one of a thousand": case({"api_keys": "/keys"}, api_key, 100),
    "a password along": case({}, password),
    "password, known": case({"basic_auth": "/passwords"}, password),
}  # fmt: skip
ALONG: Final = {"token": "a token along", "key": "a key along", "password": "a password along"}
"""What cases that begin with a word are compared with; others with `nothing`."""
BASES: Final = {
    name: ALONG[name.partition(",")[0]] for name in CASES if name.partition(",")[0] in ALONG
}


def main() -> None:
    """Measure and print."""
    tell_differences(CASES, BASES, EXCHANGES, ROUNDS)


if __name__ == "__main__":
    main()
