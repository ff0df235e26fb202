"""A browser's way to a gRPC server: gRPC-Web over HTTP/1.1 and HTTP/2, to a server of grpcio."""

import base64
import struct
from collections.abc import Iterator

import httpx
import pytest

from tests.e2e.stand import Sidecar, free_port
from tests.interop.grpc_service import SERVICE, ask
from tests.interop.peer import python

HTTP1, HTTP2 = False, True


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with python("tests.interop.grpc_server", "grpcio-aio") as ports:
        port = free_port()
        sidecar = Sidecar(
            tmp_path_factory.mktemp("web"),
            f"workload: web\n"
            f"outbound: [{{address: '127.0.0.1:{port}', cluster: app, grpc_web: true}}]\n"
            f"clusters: [{{name: app, protocol: http2, endpoints: ['127.0.0.1:{ports['grpc']}']}}]",
        )
        yield f"http://127.0.0.1:{port}"
        sidecar.end()


def frame(message: bytes) -> bytes:
    return struct.pack(">BL", 0, len(message)) + message


def frames(body: bytes) -> list[tuple[int, bytes]]:
    found = []
    while body:
        flag, size = struct.unpack_from(">BL", body)
        found.append((flag, body[5 : 5 + size]))
        body = body[5 + size :]
    return found


def decoded(body: bytes) -> bytes:
    """Pieces of base64, each padded by itself."""
    quads = [body[at : at + 4] for at in range(0, len(body), 4)]
    return b"".join(map(base64.b64decode, quads))


@pytest.mark.parametrize("text", [False, True], ids=["binary", "text"])
@pytest.mark.parametrize("http2", [HTTP1, HTTP2], ids=["http1", "http2"])
@pytest.mark.parametrize(
    ("method", "wish", "sizes", "status"),
    [
        ("Unary", ask(20_000, pad=70_000), [20_000], 0),
        ("Scatter", ask(1, 70_000, 3), [1, 70_000, 3], 0),
        ("Scatter", ask(5, code=9, text="too late"), [5], 9),
    ],
    ids=["unary", "streaming", "failed after a message"],
)
def test_a_call_of_a_browser_comes_out_whole(
    base: str, method: str, wish: bytes, sizes: list[int], status: int, http2: bool, text: bool
) -> None:
    kind = "application/grpc-web-text" if text else "application/grpc-web+proto"
    body = base64.b64encode(frame(wish)) if text else frame(wish)
    with httpx.Client(http1=not http2, http2=http2, timeout=20) as client:
        headers = {"content-type": kind, "x-grpc-web": "1"}
        got = client.post(f"{base}/{SERVICE}/{method}", content=body, headers=headers)
    base_kind = got.headers["content-type"].partition("+")[0]
    assert (got.status_code, base_kind) == (200, kind.partition("+")[0])
    *messages, (flag, trailers) = frames(decoded(got.content) if text else got.content)
    assert [(f, len(m)) for f, m in messages] == [(0, size) for size in sizes]
    assert flag == 0x80
    assert b"grpc-status: %d\r\n" % status in trailers


def test_a_status_without_messages_is_in_the_head_or_in_the_frame(base: str) -> None:
    got = httpx.post(
        f"{base}/{SERVICE}/Nothing",
        content=frame(b"{}\n"),
        headers={"content-type": "application/grpc-web"},
    )
    said = got.headers.get("grpc-status", "").encode() + b" " + got.content
    assert b"12" in said
