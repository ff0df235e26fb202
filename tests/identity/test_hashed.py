"""Hashes of API keys and passwords: what is read, what is refused, and that no line shows a secret."""

import hashlib
from base64 import b64decode, b64encode

import pytest

from sidecar.identity import hashed
from sidecar.identity.hashed import key_line, key_mark, new_key, password_line

SALT, DIGEST = b64encode(b"s" * 16).decode(), b64encode(b"d" * 32).decode()


def test_a_drawn_key_is_found_under_its_name() -> None:
    one, two = new_key(), new_key()
    data = f"# keys\n\n{key_line('batch', one.encode())}\n  {key_line('a.b@c', two.encode())}\r\n"
    found = hashed.read_keys(data.encode())
    assert found[key_mark(one.encode())] == "batch"
    assert found[key_mark(two.encode())] == "a.b@c"
    assert key_mark(b"other") not in found
    assert len(one) == 43  # 256 bits
    assert one not in data


def test_a_line_is_what_others_make_of_it() -> None:
    assert key_line("x", b"k") == f"x:sha256:{hashlib.sha256(b'k').hexdigest()}"
    kind, n, r, p, salt, digest = password_line("x", b"p").split(":")[1:]
    made = hashlib.scrypt(
        b"p", salt=b64decode(salt), n=int(n), r=int(r), p=int(p), maxmem=1 << 27, dklen=32
    )
    assert (kind, b64decode(digest)) == ("scrypt", made)


def test_a_password_holds_and_no_other_does() -> None:
    found = hashed.read_passwords(password_line("alice", b"secret").encode())
    assert found["alice"].holds(b"secret")
    assert not found["alice"].holds(b"Secret")
    assert not hashed.nobody(found).holds(b"secret")
    assert password_line("a", b"x") != password_line("a", b"x")  # each has a salt of its own


def test_nobody_costs_what_somebody_does() -> None:
    line = f"a:scrypt:32768:8:1:{SALT}:{DIGEST}"
    assert hashed.nobody(hashed.read_passwords(line.encode()))[:3] == (32768, 8, 1)
    assert hashed.nobody({})[:3] == (16384, 8, 1)


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (b"k3y-that-was-not-hashed", "line 1: expected NAME:KIND:"),
        (b"\n# x\n:sha256:" + b"0" * 64, "line 3: expected NAME:KIND:"),
        (b"a b:sha256:" + b"0" * 64, "line 1: expected NAME:KIND:"),
        (b"a:sha256:" + b"0" * 63, "line 1: expected NAME:sha256:HEX$"),
        (b"a:sha256:" + b"G" * 64, "line 1: expected NAME:sha256:HEX$"),
        (b"a:md5:" + b"0" * 32, "line 1: expected NAME:sha256:HEX$"),
        (b"a:scrypt:16384:8:1:x:y", "a slow hash is for passwords"),
        (b"a:sha256:" + b"0" * 64 + b"\nb:sha256:" + b"0" * 64, "line 2: the key of 'b' is that of 'a'"),
        (b"\xff:sha256:" + b"0" * 64, "expected ASCII"),
    ],
)  # fmt: skip
def test_what_is_no_key_file_is_told_without_showing_the_line(data: bytes, detail: str) -> None:
    with pytest.raises(ValueError, match=detail) as caught:
        hashed.read_keys(data)
    assert "k3y" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "detail"),
    [
        ("a:sha256:" + "0" * 64, "a fast hash can be guessed from"),
        ("a:scrypt:16384:8:1:x", "expected NAME:scrypt:N:R:P:SALT:HASH$"),
        (f"a:scrypt:+16384:8:1:{SALT}:{DIGEST}", "expected NAME:scrypt:N:R:P:SALT:HASH$"),
        (f"a:scrypt:16384:8:1:{SALT}:!!!!", "salt or hash is no base64"),
        (f"a:scrypt:8192:8:1:{SALT}:{DIGEST}", "too weak: expected N a power of 2 from 16384"),
        (f"a:scrypt:16385:8:1:{SALT}:{DIGEST}", "too weak"),
        (f"a:scrypt:16384:4:1:{SALT}:{DIGEST}", "too weak"),
        (f"a:scrypt:16384:8:0:{SALT}:{DIGEST}", "too weak"),
        (f"a:scrypt:131072:8:1:{SALT}:{DIGEST}", "too costly: expected at most 64 MiB"),
        (f"a:scrypt:16384:8:5:{SALT}:{DIGEST}", "too costly"),
        (f"a:scrypt:16384:8:1:AAAA:{DIGEST}", "expected a salt of 8 octets or more"),
        (f"a:scrypt:16384:8:1:{SALT}:AAAA", "expected a salt of 8 octets or more"),
        (f"a:scrypt:16384:8:1:{SALT}:{DIGEST}\na:scrypt:16384:8:1:{SALT}:{DIGEST}", "line 2: 'a' is there twice"),
    ],
)  # fmt: skip
def test_what_is_no_password_file_is_told(line: str, detail: str) -> None:
    with pytest.raises(ValueError, match=detail):
        hashed.read_passwords(line.encode())


@pytest.mark.parametrize(
    ("text", "expected"), [("a", True), ("-a", False), ("a:b", False), ("", False)]
)
def test_names_are_of_few_characters(text: str, expected: bool) -> None:
    assert hashed.is_name(text) is expected
