"""h2spec, the HTTP/2 and HPACK conformance suite, against our listeners: plaintext and TLS."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as Xml

import pytest

from tests.e2e.stand import ROOT, free_port
from tests.interop.peer import need, python, run, running
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


# The listener of `sidecar` is plaintext, by prior knowledge; that of `inbound` demands mTLS.
@pytest.mark.parametrize("listener", ["sidecar", "inbound"], ids=["plain", "tls"])
def test_h2spec_passes_completely(listener: str, tmp_path: Path) -> None:
    program, report = h2spec(), tmp_path / "h2spec.xml"
    with contextlib.ExitStack() as stack:
        # This app answers when it has the whole request: to one that answers earlier we say
        # RST_STREAM with NO_ERROR (RFC 9113 §8.1), and what h2spec sends next finds no stream.
        ports = stack.enter_context(python("tests.interop.origin"))
        app = App(ports["http1"], http2=False)
        front = stack.enter_context(way(listener, [app], tmp_path))
        port = front.ports[app]
        if listener == "inbound":
            port = stack.enter_context(wrapped(front, app, tmp_path))
        where = ("-h", "127.0.0.1", "-p", str(port), "-P", "/echo")
        run(program, "--strict", *where, "-j", report, good=False)
    count, wrong = failures(report)

    assert count > 140, "h2spec did not get far enough to write its cases down"
    assert wrong == [], "\n".join([f"{len(wrong)} of {count} cases failed:", *wrong])
