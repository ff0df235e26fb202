"""Requests with API keys and passwords: who passes, what the app sees, and what holds nobody up."""

from base64 import b64encode
from collections.abc import Callable
from typing import Any

import pytest

from sidecar.core.credential import lookalikes
from sidecar.filters import basic_auth
from sidecar.filters.basic_auth import MAX_WAITING, REMEMBERED, BasicAuth, State
from sidecar.identity.hashed import key_line, mark
from tests import tokens
from tests.core.asking import HTTP1, PROTOCOLS, Asked, ask
from tests.core.harness import OK, Harness, later
from tests.core.reading import Message, read_request
from tests.tokens import claims, sign

Make = Callable[..., Harness]

BOTH = pytest.mark.parametrize("protocol", PROTOCOLS)
KEYS = f"{key_line('batch', b'k1')}\n{key_line('report', b'k2')}\n".encode()
TOKENS = tokens.ec()
FILES = {"/keys": KEYS, "/jwks": tokens.public(TOKENS)}


def keyed(make: Make, route: Any = None, **more: Any) -> Harness:
    keys = {"file": "/keys", **more}
    harness = make(role="inbound", route={"api_keys": keys, **(route or {})}, files=FILES)
    harness.connects_at_once = True
    return harness


def sent(harness: Harness) -> dict[bytes, bytes]:
    """Have the app answer; return the fields that it saw."""
    found: dict[bytes, bytes] = {}
    for upstream in harness.upstreams:
        octets = upstream.take()
        if octets:
            message = read_request(octets)
            assert isinstance(message, Message)
            found = {b":target": message.start[1]}
            found |= {name.lower(): value for name, value in message.fields}
            upstream.send(OK)
    return found


# API keys:


@BOTH
@pytest.mark.parametrize(
    ("location", "target", "fields"),
    [
        ("header:x-api-key", "/a", [("X-API-Key", "k1")]),
        ("header:authorization", "/a", [("Authorization", "Bearer k1")]),
        ("query:key", "/a?key=k1", []),
        ("cookie:key", "/a", [("Cookie", "key=k1")]),
    ],
)
def test_a_known_key_passes_and_does_not_reach_the_app(
    make: Make, protocol: str, location: str, target: str, fields: list[tuple[str, str]]
) -> None:
    harness = keyed(make, locations=[location], user_header="x-client")
    lies = [("x-client", "root"), ("x_client", "root")]
    asked = ask(harness, protocol, target, *fields, *lies)
    found = sent(harness)
    assert asked.answer().status == 200
    assert found[b":target"] == b"/a"
    assert not {b"x-api-key", b"authorization", b"cookie", b"x_client"} & set(found)
    assert found[b"x-client"] == b"batch"
    assert harness.sink.exchanges[0].fields == {"user": "batch"}


def test_it_is_passed_on_where_that_is_wanted_and_a_second_one_never_is(make: Make) -> None:
    harness = keyed(make, locations=["header:x-api-key", "query:key"], forward=True)
    asked = ask(harness, HTTP1, "/a?key=k2&b", ("X-API-Key", "k1"))
    found = sent(harness)
    assert asked.answer().status == 200
    assert (found[b"x-api-key"], found[b":target"]) == (b"k1", b"/a?b")


@BOTH
@pytest.mark.parametrize("required", [True, False])
@pytest.mark.parametrize("key", ["k3", "", "K1", "k1 "[:3], "k" * 9000])
def test_an_unknown_key_is_refused(make: Make, protocol: str, required: bool, key: str) -> None:
    harness = keyed(make, required=required, locations=["query:key"])
    seen = ask(harness, protocol, f"/?key={key.replace(' ', '%20')}").answer()
    assert (seen.status, seen.fields[b"www-authenticate"]) == (401, b'ApiKey realm="sidecar"')
    assert harness.outcomes[0][:3] == (401, "key-unknown", "UAEX")


def test_without_a_key_nobody_passes_unless_it_is_optional(make: Make) -> None:
    harness = keyed(make)
    seen = ask(harness).answer()
    assert (seen.status, harness.outcomes[0].code) == (401, "key-missing")
    assert ask(harness, HTTP1, "/s/m", ("Content-Type", "application/grpc"), method="POST").answer().fields[
        b"grpc-status"] == b"16"  # fmt: skip
    harness = keyed(make, required=False)
    asked = ask(harness)
    sent(harness)
    assert asked.answer().status == 200


def test_rules_quotas_and_tokens_know_whose_key_it_is(make: Make) -> None:
    route = {
        "jwt": {"issuers": [{"issuer": tokens.ISSUER, "audiences": ["*"], "jwks_file": "/jwks"}]},
        "authorization": [
            {"action": "allow", "match": {"users": ["batch", {"prefix": "rep"}], "claims": {"sub": "alice"}}}
        ],
        "rate_limits": [{"requests": 1, "per": "60s", "by": ["user"]}],
    }  # fmt: skip
    harness = keyed(make, route=route)
    token = sign(TOKENS, claims(1_700_001_000.0))
    found = []
    for key in ("k1", "k2", "k1"):
        asked = ask(harness, HTTP1, "/", ("x-api-key", key), ("Authorization", f"Bearer {token}"))
        sent(harness)
        found.append(asked.answer().status)
    assert found == [200, 200, 429]
    assert harness.sink.exchanges[0].fields == {"jwt_sub": "alice", "user": "batch"}


def test_rules_may_shut_a_key_out(make: Make) -> None:
    rules = [{"action": "deny", "match": {"users": ["batch"]}}]
    harness = keyed(make, required=False, route={"authorization": rules})
    assert ask(harness, HTTP1, "/", ("x-api-key", "k1")).answer().status == 403
    asked = ask(harness)
    sent(harness)
    assert asked.answer().status == 200


# Passwords:


class Slow:
    """A password that is what the test says, as often as the test has said."""

    def __init__(self, name: str, password: bytes) -> None:
        self.name, self.password = name, password
        self.tried: list[bytes] = []

    def holds(self, password: bytes) -> bool:
        self.tried.append(password)
        if password == b"broken":
            raise MemoryError
        return password == self.password


async def aside(work: Callable[[], bool]) -> bool:
    await later()  # in the test's own time
    return work()


class Rig:
    """A listener with passwords; hashing ends when the test says so."""

    def __init__(self, make: Make, **changes: Any) -> None:
        self.alice, self.nobody = Slow("alice", b"secret"), Slow("", b"\0never")
        self.state = State()
        settings = {
            "passwords": {"alice": self.alice},
            "nobody": self.nobody,
            "required": True,
            "forward": False,
            "header": b"x-user",
            "spoofed": lookalikes([b"x-user"]),
            "state": self.state,
            "aside": aside,
            **changes,
        }
        stop = BasicAuth(basic_auth.Settings(**settings))
        self.harness = make(role="inbound", filters=(stop,))
        self.harness.connects_at_once = True

    def ask(
        self, pair: str | bytes = "alice:secret", *, protocol: str = HTTP1, scheme: str = "Basic"
    ) -> Asked:
        octets = pair.encode() if isinstance(pair, str) else pair
        value = f"{scheme} {b64encode(octets).decode()}"
        return ask(self.harness, protocol, "/", ("Authorization", value), ("X_User", "root"))

    def hash(self) -> None:
        """Let the hash that is under way come to its end."""
        job = next(job for job in self.harness.jobs if not job.is_over)
        job.step()
        self.harness.settle()

    def status(self, asked: Asked) -> int:
        self.seen = sent(self.harness)
        return asked.answer().status


@BOTH
def test_a_right_pair_passes_and_does_not_reach_the_app(make: Make, protocol: str) -> None:
    rig = Rig(make)
    asked = rig.ask(protocol=protocol, scheme="bAsIc")
    assert not asked.is_answered
    rig.hash()
    assert rig.status(asked) == 200
    assert b"authorization" not in rig.seen
    assert (rig.seen[b"x-user"], rig.seen.get(b"x_user")) == (b"alice", None)
    assert rig.harness.sink.exchanges[0].fields == {"user": "alice"}


def test_it_is_passed_on_where_that_is_wanted(make: Make) -> None:
    rig = Rig(make, forward=True, header=b"", spoofed=None)
    asked = rig.ask()
    rig.hash()
    assert rig.status(asked) == 200
    assert rig.seen[b"authorization"] == b"Basic " + b64encode(b"alice:secret")
    assert rig.seen[b"x_user"] == b"root"


def test_a_pair_that_was_right_is_known_from_then_on(make: Make) -> None:
    rig = Rig(make)
    asked = rig.ask()
    rig.hash()
    assert rig.status(asked) == 200
    assert rig.status(rig.ask()) == 200
    assert rig.alice.tried == [b"secret"]
    assert b"secret" not in b"".join(rig.state.right)


@pytest.mark.parametrize(
    "pair", ["alice:Secret", "bob:secret", "alice:", "alice:secret:", b"alice:\xff"]
)
def test_a_wrong_pair_is_hashed_every_time_whoever_it_names(make: Make, pair: str | bytes) -> None:
    rig = Rig(make)
    for _ in range(2):
        asked = rig.ask(pair)
        rig.hash()
        seen = asked.answer()
        assert seen.status == 401
        assert seen.fields[b"www-authenticate"] == b'Basic realm="sidecar", charset="UTF-8"'
    assert rig.harness.outcomes[0][:3] == (401, "password-wrong", "UAEX")
    assert len(rig.alice.tried + rig.nobody.tried) == 2


@pytest.mark.parametrize(
    "value",
    ["Basic", "Basic !", "Basic YQ=", "Basic YWxpY2U=", "Basic /zp4", "Basic YTpi, Basic YTpi",
     "Basic " + b64encode(b"alice:" + b"x" * 1025).decode(), "Basic " + b64encode(b":x").decode()],
)  # fmt: skip
def test_what_is_no_pair_is_refused_at_once(make: Make, value: str) -> None:
    rig = Rig(make, required=False)
    assert ask(rig.harness, HTTP1, "/", ("Authorization", value)).answer().status == 401
    assert rig.harness.jobs == []


def test_without_a_password_nobody_passes_unless_it_is_optional(make: Make) -> None:
    others = ("Authorization", "Bearer x")
    rig = Rig(make)
    for fields in ([], [others]):
        seen = ask(rig.harness, HTTP1, "/", *fields).answer()
        assert (seen.status, rig.harness.outcomes[-1].code) == (401, "password-missing")
    rig = Rig(make, required=False)
    asked = ask(rig.harness, HTTP1, "/", others)
    assert rig.status(asked) == 200
    assert rig.seen[b"authorization"] == b"Bearer x"


def test_the_same_pair_is_hashed_once_for_all_who_bring_it(make: Make) -> None:
    rig = Rig(make)
    asked = [rig.ask() for _ in range(3)]
    rig.hash()
    assert [rig.status(one) for one in asked] == [200] * 3
    assert rig.alice.tried == [b"secret"]


def test_one_hash_is_worked_out_at_a_time(make: Make) -> None:
    rig = Rig(make)
    first, second = rig.ask("alice:wrong"), rig.ask("alice:secret")
    assert len(rig.harness.jobs) == 1
    rig.hash()
    assert first.answer().status == 401
    assert not second.is_answered
    rig.hash()
    assert rig.status(second) == 200


def test_too_many_that_wait_are_turned_away_and_the_known_are_not(make: Make) -> None:
    rig = Rig(make)
    asked = rig.ask()
    rig.hash()
    assert rig.status(asked) == 200
    waiting = [rig.ask(f"alice:{index}") for index in range(MAX_WAITING)]
    over = rig.ask("alice:one more").answer()
    assert (over.status, rig.harness.outcomes[-1][1:3]) == (503, ("password-overflow", "OM"))
    assert rig.status(rig.ask()) == 200
    for _ in waiting:
        rig.hash()
    assert {one.answer().status for one in waiting} == {401}


def test_who_has_waited_too_long_is_told_so(make: Make) -> None:
    rig = Rig(make)
    asked = rig.ask()
    rig.harness.advance(10.1)
    assert asked.answer().status == 503
    assert rig.harness.outcomes[-1].code == "password-overflow"
    rig.hash()  # too late for that one
    assert rig.status(rig.ask()) == 200


def test_who_has_gone_meanwhile_is_not_asked_for(make: Make) -> None:
    rig = Rig(make)
    rig.ask().transport.lose()
    rig.hash()
    assert rig.status(rig.ask()) == 200


def test_a_hash_that_fails_lets_nobody_in_and_is_told(make: Make) -> None:
    rig = Rig(make)
    asked, after = rig.ask("alice:broken"), rig.ask()
    rig.hash()
    assert asked.answer().status == 401
    rig.hash()
    assert rig.status(after) == 200
    assert isinstance(rig.harness.bugs.pop(), MemoryError)


def test_the_oldest_pair_is_forgotten_first() -> None:
    state = State()
    for index in range(REMEMBERED + 1):
        state.remember(mark(b"%d" % index), "alice")
    assert len(state.right) == REMEMBERED
    assert mark(b"0") not in state.right
    assert mark(b"1") in state.right
