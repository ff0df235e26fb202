"""One health check of one endpoint: whoever asks gets an answer, in bounded time."""

import asyncio
import copy
import ipaddress
import os
import socket
from typing import Final, final

from sidecar.agent import command
from sidecar.agent.logs import bug
from sidecar.agent.talk import make_talk
from sidecar.core.book import Endpoint
from sidecar.core.plan import ClusterPlan
from sidecar.model.health import HealthCheck
from sidecar.runtime.dial import Dialler
from sidecar.runtime.tasks import spawn

CONNECTIONS: Final = 256  # probes by connection at once: of the agent's open files, most stay free
LOOKUPS: Final = 2  # of names at once: the executor has few threads for them
COMMANDS: Final = 8  # programs at once: each costs far more than a connection
MAX_FAILURE: Final = 200  # characters; endpoints choose part of the text

# What the service manager gave to the agent is not for programs that the agent runs.
_OURS: Final = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_FDS", "LISTEN_PID")


@final
class Prober:
    """Asks endpoints the way requests go to them: TLS, identities, PROXY header, protocol.

    Each question has a connection of its own: one that is kept would not show that new ones are
    accepted.  At most `connections` and `commands` are under way at once.
    """

    def __init__(self, connections: int = CONNECTIONS, commands: int = COMMANDS) -> None:
        self._dialler: Final = Dialler(asyncio.get_running_loop(), bug)
        self._connections: Final = asyncio.Semaphore(connections)
        self._commands: Final = asyncio.Semaphore(commands)
        self._lookups: Final = Lookups()

    async def ask(self, cluster: ClusterPlan, endpoint: Endpoint, check: HealthCheck) -> str:
        """Return why `endpoint` failed, empty if it did not.

        The timeout of `check` begins once it is this one's turn.
        """
        slots = self._connections if check.command is None else self._commands
        async with slots:
            if check.command is not None:
                about = {"SIDECAR_CLUSTER": cluster.name, "SIDECAR_ENDPOINT": endpoint.address}
                environ = {k: v for k, v in os.environ.items() if k not in _OURS} | about
                failure = await command.run(check.command.argv, environ, check.timeout)
            else:
                failure = await self._connect(cluster, endpoint, check)
        return "".join(c if c.isprintable() else "?" for c in failure[:MAX_FAILURE])

    async def _connect(self, cluster: ClusterPlan, endpoint: Endpoint, check: HealthCheck) -> str:
        stage = "no connection"
        failure = ""
        try:
            async with asyncio.timeout(check.timeout):
                stage = "no address"
                places = await self._lookups.places(endpoint)
                if places != [endpoint] and not cluster.server_name:
                    cluster = copy.copy(cluster)
                    cluster.server_name = endpoint.hostname or endpoint.host
                for place in places:  # as for a request: the first that takes the connection
                    stage = "no connection"
                    talk = make_talk(check, cluster)
                    try:
                        await self._dialler.dial(cluster, place, talk, None)
                        if talk.transport is not None:
                            stage = "no answer"
                        failure = await talk.done
                        if talk.transport is not None:
                            break
                    finally:
                        talk.end()
        except TimeoutError:
            return f"{stage} within {check.timeout:g} s"
        except OSError as error:
            return f"{endpoint.host} does not resolve: {error.strerror or error}"
        return failure


@final
class Lookups:
    """Names of endpoints to addresses.

    The threads that look names up are few and shared with all else in the agent, and one that hangs
    cannot be called back: so few look-ups are under way here, none twice, and once a name has
    addresses nobody waits for newer ones.
    """

    def __init__(self) -> None:
        self._turn: Final = asyncio.Semaphore(LOOKUPS)
        self._under_way: Final[dict[tuple[str, int], asyncio.Task[None]]] = {}
        self._known: Final[dict[tuple[str, int], list[str]]] = {}

    async def places(self, endpoint: Endpoint) -> list[Endpoint]:
        """Return `endpoint` itself if it has an address, else one for each that its name has.

        Raises:
            OSError: the name does not resolve, and never did.
        """
        if endpoint.path or _is_address(endpoint.host):
            return [endpoint]
        key = (endpoint.host, endpoint.port)
        task = self._under_way.get(key)
        if task is None:
            task = spawn(self._look_up(*key), name=f"resolve {key[0]}", on_error=_told_to_who_asks)
            self._under_way[key] = task
            task.add_done_callback(lambda _: self._under_way.pop(key))
        if key not in self._known:
            await asyncio.shield(task)
        return [Endpoint(endpoint.address, host, endpoint.port) for host in self._known[key]]

    async def _look_up(self, host: str, port: int) -> None:
        async with self._turn:
            loop = asyncio.get_running_loop()
            try:
                answer = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            except UnicodeError as error:  # no name at all (idna)
                raise OSError(0, str(error)) from None
        self._known[host, port] = list(dict.fromkeys(str(a[4][0]) for a in answer))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _told_to_who_asks(name: str, error: BaseException) -> None:
    """A look-up that fails is no bug."""
