"""What our codecs have to agree with: Envoy's own messages, from `xds-protos`."""

from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError
from hypothesis import strategies as st

from sidecar.wire.protobuf import MalformedError

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
OCTETS = st.binary(max_size=12)
UINT32 = st.integers(0, (1 << 32) - 1)


@st.composite
def damaged(draw: Any, valid: bytes) -> bytes:
    """Draw `valid` with a few octets changed, cut out or put in."""
    octets = bytearray(valid)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(octets)))
        kind = draw(st.sampled_from(("set", "cut", "put")))
        if kind == "put":
            octets[at:at] = draw(st.binary(max_size=4))
        elif kind == "cut":
            del octets[at : at + draw(st.integers(0, 4))]
        elif at < len(octets):
            octets[at] = draw(st.integers(0, 255))
    return bytes(octets)


def check_damaged(
    data: Any, message: Any, decode: Callable[[bytes], object], expected: Callable[[Any], object]
) -> None:
    """Assert that `decode` refuses what `message` is when damaged, or reads it as Envoy would."""
    octets = data.draw(damaged(message.SerializeToString()))
    try:
        ours = decode(octets)
    except MalformedError:
        return
    try:
        theirs = type(message).FromString(octets)
    except DecodeError:
        return  # in a part that we do not look at
    assert ours == expected(theirs)
