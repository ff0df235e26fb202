"""What our codecs have to agree with: Envoy's own messages, from `xds-protos`."""

from typing import Any

from hypothesis import strategies as st

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
