"""WebSocket between the versions: the keys that HTTP/1.1 wants and HTTP/2 has not."""

import base64

from sidecar.wire.websocket import accept, new_key


def test_the_key_of_the_rfc_is_answered_as_the_rfc_says() -> None:
    # RFC 6455 §1.3
    assert accept(b"dGhlIHNhbXBsZSBub25jZQ==") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_a_key_is_16_octets_of_chance() -> None:
    asked = []

    def bits(count: int) -> int:
        asked.append(count)
        return 0x0102 if len(asked) == 1 else 2**128 - 1

    assert base64.b64decode(new_key(bits), validate=True) == bytes(14) + b"\x01\x02"
    assert base64.b64decode(new_key(bits), validate=True) == b"\xff" * 16
    assert asked == [128, 128]
