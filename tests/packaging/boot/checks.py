"""What is tried of the unit, as root of a machine that systemd has booted (see test_systemd_boot.py).

Runs there by the system's own Python: nothing but the standard library. Every check begins with a
sidecar that does not run and the configuration of `configure()`; `main` stops what it leaves.
"""

import contextlib
import http.client
import json
import os
import pwd
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

CONFIG = Path("/etc/sidecar/sidecar.yaml")
DROP_INS = Path("/run/systemd/system")
PATIENCE = 20.0  # seconds that anything may take
SOCKET_PATH = "/var/lib/sidecar/app.sock"  # where the service may bind, and unlink, by itself too
OUTBOUND, INBOUND = 15001, 15006  # the addresses of packaging/sidecar.socket
FIRST_APP, SECOND_APP = 8080, 8081  # two plans differ in this, and not in length

TEMPLATE = """\
workload: selftest
inbound:
  - {{address: "0.0.0.0:15006", app: "127.0.0.1:{app}", mtls: "off"}}
outbound:
  - {{address: "127.0.0.1:15001", cluster: app}}
  - {{address: "unix:{path}", cluster: app}}
clusters:
  - {{name: app, endpoints: ["127.0.0.1:{app}"]}}
"""

Fact = dict[str, Any]


class App(ThreadingHTTPServer):
    """Answers with its own port; `/held` only after `released`."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), Answer)
        self.arrived = threading.Event()
        self.released = threading.Event()
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, App)
        if self.path == "/held":
            server.arrived.set()
            server.released.wait(PATIENCE)
        body = str(server.server_address[1]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """The journal is for the sidecar's lines."""


class Caller:
    """One connection, which is never made again behind our back."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        self._connection.connect()
        self._connection.auto_open = 0

    def send(self, path: str = "/") -> None:
        self._connection.request("GET", path)

    def answer(self) -> http.client.HTTPResponse:
        response = self._connection.getresponse()
        assert response.status == 200, response.status
        return response

    def ask(self) -> int:
        """Return which app answered."""
        self.send()
        return int(self.answer().read())


def hold(app: App) -> Caller:
    """Return a connection whose request has reached `app` and waits there for `app.released`."""
    app.arrived.clear()
    app.released.clear()
    caller = Caller(OUTBOUND)
    caller.send("/held")
    assert app.arrived.wait(PATIENCE)
    return caller


# What is asked of systemd and of the sidecar:


def until(condition: Callable[[], Any], what: str) -> Any:
    """Return what `condition` says once it is true."""
    deadline = time.monotonic() + PATIENCE
    pause = threading.Event()
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {PATIENCE} s in vain: {what}"
        pause.wait(0.02)
    return value


def systemctl(*words: str) -> None:
    said = subprocess.run(["systemctl", *words], capture_output=True, text=True)
    assert said.returncode == 0, f"systemctl {' '.join(words)}: {said.stderr}"


def show(unit: str = "sidecar.service") -> dict[str, str]:
    said = subprocess.run(["systemctl", "show", unit], capture_output=True, text=True, check=True)
    return dict(line.split("=", 1) for line in said.stdout.splitlines() if "=" in line)


def state() -> str:
    return show()["ActiveState"]


def journal(*words: str) -> list[Fact]:
    """Return what the service has said, oldest first."""
    subprocess.run(["journalctl", "--sync"], check=True)
    said = subprocess.run(
        ["journalctl", "--unit=sidecar.service", "--output=json", "--no-pager", *words],
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in said.stdout.splitlines()]


def info() -> Fact:
    """Return /server_info; empty while nobody answers there."""
    connection = http.client.HTTPConnection("127.0.0.1", 15000, timeout=PATIENCE)
    try:
        connection.request("GET", "/server_info")
        found: Fact = json.loads(connection.getresponse().read())
    except OSError:
        return {}
    finally:
        connection.close()
    return found


def worker() -> Fact:
    found: Fact = info()["workers"][0]
    return found


def running(otherwise_than: str = "") -> bool:
    """Say whether an agent is up, and is not the one of that pid."""
    facts = show()
    return facts["ActiveState"] == "active" and facts["MainPID"] != otherwise_than


def refused(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) != 0


def listens(pid: str) -> set[str]:
    """Return the sockets that a process has, as the kernel names them."""
    found = set()
    for handle in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add(os.readlink(handle))
    return {name for name in found if name.startswith("socket:")}


def left_over() -> list[str]:
    """Return the processes of the service's account."""
    account = pwd.getpwnam("sidecar").pw_uid
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if process.stat().st_uid == account:
                found.append((process / "cmdline").read_text().replace("\0", " "))
    return found


def configure(app: int = FIRST_APP) -> None:
    spare = CONFIG.with_suffix(".new")
    spare.write_text(TEMPLATE.format(app=app, path=SOCKET_PATH))
    spare.rename(CONFIG)


def configure_unseen(app: int) -> None:
    """Change the file so that nobody who only looks at its times and size takes notice."""
    before = CONFIG.stat()
    CONFIG.write_text(TEMPLATE.format(app=app, path=SOCKET_PATH))
    os.utime(CONFIG, ns=(before.st_atime_ns, before.st_mtime_ns))


def drop_in(unit: str, text: str) -> None:
    directory = DROP_INS / f"{unit}.d"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "selftest.conf").write_text(text)
    systemctl("daemon-reload")


# The checks:


def started_means_that_the_plan_runs(app: App) -> None:
    CONFIG.unlink()
    os.mkfifo(CONFIG)
    systemctl("start", "--no-block", "sidecar")
    with CONFIG.open("w") as file:  # returns when the agent has opened it to read
        assert state() == "activating"
        assert refused(OUTBOUND)
        file.write(TEMPLATE.format(app=FIRST_APP, path=SOCKET_PATH))

    configure()
    until(running, "the service is active")

    assert Caller(OUTBOUND).ask() == FIRST_APP
    assert show()["StatusText"] == f"running plan {info()['version']}"


def a_taken_address_fails_the_start_until_it_is_free(app: App) -> None:
    with socket.create_server(("127.0.0.1", INBOUND)):
        said = subprocess.run(["systemctl", "start", "sidecar"], capture_output=True)
        until(lambda: int(show()["NRestarts"]) > 0, "systemd tries again")

        assert said.returncode != 0
        assert not running()
    until(running, "the service is active")

    assert Caller(OUTBOUND).ask() == FIRST_APP
    assert any("port 15006 is taken" in line["MESSAGE"] for line in journal())


def a_reload_drops_no_connection(app: App) -> None:
    systemctl("start", "sidecar")
    idle, held = Caller(OUTBOUND), hold(app)
    assert idle.ask() == FIRST_APP
    before, process = info(), worker()["pid"]

    configure_unseen(SECOND_APP)
    systemctl("reload", "sidecar")
    until(lambda: info()["version"] != before["version"], "the new plan runs")
    app.released.set()

    assert int(held.answer().read()) == FIRST_APP
    assert [held.ask(), idle.ask(), Caller(OUTBOUND).ask()] == [SECOND_APP] * 3
    assert (info()["pid"], worker()["pid"]) == (before["pid"], process)
    until(lambda: show()["StatusText"] == f"running plan {info()['version']}", "systemd is told")


def a_bad_config_at_reload_changes_nothing(app: App) -> None:
    systemctl("start", "sidecar")
    idle, before = Caller(OUTBOUND), info()

    CONFIG.write_text("workload: selftest\nclutsers: []\n")
    systemctl("reload", "sidecar")
    error = until(lambda: info()["last_error"], "the mistake is seen")
    until(running, "the reload is over")

    assert f"{CONFIG}:2" in error
    assert info()["version"] == before["version"]
    assert [idle.ask(), Caller(OUTBOUND).ask()] == [FIRST_APP] * 2
    configure()
    systemctl("reload", "sidecar")
    until(lambda: info()["last_error"] is None, "the mended file is taken")


def the_journal_has_levels_and_the_access_log(app: App) -> None:
    systemctl("start", "sidecar")
    Caller(OUTBOUND).ask()
    CONFIG.write_text("workload: selftest\nclutsers: []\n")
    systemctl("reload", "sidecar")

    until(lambda: '"GET / HTTP/1.1" 200' in str(journal()), "the access log is in the journal")
    said = until(lambda: journal("--priority=err", "--boot")[-1:], "the error is in the journal")

    assert said[0]["MESSAGE"].startswith("level=error msg=")
    assert "did you mean 'clusters'?" in said[0]["MESSAGE"]
    ready = [line for line in journal() if "ready: plan" in line["MESSAGE"]][-1]
    assert (ready["PRIORITY"], ready["MESSAGE"][:11]) == ("6", "level=info ")


def workers_outlive_a_killed_agent(app: App) -> None:
    systemctl("start", "sidecar")
    idle, held = Caller(OUTBOUND), hold(app)
    before, process = show()["MainPID"], worker()["pid"]

    systemctl("kill", "--kill-whom=main", "--signal=KILL", "sidecar")
    until(lambda: show()["MainPID"] != before, "the agent is dead")
    assert [idle.ask(), Caller(OUTBOUND).ask()] == [FIRST_APP] * 2
    until(lambda: running(before), "another agent runs")
    app.released.set()

    assert int(held.answer().read()) == FIRST_APP
    assert (worker()["pid"], worker()["restarts"]) == (process, 0)
    configure(SECOND_APP)
    until(lambda: idle.ask() == SECOND_APP, "the new agent is obeyed")


def the_watchdog_replaces_a_hung_agent(app: App) -> None:
    drop_in("sidecar.service", "[Service]\nWatchdogSec=1\n")
    systemctl("start", "sidecar")
    idle, before, process = Caller(OUTBOUND), show()["MainPID"], worker()["pid"]

    os.kill(int(before), signal.SIGSTOP)
    until(lambda: running(before), "another agent runs")

    assert idle.ask() == FIRST_APP
    assert (worker()["pid"], worker()["restarts"]) == (process, 0)
    assert show()["NRestarts"] == "1"
    assert "Fatal Python error: Aborted" in str(journal())  # and where it hung


def a_stop_drains(app: App) -> None:
    systemctl("start", "sidecar")
    held = hold(app)

    systemctl("stop", "--no-block", "sidecar")
    until(lambda: show()["StatusText"] == "draining", "the drain has begun")
    until(lambda: refused(OUTBOUND) and refused(INBOUND), "new callers are refused")
    assert state() == "deactivating"
    app.released.set()

    response = held.answer()
    assert (response.headers["Connection"], int(response.read())) == ("close", FIRST_APP)
    until(lambda: state() == "inactive", "the service has ended")
    facts = show()
    assert (facts["Result"], facts["ExecMainStatus"]) == ("success", "0")


def systemd_hands_over_its_sockets(app: App) -> None:
    drop_in("sidecar.socket", f"[Socket]\nListenStream={SOCKET_PATH}\n")
    systemctl("start", "sidecar.socket")
    try:
        for _ in range(2):  # the second time, the sockets have outlived a service
            assert state() == "inactive"
            assert Caller(OUTBOUND).ask() == FIRST_APP  # connected before there was a sidecar
            assert Caller(INBOUND).ask() == FIRST_APP
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(PATIENCE)
                sock.connect(SOCKET_PATH)
                sock.sendall(b"GET / HTTP/1.1\r\nHost: app\r\n\r\n")
                assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")
            assert len(listens("1") & listens(str(worker()["pid"]))) == 3
            systemctl("stop", "sidecar.service")
    finally:
        systemctl("stop", "sidecar.socket")


def with_a_socket_unit_a_restart_refuses_nobody(app: App) -> None:
    systemctl("start", "sidecar.socket", "sidecar.service")
    before = show()["MainPID"]
    try:
        systemctl("restart", "--no-block", "sidecar.service")
        answers = []
        while not running(before):
            answers.append(Caller(OUTBOUND).ask())
        assert set(answers) == {FIRST_APP}
    finally:
        systemctl("stop", "sidecar.socket")


def the_processes_are_confined(app: App) -> None:
    systemctl("start", "sidecar")
    for pid in (show()["MainPID"], str(worker()["pid"])):
        status = dict(
            line.split(":\t", 1)
            for line in Path(f"/proc/{pid}/status").read_text().splitlines()
            if ":\t" in line
        )
        account = str(pwd.getpwnam("sidecar").pw_uid)
        assert status["Uid"].split() == [account] * 4
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
        assert {int(status[name], 16) for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
        mounts = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
        roots = [line.split()[5] for line in mounts if line.split()[4] == "/"]
        assert roots[-1].split(",")[0] == "ro"
        assert list(Path(f"/proc/{pid}/root/root").iterdir()) == []
    directory = Path("/var/lib/sidecar")
    assert (directory.owner(), directory.stat().st_mode & 0o777) == ("sidecar", 0o700)
    kept = [path for path in directory.rglob("*") if path.is_file()]  # the last good config
    assert [path.stat().st_mode & 0o077 for path in kept] == [0]


CHECKS: tuple[Callable[[App], None], ...] = (
    started_means_that_the_plan_runs,
    a_taken_address_fails_the_start_until_it_is_free,
    a_reload_drops_no_connection,
    a_bad_config_at_reload_changes_nothing,
    the_journal_has_levels_and_the_access_log,
    workers_outlive_a_killed_agent,
    the_watchdog_replaces_a_hung_agent,
    a_stop_drains,
    systemd_hands_over_its_sockets,
    with_a_socket_unit_a_restart_refuses_nobody,
    the_processes_are_confined,
)


def tried(check: Callable[[App], None], app: App) -> str:
    """Return what went wrong; nothing if all is well."""
    configure()
    try:
        check(app)
        app.released.set()
        systemctl("stop", "sidecar")
        assert left_over() == []
    except Exception:  # noqa: BLE001 - a failed check is what this reports
        subprocess.run(["systemctl", "kill", "--signal=KILL", "sidecar"], capture_output=True)
        subprocess.run(["systemctl", "stop", "sidecar"], capture_output=True)
        return traceback.format_exc()
    finally:
        for leftover in DROP_INS.glob("*.d/selftest.conf"):
            leftover.unlink()
        systemctl("daemon-reload")
        subprocess.run(["systemctl", "reset-failed", "sidecar"], capture_output=True)
    return ""


def main(results: Path) -> None:
    """Leave a file for each check: empty, or what went wrong."""
    subprocess.run(["systemd-sysusers"], check=True)
    CONFIG.parent.mkdir(mode=0o755)
    app, _ = App(FIRST_APP), App(SECOND_APP)
    for check in CHECKS:
        began = time.monotonic()
        text = tried(check, app)
        (results / check.__name__).write_text(text)
        sys.stderr.write(f"{check.__name__}: {time.monotonic() - began:.1f} s\n")
    lines = "".join(f"{line['MESSAGE']}\n" for line in journal())
    (results / "journal.txt").write_text(lines)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
