"""Our script and client against a real Redis, TLS and passwords included."""

import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.exceptions import AuthenticationError, RedisError

from sidecar.agent.redis_store import Client, connector
from sidecar.model.store import Redis
from sidecar.sources.decode import decode
from tests.e2e.redis_server import RedisServer, needs_redis
from tests.e2e.stand import free_port, wait_for

pytestmark = needs_redis


class Secured(RedisServer):
    """With TLS on a second port, a unix socket and a password."""

    def __init__(self, directory: Path) -> None:
        self.certificate, self.key = str(directory / "tls.crt"), str(directory / "tls.key")
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-days", "2", "-subj", "/CN=redis", "-addext", "subjectAltName=DNS:localhost",
             "-out", self.certificate, "-keyout", self.key],
            check=True, capture_output=True, timeout=30,
        )  # fmt: skip
        self.tls_port = free_port()
        self.socket = directory / "redis.sock"
        self.password = directory / "password"
        self.password.write_text("s3cret\n")
        super().__init__(
            directory,
            "--requirepass", "s3cret",
            "--unixsocket", str(self.socket),
            "--tls-port", str(self.tls_port),
            "--tls-cert-file", self.certificate,
            "--tls-key-file", self.key,
            "--tls-ca-cert-file", self.certificate,
        )  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    server = Secured(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


def settings(server: Secured, url: str = "", **more: str) -> Redis:
    said = {"password_file": str(server.password), **more}
    return decode({"url": url or f"redis://127.0.0.1:{server.port}", **said}, Redis)


@pytest.fixture
async def client(server: Secured) -> AsyncIterator[Client]:
    client = await connector(settings(server))()
    yield client
    await client.close()


def is_there(server: Secured, key: str) -> bool:
    return server.say(f"EXISTS {key}", "s3cret") == b":1\r\n"


def numbers(*asks: tuple[float, int, int]) -> list[str]:
    """Seconds in which one may come, burst, wanted."""
    return [text for a, b, c in asks for text in (f"{a * 1e6:.6f}", str(b), str(c))]


async def test_it_grants_what_there_is_and_takes_back(client: Client) -> None:
    keys = ["grants:a", "grants:a", "grants:b", "grants:a", "grants:a"]
    wanted = numbers((10, 5, 3), (10, 5, 3), (1, 1, 1), (10, 5, -2), (10, 5, 9))
    found = await client.call(keys, wanted)
    rows = [found[i : i + 3] for i in range(0, len(found), 3)]
    assert [row[0] for row in rows] == [3, 2, 1, -2, 2]
    assert [row[1] for row in rows] == [30_000_000, 50_000_000, 1_000_000, 30_000_000, 50_000_000]
    assert [row[2] for row in rows] == [0, 10_000_000, 1_000_000, 0, 10_000_000]


async def test_a_bucket_fills_by_the_clock_of_redis_and_is_forgotten_when_full(
    client: Client, server: Secured
) -> None:
    fills = numbers((0.001, 40, 40))
    assert (await client.call(["fills"], fills))[0] == 40
    assert is_there(server, "fills")
    wait_for(lambda: not is_there(server, "fills"))
    assert (await client.call(["fills"], fills))[0] == 40
    await client.call(["fills", "back"], numbers((0.001, 40, -40), (1, 3, -1)))
    assert not is_there(server, "back")  # a bucket that is full has room for no more
    assert (await client.call(["fills"], numbers((0.001, 40, 41))))[0] == 40


async def test_fractions_of_a_microsecond_add_up(client: Client) -> None:
    # 3 requests in a second, one by one: a bucket that rounded would be ever more wrong.
    for _ in range(30):
        found = await client.call(["thirds"], numbers((1 / 3, 30, 1)))
        assert found[0] == 1
    assert (await client.call(["thirds"], numbers((1 / 3, 30, 1))))[0] == 0


async def test_scripts_that_somebody_has_flushed_are_loaded_again(
    client: Client, server: Secured
) -> None:
    server.say("SCRIPT FLUSH", "s3cret")
    assert (await client.call(["flushed"], numbers((1, 2, 1))))[0] == 1
    await client.ping()


async def test_ways_to_the_server(server: Secured) -> None:
    roots = {"roots": server.certificate}
    own = {"certificate": server.certificate, "key": server.key}  # it asks for one
    for url, more in (
        (f"unix://{server.socket}?db=2", {}),
        (f"redis://127.0.0.1:{server.port}/2", {"username": "default"}),
        (f"rediss://localhost:{server.tls_port}", {**roots, **own}),
    ):
        client = await connector(settings(server, url, **more))()
        await client.ping()
        await client.close()


async def test_its_certificate_must_be_of_the_roots_and_name_it(server: Secured) -> None:
    own = {"certificate": server.certificate, "key": server.key}
    roots = {"roots": server.certificate}
    for host, more in (("localhost", own), ("127.0.0.1", {**own, **roots})):
        url = f"rediss://{host}:{server.tls_port}"
        with pytest.raises(RedisError, match="certificate verify failed"):
            await connector(settings(server, url, **more))()


async def test_a_wrong_password_and_a_missing_file_are_errors_of_the_server(
    server: Secured, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("guess")
    with pytest.raises(AuthenticationError):
        await connector(settings(server, password_file=str(wrong)))()
    with pytest.raises(FileNotFoundError):
        await connector(settings(server, password_file=str(tmp_path / "none")))()
    with pytest.raises(RedisError):
        await connector(settings(server, f"redis://127.0.0.1:{free_port()}"))()
