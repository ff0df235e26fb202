import pytest

from sidecar.wire.hpack import Decoder, Field, Sensitive
from sidecar.wire.hpack_encoder import Encoder
from sidecar.wire.hpack_table import integer_octets
from tests.wire.field_blocks import plain, size_update


def first_octets(fields: list[Field], times: int) -> list[int]:
    """Return with what octet the block of `fields` begins, time after time."""
    encoder = Encoder()
    return [encoder.encode(fields)[0] for _ in range(times)]


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        pytest.param((b":method", b"GET"), [0x82] * 4, id="static"),
        pytest.param((b"accept-encoding", b"gzip, deflate"), [0x90] * 4, id="static-later"),
        pytest.param((b":path", b"/a"), [0x04, 0x44, 0xBE, 0xBE], id="static-name"),
        pytest.param((b"user-agent", b"a"), [0x0F, 0x7A, 0xBE, 0xBE], id="static-name-two-octets"),
        pytest.param((b"x-own", b"a"), [0x00, 0x40, 0xBE, 0xBE], id="own-name"),
        pytest.param((b"x" * 200, b"a"), [0x00, 0x40, 0xBE, 0xBE], id="long-name"),
        pytest.param((b"x-own", b"a" * 1900), [0x00, 0x40, 0xBE, 0xBE], id="long-value"),
        pytest.param((b"x-own", b"a" * 2100), [0x00] * 4, id="over-half-of-the-table"),
        pytest.param((b"content-length", b"12"), [0x0F] * 4, id="differs-each-time"),
        pytest.param((b"traceparent", b"00-1-2-01"), [0x00] * 4, id="differs-each-time-own-name"),
        pytest.param((b"authorization", b"Basic YTpi"), [0x1F] * 4, id="credentials"),
        pytest.param((b"proxy-authorization", b"Basic YTpi"), [0x1F] * 4, id="proxy-credentials"),
        pytest.param((b"cookie", b"a=19-octets-of-text"), [0x1F] * 4, id="short-cookie"),
        pytest.param((b"cookie", b"a=20-octets-of-text."), [0x0F, 0x60, 0xBE, 0xBE], id="cookie"),
        pytest.param(Sensitive((b":method", b"GET")), [0x12] * 4, id="sensitive-static"),
        pytest.param(Sensitive((b"x-own", b"a")), [0x10] * 4, id="sensitive"),
    ],
)
def test_a_field_is_written_as_the_policy_says(field: Field, expected: list[int]) -> None:
    assert first_octets([field], 4) == expected


def test_a_sensitive_field_is_not_indexed_even_if_its_twin_is() -> None:
    encoder = Encoder()
    field = (b"x-own", b"a")
    blocks = [encoder.encode([field]) for _ in range(3)]
    assert blocks[2] == b"\xbe"
    assert Sensitive(field) == field
    assert encoder.encode([Sensitive(field)]) == plain(*field, kind=0x10)
    assert encoder.encode([field]) == b"\xbe"


def test_values_that_come_once_push_nothing_out() -> None:
    encoder = Encoder()
    kept = (b"x-kept", b"1")
    encoder.encode([kept])
    encoder.encode([kept])
    for number in range(1000):
        assert encoder.encode([(b"x-other", b"%d" % number)])[0] == 0
    assert encoder.encode([kept]) == b"\xbe"


def test_the_index_of_an_entry_grows_with_the_entries_after_it() -> None:
    encoder = Encoder()
    fields = [(b"x-%d" % number, b"v") for number in range(100)]
    encoder.encode(fields)
    encoder.encode(fields)
    assert encoder.encode([fields[-1], fields[0]]) == b"\xbe" + integer_octets(161, 7, 0x80)
    assert encoder.encode(fields) == encoder.encode(fields)
    assert len(encoder.encode(fields)) == 65 + 2 * 35  # indices from 127 on take two octets


def test_the_oldest_entries_give_way() -> None:
    encoder, decoder = Encoder(), Decoder()
    fields = [(b"x-%d" % number, b"v") for number in range(200)]  # 36 octets and more each
    for field in fields:
        blocks = [encoder.encode([field]) for _ in range(3)]
        assert [decoder.decode(block) for block in blocks] == [[field]] * 3
        assert blocks[2] == b"\xbe"
    block = encoder.encode([fields[0], fields[-1]])
    assert block[0] in (0x00, 0x40)
    assert decoder.decode(block) == [fields[0], fields[-1]]


def test_more_names_than_are_remembered_are_written_all_the_same() -> None:
    encoder, decoder = Encoder(), Decoder(max_fields=1000)
    fields = [(b"x-%d" % number, b"%d" % number) for number in range(400)]
    for _ in range(2):
        assert decoder.decode(encoder.encode(fields)) == fields


@pytest.mark.parametrize(
    ("most", "limits", "updates"),
    [
        (4096, [], []),
        (4096, [4096], []),
        (4096, [65536], []),  # we use no more than we want
        (4096, [100], [100]),
        (4096, [0], [0]),
        (4096, [0, 4096], [0, 4096]),  # the smallest, then the last (RFC 7541 §4.2)
        (4096, [300, 100, 200], [100, 200]),
        (4096, [200, 100], [100]),
        (4096, [100, 5000], [100, 4096]),
        (1000, [], [1000]),
        (1000, [4096], [1000]),
        (1000, [10], [10]),
        (1000, [10, 2000], [10, 1000]),
        (8192, [], []),  # more only when the peer allows it
        (8192, [6000], [6000]),
        (8192, [65536], [8192]),
    ],
)
def test_a_change_of_the_limit_is_said_once(
    most: int, limits: list[int], updates: list[int]
) -> None:
    encoder = Encoder(most)
    for size in limits:
        encoder.limit(size)
    assert encoder.encode([(b":method", b"GET")]) == b"".join(map(size_update, updates)) + b"\x82"
    assert encoder.encode([(b":method", b"GET")]) == b"\x82"


def test_a_limit_that_grows_again_is_said_alone() -> None:
    encoder = Encoder()
    encoder.limit(100)
    assert encoder.encode([]) == size_update(100)
    encoder.limit(4096)
    assert encoder.encode([]) == size_update(4096)


def test_huffman_is_used_where_it_is_shorter() -> None:
    encoder = Encoder(huffman=True)
    assert encoder.encode([(b":path", b"/sample/path")]) == bytes.fromhex("0489") + bytes.fromhex(
        "61 03 a6 ba 0a c5 63 4c ff".replace(" ", "")
    )
    assert encoder.encode([(b":path", b"\x80\x80")]) == b"\x04\x02\x80\x80"


def test_a_name_whose_values_never_repeat_is_tried_again_from_time_to_time() -> None:
    encoder, decoder = Encoder(), Decoder()

    def size(number: int) -> int:
        field = (b":path", b"/%020d" % number)
        block = encoder.encode([field])
        assert decoder.decode(block) == [field]
        return len(block)

    for number in range(40):
        size(number)
    assert [size(7777) for _ in range(3)] == [23, 23, 23]  # none is looked for any more
    for number in range(1000, 1985):
        size(number)
    assert min(size(8888) for _ in range(3)) < 23  # it was, and the third is an index
