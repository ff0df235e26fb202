"""Listening sockets: bound once by the agent, kept across reloads, workers and agents."""

import contextlib
import os
import socket
from collections.abc import Iterable, Mapping
from typing import Final, final

from sidecar.errors import OperationError

BACKLOG: Final = 4096
FIRST_PASSED: Final = 3  # SD_LISTEN_FDS_START


@final
class Passed(socket.socket):
    """A listening socket that the service manager made, and goes on listening on after us."""


@final
class Listening:
    """The agent's copies of the listening sockets, by address."""

    def __init__(self) -> None:
        self._sockets: Final[dict[str, socket.socket]] = {}
        self._bound: Final[set[str]] = set()  # by this process

    def take(self, found: Mapping[str, socket.socket]) -> None:
        """Keep sockets that were open before us; of two for one address, the first."""
        for address, sock in found.items():
            if address in self._sockets:
                sock.close()
            else:
                self._sockets[address] = sock

    def bind(self, addresses: Iterable[str]) -> list[str]:
        """Bind what is not bound yet, all or nothing; return what was added.

        Raises:
            OperationError: see `bind`.
        """
        added: list[str] = []
        try:
            for address in sorted(addresses):
                if address not in self._sockets:
                    self._sockets[address] = bind(address)
                    self._bound.add(address)
                    added.append(address)
        except BaseException:
            self.close(added)
            raise
        return added

    def handles(self, addresses: Iterable[str]) -> list[int]:
        """Return the descriptor for each of `addresses`."""
        return [self._sockets[address].fileno() for address in addresses]

    def keep_only(self, addresses: set[str]) -> None:
        """Close the others, except what systemd passed: it listens there whatever we do."""
        passed = {a for a, sock in self._sockets.items() if isinstance(sock, Passed)}
        self.close(self._sockets.keys() - addresses - passed)

    def close(self, addresses: Iterable[str] | None = None) -> None:
        """Close for good; None means all."""
        for address in list(self._sockets if addresses is None else addresses):
            sock = self._sockets.pop(address, None)
            if sock is not None:
                close(address, sock)
            self._bound.discard(address)

    def release(self) -> None:
        """Close all, but leave the paths of those that were open before us: they are in use."""
        self.close(list(self._bound))
        for sock in self._sockets.values():
            sock.close()
        self._sockets.clear()


def bind(address: str) -> socket.socket:
    """Return a listening socket on `host:port`, `[v6]:port` or `unix:/path`.

    Raises:
        OperationError: taken, or not ours to bind; says by whom where that can be known.
    """
    if address.startswith("unix:"):
        return _bind_unix(address[5:])
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setblocking(False)
        sock.bind((host, int(port)))
        sock.listen(BACKLOG)
    except (OverflowError, ValueError) as error:
        sock.close()
        raise OperationError("cannot-listen", f"cannot listen on {address}: {error}") from None
    except OSError as error:
        sock.close()
        raise OperationError("cannot-listen", _why(address, int(port), error)) from None
    return sock


def passed(environ: Mapping[str, str]) -> dict[str, socket.socket]:
    """Return the sockets that systemd passed us, by address (sd_listen_fds(3))."""
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return {}
    found: dict[str, socket.socket] = {}
    count = int(environ.get("LISTEN_FDS", "0"))
    for handle in range(FIRST_PASSED, FIRST_PASSED + count):
        sock = Passed(fileno=handle)
        sock.setblocking(False)
        os.set_inheritable(handle, False)
        found[name_of(sock)] = sock
    return found


def name_of(sock: socket.socket) -> str:
    """Return the address of a listening socket in the words of the configuration."""
    address = sock.getsockname()
    if isinstance(address, str):
        return f"unix:{address}"
    host, port = address[0], address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def close(address: str, sock: socket.socket) -> None:
    """Close a listening socket for good; a unix socket's path goes with it, if it is ours."""
    sock.close()
    if address.startswith("unix:") and not isinstance(sock, Passed):
        with contextlib.suppress(OSError):
            os.unlink(address[5:])


def owner(port: int) -> str:
    """Return `pid 12 (nginx)` for whoever listens on TCP `port`; empty where it cannot be known."""
    inodes = set(_inodes(port))
    if not inodes:
        return ""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            for handle in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    if os.readlink(f"/proc/{pid}/fd/{handle}") in inodes:
                        with open(f"/proc/{pid}/comm") as file:
                            return f"pid {pid} ({file.read().strip()})"
    return ""


def _inodes(port: int) -> Iterable[str]:
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            with open(table) as file:
                lines = file.readlines()[1:]
            for line in lines:
                words = line.split()
                if words[3] == "0A" and int(words[1].rpartition(":")[2], 16) == port:
                    yield f"socket:[{words[9]}]"


def _bind_unix(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if os.path.exists(path):
            _remove_stale(path)
        sock.setblocking(False)
        sock.bind(path)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise OperationError(
            "cannot-listen", f"cannot listen on unix:{path}: {error.strerror}"
        ) from None
    return sock


def _remove_stale(path: str) -> None:
    """Remove a socket file that nobody answers on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except OSError:
            return
    raise OperationError("cannot-listen", f"unix:{path} is in use by another process")


def _why(address: str, port: int, error: OSError) -> str:
    if error.errno == 98:  # EADDRINUSE
        who = owner(port)
        return f"port {port} is taken{f' by {who}' if who else ''}: cannot listen on {address}"
    hint = " (ports below 1024 need a privilege)" if error.errno == 13 and port < 1024 else ""
    return f"cannot listen on {address}: {error.strerror}{hint}"
