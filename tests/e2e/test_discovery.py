"""Endpoints found by DNS and in files, through real processes and sockets, under traffic."""

import json
import os
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.stand import Sidecar, Upstream, read_head, read_response, talk, wait_for
from tests.name_server import NameServer

GET = b"GET / HTTP/1.1\r\nHost: app\r\n\r\n"


def named(name: str) -> Callable[[socket.socket, int], None]:
    """Answer every request with `name`."""

    def serve(connection: socket.socket, number: int) -> None:
        rest = b""
        while True:
            _, rest = read_head(connection, rest)
            text = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b"
            connection.sendall(text % (len(name), name.encode()))

    return serve


class UnixUpstream:
    """The same on a unix socket."""

    def __init__(self, path: Path, name: str) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(16)
        self._serve = named(name)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        try:
            with connection:
                self._serve(connection, 0)
        except OSError:
            return  # the sidecar has closed it

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


class Traffic:
    """Requests one after the other on a kept connection, until told to end."""

    def __init__(self, port: int, count: int = 2) -> None:
        self.served: Counter[str] = Counter()
        self.failed: list[str] = []
        self._port = port
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        with talk(self._port) as sock:
            rest = b""
            while not self._end.is_set():
                sock.sendall(GET)
                head, body, rest = read_response(sock, rest)
                if head.startswith(b"HTTP/1.1 200"):
                    self.served[body.decode()] += 1
                else:
                    self.failed.append(head.decode() + body.decode())

    def new(self) -> None:
        """Begin to count anew."""
        self.served.clear()

    def goes_to(self, *names: str) -> bool:
        """Say whether all of `names` were seen and nobody else, from now on."""
        self.new()
        wait_for(lambda: sum(self.served.values()) > 20)
        return set(self.served) == set(names)

    def stop(self) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(10)


class Scene:
    """Three servers, a sidecar that finds them, a DNS server."""

    def __init__(self, directory: Path, names: NameServer) -> None:
        self.directory = directory
        self.names = names
        self.upstreams = {name: Upstream(named(name)) for name in "abc"}
        self.unix = UnixUpstream(directory / "d.sock", "d")
        self.targets = directory / "targets.json"
        self.port = 0
        self.sidecar: Sidecar | None = None

    def address(self, name: str) -> str:
        if name == "d":
            return f"unix:{self.directory}/d.sock"
        return f"127.0.0.1:{self.upstreams[name].port}"

    def list(self, **labels: dict[str, str]) -> None:
        """Put these targets into the file, each with its labels."""
        groups = [{"targets": [self.address(n)], "labels": more} for n, more in labels.items()]
        spare = self.targets.with_suffix(".new")
        spare.write_text(json.dumps(groups))
        os.rename(spare, self.targets)

    def start(self, cluster: str, route: str = "cluster: app") -> Sidecar:
        with socket.create_server(("127.0.0.1", 0)) as spare:
            self.port = int(spare.getsockname()[1])
        config = (
            "workload: web\n"
            f"outbound: [{{address: '127.0.0.1:{self.port}', protocol: http, routes: [{{{route}}}]}}]\n"
            f"clusters: [{{name: app, balancer: round_robin, {cluster}}}]\n"
            "telemetry: {access_log: 'off'}\n"
        )
        self.sidecar = Sidecar(self.directory, config)
        return self.sidecar

    def metric(self, line: str) -> float:
        assert self.sidecar is not None
        for found in self.sidecar.get("/metrics")[1].splitlines():
            if found.startswith(f"{line} "):
                return float(found.rpartition(" ")[2])
        return 0.0

    def close(self) -> None:
        if self.sidecar is not None:
            self.sidecar.end()
        for upstream in self.upstreams.values():
            upstream.close()
        self.unix.close()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with NameServer() as names:
        scene = Scene(tmp_path, names)
        yield scene
        scene.close()


def test_a_file_that_is_edited_under_traffic_loses_no_request(scene: Scene) -> None:
    scene.list(a={})
    sidecar = scene.start(f"file_sd: {scene.targets}, health_checks: [{{tcp: {{}}}}]")
    traffic = Traffic(scene.port)
    wait_for(lambda: traffic.goes_to("a"))

    scene.list(a={}, b={}, d={})  # a unix socket among them
    wait_for(lambda: traffic.goes_to("a", "b", "d"))
    scene.list(c={"weight": "3"}, d={"priority": "1"})
    wait_for(lambda: traffic.goes_to("c"))

    scene.targets.write_text('[{"targets": ["nonsense"]}]')
    wait_for(
        lambda: "targets.json:1: [0].targets[0]: expected host:port" in sidecar.log.read_text()
    )
    assert traffic.goes_to("c")
    failures = 'sidecar_discovery_updates_total{cluster="app",result="failure"}'
    wait_for(lambda: scene.metric(failures) >= 1)

    scene.list(b={}, c={})
    wait_for(lambda: traffic.goes_to("b", "c"))
    rows = json.loads(sidecar.get("/clusters?format=json")[1])
    assert {row["address"] for row in rows} == {scene.address("b"), scene.address("c")}
    wait_for(
        lambda: all(
            r["health"] == "healthy" for r in json.loads(sidecar.get("/clusters?format=json")[1])
        )
    )
    traffic.stop()
    assert traffic.failed == []


def test_subsets_go_by_the_labels_in_the_file(scene: Scene) -> None:
    scene.list(a={"version": "v1"}, b={"version": "v2"})
    scene.start(f"file_sd: {scene.targets}", "cluster: app, subset: {version: v2}")
    traffic = Traffic(scene.port)
    wait_for(lambda: traffic.goes_to("b"))
    scene.list(a={"version": "v1"}, b={"version": "v2"}, d={"version": "v2"})
    wait_for(lambda: traffic.goes_to("b", "d"))
    traffic.stop()
    assert traffic.failed == []

    scene.list(a={"version": "v1"})

    def answer() -> bytes:
        with talk(scene.port, GET) as sock:
            return read_response(sock)[0]

    wait_for(lambda: answer().startswith(b"HTTP/1.1 503"))
    scene.list(c={"version": "v2"})
    wait_for(lambda: answer().startswith(b"HTTP/1.1 200"))


def test_services_are_followed_by_their_ttl_and_kept_while_dns_is_away(scene: Scene) -> None:
    names = scene.names
    ports = {name: upstream.port for name, upstream in scene.upstreams.items()}
    names.say("host.test", "A", "127.0.0.1", ttl=1)
    names.say("_http._tcp.app.test", "SRV", f"0 1 {ports['a']} host.test.", ttl=1)
    lookup = f"dns_lookup: {{servers: ['{names.address}'], min_refresh: 0.1}}"
    scene.start(f"srv: _http._tcp.app.test, {lookup}")
    traffic = Traffic(scene.port)
    wait_for(lambda: traffic.goes_to("a"))

    records = [f"0 1 {ports['b']} host.test.", f"0 1 {ports['c']} host.test."]
    names.say("_http._tcp.app.test", "SRV", *records, ttl=1)
    wait_for(lambda: traffic.goes_to("b", "c"))

    for trouble in ("SERVFAIL", "NXDOMAIN"):
        names.records["_http._tcp.app.test", "SRV"] = trouble
        asked = names.count("_http._tcp.app.test", "SRV")
        wait_for(lambda asked=asked: names.count("_http._tcp.app.test", "SRV") > asked + 1)  # type: ignore[misc]
        assert traffic.goes_to("b", "c")
        if trouble == "SERVFAIL":
            names.say("_http._tcp.app.test", "SRV", *records, ttl=1)
            found = 'sidecar_discovery_updates_total{cluster="app",result="success"}'
            before = scene.metric(found)
            wait_for(lambda found=found, before=before: scene.metric(found) > before)  # type: ignore[misc]
    traffic.stop()
    assert traffic.failed == []

    def flag() -> bytes:
        with talk(scene.port, GET) as sock:
            return read_response(sock)[1]

    wait_for(lambda: b"flag DF" in flag())  # after the third denial


def test_a_plain_name_is_looked_up_as_this_machine_does(scene: Scene) -> None:
    scene.start(
        f"dns: 'localhost:{scene.upstreams['a'].port}', dns_lookup: {{lookup_family: v4_only}}"
    )
    traffic = Traffic(scene.port)
    assert traffic.goes_to("a")
    traffic.stop()
    assert traffic.failed == []
