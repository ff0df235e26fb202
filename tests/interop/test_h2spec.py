"""h2spec, the HTTP/2 and HPACK conformance suite, against our listeners: plaintext and TLS."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as Xml

import pytest

from tests.e2e.stand import ROOT, Upstream, echo, free_port
from tests.interop.peer import need, run, running
from tests.interop.way import App, Front, way


def h2spec() -> str:
    """Return where the program is, or skip with what is missing."""
    built = ROOT / ".venv-h2spec" / "h2spec"
    found = os.environ.get("H2SPEC") or shutil.which("h2spec")
    if found is None:
        if not built.exists():
            missing = "it is not built" if shutil.which("go") else "no Go toolchain to build it"
            pytest.skip(f"no h2spec, {missing}: .ci/run builds it in .venv-h2spec")
        found = str(built)
    return found


# Plaintext in, mTLS with ALPN out, for h2spec has no certificate of its own to show. It only
# wraps: octets, ends and resets pass as they come.
HOP = """\
defaults
  mode tcp
  timeout connect 5s
  timeout client 30s
  timeout server 30s
listen hop
  bind 127.0.0.1:{here}
  server s 127.0.0.1:{there} ssl alpn h2 crt {pem} ca-file {roots} verify required
"""


@contextlib.contextmanager
def wrapped(front: Front, app: App, directory: Path) -> Iterator[int]:
    """A port before an mTLS listener."""
    haproxy, here = need("haproxy"), free_port()
    pem, config = directory / "hop.pem", directory / "haproxy.cfg"
    parts = ("certificate.pem", "key.pem")
    pem.write_text("".join((front.material / part).read_text() for part in parts))
    roots = front.material / "roots.pem"
    config.write_text(HOP.format(here=here, there=front.ports[app], pem=pem, roots=roots))
    with running([haproxy, "-db", "-f", str(config)], [here], directory / "haproxy.log"):
        yield here


def failures(report: Path) -> tuple[int, list[str]]:
    """Read a JUnit report; how many cases it holds, and what is wrong with which."""
    root = Xml.parse(report).getroot()  # noqa: S314 - our own child wrote it
    cases = root.findall(".//testcase")
    wrong = []
    for case in cases:
        for found in (*case.findall("failure"), *case.findall("error")):
            said = " ".join((found.text or "").split())
            wrong.append(f"{case.get('package')}: {case.get('classname')}: {said}")
    return len(cases), wrong


# Octets that are no preface are HTTP/1.1 to a plaintext listener, so the answer is HTTP/1.1's 400,
# which h2spec takes for a frame. By ALPN there is nothing to recognise, and the case passes.
NOT_HTTP2_ALONE = ["http2/3.5: Sends invalid connection preface"]


# The listener of `sidecar` is plaintext, by prior knowledge; that of `inbound` demands mTLS.
@pytest.mark.parametrize(
    ("listener", "excused"), [("sidecar", NOT_HTTP2_ALONE), ("inbound", [])], ids=["plain", "tls"]
)
def test_h2spec_passes_completely(listener: str, excused: list[str], tmp_path: Path) -> None:
    program, report = h2spec(), tmp_path / "h2spec.xml"
    upstream = Upstream(echo)
    app = App(upstream.port, http2=False)
    with contextlib.ExitStack() as stack:
        stack.callback(upstream.close)
        front = stack.enter_context(way(listener, [app], tmp_path))
        port = front.ports[app]
        if listener == "inbound":
            port = stack.enter_context(wrapped(front, app, tmp_path))
        run(program, "--strict", "-h", "127.0.0.1", "-p", str(port), "-j", report, good=False)
    count, wrong = failures(report)

    assert count > 140, "h2spec did not get far enough to write its cases down"
    names = [": ".join(line.split(": ")[:2]) for line in wrong]
    assert names == excused, "\n".join([f"{len(wrong)} of {count} cases failed:", *wrong])
