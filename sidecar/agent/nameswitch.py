"""Who on this machine knows the addresses of a name: nsswitch.conf, and the hosts file."""

import contextlib
import ipaddress
import os
import re
import socket
from collections.abc import Callable
from typing import Final, Generic, NamedTuple, TypeVar, final

FILES, DNS, SYSTEM = "files", "dns", "system"
"""The hosts file; DNS, as resolv.conf has it; whatever else the C library knows."""

_STUBS: Final = frozenset({"127.0.0.53", "127.0.0.54"})  # systemd-resolved, spoken to by DNS
_LOCAL: Final = frozenset({"localhost", "localhost.localdomain", "_gateway", "_outbound"})

Kind = TypeVar("Kind")


class Paths(NamedTuple):
    """The files that say it."""

    switch: str = "/etc/nsswitch.conf"
    hosts: str = "/etc/hosts"
    resolv: str = "/etc/resolv.conf"


@final
class NameSwitch:
    """Follows nsswitch.conf, but for DNS itself: the C library tells no TTL.

    What only the C library can ask (mDNS, containers, directories) it is asked, as a whole.
    """

    def __init__(self, paths: Paths = Paths()) -> None:  # noqa: B008 - immutable
        self._order: Final = Cached(paths.switch, _parse_order)
        self._hosts: Final = Cached(paths.hosts, _parse_hosts)
        self._stubbed: Final = Cached(paths.resolv, _has_stubs_only)

    def sources(self, host: str) -> tuple[str, ...]:
        """Return who is asked for `host`, one after the other, until one knows it."""
        name = host.rstrip(".").lower()
        order = self._order.get()
        if any(self._may_know(source, name) for source in order):
            return (SYSTEM,)
        found = [
            DNS if source == "resolve" else source
            for source in order
            if source in (FILES, DNS, "resolve")
        ]
        return tuple(dict.fromkeys(found))

    def in_hosts(self, host: str) -> tuple[str, ...]:
        """Return the addresses of `host` in the hosts file."""
        return self._hosts.get().get(host.rstrip(".").lower(), ())

    def _may_know(self, source: str, name: str) -> bool:
        """Say whether `source` may know what neither the hosts file nor DNS does."""
        if source in (FILES, DNS):
            return False
        if source == "resolve" and self._stubbed.get():  # it would ask the same by DNS
            return "." not in name or name.endswith(".local")  # but for what is asked of neighbours
        if source.startswith("mdns"):
            return name.endswith(".local")
        if source == "mymachines":
            return "." not in name
        if source == "myhostname":
            own = socket.gethostname().lower()
            return name == own or name in _LOCAL or name.endswith(".localhost")
        return True


@final
class Cached(Generic[Kind]):
    """What a file says, read again when it has changed; without it, what an empty one would."""

    def __init__(self, path: str, parse: Callable[[str], Kind]) -> None:
        self._path: Final = path
        self._parse: Final = parse
        self._stamp: tuple[int, ...] | None = None
        self._value: Kind = parse("")

    def get(self) -> Kind:
        """Return what it says now."""
        stamp = stamp_of(self._path)
        if stamp != self._stamp:
            text = ""
            with (
                contextlib.suppress(OSError),
                open(self._path, encoding="utf-8", errors="replace") as file,
            ):
                text = file.read(1 << 20)
            self._value, self._stamp = self._parse(text), stamp
        return self._value


def stamp_of(path: str) -> tuple[int, ...] | None:
    """Return what changes with the file at `path`; None if there is none."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size


def _parse_order(text: str) -> tuple[str, ...]:
    """Return the sources of the `hosts` line of an nsswitch.conf; what is to be done between is left out."""
    for line in text.splitlines():
        database, _, rest = line.partition("#")[0].partition(":")
        if database.strip() == "hosts":
            return tuple(re.sub(r"\[[^\]]*\]", " ", rest).lower().split())
    return (FILES, DNS)  # what the C library does without one


def _parse_hosts(text: str) -> dict[str, tuple[str, ...]]:
    """Return the addresses of each name in a hosts file."""
    found: dict[str, dict[str, None]] = {}
    for line in text.splitlines():
        address, *names = line.partition("#")[0].split() or [""]
        with contextlib.suppress(ValueError):
            ipaddress.ip_address(address)
            for name in names:
                found.setdefault(name.rstrip(".").lower(), {})[address] = None
    return {name: tuple(addresses) for name, addresses in found.items()}


def _has_stubs_only(text: str) -> bool:
    """Say whether a resolv.conf leads to systemd-resolved and nowhere else."""
    words = [line.split() for line in text.splitlines()]
    servers = {w[1] for w in words if len(w) > 1 and w[0] == "nameserver"}
    return bool(servers) and servers <= _STUBS
