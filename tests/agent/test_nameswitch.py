"""Who is asked for a name: as nsswitch.conf says, but that DNS is asked directly."""

import os
import socket
from pathlib import Path

import pytest

from sidecar.agent.nameswitch import DNS, FILES, SYSTEM, NameSwitch, Paths

HOSTS = """\
127.0.0.1 localhost
10.0.0.5  Catalog catalog.internal. # the old one
10.0.0.6\tcatalog
fe80::1%eth0 catalog
nonsense catalog
"""


def switch(directory: Path, order: str | None, resolv: str = "nameserver 10.0.0.2\n") -> NameSwitch:
    paths = Paths(*(str(directory / name) for name in ("nsswitch", "hosts", "resolv")))
    if order is not None:
        Path(paths.switch).write_text(f"passwd: files\nhosts: {order} # as it is\n")
    Path(paths.resolv).write_text(resolv)
    return NameSwitch(paths)


@pytest.mark.parametrize(
    ("order", "name", "expected"),
    [
        (None, "a.internal", (FILES, DNS)),
        ("files dns", "a.internal", (FILES, DNS)),
        ("dns files", "a", (DNS, FILES)),
        ("files", "a.internal", (FILES,)),
        ("files mdns4_minimal [NOTFOUND=return] dns", "a.internal", (FILES, DNS)),
        ("files mdns4_minimal [NOTFOUND=return] dns", "printer.local", (SYSTEM,)),
        ("files dns myhostname", "a.internal", (FILES, DNS)),
        ("files dns myhostname", "db.localhost", (SYSTEM,)),
        ("files dns myhostname", socket.gethostname(), (SYSTEM,)),
        ("mymachines files dns", "a.internal", (FILES, DNS)),
        ("mymachines files dns", "box", (SYSTEM,)),
        ("files resolve [!UNAVAIL=return] dns", "a.internal", (SYSTEM,)),
        ("files sss dns", "a.internal", (SYSTEM,)),
    ],
)
def test_the_switch_is_followed(
    tmp_path: Path, order: str | None, name: str, expected: tuple[str, ...]
) -> None:
    assert switch(tmp_path, order).sources(name) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.internal.", (FILES, DNS)), ("box", (SYSTEM,)), ("printer.local", (SYSTEM,))],
)
def test_systemd_resolved_is_asked_by_dns_where_that_comes_to_the_same(
    tmp_path: Path, name: str, expected: tuple[str, ...]
) -> None:
    resolv = "# stub\nnameserver 127.0.0.53\noptions edns0\n"
    names = switch(tmp_path, "files resolve [!UNAVAIL=return] dns", resolv)
    assert names.sources(name) == expected


def test_the_hosts_file_is_read_like_the_c_library_reads_it(tmp_path: Path) -> None:
    names = switch(tmp_path, None)
    assert names.in_hosts("catalog") == ()
    path = tmp_path / "hosts"
    path.write_text(HOSTS)
    assert names.in_hosts("CATALOG") == ("10.0.0.5", "10.0.0.6", "fe80::1%eth0")
    assert names.in_hosts("catalog.internal.") == ("10.0.0.5",)
    assert names.in_hosts("the") == ()


def test_a_changed_file_is_read_again_and_one_that_is_gone_says_nothing(tmp_path: Path) -> None:
    names = switch(tmp_path, None)
    path = tmp_path / "hosts"
    path.write_text("10.0.0.1 a\n")
    assert names.in_hosts("a") == ("10.0.0.1",)
    spare = tmp_path / "spare"
    spare.write_text("10.0.0.2 a\n")
    os.rename(spare, path)
    assert names.in_hosts("a") == ("10.0.0.2",)
    path.unlink()
    assert names.in_hosts("a") == ()
