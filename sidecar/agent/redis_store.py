"""Buckets in a Redis, which many sidecars take from.

Theory of operation.  One connection, one round trip under way: what is asked meanwhile goes with the
next, all in one call of one script, which reads and writes every bucket at once and by the clock of
Redis, so that no two sidecars are given the same request and nobody's clock matters.  From the first
error or late answer on the store is away: questions are answered so at once, and it is tried again
by one connection at a time, with ever longer waits in between.
"""

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, cast, final
from urllib.parse import urlsplit

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from sidecar.agent.keeper import Answer
from sidecar.agent.logs import bug, log
from sidecar.model.store import Redis as RedisModel, Store
from sidecar.runtime.messages import Sample
from sidecar.runtime.tasks import spawn
from sidecar.traffic.backoff import full_jitter
from sidecar.traffic.lease import Ask, Granted
from sidecar.traffic.rate import Grant

MOST_ASKS: Final = 100  # in one call, about 1 ms in which Redis serves nobody else and 5 of our own
PING: Final = 1.0  # seconds of quiet until it is looked whether the store is still there
BACKOFF: Final = 0.05  # seconds: base of the waits between two tries to connect
BACKOFF_MAX: Final = 1.0

SCRIPT: Final = """\
-- GCRA (a bucket's state is the moment at which it will be full again), many buckets at once.
-- ARGV has three numbers for each key: microseconds in which one more may come, burst, how many are
-- wanted (negative: given back). Answers three for each: how many were granted, microseconds until
-- the bucket is full, and until there is one more.
local time = redis.call('TIME')
local now = (time[1] - 1700000000) * 1000000 + time[2]  -- small, so that fractions are kept
local answers = {}
for i, key in ipairs(KEYS) do
  local interval = tonumber(ARGV[3 * i - 2])
  local depth = tonumber(ARGV[3 * i - 1]) * interval
  local count = tonumber(ARGV[3 * i])
  local full = math.max(tonumber(redis.call('GET', key) or '0'), now)
  if count > 0 then
    count = math.max(0, math.min(count, math.floor((now + depth - full) / interval + 1e-3)))
  end
  if count ~= 0 then
    full = full + count * interval
    if full > now then
      redis.call('SET', key, string.format('%.3f', full), 'PX', math.ceil((full - now) / 1000))
    else
      redis.call('DEL', key)
    end
  end
  answers[3 * i - 2] = count
  answers[3 * i - 1] = math.max(0, math.ceil(full - now))
  answers[3 * i] = math.max(0, math.ceil(full + interval - now - depth))
end
return answers
"""


class Client(Protocol):
    """One connection to a Redis."""

    async def call(self, keys: Sequence[str], numbers: Sequence[str]) -> list[int]:
        """Run the script."""

    async def ping(self) -> None:
        """See whether it answers."""

    async def close(self) -> None:
        """End the connection."""


Connect = Callable[[], Awaitable[Client]]


@final
class RedisStore:
    """See the module; a Keeper."""

    def __init__(
        self, store: Store, connect: Connect, draw: Callable[[], float] = random.random
    ) -> None:
        self._store: Final = store
        self._connect: Final = connect
        self._draw: Final = draw
        self._waiting: Final[deque[tuple[Ask, Answer]]] = deque()
        self._wanted: Final = asyncio.Event()
        self._is_up = False
        self._asks = 0
        self._calls = 0
        self._failures = 0
        self._tries = 0  # in a row that came to nothing
        self._task: Final = spawn(self._run(), name=f"store {store.name}", on_error=bug)

    def ask(self, asks: list[Ask], answer: Answer) -> None:
        """See Keeper."""
        if not self._is_up:
            answer([Granted(ask.number, None) for ask in asks])
            return
        self._asks += len(asks)
        self._waiting.extend([(ask, answer) for ask in asks])
        self._wanted.set()

    def samples(self) -> list[Sample]:
        """See Keeper."""
        labels = (("store", self._store.name),)
        values = {
            "sidecar_quota_store_up": int(self._is_up),
            "sidecar_quota_store_asks_total": self._asks,
            "sidecar_quota_store_round_trips_total": self._calls,
            "sidecar_quota_store_failures_total": self._failures,
        }
        return [Sample(name, labels, (float(value),)) for name, value in values.items()]

    def stop(self) -> None:
        """See Keeper."""
        self._task.cancel()
        self._give_up()

    async def _run(self) -> None:
        """Be connected, or try again."""
        while True:
            client: Client | None = None
            try:
                client = await self._connect()
                log.info("store %s: connected", self._store.name)
                self._is_up = True
                await self._serve(client)
            except (RedisError, OSError) as error:  # a timeout is an OSError
                self._failed(error)
            except Exception as error:  # noqa: BLE001 - it must not be away for ever
                self._failed(error)
                bug("store", error)
            finally:
                self._give_up()
                if client is not None:
                    with contextlib.suppress(RedisError, OSError):
                        await client.close()
            await asyncio.sleep(full_jitter(self._tries, BACKOFF, BACKOFF_MAX, self._draw()))

    async def _serve(self, client: Client) -> None:
        """Ask what is to be asked, one call after the other, until something goes wrong."""
        while True:
            if not self._waiting:
                self._wanted.clear()
                # Not by wait_for, which on 3.11 forgets that it was cancelled if the event comes too.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(PING):
                        await self._wanted.wait()
            async with asyncio.timeout(self._store.redis.timeout):
                if self._waiting:
                    await self._call(client)
                else:
                    await client.ping()
            self._tries = 0

    async def _call(self, client: Client) -> None:
        count = min(len(self._waiting), MOST_ASKS)
        asks = [ask for ask, _ in list(self._waiting)[:count]]
        prefix = self._store.prefix
        keys = [f"{prefix}{a.rule}:{a.key}" if a.key else f"{prefix}{a.rule}" for a in asks]
        numbers = [
            text for a in asks for text in (f"{a.interval * 1e6:.6f}", f"{a.burst}", f"{a.wanted}")
        ]
        self._calls += 1
        found = await client.call(keys, numbers)
        # Only now: what is on its way when something goes wrong must be answered too.
        told: dict[Answer, list[Granted]] = {}
        for index, ask in enumerate(asks):
            granted, reset, wait = found[3 * index : 3 * index + 3]
            _, answer = self._waiting.popleft()
            grant = Grant(granted, reset / 1e6, wait / 1e6)
            told.setdefault(answer, []).append(Granted(ask.number, grant))
        for answer, answers in told.items():
            answer(answers)

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        self._tries += 1
        if self._is_up or self._tries == 1:
            said = str(error) or type(error).__name__
            log.warning(
                "store %s is away: %s; shared rates go by `on_failure`", self._store.name, said
            )

    def _give_up(self) -> None:
        """Answer who waits that nobody can tell."""
        self._is_up = False
        told: dict[Answer, list[Granted]] = {}
        while self._waiting:
            ask, answer = self._waiting.popleft()
            told.setdefault(answer, []).append(Granted(ask.number, None))
        for answer, answers in told.items():
            answer(answers)


@final
class _RedisClient:
    """A Client by redis-py."""

    def __init__(self, redis: Redis, digest: str) -> None:
        self._redis: Final = redis
        self._digest = digest

    async def call(self, keys: Sequence[str], numbers: Sequence[str]) -> list[int]:
        """See Client."""
        try:
            return await self._evaluate(keys, numbers)
        except NoScriptError:  # somebody has flushed the scripts; it was not run
            self._digest = await _load(self._redis)
            return await self._evaluate(keys, numbers)

    async def ping(self) -> None:
        """See Client."""
        await self._redis.ping()

    async def close(self) -> None:
        """See Client."""
        await self._redis.aclose()

    async def _evaluate(self, keys: Sequence[str], numbers: Sequence[str]) -> list[int]:
        found = self._redis.evalsha(self._digest, len(keys), *keys, *numbers)
        return await cast("Awaitable[list[int]]", found)


def connector(settings: RedisModel) -> Connect:
    """Return what connects to the Redis of `settings`."""

    async def connect() -> Client:
        redis = Redis(
            **_place(settings.url),
            **(_tls(settings) if settings.url.startswith("rediss:") else {}),
            username=settings.username or None,
            password=_first_line(settings.password_file) if settings.password_file else None,
            single_connection_client=True,
            # Time and retries are the caller's: a second try at once would be the storm to avoid.
            retry=Retry(NoBackoff(), 0),
            socket_timeout=None,
            socket_connect_timeout=None,
            protocol=2,
        )
        try:
            async with asyncio.timeout(settings.connect_timeout):
                return _RedisClient(redis, await _load(redis))
        except BaseException:
            await redis.aclose()
            raise

    return connect


async def _load(redis: Redis) -> str:
    return await redis.script_load(SCRIPT)


def _place(url: str) -> dict[str, Any]:
    """Return where a URL points, which the compiler has found good."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return {"unix_socket_path": parts.path, "db": int(parts.query.removeprefix("db=") or 0)}
    database = int(parts.path.removeprefix("/") or 0)
    return {"host": parts.hostname, "port": parts.port or 6379, "db": database}


def _tls(settings: RedisModel) -> dict[str, Any]:
    return {
        "ssl": True,
        "ssl_ca_certs": settings.roots or None,
        "ssl_certfile": settings.certificate or None,
        "ssl_keyfile": settings.key or None,
    }


def _first_line(path: str) -> str:
    return Path(path).read_text().partition("\n")[0].rstrip("\r")
