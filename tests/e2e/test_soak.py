"""Half a minute of load while everything changes: no request fails that need not."""

import http.client
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.e2e.stand import wait_for
from tests.e2e.test_mesh import WEB, Mesh, write

SECONDS = float(os.environ.get("SIDECAR_SOAK_SECONDS", "30"))


class Load:
    """Callers with kept connections; what went wrong, and when."""

    def __init__(self, port: int, count: int) -> None:
        self.requests = 0
        self.wrong: list[str] = []
        self.broken: list[float] = []
        self.stop = threading.Event()
        self._port = port
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join(20)

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        while not self.stop.is_set():
            try:
                connection.request("GET", "/x")
                answer = connection.getresponse()
                text = answer.read()
                if answer.status != 200:
                    self.wrong.append(f"{answer.status} {text[:200]!r}")
                self.requests += 1
            except (OSError, http.client.HTTPException):
                self.broken.append(time.monotonic())
                connection.close()
        connection.close()


@pytest.mark.skipif(SECONDS <= 0, reason="SIDECAR_SOAK_SECONDS is 0")
def test_nothing_fails_while_everything_changes(tmp_path: Path) -> None:
    mesh = Mesh(tmp_path)
    config = mesh.web.path.read_text().rpartition("\nadmin:")[0]
    load = Load(mesh.outbound, 4)
    pause = threading.Event()
    kills: list[float] = []
    begun = time.monotonic()
    for second in range(1, int(SECONDS) + 1):
        pause.wait(max(0.0, begun + second - time.monotonic()))
        mesh.web.write(config + f"\ntelemetry: {{metrics: {{max_series: {2000 + second}}}}}\n")
        mesh.web.process.send_signal(signal.SIGHUP)
        if second % 3 == 0:
            write(mesh.web_pem, mesh.authority.issue(WEB))
        if second % 7 == 0:  # one that lives for less than 5 s is replaced later each time
            wait_for(lambda: mesh.web.info()["workers"][0]["state"] == "running")
            os.kill(mesh.web.worker_pid(), signal.SIGKILL)
            kills.append(time.monotonic())
    load.join()
    assert load.wrong == []
    strays = [t for t in load.broken if not any(0 <= t - kill < 1.5 for kill in kills)]
    assert strays == []
    # A connection dies once with its worker; the next one is served by the worker after it.
    assert len(load.broken) <= 4 * len(kills)
    assert load.requests > 50 * SECONDS
    # The last was killed just now; it is counted when its place is filled.
    wait_for(lambda: mesh.web.info()["workers"][0]["restarts"] == len(kills))
    info = mesh.web.info()
    assert int(str(info["pushes"])) >= SECONDS / 2
    for sidecar in (mesh.web, mesh.catalog):
        sidecar.end()
    mesh.upstream.close()
    mesh.tcp_app.close()
