"""An endpoint that says it is ill gets no traffic, from whichever worker, until it is well."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.stand import Sidecar, Upstream, free_port, read_head, wait_for


class Patient:
    """An endpoint that answers `/health` by how it is, and everything else by its name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.status = 200
        self.upstream = Upstream(self._serve)
        self.address = f"127.0.0.1:{self.upstream.port}"

    def _serve(self, connection: socket.socket, number: int) -> None:
        data = b""
        while True:
            head, data = read_head(connection, data)
            status = self.status if head.startswith(b"GET /health ") else 200
            connection.sendall(
                b"HTTP/1.1 %d X\r\nContent-Length: 1\r\n\r\n%b" % (status, self.name.encode())
            )


class Ward:
    """A sidecar with three endpoints."""

    def __init__(self, directory: Path) -> None:
        self.patients = {name: Patient(name) for name in "abc"}
        self.port = free_port()
        self.sidecar = Sidecar(directory, self.config())

    def config(self, more: str = "") -> str:
        places = ", ".join(f'"{p.address}"' for p in self.patients.values())
        check = "{http: /health, interval: 100ms, healthy_threshold: 1, unhealthy_threshold: 1}"
        return (
            f'workload: web\noutbound: [{{address: "127.0.0.1:{self.port}", cluster: app}}]\n'
            f"clusters: [{{name: app, endpoints: [{places}], balancer: round_robin, {more}"
            f"health_checks: [{check}]}}]\n"
        )

    def served_by(self) -> str:
        """Who answers a dozen requests."""
        with httpx.Client() as client:
            found = {client.get(f"http://127.0.0.1:{self.port}/").text for _ in range(12)}
        return "".join(sorted(found))

    def row(self, name: str) -> dict[str, Any]:
        rows = json.loads(self.sidecar.get("/clusters?format=json")[1])
        address = self.patients[name].address
        found: dict[str, Any]
        for found in rows:
            if found["address"] == address:
                return found
        return {"health": "", "available": False}  # no worker has reported yet

    def is_out(self, name: str) -> bool:
        row = self.row(name)
        return row["health"] == "unhealthy" and not row["available"]


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    ward = Ward(tmp_path)
    yield ward
    ward.sidecar.end()
    for patient in ward.patients.values():
        patient.upstream.close()


def test_what_a_name_resolves_to_is_asked_as_well(ward: Ward) -> None:
    places = ", ".join(f'"{p.address}"' for p in ward.patients.values())
    port = ward.patients["a"].upstream.port
    config = ward.config().replace(f"endpoints: [{places}]", f"dns: localhost:{port}")
    assert "dns" in config
    ward.sidecar.write(config)
    wait_for(lambda: ward.row("a")["health"] == "healthy" and not ward.row("b")["health"])

    ward.patients["a"].status = 503
    wait_for(lambda: ward.is_out("a"))


def test_an_ill_endpoint_gets_no_traffic_until_it_is_well(ward: Ward) -> None:
    wait_for(lambda: all(ward.row(name)["health"] == "healthy" for name in "abc"))
    assert ward.served_by() == "abc"

    ward.patients["c"].status = 503
    wait_for(lambda: ward.is_out("c"))
    assert ward.served_by() == "ab"
    assert ward.row("c")["last_failure"] == "expected status 200, got 503"
    address = ward.patients["c"].address
    told = f'sidecar_endpoint_healthy{{cluster="app",endpoint="{address}"}} 0.0'
    assert told in ward.sidecar.get("/metrics")[1]

    shown = subprocess.run(
        [sys.executable, "-m", "sidecar", "status", "--admin", f"127.0.0.1:{ward.sidecar.admin}"],
        env={**os.environ, "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        check=True,
    ).stdout.decode()
    (line,) = (line for line in shown.splitlines() if address in line)
    assert "unhealthy" in line
    assert "expected status 200, got 503" in line

    before = ward.sidecar.worker_pid()
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: ward.sidecar.worker_pid() not in (0, before) and ward.sidecar.ready())
    assert ward.served_by() == "ab"

    version = ward.sidecar.info()["version"]
    ward.sidecar.write(ward.config("idle_timeout: 50s, "))
    wait_for(lambda: ward.sidecar.info()["version"] != version)
    assert ward.served_by() == "ab"

    ward.patients["c"].status = 200
    wait_for(lambda: ward.row("c")["available"])
    assert ward.served_by() == "abc"
