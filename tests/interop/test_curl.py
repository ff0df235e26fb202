"""curl, HTTP/1.1 and HTTP/2, through every way to an app of either: any to any, byte for byte."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.stand import Sidecar, free_port
from tests.interop.origin import digest
from tests.interop.peer import need, python, run
from tests.interop.way import WAYS, App, Front, way

SPOKEN = {"h1": "--http1.1", "h2": "--http2-prior-knowledge"}
MIB = 2**20
LARGE = 16  # MiB: more than all the buffers on the way hold


@dataclass(frozen=True)
class Answer:
    """What curl got."""

    status: int
    heads: list[str]
    """Lines of all heads and of the trailers, in lower case."""

    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found

    def values(self, name: str) -> list[str]:
        """What the app saw under a field name."""
        return [value for key, value in self.json["fields"] if key.lower() == name]


@dataclass(frozen=True)
class Curl:
    """curl on one way to one app."""

    port: int
    flag: str
    directory: Path

    def __call__(self, path: str, *arguments: str | Path) -> Answer:
        """Ask; what came. Any transport error fails the test."""
        heads, body = self.directory / "heads", self.directory / "body"
        body.write_bytes(b"")
        url = f"http://127.0.0.1:{self.port}{path}"
        always = ("-sS", self.flag, "-D", heads, "-o", body, "--max-time", "30", "--noproxy", "*")
        status = run(need("curl"), *always, "-w", "%{http_code}", *arguments, url, seconds=40)
        lines = heads.read_text().lower().splitlines()
        return Answer(int(status), lines, body.read_bytes())


@pytest.fixture
def curl(front: Front, origin: dict[str, App], pair: str, tmp_path: Path) -> Curl:
    spoken, app = pair.split("-")
    return Curl(front.ports[origin[app]], SPOKEN[spoken], tmp_path)


# What curl speaks, what the app speaks; nobody translates on the direct way.
LINES = [
    (name, f"{spoken}-{app}")
    for name in WAYS
    for spoken in SPOKEN
    for app in SPOKEN
    if name != "direct" or spoken == app
]
over_all_lines = pytest.mark.parametrize(("front", "pair"), LINES, indirect=["front"])


def get(curl: Curl) -> None:
    answer = curl("/echo?a=%2f&b", "-H", "Host: shop.example:81", "-H", "X-Thing: One")
    assert answer.status == 200
    seen = answer.json
    assert (seen["method"], seen["path"]) == ("GET", "/echo?a=%2f&b")
    assert (seen["authority"], seen["length"]) == ("shop.example:81", 0)
    assert answer.values("x-thing") == ["One"]


def head(curl: Curl) -> None:
    answer = curl("/bytes/1000", "--head")
    # curl shows the head in the body's place; there is to be nothing behind it.
    assert (answer.status, answer.body.decode().lower().splitlines()) == (200, answer.heads)


def no_body(curl: Curl) -> None:
    for status in (204, 304, 404, 500):
        answer = curl(f"/status/{status}")
        assert (answer.status, answer.body) == (status, b"")


def upload(curl: Curl) -> None:
    data = bytes(range(256)) * 4096
    path = curl.directory / "data"
    path.write_bytes(data)
    wanted = (len(data), hashlib.sha256(data).hexdigest())
    for arguments in (
        ("--data-binary", f"@{path}", "-H", "Expect:"),
        ("--data-binary", f"@{path}", "-H", "Expect: 100-continue"),
        ("-T", path),
        ("-X", "POST", "-T", path, "-H", "Transfer-Encoding: chunked", "-H", "Content-Length:"),
    ):
        answer = curl("/echo", *arguments)
        assert answer.status == 200
        assert (answer.json["length"], answer.json["sha256"]) == wanted
        assert answer.values("transfer-encoding") in ([], ["chunked"])


def download(curl: Curl) -> None:
    answer = curl(f"/bytes/{3 * MIB}")
    assert answer.status == 200
    assert hashlib.sha256(answer.body).hexdigest() == digest(3 * MIB)


def trailers(curl: Curl) -> None:
    answer = curl("/bytes/1000", "-H", "TE: trailers")
    assert hashlib.sha256(answer.body).hexdigest() == digest(1000)
    assert f"x-sha256: {digest(1000)}" in answer.heads


def cookies(curl: Curl) -> None:
    # RFC 9113 §8.2.3: whatever pieces HTTP/2 has them in, HTTP/1.1 has them in one field.
    answer = curl("/echo", "-b", "a=1; b=2; c=3")
    assert "; ".join(answer.values("cookie")) == "a=1; b=2; c=3"


def hop_by_hop(curl: Curl) -> None:
    answer = curl("/echo", "-H", "Connection: x-gone", "-H", "X-Gone: 1", "-H", "X-Kept: 1")
    assert answer.status == 200
    assert answer.values("x-kept") == ["1"]


def early(curl: Curl) -> None:
    answer = curl("/early")
    assert (answer.status, answer.body) == (200, b"late")


CASES: tuple[Callable[[Curl], None], ...] = (
    get,
    head,
    no_body,
    upload,
    download,
    trailers,
    cookies,
    hop_by_hop,
    early,
)


@over_all_lines
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_curl_gets_what_the_app_said(curl: Curl, case: Callable[[Curl], None]) -> None:
    case(curl)


@pytest.mark.parametrize(
    ("front", "pair"),
    [line for line in LINES if line[0] in ("sidecar", "pair")],
    indirect=["front"],
)
def test_a_large_body_goes_up_and_down_at_once(curl: Curl, tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        for number in range(LARGE):
            file.write(number.to_bytes(4) * (MIB // 4))
    wanted = hashlib.sha256(path.read_bytes()).hexdigest()

    answer = curl("/duplex", "-T", path, "-H", "Expect:", "-H", "TE: trailers")

    assert len(answer.body) == LARGE * MIB
    assert hashlib.sha256(answer.body).hexdigest() == wanted
    assert f"x-sha256: {wanted}" in answer.heads


@pytest.mark.parametrize(("flag", "version"), [("--http1.1", "1.1"), ("--http2", "2")])
def test_alpn_chooses_what_an_inbound_listener_speaks(
    origin: dict[str, App], tmp_path: Path, flag: str, version: str
) -> None:
    program = need("curl")
    with way("inbound", [origin["h1"]], tmp_path) as front:
        pem = front.material
        shown = ("--cert", pem / "certificate.pem", "--key", pem / "key.pem")
        # -k: a SPIFFE ID is no host name; who is there is the business of other tests.
        always = (
            "-sS",
            "-k",
            "--noproxy",
            "*",
            "-o",
            "/dev/null",
            "-w",
            "%{http_version} %{http_code}",
        )
        url = f"https://127.0.0.1:{front.ports[origin['h1']]}/echo"
        assert run(program, *always, flag, *shown, url) == f"{version} 200"


def test_same_as_downstream_is_what_the_caller_speaks(tmp_path: Path) -> None:
    port = free_port()
    with python("tests.interop.origin") as ports:
        sidecar = Sidecar(
            tmp_path,
            f"workload: web\noutbound: [{{address: '127.0.0.1:{port}', cluster: c}}]\n"
            f"clusters: [{{name: c, endpoints: ['127.0.0.1:{ports['either']}'],"
            " protocol: same-as-downstream}]\n",
        )
        spoken = [Curl(port, flag, tmp_path)("/echo").json["version"] for flag in SPOKEN.values()]
        sidecar.end()
    assert spoken == ["1.1", "2"]
