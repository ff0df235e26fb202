"""The filters in config/filters do what their first lines say."""

import hashlib
import hmac
import json
import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.core.asking import HTTP1, PROTOCOLS, Asked, ask
from tests.core.harness import OK, Harness

Make = Callable[..., Harness]

BOTH = pytest.mark.parametrize("protocol", PROTOCOLS)
FILTERS = Path(__file__).parents[2] / "config" / "filters"


def example(make: Make, name: str, **settings: Any) -> Harness:
    code = (FILTERS / f"{name}.py").read_text()
    one = {"name": name, "code": code, "settings": settings}
    harness = make(route={"filters": [one]})
    harness.connects_at_once = True
    return harness


def served(harness: Harness, response: bytes = OK) -> str:
    """Answer what has gone up; return it in lower case."""
    (head,) = [got for upstream in harness.upstreams if (got := upstream.take())]
    for upstream in harness.upstreams[-1:]:
        upstream.send(response)
    return bytes(head).decode().lower()


# A/B:


@BOTH
def test_a_visitor_keeps_the_variant_it_was_given(make: Make, protocol: str) -> None:
    harness = example(make, "ab_cookie", variants={"old": 1, "new": 1})
    asked = ask(harness, protocol)
    up = served(harness)
    (variant,) = re.findall(r"x-variant: (\w+)\r\n", up)
    assert variant in ("old", "new")
    cookie = asked.answer().fields[b"set-cookie"].decode()
    assert cookie.startswith(f"variant={variant}; Path=/; Max-Age=2592000; HttpOnly")
    for _ in range(8):
        asked = ask(harness, protocol, "/", ("Cookie", f"a=b; variant={variant}"))
        assert f"x-variant: {variant}" in served(harness)
        assert b"set-cookie" not in asked.answer().fields
    assert harness.sink.exchanges[0].fields == {"variant": variant}


def test_variants_come_out_by_their_weights_whatever_callers_send(make: Make) -> None:
    random.seed(7)
    harness = example(make, "ab_cookie", variants={"old": 3, "new": 1}, cookie="v")
    found: Counter[str] = Counter()
    for _ in range(400):
        asked = ask(harness, HTTP1, "/", ("Cookie", "v=mine"), ("X-Variant", "mine"))
        found.update(re.findall(r"x-variant: (\w+)\r\n", served(harness)))
        asked.transport.lose()
    assert set(found) == {"old", "new"}
    assert abs(found["new"] - 100) < 45  # 5 standard deviations


# HMAC:


@pytest.fixture
def signed(make: Make, tmp_path: Path) -> Harness:
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"partner": "secret"}))
    return example(make, "hmac_signature", keys_file=str(keys))


def signature(
    *, key: str = "partner", secret: bytes = b"secret", time: int = 1_700_001_000,
    method: str = "GET", target: str = "/a?b", host: str = "a", digest: str = "",
) -> str:  # fmt: skip
    text = "\n".join((str(time), method, target, host, digest))
    mac = hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()
    return f"key={key},time={time},mac={mac}"


def ask_signed(harness: Harness, protocol: str, text: str, *fields: tuple[str, str]) -> Asked:
    return ask(harness, protocol, "/a?b", ("X-Signature", text), *fields)


@BOTH
@pytest.mark.parametrize("digest", ["", "sha-256=:abc=:"])
def test_a_signed_request_passes_and_says_who_signed(
    signed: Harness, protocol: str, digest: str
) -> None:
    fields = [("Content-Digest", digest)] if digest else []
    asked = ask_signed(
        signed, protocol, signature(digest=digest), *fields, ("X-Signed-By", "mallory")
    )
    up = served(signed)
    assert up.count("x-signed-by") == 1
    assert "x-signed-by: partner\r\n" in up
    assert asked.answer().status == 200


@BOTH
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "unknown_key"),
        ("key=partner", "malformed"),
        ("key=partner,time=1e9,mac=", "malformed"),
        ("key=partner,time=999999999999,mac=", "malformed"),
        ("\xff\xfe=,key=partner,time=1700001000,mac=\xff", "wrong"),
        (signature(key="other"), "unknown_key"),
        (signature(secret=b"guess"), "wrong"),
        (signature(method="POST"), "wrong"),
        (signature(target="/b"), "wrong"),
        (signature(host="b"), "wrong"),
        (signature(digest="x"), "wrong"),
        (signature(time=1_700_000_699), "too_old"),
        (signature(time=1_700_001_301), "too_old"),
        (signature(time=1_700_000_701), ""),
    ],
)
def test_what_is_not_signed_is_refused(
    signed: Harness, protocol: str, text: str, reason: str
) -> None:
    asked = ask_signed(signed, protocol, text)
    if not reason:
        served(signed)
        assert asked.answer().status == 200
        return
    seen = asked.answer()
    assert (seen.status, seen.fields[b"www-authenticate"]) == (401, b"Signature")
    assert signed.sink.exchanges[0].fields == {"signature": reason}
    assert signed.dials == []


def test_without_a_signature_nothing_passes(signed: Harness) -> None:
    assert ask(signed).answer().status == 401


# Scrubbing:


@BOTH
def test_personal_data_is_taken_out_both_ways(make: Make, protocol: str) -> None:
    harness = example(make, "scrub_header", request=["x-user"], response=["x-note"], drop=["x-ssn"])
    note = (
        "for jane.doe+x@mail.example.org, card 4111 1111 1111 1111, order 4111111111111112,"
        " DE89 3704 0044 0532 0130 00"
    )
    asked = ask(
        harness, protocol, "/", ("X-User", "id=7;a@b.example"), ("X-SSN", "1"), ("X-Note", note)
    )
    up = served(
        harness, OK.replace(b"\r\n\r\n", f"\r\nX-Note: {note}\r\nX-Ssn: 2\r\n\r\n".encode())
    )
    assert "x-user: id=7;[email]\r\n" in up
    assert "x-ssn" not in up
    assert "jane.doe" in up  # a field that is not named is left alone
    fields = asked.answer().fields
    assert fields[b"x-note"] == b"for [email], card [card], order 4111111111111112, [iban]"
    assert b"x-ssn" not in fields
    counted = [dict(labels).get("field") for _, labels, values in harness.engine.counts.rows()]
    assert {"x-user", "x-note"} <= set(counted)


@BOTH
def test_what_holds_nothing_passes_unchanged(make: Make, protocol: str) -> None:
    harness = example(make, "scrub_header", request=["x-user"], response=["x-none"])
    asked = ask(harness, protocol, "/", ("X-User", "order 17, 10:30"))
    assert "x-user: order 17, 10:30\r\n" in served(harness)
    assert asked.answer().status == 200
