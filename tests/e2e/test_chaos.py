"""Three endpoints, one slow, one failing, one restarting: what callers see of it by default."""

import contextlib
import http.client
import random
import re
import socket
import threading
import time
from collections import Counter
from pathlib import Path

from tests.e2e.stand import Sidecar, free_port, read_head

SECONDS = 12.0
CALLERS = 12
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BUSY = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"


class Place:
    """An endpoint that can go away, connections and all, and come back at the same port."""

    def __init__(self, seconds: float, failing: float, seed: int) -> None:
        self._seconds, self._failing = seconds, failing
        self._chance = random.Random(seed)  # noqa: S311 - seeded, so that a run can be repeated
        self._pause = threading.Event()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener: socket.socket | None = None
        self.port = 0
        self.requests = 0
        self.start()

    def start(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
        self.port = int(self._listener.getsockname()[1])
        self._spawn(self._accept, self._listener)

    def stop(self) -> None:
        listener, self._listener = self._listener, None
        for one in (listener, *self._open):
            if one is not None:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
        if listener is not None:
            listener.close()

    def close(self) -> None:
        self._pause.set()
        self.stop()
        for thread in self._threads:
            thread.join(5)

    def _spawn(self, run: object, *arguments: object) -> None:
        thread = threading.Thread(target=run, args=arguments, daemon=True)  # type: ignore[arg-type] # both ours
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._spawn(self._serve, listener.accept()[0])

    def _serve(self, connection: socket.socket) -> None:
        self._open.add(connection)
        connection.settimeout(20)
        with connection, contextlib.suppress(OSError):
            data = b""
            while True:
                _, data = read_head(connection, data)
                self.requests += 1
                self._pause.wait(self._seconds * self._chance.uniform(0.5, 1.5))
                fails = self._chance.random()
                if fails < self._failing / 3:
                    break  # without a word
                connection.sendall(BUSY if fails < self._failing else OK)
        self._open.discard(connection)


class Load:
    """Callers that ask, think and ask again."""

    def __init__(self, port: int) -> None:
        self.statuses: Counter[object] = Counter()
        self._port = port
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(seed,), daemon=True) for seed in range(CALLERS)
        ]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(20)

    def _run(self, seed: int) -> None:
        chance = random.Random(seed)  # noqa: S311 - seeded, so that a run can be repeated
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=15)
        while not self._stop.wait(chance.expovariate(1 / 0.02)):
            try:
                connection.request("GET", "/")
                answer = connection.getresponse()
                answer.read()
                self.statuses[answer.status] += 1
            except (OSError, http.client.HTTPException) as error:
                self.statuses[type(error).__name__] += 1
                connection.close()
        connection.close()


def test_callers_see_next_to_nothing_of_three_bad_endpoints_and_retries_do_not_storm(
    tmp_path: Path,
) -> None:
    slow, failing, restarting = (Place(0.2, 0, 1), Place(0.005, 0.3, 2), Place(0.005, 0, 3))
    port = free_port()
    places = ", ".join(f'"127.0.0.1:{p.port}"' for p in (slow, failing, restarting))
    sidecar = Sidecar(
        tmp_path,
        f'workload: web\noutbound: [{{address: "127.0.0.1:{port}", cluster: app}}]\n'
        f"clusters: [{{name: app, endpoints: [{places}]}}]\n",
    )
    load = Load(port)
    pause = threading.Event()
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        pause.wait(1.5)
        restarting.stop()
        pause.wait(0.5)
        restarting.start()
    load.join()
    metrics = sidecar.get("/metrics")[1]
    (retries,) = re.findall(r"^sidecar_retries_total ([0-9.]+)", metrics, re.MULTILINE)
    requests = load.statuses.total()
    assert requests > 1000
    assert requests - load.statuses[200] < requests / 1000
    assert float(retries) <= 0.2 * requests
    sidecar.end()
    for place in (slow, failing, restarting):
        assert place.requests > 20  # nobody is left out for good
        place.close()
