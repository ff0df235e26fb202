"""Reload, crashes, drain: what operators do, and what befalls them, under traffic."""

import contextlib
import http.client
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from sidecar.runtime.messages import DUMP
from tests.e2e.stand import ROOT, Sidecar, Upstream, echo, free_port, read_head, talk, wait_for


def config(port: int, upstream: int, name: str = "app") -> str:
    return (
        "workload: web\n"
        f'outbound: [{{address: "127.0.0.1:{port}", routes: [{{name: {name}, cluster: app}}]}}]\n'
        f'clusters: [{{name: app, endpoints: ["127.0.0.1:{upstream}"]}}]\n'
    )


class Rig:
    def __init__(self, directory: Path, drain: str = "5s") -> None:
        self.upstream = Upstream(echo)
        self.port = free_port()
        self.sidecar = Sidecar(directory, config(self.port, self.upstream.port), drain)

    def ask(self) -> int:
        return httpx.get(f"http://127.0.0.1:{self.port}/").status_code


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    with contextlib.suppress(ProcessLookupError, OSError):
        if rig.sidecar.process.poll() is None:
            rig.sidecar.end()
    rig.upstream.close()
    assert "msg=bug" not in rig.sidecar.log.read_text()


def test_a_reload_serves_the_new_plan_on_the_old_connection(rig: Rig) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", rig.port, timeout=10)
    connection.request("GET", "/")
    assert connection.getresponse().read()
    sock = connection.sock
    text = config(rig.port, rig.upstream.port).replace(
        "cluster: app}]", "match: {path: /a}, cluster: app}]"
    )
    before = rig.sidecar.info()["version"]
    rig.sidecar.write(text)
    rig.sidecar.process.send_signal(signal.SIGHUP)
    wait_for(lambda: rig.sidecar.info()["version"] != before)

    def status(path: str) -> int:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        return answer.status

    wait_for(lambda: status("/b") == 404)
    assert status("/a") == 200
    assert connection.sock is sock
    connection.close()


def test_a_bad_config_is_refused_and_told(rig: Rig) -> None:
    before = rig.sidecar.info()["version"]
    rig.sidecar.write(
        config(rig.port, rig.upstream.port).replace("cluster: app}]", "cluster: ap}]")
    )
    told = wait_for(lambda: rig.sidecar.info()["last_error"])
    assert "sidecar.yaml:2: outbound[0].routes[0].cluster: no cluster is named 'ap'" in told
    assert "did you mean 'app'?" in told
    assert rig.sidecar.info()["version"] == before
    assert rig.ask() == 200


def test_a_listener_comes_and_goes(rig: Rig) -> None:
    second = free_port()
    text = config(rig.port, rig.upstream.port)
    rig.sidecar.write(
        text.replace("outbound: [", f'outbound: [{{address: "127.0.0.1:{second}", cluster: app}}, ')
    )

    def served(port: int) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"http://127.0.0.1:{port}/").status_code == 200
        return False

    wait_for(lambda: served(second))
    rig.sidecar.write(text)
    wait_for(lambda: not served(second))
    assert served(rig.port)


def test_a_killed_worker_is_replaced_on_the_same_sockets(rig: Rig) -> None:
    pid = rig.sidecar.worker_pid()
    os.kill(pid, signal.SIGKILL)
    assert httpx.get(f"http://127.0.0.1:{rig.port}/", timeout=5).status_code == 200
    info = rig.sidecar.info()
    assert info["workers"][0]["pid"] != pid
    assert info["workers"][0]["restarts"] == 1
    assert 'sidecar_worker_restarts_total{reason="ended"} 1.0' in rig.sidecar.get("/metrics")[1]


def test_a_killed_agent_leaves_the_worker_serving_and_the_next_one_adopts_it(rig: Rig) -> None:
    pid = rig.sidecar.worker_pid()
    connection = http.client.HTTPConnection("127.0.0.1", rig.port, timeout=10)
    connection.request("GET", "/")
    assert connection.getresponse().read()
    sock = connection.sock
    rig.sidecar.process.kill()
    rig.sidecar.process.wait(10)
    for _ in range(10):
        assert rig.ask() == 200
    rig.sidecar.start()
    assert rig.sidecar.worker_pid() == pid
    connection.request("GET", "/")
    assert connection.getresponse().read()
    assert connection.sock is sock
    connection.close()
    assert rig.ask() == 200


def pids(sidecar: Sidecar) -> list[int]:
    return [worker["pid"] for worker in sidecar.info()["workers"]]


def is_alive(pid: int) -> bool:
    """Whether there is such a process; one that waits to be reaped is none."""
    # It may go before the file is opened, and before it is read.
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def restarted(sidecar: Sidecar, times: int) -> bool:
    return bool(sidecar.info()["workers"][0]["restarts"] == times)


def requests(sidecar: Sidecar) -> float:
    lines = sidecar.get("/metrics")[1].splitlines()
    return sum(float(x.rpartition(" ")[2]) for x in lines if x.startswith("istio_requests_total{"))


def test_several_workers_are_adopted_each_in_its_place_and_a_surplus_drains(tmp_path: Path) -> None:
    upstream, port = Upstream(echo), free_port()
    text = config(port, upstream.port)
    sidecar = Sidecar(tmp_path, text, workers=3)

    def ask(times: int) -> None:
        for _ in range(times):
            assert httpx.get(f"http://127.0.0.1:{port}/").status_code == 200

    ask(30)
    before = pids(sidecar)
    sidecar.process.kill()
    sidecar.process.wait(10)
    os.kill(before[2], signal.SIGKILL)  # nobody reaps it but init, and its socket stays behind
    ask(10)
    sidecar.workers = 1
    sidecar.write(text)
    sidecar.start()
    assert pids(sidecar) == before[:1]
    wait_for(lambda: not is_alive(before[1]))
    ask(10)
    # What the worker without a place had counted is in the sum; what the killed one had, is lost.
    assert 10 <= requests(sidecar) <= 50
    assert list(sidecar.state.glob("worker-*.sock")) == []
    assert sidecar.info()["workers"][0]["restarts"] == 0
    sidecar.end()
    assert not is_alive(before[0])
    upstream.close()


def test_no_worker_stays_unreaped(rig: Rig) -> None:
    found = []
    for count in (1, 2, 3):
        found.append(rig.sidecar.worker_pid())
        os.kill(found[-1], signal.SIGKILL)
        wait_for(partial(restarted, rig.sidecar, count))
        wait_for(rig.sidecar.ready)
    assert rig.ask() == 200
    assert [pid for pid in found if os.path.exists(f"/proc/{pid}")] == []


@pytest.mark.parametrize("state", ["led", "orphaned"])
def test_a_worker_that_hangs_is_replaced(rig: Rig, state: str) -> None:
    pid = rig.sidecar.worker_pid()
    if state == "orphaned":
        rig.sidecar.process.kill()
        rig.sidecar.process.wait(10)
        wait_for(lambda: list(rig.sidecar.state.glob("worker-*.sock")))
    os.kill(pid, signal.SIGSTOP)
    if state == "orphaned":
        rig.sidecar.start()
    wait_for(lambda: not is_alive(pid), seconds=30)
    wait_for(rig.sidecar.ready)
    assert rig.sidecar.worker_pid() != pid
    assert rig.ask() == 200
    if state == "led":
        told = rig.sidecar.get("/metrics")[1]
        assert 'sidecar_worker_restarts_total{reason="stuck"} 1.0' in told


def test_a_worker_asked_for_its_stacks_writes_them_and_goes_on(rig: Rig) -> None:
    pid = rig.sidecar.worker_pid()
    os.kill(pid, DUMP)
    wait_for(lambda: "sidecar/worker/main.py" in rig.sidecar.log.read_text())
    assert rig.ask() == 200
    assert rig.sidecar.worker_pid() == pid


def test_an_agent_that_cannot_start_leaves_the_workers_serving(rig: Rig) -> None:
    pid = rig.sidecar.worker_pid()
    rig.sidecar.process.kill()
    rig.sidecar.process.wait(10)
    with socket.create_server(("127.0.0.1", rig.sidecar.admin)):
        told = subprocess.run(
            [sys.executable, "-m", "sidecar", "run", str(rig.sidecar.path)],
            capture_output=True, text=True, cwd=ROOT, timeout=20,
            env={**os.environ, "XDG_STATE_HOME": str(rig.sidecar.state)},
        )  # fmt: skip
        assert told.returncode == 1
        assert "the admin interface cannot listen" in told.stderr
        assert rig.ask() == 200
    rig.sidecar.start()
    assert rig.sidecar.worker_pid() == pid
    assert rig.ask() == 200


def test_what_one_worker_refuses_runs_in_none_and_is_not_kept(tmp_path: Path) -> None:
    upstream, port, second = Upstream(echo), free_port(), free_port()
    text = config(port, upstream.port)
    sidecar = Sidecar(tmp_path, text, workers=2)
    (kept,) = sidecar.state.rglob("last-good-*")
    before, version = kept.read_bytes(), sidecar.info()["version"]
    victim = pids(sidecar)[1]
    limits = resource.prlimit(victim, resource.RLIMIT_NOFILE)
    # So low that it can take no listening socket more: the agent cannot know, and the other can.
    resource.prlimit(victim, resource.RLIMIT_NOFILE, (3, limits[1]))
    wanted = text.replace(
        "outbound: [", f'outbound: [{{address: "127.0.0.1:{second}", cluster: app}}, '
    )
    sidecar.write(wanted)
    told = wait_for(lambda: sidecar.info()["last_error"])
    assert "is the limit of 3 open files reached?" in told
    assert sidecar.info()["version"] == version
    assert {worker["plan"] for worker in sidecar.info()["workers"]} == {version}
    assert kept.read_bytes() == before
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", second)) != 0
    assert 'sidecar_config_pushes_total{result="rolled_back"} 1.0' in sidecar.get("/metrics")[1]

    resource.prlimit(victim, resource.RLIMIT_NOFILE, limits)
    sidecar.process.send_signal(signal.SIGHUP)
    wait_for(lambda: sidecar.info()["last_error"] is None)
    for here in (port, second):
        assert httpx.get(f"http://127.0.0.1:{here}/").status_code == 200
    assert kept.read_bytes() != before
    assert victim in pids(sidecar)
    sidecar.end()
    upstream.close()


def test_the_last_good_config_is_used_when_the_new_one_is_bad(tmp_path: Path) -> None:
    upstream, port = Upstream(echo), free_port()
    sidecar = Sidecar(tmp_path, config(port, upstream.port))
    sidecar.end()
    sidecar.write("workload: [")
    sidecar.start()
    assert httpx.get(f"http://127.0.0.1:{port}/").status_code == 200
    sidecar.end()
    assert "starting with the last good one" in sidecar.log.read_text()
    upstream.close()


def test_a_drain_finishes_what_is_under_way_and_refuses_the_rest(tmp_path: Path) -> None:
    go = threading.Event()

    def serve(connection: socket.socket, number: int) -> None:
        read_head(connection)
        go.wait(10)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    upstream, port = Upstream(serve), free_port()
    sidecar = Sidecar(tmp_path, config(port, upstream.port), drain="10s")
    with talk(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") as sock:
        wait_for(lambda: upstream.connections == 1)
        sidecar.process.send_signal(signal.SIGTERM)
        wait_for(lambda: sidecar.get("/ready")[0] == 503)

        def refused() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) != 0

        wait_for(refused)
        go.set()
        head, rest = read_head(sock)
        assert b"Connection: close" in head
        assert rest + sock.recv(10) == b"ok"
    assert sidecar.process.wait(10) == 0
    upstream.close()


def test_a_taken_port_is_one_sentence_with_its_owner(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        path = tmp_path / "sidecar.yaml"
        path.write_text(
            config(port, 1)
            + f"admin: 127.0.0.1:{free_port()}\nprocess: {{state_dir: {tmp_path}/s}}\n"
        )
        told = subprocess.run(
            [sys.executable, "-m", "sidecar", "run", str(path)],
            capture_output=True, text=True, cwd=ROOT, timeout=20,
        )  # fmt: skip
    assert told.returncode == 1
    assert f"port {port} is taken by pid {os.getpid()} (" in told.stderr
    assert "Traceback" not in told.stderr


def test_systemd_is_told(tmp_path: Path) -> None:
    upstream, port = Upstream(echo), free_port()
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(10)
        os.environ["NOTIFY_SOCKET"] = str(path)
        try:
            sidecar = Sidecar(tmp_path, config(port, upstream.port))
        finally:
            del os.environ["NOTIFY_SOCKET"]
        assert manager.recv(500).startswith(b"READY=1\nSTATUS=running plan ")
        sidecar.process.send_signal(signal.SIGHUP)
        assert manager.recv(500).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
        assert manager.recv(500).startswith(b"READY=1\n")
        sidecar.end()
        assert manager.recv(500).startswith(b"STOPPING=1\n")
    upstream.close()


def test_two_workers_share_a_socket_and_their_numbers(tmp_path: Path) -> None:
    upstream, port = Upstream(echo), free_port()
    sidecar = Sidecar(tmp_path, config(port, upstream.port), workers=2)
    for _ in range(40):
        assert httpx.get(f"http://127.0.0.1:{port}/").status_code == 200
    assert requests(sidecar) == 40
    sidecar.end()
    upstream.close()


def test_the_operator_pages_answer(rig: Rig) -> None:
    assert rig.ask() == 200
    get = rig.sidecar.get
    for path in ("/", "/live", "/stats", "/stats?format=json", "/config_dump", "/clusters",
                 "/listeners", "/certs", "/server_info", "/logging"):  # fmt: skip
        status, text = get(path)
        assert status == 200, path
        assert text
    assert get("/drain")[0] == 405
    assert get("/nothing")[0] == 404
    told = httpx.get(f"http://127.0.0.1:{rig.sidecar.admin}/", headers={"host": "evil.example"})
    assert told.status_code == 403
    assert get("/logging?level=debug", "POST") == (200, "10\n")
    assert get("/drain", "POST")[0] == 200
    assert rig.sidecar.process.wait(10) == 0
