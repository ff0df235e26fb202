"""How the tests cut a stream, anywhere and any number of times, and read a head that comes cut."""

from collections.abc import Sequence

from hypothesis import strategies as st

from sidecar.errors import DownstreamError
from sidecar.wire.http1_head import HeadReader

READER = HeadReader()


def pieces(stream: bytes) -> st.SearchStrategy[list[bytes]]:
    """Return lists of pieces that together are `stream`; none is empty unless it is."""
    if len(stream) < 2:
        return st.just([stream])
    places = st.lists(st.integers(1, len(stream) - 1), unique=True, max_size=20).map(sorted)
    return st.one_of(places.map(lambda at: cut(stream, at)), st.just(octets(stream)))


def cut(stream: bytes, at: list[int]) -> list[bytes]:
    """Return `stream` in pieces that begin at 0 and at each of the places `at`."""
    return [stream[a:b] for a, b in zip([0, *at], [*at, len(stream)], strict=True)]


def octets(stream: bytes) -> list[bytes]:
    """Return `stream` as pieces of one octet."""
    return [stream[i : i + 1] for i in range(len(stream))]


def read_request(parts: Sequence[bytes], reader: HeadReader = READER) -> tuple[object, ...]:
    """Return what a head that comes in `parts` says, or why it is refused."""
    data = b""
    for number, part in enumerate(parts):
        known = len(data)
        data += part
        try:
            found = reader.request(data, known)
        except DownstreamError as error:
            return ("refused", error.code)
        if found is not None:
            head, end = found
            rest = data[end:] + b"".join(parts[number + 1 :])
            framing = (head.length, head.chunked, head.close, head.upgrade, head.expect)
            return (head.method, head.target, head.version, head.block, head.found, *framing, rest)
    return ("awaited",)


def say_the_same(one: tuple[object, ...], other: tuple[object, ...]) -> bool:
    """Tell whether two outcomes agree; of several faults, the one that was met first is named."""
    return one == other or (one[0] == other[0] == "refused")
