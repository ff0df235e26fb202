"""Requests with tokens: who passes, what the app sees, what is remembered and what is fetched."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from sidecar.telemetry.access_log import AccessLogSink
from tests import tokens
from tests.core.asking import HTTP1, PROTOCOLS, Asked, Seen, ask
from tests.core.harness import OK, Harness
from tests.core.reading import Message, read_request
from tests.tokens import ISSUER, claims, sign

Make = Callable[..., Harness]

BOTH = pytest.mark.parametrize("protocol", PROTOCOLS)
KEY, OTHER = tokens.ec("one"), tokens.ec("two")
NOW = 1_700_000_000 + 1000.0
FILE = "/keys.json"
FILES = {FILE: tokens.public(KEY), "/secret": b"s" * 32}
ACME: dict[str, Any] = {"issuer": ISSUER, "audiences": ["shop"], "jwks_file": FILE}
IDP = {"name": "idp", "endpoints": ["10.0.0.9:80"]}
REMOTE = {
    "issuer": ISSUER,
    "audiences": ["shop"],
    "jwks": {"url": "http://idp/keys?x", "cluster": "idp"},
}


def guarded(make: Make, *issuers: dict[str, Any], files: Any = FILES, **more: Any) -> Harness:
    route = more.pop("route", {})
    jwt = {"issuers": list(issuers or (ACME,)), **more}
    harness = make(role="inbound", route={"jwt": jwt, **route}, files=files, clusters=[IDP])
    harness.connects_at_once = True
    return harness


def bearer(text: str) -> tuple[str, str]:
    return ("Authorization", f"Bearer {text}")


def good(**more: Any) -> str:
    return sign(KEY, claims(NOW, **more))


def answered(harness: Harness, asked: Asked) -> tuple[Seen, Message | None]:
    """Have the app answer; return what the caller and the app saw."""
    seen = None
    for upstream in harness.upstreams:
        if bytes(upstream.got).startswith(b"GET /keys"):
            continue  # the test answers it
        octets = upstream.take()
        if octets:
            found = read_request(octets)
            assert isinstance(found, Message)
            seen = found
            upstream.send(OK)
    return asked.answer(), seen


def fields(message: Message | None) -> dict[bytes, bytes]:
    assert message is not None
    return {name.lower(): value for name, value in message.fields}


@BOTH
def test_a_good_token_passes_and_does_not_reach_the_app(make: Make, protocol: str) -> None:
    harness = guarded(make)
    seen, sent = answered(harness, ask(harness, protocol, "/", bearer(good())))
    assert seen.status == 200
    assert b"authorization" not in fields(sent)
    assert harness.sink.exchanges[0].fields == {"jwt_sub": "alice"}


@BOTH
def test_it_is_passed_on_where_that_is_wanted(make: Make, protocol: str) -> None:
    harness = guarded(make, forward=True)
    text = good()
    _, sent = answered(harness, ask(harness, protocol, "/", ("authorization", f"bearer  {text}")))
    assert fields(sent)[b"authorization"] == f"bearer  {text}".encode()


REFUSED: list[tuple[str, str, bytes]] = [
    ("x", "jwt-malformed", b"the token is malformed"),
    (f"{good()}, Bearer {good()}", "jwt-malformed", b"the token is malformed"),
    (good(iss="https://evil"), "jwt-issuer", b"the token is of an unknown issuer"),
    (sign(OTHER, claims(NOW)), "jwt-key", b"the token is signed with an unknown key"),
    (sign(OTHER, claims(NOW), kid="one"), "jwt-signature", b"the signature does not verify"),
    (good(exp=NOW - 100), "jwt-expired", b"the token has expired"),
    (good(nbf=NOW + 100), "jwt-not-yet-valid", b"the token is not valid yet"),
    (good(aud="other"), "jwt-audience", b"the token is for another audience"),
    (tokens.forged({"alg": "none"}, claims(NOW)), "jwt-key", b"the token is signed with an unknown key"),
]  # fmt: skip


@BOTH
@pytest.mark.parametrize(("text", "code", "sentence"), REFUSED)
@pytest.mark.parametrize("required", [True, False])
def test_a_bad_token_is_told_why(
    make: Make, protocol: str, text: str, code: str, sentence: bytes, required: bool
) -> None:
    harness = guarded(make, required=required)
    seen = ask(harness, protocol, "/", bearer(text)).answer()
    assert seen.status == 401
    challenge = b'Bearer realm="sidecar", error="invalid_token", error_description="%b"' % sentence
    assert seen.fields[b"www-authenticate"] == challenge
    assert harness.outcomes[0][:3] == (401, code, "UAEX")
    assert harness.dials == []


def test_without_a_token_there_is_a_challenge_without_an_error(make: Make) -> None:
    harness = guarded(make, locations=["header:authorization", "query:token", "cookie:token"])
    for others in ([], [("Authorization", "Basic YTpi")], [("Authorization", "Bearer")]):
        seen = ask(harness, HTTP1, "/", *others).answer()
        assert (seen.status, seen.fields[b"www-authenticate"]) == (401, b'Bearer realm="sidecar"')


def test_a_grpc_caller_is_unauthenticated(make: Make) -> None:
    harness = guarded(make)
    asked = ask(harness, HTTP1, "/s/m", ("Content-Type", "application/grpc"), method="POST")
    seen = asked.answer()
    assert (seen.fields[b"grpc-status"], seen.status) == (b"16", 200)


def test_a_token_may_be_optional(make: Make) -> None:
    harness = guarded(make, required=False, claims_to_headers={"x-user": "sub"})
    basic = ("Authorization", "Basic YTpi")
    seen, sent = answered(harness, ask(harness, HTTP1, "/", basic, ("x-user", "admin")))
    assert seen.status == 200
    assert fields(sent)[b"authorization"] == b"Basic YTpi"
    assert b"x-user" not in fields(sent)


@pytest.mark.parametrize("forward", [True, False])
@pytest.mark.parametrize(
    ("location", "target", "sent_fields", "target_left", "cookie_left"),
    [
        ("header:X-Token", "/a?b", [("x-token", "{}")], b"/a?b", None),
        ("query:access_token", "/a?b=1&access_token={}&c", [], b"/a?b=1&c", None),
        ("query:access_token", "/a?access%5Ftoken={}", [], b"/a", None),
        ("cookie:session", "/a", [("Cookie", 'a=1; session="{}"; b=2')], b"/a", b"a=1; b=2"),
        ("cookie:session", "/a", [("Cookie", "session={}")], b"/a", None),
    ],
)
@BOTH
def test_a_token_may_stand_elsewhere(
    make: Make, protocol: str, location: str, target: str, sent_fields: list[tuple[str, str]],
    target_left: bytes, cookie_left: bytes | None, forward: bool,
) -> None:  # fmt: skip
    harness = guarded(make, locations=["header:authorization", location], forward=forward)
    text = good()
    target = target.format(text)
    given = [(name, value.format(text)) for name, value in sent_fields]
    seen, sent = answered(harness, ask(harness, protocol, target, *given))
    assert seen.status == 200
    assert sent is not None
    assert (text in str(sent)) is forward
    if not forward:
        assert sent.start[1] == target_left
        assert fields(sent).get(b"cookie") == cookie_left
    else:
        assert sent.start[1] == target.encode()


def test_cookies_in_several_fields_are_one(make: Make) -> None:
    harness = guarded(make, locations=["cookie:session"])
    given = [("cookie", "a=1"), ("cookie", f"session={good()}"), ("cookie", "b=2")]
    seen, sent = answered(harness, ask(harness, PROTOCOLS[1], "/", *given))
    assert (seen.status, fields(sent)[b"cookie"]) == (200, b"a=1; b=2")


@pytest.mark.parametrize("forward", [True, False])
def test_a_second_token_that_nobody_verified_does_not_pass_as_the_first(
    make: Make, forward: bool
) -> None:
    places = ["header:authorization", "query:token", "cookie:token"]
    harness = guarded(make, locations=places, forward=forward)
    lie = ("Cookie", "token=forged.b.c; a=1")
    asked = ask(harness, HTTP1, "/?token=forged.b.c", bearer(good()), lie)
    seen, sent = answered(harness, asked)
    assert seen.status == 200
    assert "forged" not in str(sent)
    assert (b"authorization" in fields(sent)) is forward


@BOTH
def test_claims_become_fields_that_nobody_can_forge(make: Make, protocol: str) -> None:
    wanted = {
        "X-User-Id": "sub",
        "x-roles": "realm.roles",
        "x-bad": "bad",
        "x-none": "none",
        "x-n": "n",
    }
    harness = guarded(make, claims_to_headers=wanted, route={
        "request_headers": {"set": {"x-copy": "%REQ(x-user-id)%"}},
        "authorization": [{"action": "allow", "match": {"headers": {"x-user-id": "alice"}}}],
    })  # fmt: skip
    lies = [("x-user-id", "mallory"), ("X_User_Id", "mallory"), ("x-user_id", "m"), ("x-none", "m")]
    text = good(realm={"roles": ["a", "b"]}, bad="x\r\nx-admin: 1", n=7)
    seen, sent = answered(harness, ask(harness, protocol, "/", bearer(text), *lies))
    assert seen.status == 200
    found = fields(sent)
    assert {name: found.get(name) for name in (b"x-user-id", b"x-roles", b"x-n", b"x-copy")} == {
        b"x-user-id": b"alice",
        b"x-roles": b"a,b",
        b"x-n": b"7",
        b"x-copy": b"alice",
    }
    assert not {b"x_user_id", b"x-user_id", b"x-none", b"x-bad", b"x-admin"} & set(found)


CLAIMS = [
    ({"sub": "alice"}, True),
    ({"sub": {"prefix": "b"}}, False),
    ({"roles": "admin"}, True),
    ({"roles": {"exact": "admin", "invert": True}}, False),
    ({"roles": {"exact": "other", "invert": True}}, True),
    ({"absent": {"present": False}}, True),
    ({"absent": {"exact": "x", "invert": True}}, True),
    ({"sub": "alice", "scope": "write"}, True),
    ({"sub": "alice", "scope": "delete"}, False),
    ({"realm.tenant": {"regex": "ac.."}}, True),
]  # fmt: skip


@pytest.mark.parametrize(("match", "expected"), CLAIMS)
def test_rules_may_look_at_claims(make: Make, match: dict[str, Any], expected: bool) -> None:
    rules = [{"action": "allow", "match": {"claims": match}}]
    harness = guarded(make, route={"authorization": rules})
    text = good(roles=["admin", "dev"], scope="read write", realm={"tenant": "acme"})
    seen, _ = answered(harness, ask(harness, HTTP1, "/", bearer(text)))
    assert seen.status == (200 if expected else 403)


def test_a_caller_without_a_token_has_no_claims(make: Make) -> None:
    rules = [{"action": "deny", "unless": {"claims": {"sub": {"present": True}}}}]
    harness = guarded(make, required=False, route={"authorization": rules})
    assert ask(harness).answer().status == 403
    assert answered(harness, ask(harness, HTTP1, "/", bearer(good())))[0].status == 200


def test_a_rate_may_be_kept_by_claim(make: Make) -> None:
    limits = [{"requests": 1, "per": "60s", "by": ["claim:sub"]}]
    harness = guarded(make, route={"rate_limits": limits})
    found = []
    for name in ("alice", "bob", "alice"):
        asked = ask(harness, HTTP1, "/", bearer(good(sub=name)))
        found.append(answered(harness, asked)[0].status)
    assert found == [200, 200, 429]


# The cache:


def counted(harness: Harness, monkeypatch: Any = None) -> list[str]:
    """Return the list to which every verified signature adds the algorithm."""
    seen: list[str] = []
    route = harness.listener.plan.routes.find_name("x")
    assert route is not None
    for stop in route.on_request:
        settings = getattr(stop, "_settings", None)
        for issuer in getattr(settings, "issuers", {}).values():
            held = issuer.keys
            for index, key in enumerate(held.value):

                def verify(name: str, message: bytes, mac: bytes, real: Any = key.verify) -> Any:
                    seen.append(name)
                    return real(name, message, mac)

                changed = list(held.value)
                changed[index] = key._replace(verify=verify)
                held.value = tuple(changed)
    return seen


def passes(harness: Harness, text: str) -> int:
    return answered(harness, ask(harness, HTTP1, "/", bearer(text)))[0].status


def test_a_token_is_verified_once_until_it_expires(make: Make) -> None:
    harness = guarded(make)
    signatures = counted(harness)
    text = good()
    assert [passes(harness, text) for _ in range(3)] == [200] * 3
    assert signatures == ["ES256"]
    harness.advance(359)
    assert (passes(harness, text), len(signatures)) == (200, 1)
    harness.advance(2)  # past its end and the leeway
    assert (passes(harness, text), len(signatures)) == (401, 2)


def test_bad_tokens_are_not_remembered(make: Make) -> None:
    harness = guarded(make)
    signatures = counted(harness)
    text = sign(OTHER, claims(NOW), kid="one")
    assert [passes(harness, text) for _ in range(2)] == [401, 401]
    assert signatures == ["ES256"] * 2


@pytest.mark.parametrize(("size", "expected"), [(2, [1, 2, 2, 3, 4]), (0, [1, 2, 3, 4, 5])])
def test_the_oldest_is_forgotten_first(make: Make, size: int, expected: list[int]) -> None:
    harness = guarded(make, cache_size=size)
    signatures = counted(harness)
    one, two, three = (good(jti=str(i)) for i in range(3))
    found = []
    for text in (one, two, one, three, one):
        assert passes(harness, text) == 200
        found.append(len(signatures))
    assert found == expected


def test_a_push_of_other_keys_forgets_and_one_of_the_same_does_not(make: Make) -> None:
    harness = guarded(make)
    text = good()
    assert passes(harness, text) == 200
    route = {"jwt": {"issuers": [ACME]}, "buffer_limit": 1}
    harness.swap(role="inbound", route=route, files=FILES, clusters=[IDP])
    signatures = counted(harness)
    changed = len(signatures)  # the count itself has changed the keys: one more look
    assert (passes(harness, text), len(signatures)) == (200, changed + 1)
    harness.swap(role="inbound", route=route, files={FILE: tokens.public(OTHER)}, clusters=[IDP])
    assert passes(harness, text) == 401


# Keys that are fetched:


def fetched(harness: Harness) -> list[Any]:
    """Return the connections on which keys are asked for now."""
    return [u for u in harness.upstreams if bytes(u.got).startswith(b"GET /keys?x HTTP/1.1\r\n")]


def answer_keys(harness: Harness, body: bytes, status: int = 200) -> None:
    (asked,) = fetched(harness)
    head = asked.take()
    assert b"\r\nHost: idp\r\n" in head
    asked.send(b"HTTP/1.1 %d x\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body))


def test_keys_are_fetched_before_the_first_token_and_then_behind_the_requests(make: Make) -> None:
    harness = guarded(make, REMOTE)
    asked = [ask(harness, HTTP1, "/", bearer(good(jti=str(i)))) for i in range(2)]
    assert not any(one.is_answered for one in asked)
    answer_keys(harness, tokens.public(KEY))  # one call for both
    assert [answered(harness, one)[0].status for one in asked] == [200, 200]
    assert passes(harness, good()) == 200
    assert fetched(harness) == []
    harness.advance(300)
    assert passes(harness, good(exp=NOW + 900)) == 200  # with the old ones
    answer_keys(harness, tokens.public(OTHER))
    assert passes(harness, sign(OTHER, claims(NOW + 300))) == 200


def test_a_known_token_renews_the_keys_and_is_judged_by_the_new_ones(make: Make) -> None:
    harness = guarded(make, REMOTE)
    text = good(exp=NOW + 9000)
    asked = ask(harness, HTTP1, "/", bearer(text))
    answer_keys(harness, tokens.public(KEY))
    assert answered(harness, asked)[0].status == 200
    harness.advance(301)
    assert passes(harness, text) == 200
    answer_keys(harness, tokens.public(OTHER))
    harness.advance(11)
    refused = ask(harness, HTTP1, "/", bearer(text))
    answer_keys(harness, tokens.public(OTHER))  # its key may be a new one
    assert refused.answer().status == 401
    assert harness.outcomes[-1].code == "jwt-key"


def test_an_unknown_key_is_looked_for_and_not_too_often(make: Make) -> None:
    harness = guarded(make, REMOTE)
    asked = ask(harness, HTTP1, "/", bearer(good()))
    answer_keys(harness, tokens.public(KEY))
    assert answered(harness, asked)[0].status == 200
    new = sign(OTHER, claims(NOW))
    assert passes(harness, new) == 401  # just fetched
    harness.advance(11)
    asked = ask(harness, HTTP1, "/", bearer(new))
    answer_keys(harness, tokens.public(KEY, OTHER))
    assert answered(harness, asked)[0].status == 200
    for _ in range(5):
        assert passes(harness, sign(tokens.ec("three"), claims(NOW))) == 401
    assert fetched(harness) == []


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [(b"no", 200, "expected a JWKS"), (b"", 404, "status 404"), (b"x" * (1 << 20 | 1), 200, "call-too-large")],
)  # fmt: skip
def test_without_keys_nobody_passes_and_the_next_look_is_soon(
    make: Make, body: bytes, status: int, detail: str
) -> None:
    harness = guarded(make, REMOTE)
    asked = ask(harness, HTTP1, "/", bearer(good()))
    answer_keys(harness, body, status)
    assert asked.answer().status == 503
    harness.settle()
    assert harness.outcomes[-1][:3] == (503, "jwks-unavailable", "UAEX")
    assert detail in harness.sink.exchanges[-1].detail
    assert ask(harness, HTTP1, "/", bearer(good())).answer().status == 503  # at once
    harness.advance(1.1)
    asked = ask(harness, HTTP1, "/", bearer(good()))
    answer_keys(harness, tokens.public(KEY))
    assert answered(harness, asked)[0].status == 200


def test_old_keys_serve_while_there_are_no_new_ones(make: Make) -> None:
    harness = guarded(make, REMOTE)
    asked = ask(harness, HTTP1, "/", bearer(good()))
    answer_keys(harness, tokens.public(KEY))
    assert answered(harness, asked)[0].status == 200
    for _ in range(3):
        harness.advance(301)
        assert passes(harness, good(exp=NOW + 9000)) == 200
        answer_keys(harness, b"", 500)
        assert passes(harness, good(exp=NOW + 9000)) == 200


def test_a_fetch_that_takes_too_long_is_over_before_the_wait_is(make: Make) -> None:
    harness = guarded(make, REMOTE)
    asked = ask(harness, HTTP1, "/", bearer(good()))
    harness.advance(5.1)
    assert asked.answer().status == 503
    assert harness.sink.exchanges[-1].detail == "upstream-timeout"


def test_a_caller_that_has_gone_meanwhile_is_not_asked_for(make: Make) -> None:
    harness = guarded(make, REMOTE)
    asked = ask(harness, HTTP1, "/", bearer(good()))
    asked.transport.lose()
    answer_keys(harness, tokens.public(KEY))
    assert passes(harness, good()) == 200


def test_keys_outlive_a_push(make: Make) -> None:
    harness = guarded(make, REMOTE)
    asked = ask(harness, HTTP1, "/", bearer(good()))
    answer_keys(harness, tokens.public(KEY))
    assert answered(harness, asked)[0].status == 200
    route = {"jwt": {"issuers": [REMOTE], "required": False}}
    harness.swap(role="inbound", route=route, files=FILES, clusters=[IDP])
    harness.connects_at_once = True
    assert passes(harness, good(jti="new")) == 200
    assert fetched(harness) == []


# On a listener:


def test_a_listener_may_ask_for_tokens_and_takes_no_opaque_sessions(make: Make) -> None:
    jwt = {"issuers": [ACME], "forward": True}
    route = {"jwt": {"issuers": [ACME]}}
    harness = make(role="inbound", protocol="auto", files=FILES, route=route, listener={"jwt": jwt})
    harness.connects_at_once = True
    seen, sent = answered(harness, ask(harness, HTTP1, "/", bearer(good())))
    assert seen.status == 200
    assert b"authorization" not in fields(sent)  # the route's takes it out
    caller = harness.open()
    harness.advance(1)
    assert (caller.fate, harness.sink.sessions[0].code) == ("reset", "requests-only")


def test_several_issuers_are_told_by_what_the_token_says(make: Make) -> None:
    second = {
        "issuer": "other",
        "audiences": ["*"],
        "secret_file": "/secret",
        "algorithms": ["HS256"],
    }
    harness = guarded(make, ACME, second)
    secret = tokens.shared(b"s" * 32)
    made = sign(secret, claims(NOW, iss="other", aud=None), alg="HS256", kid=None)
    assert (passes(harness, good()), passes(harness, made)) == (200, 200)
    crossed = sign(secret, claims(NOW), alg="HS256", kid=None)
    assert passes(harness, crossed) == 401  # a secret of one issuer says nothing for the other


def test_the_log_says_whom_a_token_names(make: Make) -> None:
    harness = guarded(make)
    lines: list[bytes] = []
    kinds = [AccessLogSink(lines.append, form) for form in ("text", "json")]
    harness.engine.sinks = (*harness.engine.sinks, *kinds)
    assert passes(harness, good(sub='a"b\n')) == 200
    assert lines[0].endswith(b' jwt_sub="a\\x22b\\x0a"\n')
    assert json.loads(lines[1])["jwt_sub"] == 'a"b\n'
    assert passes(harness, good(sub=7)) == 200
    assert b"jwt_sub" not in lines[2]
