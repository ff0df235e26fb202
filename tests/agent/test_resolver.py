"""Names looked up at a real DNS server on loopback, and on this machine."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.agent.lookup import Found, LookupFailed, NoSuchName
from sidecar.agent.nameswitch import Paths
from sidecar.agent.resolver import Resolver, Service, placed
from sidecar.model.discovery import DnsLookup
from sidecar.model.endpoint import Endpoint
from tests.name_server import SILENT, NameServer


@pytest.fixture
def server() -> Iterator[NameServer]:
    with NameServer() as server:
        yield server


def options(server: NameServer, family: str = "all", timeout: float = 5.0) -> DnsLookup:
    return DnsLookup(servers=(server.address,), lookup_family=family, timeout=timeout)  # type: ignore[arg-type]


async def ask(server: NameServer, target: str, family: str = "all", kind: str = "dns") -> Found:
    resolver = Resolver(is_reachable=lambda address: True)
    return await resolver.find(kind, target, options(server, family))


def places(found: Found) -> list[str]:
    return [endpoint.address for endpoint in found.endpoints]


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("all", ["10.0.0.1:80", "10.0.0.2:80", "[fd00::1]:80"]),
        ("v4_only", ["10.0.0.1:80", "10.0.0.2:80"]),
        ("v6_only", ["[fd00::1]:80"]),
        ("v4_preferred", ["10.0.0.1:80", "10.0.0.2:80"]),
        ("v6_preferred", ["[fd00::1]:80"]),
    ],
)
async def test_both_kinds_of_addresses_are_found(
    server: NameServer, family: str, expected: list[str]
) -> None:
    server.say("a.test", "A", "10.0.0.2", "10.0.0.1", ttl=30)
    server.say("a.test", "AAAA", "fd00::1", ttl=20)
    found = await ask(server, "a.test:80", family)
    assert places(found) == expected
    assert found.ttl == (30 if family == "v4_only" else 20)


async def test_a_name_with_one_kind_only_is_asked_again_when_the_other_may_be_there(
    server: NameServer,
) -> None:
    server.say("a.test", "A", "10.0.0.1", ttl=3600)
    found = await ask(server, "a.test:80", "v6_preferred")
    assert (places(found), found.ttl) == (["10.0.0.1:80"], server.denial_ttl)


async def test_the_shortest_ttl_on_the_way_counts(server: NameServer) -> None:
    server.say("a.test", "A", "10.0.0.1")
    server.say("www.test", "CNAME", "a.test.", ttl=5)
    found = await ask(server, "www.test:80", "v4_only")
    assert (places(found), found.ttl) == (["10.0.0.1:80"], 5)


async def test_that_a_name_does_not_exist_is_good_for_as_long_as_its_zone_says(
    server: NameServer,
) -> None:
    with pytest.raises(NoSuchName, match=r"b\.test") as caught:
        await ask(server, "b.test:80")
    assert caught.value.ttl == server.denial_ttl
    server.say("b.test", "TXT", "hello")
    with pytest.raises(NoSuchName) as caught:
        await ask(server, "b.test:80")
    assert caught.value.ttl == server.denial_ttl


@pytest.mark.parametrize("trouble", ["SERVFAIL", "REFUSED", SILENT])
async def test_a_server_that_does_not_answer_is_no_denial(server: NameServer, trouble: str) -> None:
    server.records["a.test", "A"] = trouble
    resolver = Resolver(is_reachable=lambda address: True)
    with pytest.raises(LookupFailed, match=r"a\.test"):
        await resolver.find("dns", "a.test:80", options(server, "v4_only", timeout=0.2))


async def test_half_an_answer_is_told_from_a_whole_one(server: NameServer) -> None:
    server.say("a.test", "A", "10.0.0.1")
    server.records["a.test", "AAAA"] = "SERVFAIL"
    with pytest.raises(LookupFailed) as caught:
        await ask(server, "a.test:80")
    assert caught.value.partial == (Endpoint(address="10.0.0.1:80"),)


async def test_addresses_without_a_way_to_them_are_left_out_unless_that_is_all(
    server: NameServer,
) -> None:
    server.say("a.test", "A", "10.0.0.1")
    server.say("a.test", "AAAA", "fd00::1")
    for way, expected in ((".", ["10.0.0.1:80"]), ("-", ["10.0.0.1:80", "[fd00::1]:80"])):
        resolver = Resolver(is_reachable=lambda address, way=way: way in address)  # type: ignore[misc]
        found = await resolver.find("dns", "a.test:80", options(server))
        assert places(found) == expected


async def test_this_machine_has_a_way_to_itself(server: NameServer) -> None:
    server.say("a.test", "A", "127.0.0.1")
    found = await Resolver().find("dns", "a.test:80", options(server, "v4_only"))
    assert places(found) == ["127.0.0.1:80"]


async def test_an_address_is_not_looked_up(server: NameServer) -> None:
    found = await ask(server, "[::1]:80")
    assert (places(found), found.ttl, server.asked) == (["[::1]:80"], None, [])


# SRV:


async def test_services_have_ports_weights_and_priorities(server: NameServer) -> None:
    records = ("20 5 8080 b.test.", "10 3 9090 a.test.", "10 1 9091 a.test.", "10 0 1 c.test.")
    server.say("_http._tcp.shop.test", "SRV", *records, ttl=50)
    server.say("a.test", "A", "10.0.0.1", ttl=40)
    server.say("b.test", "A", "10.0.0.2", "10.0.0.3")
    server.say("c.test", "TXT", "no address")
    server.denial_ttl = 90
    found = await ask(server, "_http._tcp.shop.test", "v4_only", "srv")
    assert found.ttl == 40
    assert found.endpoints == (
        Endpoint(address="10.0.0.1:9090", weight=6, hostname="a.test"),
        Endpoint(address="10.0.0.1:9091", weight=2, hostname="a.test"),
        Endpoint(address="10.0.0.2:8080", weight=5, priority=1, hostname="b.test"),
        Endpoint(address="10.0.0.3:8080", weight=5, priority=1, hostname="b.test"),
    )


@pytest.mark.parametrize("records", [("0 0 0 .",), ("1 1 80 gone.test.",), ()])
async def test_a_service_may_be_decidedly_not_there(
    server: NameServer, records: tuple[str, ...]
) -> None:
    if records:
        server.say("_a._tcp.test", "SRV", *records, ttl=3)
    with pytest.raises(NoSuchName) as caught:
        await ask(server, "_a._tcp.test", kind="srv")
    assert caught.value.ttl == (3 if records else server.denial_ttl)


async def test_a_target_that_cannot_be_asked_for_makes_half_an_answer(server: NameServer) -> None:
    server.say("_a._tcp.test", "SRV", "1 1 80 a.test.", "1 1 80 b.test.")
    server.say("a.test", "A", "10.0.0.1")
    server.records["b.test", "A"] = "SERVFAIL"
    with pytest.raises(LookupFailed, match=r"b\.test") as caught:
        await ask(server, "_a._tcp.test", "v4_only", "srv")
    assert [e.address for e in caught.value.partial] == ["10.0.0.1:80"]


def test_weights_stay_in_their_bounds_whatever_is_shared() -> None:
    services = [Service(0, 65535, "a", 1), Service(0, 1, "b", 1)]
    addresses = {"a": tuple(f"10.0.0.{i}" for i in range(97)), "b": ("10.0.1.1",)}
    weights = {e.address: e.weight for e in placed(services, addresses)}
    assert max(weights.values()) <= 1_000_000
    assert min(weights.values()) >= 1
    assert placed([], {}) == ()


# As this machine looks names up:


def on_machine(
    directory: Path, server: NameServer, hosts: str = "", order: str = "files dns", search: str = ""
) -> Resolver:
    paths = Paths(*(str(directory / name) for name in ("nsswitch", "hosts", "resolv")))
    Path(paths.switch).write_text(f"hosts: {order}\n")
    Path(paths.hosts).write_text(hosts)
    Path(paths.resolv).write_text(f"nameserver 127.0.0.1\n{search}")
    return Resolver(paths, lambda address: True, server.port)


async def test_the_hosts_file_comes_first_where_the_switch_says_so(
    tmp_path: Path, server: NameServer
) -> None:
    server.say("a.test", "A", "10.0.0.1")
    first = on_machine(tmp_path, server, "10.0.0.9 a.test\n")
    assert await first.find("dns", "a.test:80", DnsLookup()) == Found(
        (Endpoint(address="10.0.0.9:80"),), None
    )
    last = on_machine(tmp_path, server, "10.0.0.9 a.test\n10.0.0.8 b.test\n", "dns files")
    v4 = DnsLookup(lookup_family="v4_only")
    assert places(await last.find("dns", "a.test:80", v4)) == ["10.0.0.1:80"]
    assert places(await last.find("dns", "b.test:80", v4)) == ["10.0.0.8:80"]


async def test_plain_names_are_looked_for_in_the_search_domains(
    tmp_path: Path, server: NameServer
) -> None:
    server.say("catalog.shop.test", "A", "10.0.0.1", ttl=9)
    resolver = on_machine(tmp_path, server, search="search other.test shop.test\noptions ndots:2\n")
    found = await resolver.find("dns", "catalog:80", DnsLookup(lookup_family="v4_only"))
    assert (places(found), found.ttl) == (["10.0.0.1:80"], 9)
    assert server.asked == [("catalog.other.test", "A"), ("catalog.shop.test", "A")]
    with pytest.raises(NoSuchName):
        await resolver.find("dns", "catalog.shop.test.other:80", DnsLookup())


async def test_a_changed_resolv_conf_is_heeded(tmp_path: Path, server: NameServer) -> None:
    server.say("a.test", "A", "10.0.0.1")
    resolver = on_machine(tmp_path, server)
    (tmp_path / "resolv").write_text("# nobody\n")
    with pytest.raises(LookupFailed, match=r"resolv\.conf names no DNS server"):
        await resolver.find("dns", "a.test:80", DnsLookup())
    (tmp_path / "resolv").write_text("nameserver 127.0.0.1\n")
    found = await resolver.find("dns", "a.test:80", DnsLookup(lookup_family="v4_only"))
    assert places(found) == ["10.0.0.1:80"]


async def test_what_only_the_c_library_knows_it_is_asked(
    tmp_path: Path, server: NameServer
) -> None:
    resolver = on_machine(tmp_path, server, order="sss files dns")
    found = await resolver.find("dns", "localhost:80", DnsLookup(lookup_family="v4_only"))
    assert (places(found), found.ttl, server.asked) == (["127.0.0.1:80"], None, [])
    with pytest.raises((NoSuchName, LookupFailed), match="no-such-name"):
        await resolver.find("dns", "no-such-name.invalid:80", DnsLookup())
    with pytest.raises(LookupFailed):
        await resolver.find("dns", f"{'a' * 64}.test:80", DnsLookup())
