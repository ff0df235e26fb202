"""Like requests go to one endpoint: what is hashed, the cookie that is given, the bound on load."""

from collections.abc import Callable
from typing import Any

import pytest

from sidecar.core.book import Endpoint
from tests.core.harness import OK, Harness

Make = Callable[..., Harness]

PLACES = tuple(f"10.0.0.{number}:80" for number in range(1, 9))
BALANCERS = ("ring_hash", "maglev")


def hashing(make: Make, *policy: dict[str, Any], balancer: str = "ring_hash") -> Harness:
    return make(
        endpoints=PLACES, cluster={"balancer": balancer}, route={"hash_policy": list(policy)}
    )


def goes_to(harness: Harness, *lines: str, target: str = "/", host: str = "10.9.9.9") -> str:
    """Return the endpoint that a request is sent to, and let it be answered."""
    head = "".join(f"{line}\r\n" for line in (f"GET {target} HTTP/1.1", "Host: a", *lines, ""))
    harness.connects_at_once = True
    caller = harness.open(head.encode(), host=host)
    answer = b"HTTP/1.1 204 None\r\n\r\n"
    next(u for u in harness.upstreams if u.take()).send(answer)
    assert caller.take().startswith(answer[:-2])
    return harness.outcomes[-1].endpoint


@pytest.mark.parametrize("balancer", BALANCERS)
@pytest.mark.parametrize(
    ("policy", "vary"),
    [
        ({"header": "X-User"}, lambda n: {"lines": (f"x-user: {n}",)}),
        ({"cookie": "user"}, lambda n: {"lines": (f"cookie: other=1; user={n}",)}),
        ({"query_parameter": "user"}, lambda n: {"target": f"/?a=b&user={n}&c"}),
        ({"source_ip": True}, lambda n: {"host": f"10.9.9.{n}"}),
    ],
)
def test_like_requests_go_to_one_endpoint_and_others_to_others(
    make: Make, policy: dict[str, Any], vary: Callable[[int], dict[str, Any]], balancer: str
) -> None:
    harness = hashing(make, policy, balancer=balancer)
    chances = iter(number / 100 for number in range(100))

    def place(number: int) -> str:
        harness.chance = next(chances)  # which changes nothing
        how = dict(vary(number))
        return goes_to(harness, *how.pop("lines", ()), **how)

    first = [place(number) for number in range(20)]
    assert first == [place(number) for number in range(20)]
    assert len(set(first)) >= 4


@pytest.mark.parametrize(
    ("policy", "host"),
    [
        ({"header": "x-user"}, "10.9.9.9"),
        ({"cookie": "user"}, "10.9.9.9"),
        ({"query_parameter": "user"}, "10.9.9.9"),
        ({"source_ip": True}, ""),  # a unix socket
    ],
)
def test_what_is_not_there_leaves_it_to_chance(
    make: Make, policy: dict[str, Any], host: str
) -> None:
    harness = hashing(make, policy)
    found = set()
    for number in range(20):
        harness.chance = number / 20
        found.add(goes_to(harness, host=host))
    assert len(found) >= 4


@pytest.mark.parametrize(("terminal", "matters"), [(True, False), (False, True)])
def test_a_terminal_policy_leaves_the_next_aside(make: Make, terminal: bool, matters: bool) -> None:
    harness = hashing(make, {"header": "x-a", "terminal": terminal}, {"header": "x-b"})
    found = {goes_to(harness, "x-a: 1", f"x-b: {number}") for number in range(20)}
    assert (len(found) > 1) is matters
    alone = {goes_to(harness, f"x-b: {number}") for number in range(20)}
    assert len(alone) > 1


@pytest.mark.parametrize(
    ("cookie", "attributes"),
    [
        ({"name": "at", "ttl": "1h"}, b"; Max-Age=3600; Path=/; HttpOnly"),
        ({"name": "at", "ttl": 0, "path": "/shop"}, b"; Path=/shop; HttpOnly"),
    ],
)
def test_a_caller_without_the_cookie_is_given_one_that_leads_back(
    make: Make, cookie: dict[str, Any], attributes: bytes
) -> None:
    harness = hashing(make, {"cookie": cookie})
    harness.connects_at_once = True
    found = set()
    for number in range(6):
        harness.bits = number << 64  # another request id, so another cookie
        caller = harness.open(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        next(u for u in harness.upstreams if u.take()).send(OK)
        (line,) = [x for x in caller.take().split(b"\r\n") if x.startswith(b"set-cookie: ")]
        name, _, rest = line.removeprefix(b"set-cookie: ").partition(b"=")
        assert name == b"at"
        assert rest[16:] == attributes
        place = harness.outcomes[-1].endpoint
        assert goes_to(harness, f"cookie: at={rest[:16].decode()}") == place
        found.add(place)
    assert len(found) > 1


def test_who_has_the_cookie_is_given_none(make: Make) -> None:
    harness = hashing(make, {"cookie": {"name": "at", "ttl": 0}})
    harness.connects_at_once = True
    caller = harness.open(b"GET / HTTP/1.1\r\nHost: a\r\nCookie: b=1; at=x\r\n\r\n")
    harness.upstreams[0].send(OK)
    assert caller.take() == OK


def test_the_endpoint_next_by_preference_takes_over(make: Make) -> None:
    harness = hashing(make, {"header": "x-user"})
    place = goes_to(harness, "x-user: 1")
    others = {number: goes_to(harness, f"x-user: {number}") for number in range(20)}
    harness.endpoint(place).available = False
    again = goes_to(harness, "x-user: 1")
    assert again != place
    assert goes_to(harness, "x-user: 1") == again
    for number, other in others.items():
        if other != place:
            assert goes_to(harness, f"x-user: {number}") == other


@pytest.mark.parametrize(("protocol", "policy"), [("tcp", "source_ip"), ("auto", "header")])
def test_a_session_has_an_address_and_no_fields(make: Make, protocol: str, policy: str) -> None:
    value: Any = True if policy == "source_ip" else "x-user"
    policies = [{policy: value}]
    if protocol == "auto":
        policies += [{"cookie": {"name": "a", "ttl": 0}}, {"query_parameter": "b"}]
    harness = make(
        protocol=protocol,
        endpoints=PLACES,
        cluster={"balancer": "maglev"},
        route={"hash_policy": policies},
    )
    found = set()
    for number in range(10):
        harness.chance = number / 10
        harness.open(b"\x00\x00", host="10.9.9.9")
        found.add(harness.dials[-1].address)
    assert (len(found) > 1) is (policy == "header")


def test_bounded_load_sends_what_is_over_to_the_next(make: Make) -> None:
    """Of 40 requests for one key, 125 % of the mean of 8 endpoints: 6.25, so 7 at most."""
    harness = make(
        endpoints=PLACES,
        cluster={"balancer": "ring_hash", "ring_hash": {"hash_balance_factor": 125}},
        route={"hash_policy": [{"header": "x-user"}]},
    )
    for _ in range(40):
        harness.open(b"GET / HTTP/1.1\r\nHost: a\r\nX-User: 1\r\n\r\n")
    loads = sorted(harness.endpoint(place).active for place in PLACES)
    assert sum(loads) == 40
    assert loads[-1] <= 7


def test_a_light_endpoint_without_a_slot_is_still_the_last_resort(make: Make) -> None:
    """The table has 5 slots; the weight of the second endpoint is worth none of them."""
    harness = make(
        endpoints=(),
        cluster={
            "balancer": "maglev",
            "maglev": {"table_size": 5},
            "endpoints": [{"address": "10.0.0.1:80", "weight": 1000}, "10.0.0.2:80"],
        },
    )
    heavy, light = harness.endpoint("10.0.0.1:80"), harness.endpoint("10.0.0.2:80")
    assert isinstance(heavy, Endpoint)
    heavy.available = False
    harness.open(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert light.active == 1
