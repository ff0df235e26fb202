"""API keys and passwords, of which only hashes are kept: reading the files, and comparing.

A key that a machine has drawn has at least 128 bits of chance in it, so nobody can guess it from a
fast hash, and it can be looked up by that.  A password can be guessed, so its hash must be slow and
have a salt; that takes a name to find it by, and time that the loop of a worker does not have.
"""

import hmac
import re
import secrets
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from hashlib import blake2b, scrypt, sha256
from typing import Final, NamedTuple

MAX_PASSWORD: Final = 1024  # octets; longer ones are nobody's, and are not worth hashing
MEMORY: Final = 1 << 26  # octets that one hash may take: 64 MiB
COST, BLOCK, LANES = 1 << 14, 8, 1  # 16 MiB and about 50 ms, what RFC 7914 §2 has for log-ins

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}")
_SECRET: Final = secrets.token_bytes(32)  # of this process: see `mark`


class Password(NamedTuple):
    """The hash of one password (RFC 7914)."""

    cost: int
    block: int
    lanes: int
    salt: bytes
    digest: bytes

    def holds(self, password: bytes) -> bool:
        """Say whether `password` is it; takes as long either way, and some 50 ms at that."""
        found = scrypt(
            password, salt=self.salt, n=self.cost, r=self.block, p=self.lanes,
            maxmem=2 * MEMORY, dklen=len(self.digest),
        )  # fmt: skip
        return hmac.compare_digest(found, self.digest)


def mark(*parts: bytes) -> bytes:
    """Return what tables are looked up by in the place of a secret.

    Its octets cannot be foreseen, so the time that a look-up takes says nothing of what is in it.
    """
    return blake2b(b"\0".join(parts), digest_size=32, key=_SECRET).digest()


def key_mark(key: bytes) -> bytes:
    """Return the mark of an API key."""
    return mark(sha256(key).digest())


def read_keys(data: bytes) -> dict[bytes, str]:
    """Return names of API keys by the mark of the key; a line is `NAME:sha256:HEX`.

    Raises:
        ValueError: a line is something else; the text says which.
    """
    found: dict[bytes, str] = {}
    for number, name, rest in _lines(data):
        kind, _, digest = rest.partition(":")
        if kind != "sha256" or not re.fullmatch(r"[0-9a-f]{64}", digest):
            hint = ": a slow hash is for passwords" if kind == "scrypt" else ""
            raise ValueError(f"line {number}: expected NAME:sha256:HEX{hint}")
        place = mark(bytes.fromhex(digest))
        if place in found:
            raise ValueError(f"line {number}: the key of {name!r} is that of {found[place]!r}")
        found[place] = name
    return found


def read_passwords(data: bytes) -> dict[str, Password]:
    """Return hashes of passwords by name; a line is `NAME:scrypt:N:R:P:SALT:HASH`, in base64.

    Raises:
        ValueError: a line is something else, or too weak or too costly; the text says which.
    """
    found: dict[str, Password] = {}
    for number, name, rest in _lines(data):
        if name in found:
            raise ValueError(f"line {number}: {name!r} is there twice")
        try:
            found[name] = _password(rest)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
    return found


def key_line(name: str, key: bytes) -> str:
    """Return the line of an API key that was drawn by `new_key`."""
    return f"{name}:sha256:{sha256(key).hexdigest()}"


def new_key() -> str:
    """Return a new API key: 256 bits of chance."""
    return secrets.token_urlsafe(32)


def password_line(name: str, password: bytes) -> str:
    """Return the line of a password."""
    salt = secrets.token_bytes(16)
    digest = scrypt(password, salt=salt, n=COST, r=BLOCK, p=LANES, maxmem=2 * MEMORY, dklen=32)
    texts = [b64encode(part).decode() for part in (salt, digest)]
    return f"{name}:scrypt:{COST}:{BLOCK}:{LANES}:{':'.join(texts)}"


def is_name(text: str) -> bool:
    """Say whether a key or password can be kept under `text`."""
    return _NAME.fullmatch(text) is not None


def nobody(passwords: dict[str, Password]) -> Password:
    """Return what a name that is not there is compared with, so that it takes as long."""
    like = next(iter(passwords.values()), Password(COST, BLOCK, LANES, b"", b""))
    return like._replace(salt=secrets.token_bytes(16), digest=secrets.token_bytes(32))


def _lines(data: bytes) -> list[tuple[int, str, str]]:
    """Return number, name and rest of each line; blank lines and `#` comments are passed over."""
    found = []
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError:
        raise ValueError("expected ASCII") from None
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        name, colon, rest = line.partition(":")
        if not colon or not is_name(name):
            # Not the line itself: it may be a key that somebody has forgotten to hash.
            raise ValueError(f"line {number}: expected NAME:KIND:...")
        found.append((number, name, rest))
    return found


def _password(text: str) -> Password:
    parts = text.split(":")
    if (
        parts[0] != "scrypt"
        or len(parts) != 6
        or not all(re.fullmatch(r"[0-9]{1,9}", p) for p in parts[1:4])
    ):
        hint = ": a fast hash can be guessed from" if parts[0] == "sha256" else ""
        raise ValueError(f"expected NAME:scrypt:N:R:P:SALT:HASH{hint}")
    cost, block, lanes = map(int, parts[1:4])
    try:
        salt, digest = (b64decode(part, validate=True) for part in parts[4:])
    except Base64Error:
        raise ValueError("salt or hash is no base64") from None
    if cost < COST or cost & (cost - 1) or block < BLOCK or lanes < 1:
        raise ValueError(f"too weak: expected N a power of 2 from {COST}, R from {BLOCK}, P from 1")
    if 128 * block * (cost + lanes) > MEMORY or lanes > 4:
        raise ValueError(
            f"too costly: expected at most {MEMORY >> 20} MiB (128 * N * R), P at most 4"
        )
    if len(salt) < 8 or not 32 <= len(digest) <= 64:
        raise ValueError("expected a salt of 8 octets or more, and a hash of 32 to 64")
    return Password(cost, block, lanes, salt, digest)
