"""Which of a name's addresses takes a connection first: RFC 8305, on a loop that does not know it.

asyncio's own loop has `happy_eyeballs_delay`; uvloop, on which workers run, tries one address after
the other and waits for each until the kernel gives up.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from itertools import chain, zip_longest
from typing import Final, NamedTuple, TypeVar, cast, final

from sidecar.runtime.tasks import spawn

ATTEMPT_DELAY: Final = 0.25  # seconds until the next address is tried as well; RFC 8305 §5
GOOD_FOR: Final = 5.0  # seconds that addresses are used without asking again

Address = TypeVar("Address")
Won = TypeVar("Won")


Where = tuple[str, int] | tuple[str, int, int, int]  # of IPv4, of IPv6


class Place(NamedTuple):
    """One address of a name, as the socket module has it."""

    family: int
    address: Where


Ask = Callable[[str, int], Awaitable[Sequence[Place]]]


@final
class Names:
    """Addresses of endpoints that are names, each asked for once at a time and kept for a while.

    When a name cannot be looked up, the addresses before are used.  `ask` returns them in the order
    of RFC 6724, as the C library does.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, ask: Ask | None = None) -> None:
        self._loop: Final = loop
        self._ask: Final = ask or self._look_up
        self._known: Final[dict[tuple[str, int], tuple[float, list[Place]]]] = {}
        self._under_way: Final[dict[tuple[str, int], asyncio.Task[None]]] = {}
        self._preferred: Final[dict[tuple[str, int], int]] = {}  # families that won

    async def connect(self, host: str, port: int) -> socket.socket:
        """Return a connected socket.

        Raises:
            OSError: the name has no address, or none took the connection.
        """
        key = (host, port)
        places = await self._places(key)
        family = self._preferred.get(key)
        if family is not None:
            places = sorted(places, key=lambda place: place.family != family)
        won = await race(interleaved(places), self._open, socket.socket.close)
        self._preferred[key] = won.family
        return won

    async def _places(self, key: tuple[str, int]) -> list[Place]:
        when, places = self._known.get(key, (0.0, []))
        if places and self._loop.time() < when + GOOD_FOR:
            return places
        task = self._under_way.get(key)
        if task is None:
            # In a task of its own: who asked may give up, and others wait for the same answer.
            task = spawn(self._renew(key), name=f"resolve {key[0]}", on_error=_told_to_who_asks)
            self._under_way[key] = task
            task.add_done_callback(lambda _: self._under_way.pop(key))
        try:
            await asyncio.shield(task)
        except OSError:
            if not places:
                raise
            return places
        return self._known[key][1]

    async def _renew(self, key: tuple[str, int]) -> None:
        found = list(dict.fromkeys(await self._ask(*key)))
        if not found:
            raise OSError(0, f"{key[0]} has no address")
        self._known[key] = (self._loop.time(), found)

    async def _look_up(self, host: str, port: int) -> Sequence[Place]:
        try:
            answer = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except UnicodeError as error:  # no name at all (idna)
            raise OSError(0, f"{host}: {error}") from None
        return [Place(family, cast("Where", address)) for family, _, _, _, address in answer]

    async def _open(self, place: Place) -> socket.socket:
        sock = socket.socket(place.family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            await self._loop.sock_connect(sock, place.address)
        except BaseException:
            sock.close()
            raise
        return sock


def interleaved(places: Sequence[Place]) -> list[Place]:
    """Return `places` with the families taking turns (RFC 8305 §4), the first's first."""
    by_family: dict[int, list[Place]] = {}
    for place in places:
        by_family.setdefault(place.family, []).append(place)
    turns = chain.from_iterable(zip_longest(*by_family.values()))
    return [place for place in turns if place is not None]


async def race(
    addresses: Sequence[Address],
    attempt: Callable[[Address], Awaitable[Won]],
    discard: Callable[[Won], object],
    delay: float = ATTEMPT_DELAY,
) -> Won:
    """Return what the first `attempt` that succeeds returns; what others return is discarded.

    The next attempt begins after `delay`, or at once when one has failed.

    Raises:
        OSError: that of the first, if all fail.
    """
    running: set[asyncio.Future[Won]] = set()
    failures: list[BaseException] = []
    left = list(reversed(addresses))
    try:
        while left or running:
            if left:
                running.add(asyncio.ensure_future(attempt(left.pop())))  # noqa: TID251 - held here
            timeout = delay if left else None
            done, running = await asyncio.wait(
                running, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
            )
            for future in done:
                failure = future.exception()
                if failure is None:
                    running |= done - {future}
                    return future.result()
                failures.append(failure)
                if not isinstance(failure, OSError):
                    raise failure
        raise failures[0] if failures else OSError(0, "there is no address")
    finally:
        for future in running:
            if not future.cancel() and not future.cancelled() and future.exception() is None:
                discard(future.result())


def is_address(host: str) -> bool:
    """Say whether `host` is no name."""
    try:
        socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
    except OSError:
        return False
    return True


def _told_to_who_asks(name: str, error: BaseException) -> None:
    """A look-up that fails is no bug."""
