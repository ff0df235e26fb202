"""What a DNS name leads to now, and for how long: A, AAAA and SRV, or what this machine says itself."""

import asyncio
import contextlib
import io
import ipaddress
import math
import socket
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final, NamedTuple, final

import dns.asyncresolver
import dns.exception
import dns.message
import dns.nameserver
import dns.resolver
from dns.rdtypes.IN.SRV import SRV

from sidecar.agent.lookup import Found, LookupFailed, NoSuchName
from sidecar.agent.nameswitch import DNS, FILES, Cached, NameSwitch, Paths
from sidecar.model.discovery import DnsLookup
from sidecar.model.endpoint import Endpoint

AT_ONCE: Final = 16  # look-ups of the targets of SRV records under way
WEIGHT_LIMIT: Final = 1_000_000  # the model's

_KINDS: Final = {"v4_only": ("A",), "v6_only": ("AAAA",)}


class Addresses(NamedTuple):
    """The addresses of one host; `ttl` None: it was not said."""

    addresses: tuple[str, ...]
    ttl: float | None
    missing: str = ""
    """Why one kind of them could not be asked for."""


class Service(NamedTuple):
    """One SRV record."""

    priority: int
    weight: int
    host: str
    port: int


@final
class Resolver:
    """Looks names up; `is_reachable(address)` says whether this machine has a way to an address.

    `port` is where the servers of resolv.conf are asked.
    """

    def __init__(
        self,
        paths: Paths = Paths(),  # noqa: B008 - immutable
        is_reachable: Callable[[str], bool] | None = None,
        port: int = 53,
    ) -> None:
        self._switch: Final = NameSwitch(paths)
        self._is_reachable: Final = is_reachable or _has_way
        self._own: Final = Cached(paths.resolv, lambda text: _own_resolver(text, port))
        self._given: Final[dict[tuple[str, ...], dns.asyncresolver.Resolver]] = {}
        self._turn: Final = asyncio.Semaphore(AT_ONCE)

    async def find(self, kind: str, target: str, options: DnsLookup) -> Found:
        """Return the endpoints of `target`: of `dns` with a port, or of `srv`.

        Raises:
            NoSuchName: it has none.
            LookupFailed: nobody could say.
        """
        if kind == "srv":
            return await self._services(target, options)
        host, _, port = target.rpartition(":")
        found = await self._addresses(host.strip("[]"), options)
        endpoints = tuple(
            Endpoint(address=join(a, int(port))) for a in self._usable(found.addresses)
        )
        if found.missing:
            raise LookupFailed(found.missing, endpoints)
        return Found(endpoints, found.ttl)

    # SRV:

    async def _services(self, name: str, options: DnsLookup) -> Found:
        resolver = self._resolver(options)
        answer = await _ask(resolver, name, "SRV", options.timeout)
        services = [
            Service(r.priority, r.weight, r.target.to_text(omit_final_dot=True), r.port)
            for r in answer.rrset or ()
            if isinstance(r, SRV)
            and r.target != dns.name.root  # `.`: decidedly not there, RFC 2782
        ]
        if not services:
            raise NoSuchName(f"{name} has no SRV record", _ttl(answer))
        hosts = sorted({service.host for service in services})
        looked = await asyncio.gather(*(self._target(host, options) for host in hosts))
        found = dict(zip(hosts, looked, strict=True))
        failures = [f.missing for f in looked if f.missing]
        endpoints = placed(services, {host: self._usable(f.addresses) for host, f in found.items()})
        if failures:
            raise LookupFailed("; ".join(failures[:3]), endpoints)
        ttls = [t for t in (_ttl(answer), *(f.ttl for f in looked)) if t is not None]
        if not endpoints:
            raise NoSuchName(f"no target of {name} has an address", min(ttls))
        return Found(endpoints, min(ttls))

    async def _target(self, host: str, options: DnsLookup) -> Addresses:
        async with self._turn:
            try:
                # As it is written: the names in SRV records are whole ones.
                return await self._addresses(f"{host}.", options)
            except NoSuchName as error:
                return Addresses((), error.ttl)
            except LookupFailed as error:
                return Addresses((), None, str(error))

    # A and AAAA:

    async def _addresses(self, host: str, options: DnsLookup) -> Addresses:
        if is_address(host.rstrip(".")):
            return Addresses((host.rstrip("."),), None)
        if options.servers:
            return await self._by_dns(host, options)
        denied: NoSuchName | None = None
        for source in self._switch.sources(host):
            try:
                if source == DNS:
                    return await self._by_dns(host, options)
                found = self._switch.in_hosts(host) if source == FILES else await _by_system(host)
                found = _of_family(found, options.lookup_family)
                if found:
                    return Addresses(found, None)
            except NoSuchName as error:
                denied = error
        raise denied or NoSuchName(f"{host} is not known on this machine", None)

    async def _by_dns(self, host: str, options: DnsLookup) -> Addresses:
        resolver = self._resolver(options)
        kinds = _KINDS.get(options.lookup_family, ("A", "AAAA"))
        answers = await asyncio.gather(
            *(_settled(_ask(resolver, host, kind, options.timeout)) for kind in kinds)
        )
        found: list[str] = []
        ttls: list[float] = []
        failures: list[str] = []
        for answer in answers:
            if isinstance(answer, LookupFailed):
                failures.append(str(answer))
            elif isinstance(answer, NoSuchName):
                ttls += [answer.ttl] if answer.ttl is not None else []
            else:
                found += [record.to_text() for record in answer.rrset or ()]
                ttls.append(_ttl(answer))
        if failures and not found:
            raise LookupFailed(failures[0])
        ttl = min(ttls, default=None)
        if not found:
            raise NoSuchName(f"{host} has no address in DNS", ttl)
        return Addresses(
            _of_family(found, options.lookup_family), ttl, failures[0] if failures else ""
        )

    def _resolver(self, options: DnsLookup) -> dns.asyncresolver.Resolver:
        if options.servers:
            if options.servers not in self._given:
                self._given[options.servers] = _given_resolver(options.servers)
            return self._given[options.servers]
        own = self._own.get()
        if own is None:
            raise LookupFailed("resolv.conf names no DNS server")
        return own

    def _usable(self, addresses: Iterable[str]) -> tuple[str, ...]:
        """Leave out what this machine has no way to (RFC 6724 §6, rule 1), unless that is all."""
        found = sorted(set(addresses))
        return tuple([a for a in found if self._is_reachable(a)] or found)


def placed(
    services: Iterable[Service], addresses: dict[str, tuple[str, ...]]
) -> tuple[Endpoint, ...]:
    """Return an endpoint for each address of each service.

    The weight of a name is shared by its addresses; the priorities become 0, 1, 2 ...
    """
    there = [s for s in services if addresses[s.host]]
    ranks = {p: i for i, p in enumerate(sorted({s.priority for s in there}))}
    heaviest = max((s.weight for s in there), default=0)
    scale = math.lcm(*(len(addresses[s.host]) for s in there))
    scale = max(1, min(scale, WEIGHT_LIMIT // max(heaviest, 1)))
    found: dict[str, Endpoint] = {}
    for service in sorted(there):
        own = addresses[service.host]
        # 0 is `a very small chance of being selected` (RFC 2782), which 1 is beside others.
        weight = max(1, service.weight * scale // len(own))
        for address in own:
            place = join(address, service.port)
            if place not in found:
                found[place] = Endpoint(
                    address=place,
                    weight=weight,
                    priority=min(ranks[service.priority], 128),
                    hostname=service.host,
                )
    return tuple(found[place] for place in sorted(found))


def join(address: str, port: int) -> str:
    """Return what a config would call it."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def is_address(host: str) -> bool:
    """Say whether it is no name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


async def _ask(
    resolver: dns.asyncresolver.Resolver, name: str, kind: str, seconds: float
) -> dns.resolver.Answer:
    try:
        return await resolver.resolve(
            name,
            kind,
            lifetime=seconds,
            raise_on_no_answer=False,
            search=resolver.use_search_by_default,
        )
    except dns.resolver.NXDOMAIN as error:
        raise NoSuchName(f"{name} does not exist", _denial_ttl(error)) from None
    except (dns.exception.DNSException, OSError, UnicodeError) as error:
        raise LookupFailed(f"{name}: {str(error) or type(error).__name__}") from None


async def _settled(
    work: Coroutine[Any, Any, dns.resolver.Answer],
) -> dns.resolver.Answer | NoSuchName | LookupFailed:
    try:
        return await work
    except (NoSuchName, LookupFailed) as error:
        return error


async def _by_system(host: str) -> tuple[str, ...]:
    """Ask the C library, which follows nsswitch.conf, in a thread."""
    loop = asyncio.get_running_loop()
    try:
        answer = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)):
            raise NoSuchName(f"{host}: {error.strerror}", None) from None
        raise LookupFailed(f"{host}: {error.strerror}") from None
    except UnicodeError as error:
        raise LookupFailed(f"{host}: {error}") from None
    return tuple(dict.fromkeys(str(a[4][0]) for a in answer))


def _of_family(addresses: Iterable[str], family: str) -> tuple[str, ...]:
    """Return those that count."""
    every = tuple(addresses)
    version, _, rule = family.partition("_")
    if not rule:
        return every
    chosen = tuple(a for a in every if (":" in a) == (version == "v6"))
    return chosen or (every if rule == "preferred" else ())


def _ttl(answer: dns.resolver.Answer) -> float:
    """Return the least TTL on the way to an answer, that of its absence (RFC 2308 §5) included."""
    return float(answer.chaining_result.minimum_ttl)


def _denial_ttl(error: dns.resolver.NXDOMAIN) -> float | None:
    ttls = []
    for response in error.responses().values():  # type: ignore[no-untyped-call] # theirs has none
        with contextlib.suppress(dns.exception.DNSException):
            if isinstance(response, dns.message.QueryMessage) and response.authority:
                ttls.append(float(response.resolve_chaining().minimum_ttl))
    return min(ttls, default=None)


def _own_resolver(text: str, port: int) -> dns.asyncresolver.Resolver | None:
    """Return one that asks as this resolv.conf says; None if that names nobody."""
    try:
        resolver = dns.asyncresolver.Resolver(filename=io.StringIO(text))
    except (dns.exception.DNSException, ValueError):
        return None
    resolver.use_search_by_default = True
    resolver.port = port
    return resolver


def _given_resolver(servers: tuple[str, ...]) -> dns.asyncresolver.Resolver:
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers = [
        dns.nameserver.Do53Nameserver(host.strip("[]"), int(port))
        for host, _, port in (server.rpartition(":") for server in servers)
    ]
    return resolver


def _has_way(address: str) -> bool:
    """Ask the kernel for a route; nothing is sent."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((address, 9))
    except OSError:
        return False
    return True
