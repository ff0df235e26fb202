"""Ready-made peers at both ends: nghttp, h2load, httpx, nginx and nghttpd, each by its own rules."""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from sidecar.issuers.ephemeral import Authority
from tests.e2e.stand import Sidecar, free_port
from tests.e2e.test_mesh import DOMAIN, write
from tests.interop.h2_end import calling, find, request
from tests.interop.nginx import Server, nginx
from tests.interop.peer import need, python, run, running
from tests.interop.way import OURS, App, Front, way

FILE = os.urandom(2**20)

# --- ready-made servers behind us --------------------------------------------------------------

# name -> what the cluster says beside its endpoint
BEHIND = {
    "nghttpd": "protocol: http2",
    "nghttpd-tls": "{tls}, protocol: http2",
    "nghttpd-alpn": "{tls}",  # auto
    "nginx": "protocol: http1",
    "nginx-default": "",  # auto: HTTP/1.1 in plaintext
    "nginx-h2": "protocol: http2",
    "nginx-tls": "{tls}",
    "nginx-tls-h1-only": "{tls}",
    "nginx-tls-h1-wanted": "{tls}, protocol: http1",
}


@dataclass(frozen=True)
class Behind:
    """One sidecar before many servers."""

    ports: dict[str, int]
    sidecar: Sidecar


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    need("nginx"), need("nghttpd")
    room = tmp_path_factory.mktemp("behind")
    (room / "files").mkdir()
    (room / "files" / "file").write_bytes(FILE)
    write(room / "pem", Authority(DOMAIN).issue("", dns=("localhost",)))
    pair = [str(room / "pem" / "key.pem"), str(room / "pem" / "certificate.pem")]
    tls = f"ssl_certificate {pair[1]}; ssl_certificate_key {pair[0]}; root {room}/files;"
    root = f"root {room}/files;"
    h1, h2, both, only, clear, secure = (free_port() for _ in range(6))
    with ExitStack() as stack:
        servers = [Server(h1, "", root), Server(h2, "http2", root)]
        servers += [Server(both, "ssl http2", tls), Server(only, "ssl", tls)]
        nginx(stack, room, *servers)
        nghttpd = [need("nghttpd"), "-d", str(room / "files"), "--push=/file=/pushed", "-a"]
        for arguments, port in (([str(clear), "--no-tls"], clear), ([str(secure), *pair], secure)):
            command = [*nghttpd, "127.0.0.1", *arguments]
            stack.enter_context(running(command, [port], room / f"nghttpd-{port}"))
        dialled = {"nghttpd": clear, "nghttpd-tls": secure, "nghttpd-alpn": secure, "nginx": h1}
        dialled |= {"nginx-default": h1, "nginx-h2": h2, "nginx-tls": both}
        dialled |= {"nginx-tls-h1-only": only, "nginx-tls-h1-wanted": both}
        sidecar, ports = before(room, dialled)
        stack.callback(sidecar.stop)
        yield Behind(ports, sidecar)
        sidecar.end()


def before(room: Path, dialled: dict[str, int]) -> tuple[Sidecar, dict[str, int]]:
    """Start a sidecar with a listener for each server."""
    tls = f"tls: {{mode: simple, sni: localhost, roots: {room}/pem/roots.pem}}"
    ports = {name: free_port() for name in dialled}
    outbound = [f"  - {{address: '127.0.0.1:{ports[name]}', cluster: {name}}}\n" for name in ports]
    clusters = [
        f"  - {{name: {name}, endpoints: ['127.0.0.1:{port}'], {BEHIND[name].format(tls=tls)}}}\n"
        for name, port in dialled.items()
    ]
    text = f"workload: web\noutbound:\n{''.join(outbound)}clusters:\n{''.join(clusters)}"
    return Sidecar(room, text), ports


@pytest.mark.parametrize("name", BEHIND)
@pytest.mark.parametrize("flag", ["--http1.1", "--http2-prior-knowledge"])
def test_a_file_comes_whole_from_any_server(
    behind: Behind, name: str, flag: str, tmp_path: Path
) -> None:
    url = f"http://127.0.0.1:{behind.ports[name]}/file"
    # One curl a file: 7.88 stumbles over its own second request by prior knowledge, at any server.
    for number in range(3):
        out = tmp_path / str(number)
        run(need("curl"), "-sS", "--fail", "--noproxy", "*", flag, url, "-o", out)
        assert hashlib.sha256(out.read_bytes()).digest() == hashlib.sha256(FILE).digest()


async def test_an_upgrade_that_a_server_lacks_harms_no_other_stream(behind: Behind) -> None:
    async with calling(behind.ports["nghttpd"]) as end:
        other = end.open(request("GET", "/file"))
        assert find(await other.head(), b":status") == b"200"
        upgrade = end.open(request("CONNECT", "/", (":protocol", "websocket")), end=False)
        assert find(await upgrade.head(), b":status") == b"502"
        assert b"upstream-no-upgrade" in await upgrade.read()
        assert await other.read() == FILE


# --- ready-made clients before us --------------------------------------------------------------


over_ours = pytest.mark.parametrize(
    ("front", "app"),
    [(name, app) for name in OURS for app in ("h1", "h2")],
    indirect=["front"],
)


@pytest.fixture
def url(front: Front, origin: dict[str, App], app: str) -> str:
    return f"http://127.0.0.1:{front.ports[origin[app]]}"


@over_ours
def test_nghttp_reads_many_through_small_windows(url: str) -> None:
    program = need("nghttp")
    said = run(program, "-s", "-n", "-w", "10", "-W", "16", "-m", "30", f"{url}/bytes/50000")
    assert len(re.findall(r" 200 +48K /bytes/50000$", said, re.MULTILINE)) == 30, said


@over_ours
def test_nghttp_sends_a_body_and_trailers(url: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.write_bytes(FILE)
    for more in ((), ("--expect-continue",), ("--no-content-length",), ("-b", "100")):
        said = run(need("nghttp"), "-d", data, "--trailer", "x-checked: yes", *more, f"{url}/echo")
        told = json.loads(said)
        assert (told["method"], told["length"]) == ("POST", len(FILE))
        assert told["sha256"] == hashlib.sha256(FILE).hexdigest()
        counted = any(name == "content-length" for name, _ in told["fields"])
        # What HTTP/1.1 frames by its length has no place for trailers (RFC 9112 §7.1.2).
        if told["version"] == "2" or not counted:
            assert ["x-checked", "yes"] in told["trailers"]


@over_ours
def test_httpx_speaks_http2_without_being_told_twice(url: str) -> None:
    with httpx.Client(http1=False, http2=True, trust_env=False, timeout=20) as caller:
        for number in range(20):
            answer = caller.post(f"{url}/echo", content=bytes(number * 1000))
            assert (answer.http_version, answer.status_code) == ("HTTP/2", 200)
            assert answer.json()["length"] == number * 1000


def load(count: int, *arguments: str) -> None:
    """Run h2load; no request may fail."""
    said = run(need("h2load"), "-n", str(count), *arguments, seconds=90)
    wanted = f"requests: {count} total, {count} started, {count} done, {count} succeeded, 0 failed"
    assert wanted in said, said


@over_ours
def test_h2load_sees_no_failure(url: str) -> None:
    load(400, "-c", "10", "-m", "20", f"{url}/bytes/2000")
    load(200, "-c", "5", "--h1", f"{url}/bytes/2000")


def resident(sidecar: Sidecar) -> int:
    """Octets of memory that the worker has ever held at once."""
    status = Path(f"/proc/{sidecar.worker_pid()}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


def test_ten_thousand_streams_are_open_at_once(tmp_path: Path) -> None:
    with python("tests.interop.origin") as ports:
        app = App(ports["http2"])
        with way("pair", [app], tmp_path) as front:
            # The app answers nobody before it holds all of them.
            load(
                10_000,
                "-c",
                "100",
                "-m",
                "100",
                f"http://127.0.0.1:{front.ports[app]}/together/10000",
            )
            for sidecar in front.sidecars:
                assert resident(sidecar) < 400 * 2**20
