"""How a plan becomes what runs: listeners that did not change are not touched."""

import asyncio
import socket
from typing import Final, final

from sidecar.core.plan import Plan
from sidecar.core.types import Engine, ListenerState
from sidecar.runtime.listener import Front

BACKLOG: Final = 4096


@final
class Runner:
    """The listeners of a worker, by address."""

    __slots__ = ("_engine", "_loop", "_servers", "listeners", "plan", "sockets")

    def __init__(self, loop: asyncio.AbstractEventLoop, engine: Engine) -> None:
        self._loop: Final = loop
        self._engine: Final = engine
        self._servers: Final[dict[str, asyncio.AbstractServer]] = {}
        self.sockets: Final[dict[str, socket.socket]] = {}
        self.listeners: Final[dict[str, ListenerState]] = {}
        self.plan: Plan | None = None
        engine.gate.listeners = self.listeners.values()  # as they are at any time

    async def apply(self, plan: Plan) -> None:
        """Run `plan`: new exchanges are served by it, those under way keep theirs."""
        self._engine.identity = plan.identity
        self._engine.tell_ended()
        self._engine.sinks = plan.sinks
        self.plan = plan
        for address, listener in plan.listeners.items():
            state = self.listeners.get(address)
            if state is not None:
                state.plan = listener
                continue
            state = ListenerState(self._engine, listener)
            await self._serve(address, state)
            self.listeners[address] = state  # not before it serves: a push may be tried again
        for address in [a for a in self.listeners if a not in plan.listeners]:
            self._stop(address)
            state = self.listeners.pop(address)
            for connection in tuple(state.connections):
                connection.drain()
            self.sockets.pop(address).close()

    def stop(self) -> None:
        """Take no new connection: with the agent's copies closed too, new callers are refused."""
        self._engine.draining = True
        for address in tuple(self._servers):
            self._stop(address)
        for sock in self.sockets.values():
            sock.close()
        self.sockets.clear()
        for state in self.listeners.values():
            for connection in tuple(state.connections):
                connection.drain()

    def abort(self) -> None:
        """Close what is still open."""
        for state in self.listeners.values():
            for connection in tuple(state.connections):
                connection.abort()

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return sum(len(state.connections) for state in self.listeners.values())

    async def _serve(self, address: str, state: ListenerState) -> None:
        # The server gets a duplicate: closing it must not close the socket that we may hand on.
        sock = self.sockets[address].dup()
        sock.setblocking(False)
        if address.startswith("unix:"):
            server = await self._loop.create_unix_server(
                lambda: Front(state), sock=sock, backlog=BACKLOG
            )
        else:
            server = await self._loop.create_server(
                lambda: Front(state), sock=sock, backlog=BACKLOG
            )
        self._servers[address] = server

    def _stop(self, address: str) -> None:
        server = self._servers.pop(address, None)
        if server is not None:
            server.close()
