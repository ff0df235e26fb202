"""How the tests cut a stream: anywhere, any number of times."""

from hypothesis import strategies as st


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
