"""Fields that a peer could read otherwise than we do are written anew, or dropped."""

import pytest

from sidecar.wire.http1_head import HeadReader

READER = HeadReader()


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        (b"Content-Length: 5", b"Content-Length: 5"),
        (b"content-length: 5", b"content-length: 5"),
        (b"Content-Length: 005", b"Content-Length: 5"),
        (b"Content-Length:5", b"Content-Length: 5"),
        (b"Content-Length:\t5 ", b"Content-Length: 5"),
        (b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
        (b"transfer-encoding:\tCHUNKED", b"Transfer-Encoding: chunked"),
        (b"X_Forwarded_For: 1.2.3.4", b""),
        (b"x-request_id: 1", b""),
        (b"Content_Length: 7", b""),
        (b"my_field: 1", b"my_field: 1"),
    ],
)
def test_a_line_goes_on_as_we_would_write_it(line: bytes, kept: bytes) -> None:
    found = READER.request(b"POST / HTTP/1.1\r\nHost: a\r\n" + line + b"\r\n\r\n")
    assert found is not None
    assert found[0].block == b"Host: a\r\n" + (kept + b"\r\n" if kept else b"")


def test_only_websocket_is_upgraded_to() -> None:
    found = READER.request(
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    )
    assert found is not None
    assert found[0].upgrade is None
    assert found[0].block == b"Host: a\r\n"
