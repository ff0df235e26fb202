"""API keys and passwords from files that the command line made, through real sockets."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.stand import ROOT, Sidecar, Upstream, echo, free_port, wait_for

CONFIG = """\
workload: web
inbound:
  - address: 127.0.0.1:{port}
    mtls: "off"
    routes:
      - name: api
        match: {{prefix: /api}}
        cluster: app
        api_keys: {{file: "{directory}/keys", user_header: x-client}}
        authorization: [{{name: no-reports, action: deny, match: {{users: [report], methods: [DELETE]}}}}]
      - name: admin
        match: {{prefix: /admin}}
        cluster: app
        basic_auth: {{file: "{directory}/passwords", user_header: x-user}}
      - {{name: open, cluster: app}}
clusters: [{{name: app, endpoints: ["127.0.0.1:{upstream}"]}}]
"""


def hash_key(*arguments: str, said: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sidecar", "hash-key", *arguments]
    return subprocess.run(command, cwd=ROOT, input=said, capture_output=True, text=True, timeout=30)


class Rig:
    """A sidecar before an app that echoes; `keys` are the API keys by name."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.keys: dict[str, str] = {}
        for name in ("batch", "report"):
            self.add_key(name)
        line = hash_key("--password", "alice", said="open sesame\n").stdout
        (directory / "passwords").write_text(line)
        self.upstream = Upstream(echo)
        self.port = free_port()
        config = CONFIG.format(port=self.port, directory=directory, upstream=self.upstream.port)
        self.sidecar = Sidecar(directory, config)

    def add_key(self, name: str) -> None:
        made = hash_key(name)
        self.keys[name] = made.stderr.split()[-1]
        with (self.directory / "keys").open("a") as file:
            file.write(made.stdout)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    rig = Rig(tmp_path_factory.mktemp("credentials"))
    yield rig
    rig.sidecar.end()
    rig.upstream.close()


def test_keys(client: httpx.Client, rig: Rig) -> None:
    answer = client.get("/api/x", headers={"x-api-key": rig.keys["batch"], "X-Client": "root"})
    assert answer.status_code == 200
    assert "x-client: batch\r\n" in answer.text
    assert rig.keys["batch"] not in answer.text
    assert client.delete("/api/x", headers={"x-api-key": rig.keys["report"]}).status_code == 403
    refused = client.get("/api/x", headers={"x-api-key": rig.keys["batch"][:-1]})
    assert (refused.status_code, refused.headers["www-authenticate"]) == (
        401,
        'ApiKey realm="sidecar"',
    )
    assert client.get("/api/x").status_code == 401
    assert client.get("/%61pi/x").status_code == 400  # the route `open`, and `/api` to the app
    assert client.get("/open").status_code == 200


def test_passwords(client: httpx.Client, rig: Rig) -> None:
    for _ in range(2):
        answer = client.get("/admin/x", auth=("alice", "open sesame"))
        assert answer.status_code == 200
        assert "x-user: alice\r\n" in answer.text
        assert "authorization" not in answer.text.lower()
    for pair in (("alice", "open"), ("bob", "open sesame"), ("alice", "")):
        refused = client.get("/admin/x", auth=pair)
        assert refused.status_code == 401
        challenge = 'Basic realm="sidecar", charset="UTF-8"'
        assert refused.headers["www-authenticate"] == challenge
    wait_for(lambda: ' user="alice"' in rig.sidecar.log.read_text())


def test_a_new_key_is_taken_without_a_reload_command_and_a_bad_file_is_not(rig: Rig) -> None:
    rig.add_key("late")

    def status() -> int:
        url = f"http://127.0.0.1:{rig.port}/api/x"
        return httpx.get(url, headers={"x-api-key": rig.keys["late"]}).status_code

    wait_for(lambda: status() == 200)
    with (rig.directory / "keys").open("a") as file:
        file.write("plain-key-by-mistake\n")
    wait_for(lambda: "line 4: expected NAME:KIND" in str(rig.sidecar.info()["last_error"]))
    assert "plain-key" not in rig.sidecar.log.read_text()
    assert status() == 200


def test_no_file_of_ours_shows_a_key(rig: Rig) -> None:
    kept = [p.read_text("latin-1") for p in rig.directory.rglob("*") if p.is_file()]
    kept += [rig.sidecar.get(path)[1] for path in ("/config_dump", "/server_info", "/clusters")]
    for secret in (*rig.keys.values(), "open sesame"):
        assert not [text for text in kept if secret in text]


@pytest.mark.parametrize(
    ("arguments", "said", "told"),
    [
        (("a:b",), "", "expected letters, digits and ._@+-, got 'a:b'"),
        (("--password", "a"), "\n", "expected 1 to 1024 octets, got 0"),
    ],
)
def test_the_command_says_what_it_cannot_do(
    arguments: tuple[str, ...], said: str, told: str
) -> None:
    done = hash_key(*arguments, said=said)
    assert (done.returncode, done.stdout) == (1, "")
    assert told in done.stderr
