"""Let requests through that bring a name and its password (RFC 7617).

A slow hash would hold up everybody else, so it is worked out in a thread, one at a time, while the
request waits; a pair that was right once is remembered, and costs microseconds from then on.
"""

from __future__ import annotations

import asyncio
import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, final

from sidecar.core.api import Answer, HttpFilter, Wait
from sidecar.core.credential import accept_user, strip, take_out
from sidecar.identity.hashed import MAX_PASSWORD, Password, mark
from sidecar.plugin import Plugin

if TYPE_CHECKING:
    from sidecar.core.api import Verdict
    from sidecar.core.exchange import Exchange
    from sidecar.core.types import Engine

REMEMBERED: Final = 1024  # pairs that were right; each is 32 octets and a name
MAX_WAITING: Final = 64  # different pairs in the queue: 3 s of hashing
PATIENCE: Final = 10.0  # seconds that a request waits for its turn

_CHALLENGE: Final = ((b"WWW-Authenticate", b'Basic realm="sidecar", charset="UTF-8"'),)
_MISSING: Final = Answer("password-missing", fields=_CHALLENGE)
_WRONG: Final = Answer("password-wrong", fields=_CHALLENGE)
_BASIC: Final = re.compile(rb"(?i:basic)[ ]+([A-Za-z0-9+/]*={0,2})")
_SCHEME: Final = re.compile(rb"(?i:basic)(?: .*)?", re.DOTALL)

Aside = Callable[[Callable[[], bool]], Awaitable[bool]]


@final
class State:
    """What is known of pairs of name and password, and which are being looked at."""

    __slots__ = ("is_hashing", "queue", "right", "waiting")

    def __init__(self) -> None:
        self.right: Final[dict[bytes, str]] = {}  # names, by mark
        self.waiting: Final[dict[bytes, list[Exchange]]] = {}
        self.queue: Final[deque[tuple[bytes, str, Password, bytes]]] = deque()
        self.is_hashing = False

    def remember(self, pair: bytes, name: str) -> None:
        """Keep a pair that was right, in the place of the oldest one if need be."""
        if len(self.right) >= REMEMBERED:
            del self.right[next(iter(self.right))]
        self.right[pair] = name


@dataclass(frozen=True, slots=True)
class Settings:
    """Whose passwords."""

    passwords: Mapping[str, Password]
    """By name."""

    nobody: Password
    """What a name that is not there is compared with."""

    required: bool
    """Whether a request without a pair is refused."""

    forward: bool
    """Whether it is passed on."""

    header: bytes
    """Field for the name; empty: none."""

    spoofed: re.Pattern[bytes] | None
    """Finds fields that callers may not send."""

    state: State
    """Outlives a config push that leaves the file as it is."""

    aside: Aside = asyncio.to_thread
    """Works something out where it holds nobody up."""


@final
class BasicAuth(HttpFilter):
    """See the module."""

    __slots__ = ("_settings",)

    def __init__(self, settings: Settings) -> None:
        self._settings: Final = settings

    def on_request(self, exchange: Exchange) -> Verdict:
        """Look at the pair, or have the request wait until somebody has."""
        settings, state = self._settings, self._settings.state
        if settings.spoofed is not None:
            strip(exchange.head, settings.spoofed)
        value = exchange.head.get(b"authorization")
        if value is None or _SCHEME.fullmatch(value) is None:
            return _MISSING if settings.required else None
        name, password = _pair(value)
        if not name or len(password) > MAX_PASSWORD:
            return _WRONG
        pair = mark(name.encode(), password)
        if pair in state.right:
            return self._decide(exchange, pair)
        waiting = state.waiting.get(pair)
        if waiting is None:
            if len(state.waiting) >= MAX_WAITING:
                return "password-overflow"
            waiting = state.waiting[pair] = []
            held = settings.passwords.get(name, settings.nobody)
            state.queue.append((pair, name, held, password))
            self._next(exchange.engine)
        waiting.append(exchange)
        return Wait(PATIENCE, lambda exchange: self._decide(exchange, pair))

    def _decide(self, exchange: Exchange, pair: bytes) -> Answer | str | None:
        """Say what has come of the pair by now."""
        settings, state = self._settings, self._settings.state
        name = state.right.get(pair)
        if name is None:
            return "password-overflow" if pair in state.waiting else _WRONG
        accept_user(exchange, name, settings.header)
        if not settings.forward:
            take_out(exchange.head, b"authorization")
        return None

    def _next(self, engine: Engine) -> None:
        """Have the next pair looked at, unless one is."""
        state = self._settings.state
        if state.is_hashing or not state.queue:
            return
        pair, name, held, password = state.queue.popleft()
        state.is_hashing = True

        def done(is_right: Any, error: BaseException | None) -> None:
            state.is_hashing = False
            if error is not None:
                engine.bug("basic_auth", error)
            elif is_right:
                state.remember(pair, name)
            for exchange in state.waiting.pop(pair):
                exchange.go_on()
            self._next(engine)

        engine.background(self._hashed(partial(held.holds, password)), done)

    async def _hashed(self, work: Callable[[], bool]) -> bool:
        return await self._settings.aside(work)


def _pair(value: bytes) -> tuple[str, bytes]:
    """Return name and password; an empty name where there is none."""
    found = _BASIC.fullmatch(value)
    if found is None:
        return "", b""
    try:
        name, colon, password = b64decode(found[1], validate=True).partition(b":")
        return (name.decode("ascii"), password) if colon else ("", b"")
    except (Base64Error, UnicodeDecodeError):  # names are ASCII in the file
        return "", b""


PLUGIN = Plugin("basic_auth", Settings, BasicAuth)
