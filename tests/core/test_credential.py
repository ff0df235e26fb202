"""What a claim says as text, and which fields an app may take for ours."""

from typing import Any

import pytest

from sidecar.core.credential import claim_values, lookalikes, strip, take_out
from sidecar.wire.fields import RequestHead

CLAIMS: dict[str, Any] = {
    "sub": "alice",
    "n": 7,
    "f": 1.5,
    "yes": True,
    "no": False,
    "nothing": None,
    "roles": ["admin", 7, True, None, {"x": 1}, ["y"]],
    "scope": "read  write",
    "realm": {"tenant": "acme", "roles": ["a", "b"], "deep": {"er": "x"}},
    "https://example.org/group": "dotted",
    "a.b": "whole",
    "a": {"b": "stepped"},
    "text": "read write",
    "odd": "\ud800",
}


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("sub", [b"alice"]),
        ("n", [b"7"]),
        ("f", [b"1.5"]),
        ("yes", [b"true"]),
        ("no", [b"false"]),
        ("nothing", []),
        ("absent", []),
        ("roles", [b"admin", b"7", b"true"]),
        ("scope", [b"read", b"write"]),
        ("text", [b"read write"]),
        ("realm", []),
        ("realm.tenant", [b"acme"]),
        ("realm.roles", [b"a", b"b"]),
        ("realm.deep.er", [b"x"]),
        ("realm.tenant.x", []),
        ("https://example.org/group", [b"dotted"]),
        ("a.b", [b"whole"]),
        ("odd", [b"?"]),
    ],
)
def test_claims_are_texts(name: str, values: list[bytes]) -> None:
    assert claim_values(CLAIMS, name) == values


OURS = lookalikes([b"x-user-id", b"x_t"])
SENT = [
    (b"X-User-Id", True),
    (b"x_user_id", True),
    (b"X-User_ID", True),
    (b"x-t", True),
    (b"x-user-idx", False),
    (b"ax-user-id", False),
    (b"xxuser-id", False),
]


@pytest.mark.parametrize("is_2", [False, True])
def test_fields_that_look_like_ours_are_taken_out(is_2: bool) -> None:
    if is_2:
        head = RequestHead(b"GET", b"/", 20, b"", {}, [(n.lower(), b"v") for n, _ in SENT])
    else:
        block = b"".join(name + b": v\r\n" for name, _ in SENT)
        head = RequestHead(b"GET", b"/", 11, block, {})
    for name, _ in SENT:
        assert head.get(name.lower()) == b"v"
    strip(head, OURS)
    left = [name.lower() for name, is_ours in SENT if not is_ours]
    assert [name for name, _ in head.as_pairs()] == left
    assert set(head.found) == set(left)
    strip(head, OURS)
    assert [name for name, _ in head.as_pairs()] == left


TAKEN: list[tuple[bytes, bytes]] = [
    (b"A: 1\r\nX-Key: k\r\nB: 2\r\n", b"A: 1\r\nB: 2\r\n"),
    (b"x-key:k\r\n", b""),
    (b"X-KEY: \t k \t\r\nA: k\r\n", b"A: k\r\n"),
    (b"A: k\r\nX-Key: k\r\n", b"A: k\r\n"),  # the value is found elsewhere first
    (b"X-Key: k\r\nA: 1\r\nX-Key: l\r\n", b"A: 1\r\n"),
    (b"X-Key: k\r\nX-Key: k\r\n", b""),
    (b"X-Key: a, b\r\nX-Key: a\r\n", b""),
    (b"X-Key: kk\r\nA: 1\r\nX-Key: k\r\n", b"A: 1\r\n"),
    (b"X-Keys: k\r\nX-Key: k\r\n", b"X-Keys: k\r\n"),
    (b"X-Key:\r\nA: 1\r\n", b"A: 1\r\n"),
    (b"A: 1\r\n", b"A: 1\r\n"),
]


@pytest.mark.parametrize(("block", "left"), TAKEN)
@pytest.mark.parametrize("looked", [True, False])
def test_a_field_is_taken_out_wherever_and_however_often_it_stands(
    block: bytes, left: bytes, looked: bool
) -> None:
    head = RequestHead(b"GET", b"/", 11, block, {})
    if looked:
        head.get(b"x-key")
    take_out(head, b"x-key")
    assert (head.block, head.get(b"x-key")) == (left, None)


def test_a_field_of_http2_is_taken_out_too() -> None:
    head = RequestHead(b"GET", b"/", 20, b"", {}, [(b"x-key", b"k"), (b"a", b"1")])
    assert head.get(b"x-key") == b"k"
    take_out(head, b"x-key")
    assert (head.pairs, head.get(b"x-key")) == ([(b"a", b"1")], None)
