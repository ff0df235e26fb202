import hpack as reference
import pytest
from hypothesis import given, strategies as st

from sidecar.errors import DownstreamError
from sidecar.wire.hpack import Decoder, Field, Sensitive, why_malformed
from sidecar.wire.hpack_encoder import Encoder
from sidecar.wire.hpack_table import STATIC, integer, integer_octets
from tests.wire.field_blocks import ANY_FIELDS, literal, plain, size_update, table_octets

# --- decoder: what is refused ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("block", "error"),
    [
        pytest.param("80", "hpack-index", id="index-0"),
        pytest.param("be", "hpack-index", id="index-62-of-an-empty-table"),
        pytest.param("ff00", "hpack-index", id="index-127"),
        pytest.param("7e00", "hpack-index", id="name-index-62-inserted"),
        pytest.param("0f2f00", "hpack-index", id="name-index-62"),
        pytest.param("1f2f00", "hpack-index", id="name-index-62-never-indexed"),
        pytest.param("ff8080808010", "hpack-integer", id="2^32-and-127"),
        pytest.param("ff80808080808001", "hpack-integer", id="seven-octets"),
        pytest.param("ff808080808000", "hpack-integer", id="seven-octets-of-zeros"),
        pytest.param("ffffffffffff", "hpack-integer", id="no-end"),
        pytest.param("ffffffffff7f", "hpack-integer", id="over-in-six-octets"),
        pytest.param("ff", "hpack-truncated", id="no-index"),
        pytest.param("ff80", "hpack-truncated", id="half-an-index"),
        pytest.param("ffffffff", "hpack-truncated", id="half-a-large-index"),
        pytest.param("0f", "hpack-truncated", id="no-name-index"),
        pytest.param("7f", "hpack-truncated", id="no-name-index-inserted"),
        pytest.param("00", "hpack-truncated", id="no-name"),
        pytest.param("000261", "hpack-truncated", id="half-a-name"),
        pytest.param("007f", "hpack-truncated", id="no-size-of-a-name"),
        pytest.param("007f00", "hpack-truncated", id="no-long-name"),
        pytest.param("000161", "hpack-truncated", id="no-value"),
        pytest.param("04", "hpack-truncated", id="no-value-of-an-indexed-name"),
        pytest.param("040261", "hpack-truncated", id="half-a-value"),
        pytest.param("047f", "hpack-truncated", id="no-size-of-a-value"),
        pytest.param("047fffffffff0e", "hpack-truncated", id="a-value-of-4-gib"),
        pytest.param("0481ff", "hpack-huffman", id="padding-of-8-bits"),
        pytest.param("0481fe", "hpack-huffman", id="padding-of-zeros"),
        pytest.param("0484ffffffff", "hpack-huffman", id="eos"),
        pytest.param("0081ff0161", "hpack-huffman", id="padding-in-a-name"),
        pytest.param("8220", "hpack-table-size", id="update-after-a-field"),
        pytest.param("82040161" + "3fe11f", "hpack-table-size", id="update-at-the-end"),
        pytest.param("202020", "hpack-table-size", id="three-updates"),
        pytest.param("3fe21f", "hpack-table-size", id="update-to-4097"),
        pytest.param("3f", "hpack-truncated", id="half-an-update"),
        pytest.param("3f8080808010", "hpack-integer", id="update-to-2^32"),
    ],
)
def test_what_cannot_be_decoded_is_refused(block: str, error: str) -> None:
    with pytest.raises(DownstreamError) as caught:
        Decoder().decode(bytes.fromhex(block))
    assert caught.value.code == error


def test_integers_of_six_octets_are_taken() -> None:
    name = integer_octets(61, 4, 0)
    block = name + b"\x7f\x80\x80\x80\x80\x00" + b"v" * 127
    assert Decoder().decode(block) == [(b"www-authenticate", b"v" * 127)]


@given(st.integers(0, 2**32 - 1), st.integers(4, 7))
def test_an_integer_comes_back(value: int, bits: int) -> None:
    octets = integer_octets(value, bits, 0)
    most = (1 << bits) - 1
    if value < most:
        assert octets == bytes((value,))
    else:
        assert octets[0] == most
        assert integer(b"x" + octets + b"x", 2, most) == (value, len(octets) + 1)


@pytest.mark.parametrize(
    ("limits", "updates", "refused"),
    [
        ([], [], False),
        ([], [4096], False),
        ([], [0, 4096], False),
        ([100], [], True),  # §4.2: the peer must say that it obeys
        ([100], [100], False),
        ([100], [50], False),
        ([100], [101], True),
        ([100, 4096], [], True),
        ([100, 4096], [4096], True),  # the smallest must be said too
        ([100, 4096], [100, 4096], False),
        ([100, 4096], [30], False),
        ([300, 100, 200], [100, 200], False),
        ([300, 100, 200], [200, 100], False),
        ([300, 100, 200], [200], True),
        ([5000], [], False),
        ([5000], [5000], False),
        ([5000], [5001], True),
    ],
)
def test_the_peer_must_obey_our_limit(limits: list[int], updates: list[int], refused: bool) -> None:
    decoder = Decoder()
    for _ in range(3):  # remembered by now
        decoder.decode(b"\x82")
    for size in limits:
        decoder.limit(size)
    block = b"".join(map(size_update, updates)) + b"\x82"
    if refused:
        with pytest.raises(DownstreamError, match="hpack-table-size"):
            decoder.decode(block)
    else:
        assert decoder.decode(block) == [(b":method", b"GET")]
        assert decoder.decode(b"\x82") == [(b":method", b"GET")]


def test_a_smaller_table_than_the_default_is_in_force_from_the_first_block() -> None:
    decoder = Decoder(40)
    decoder.decode(plain(b"x-a", b"1", kind=0x40) + plain(b"x-b", b"2", kind=0x40))
    assert table_octets(decoder) == 36
    decoder.decode(plain(b"x-a", b"too large to fit", kind=0x40))
    assert table_octets(decoder) == 0


# --- decoder: malformed and too large lists -------------------------------------------------------

MALFORMED = [
    (b"", b"a", "the name is empty"),
    (b"X-Own", b"a", "the name has upper case: b'X-Own'"),
    (b"x own", b"a", "the name has an octet that none may have: b'x own'"),
    (b"x\r\nown", b"a", "the name has an octet that none may have"),
    (b"x:own", b"a", "the name has an octet that none may have"),
    (b":", b"a", "the name has an octet that none may have"),
    (b"::path", b"a", "the name has an octet that none may have"),
    (b"x-\xe9", b"a", "the name has an octet that none may have"),
    (b"x-\x00", b"a", "the name has an octet that none may have"),
    (b"x-own\n", b"a", "the name has an octet that none may have"),
    (b"x-own", b" a", "the value begins or ends with a blank: b'x-own'"),
    (b"x-own", b"a ", "the value begins or ends with a blank"),
    (b"x-own", b"\ta", "the value begins or ends with a blank"),
    (b"x-own", b"a\t", "the value begins or ends with a blank"),
    (b"x-own", b" ", "the value begins or ends with a blank"),
    (b"x-own", b"a\r\nb: c", "the value has a control octet: b'x-own'"),
    (b"x-own", b"a\n", "the value has a control octet"),
    (b"x-own", b"\r", "the value has a control octet"),
    (b"x-own", b"a\x00b", "the value has a control octet"),
    (b"x-own", b"a\x7fb", "the value has a control octet"),
]


@pytest.mark.parametrize("kind", [0x00, 0x10, 0x40], ids=["plain", "never-indexed", "inserted"])
@pytest.mark.parametrize("coded", [False, True], ids=["as-is", "huffman"])
@pytest.mark.parametrize(("name", "value", "why"), MALFORMED)
def test_a_malformed_field_is_told_and_the_table_stays_right(
    name: bytes, value: bytes, why: str, coded: bool, kind: int
) -> None:
    decoder = Decoder()
    block = plain(b"x-good", b"1", kind=0x40) + literal(name, value, kind, coded)
    for _ in range(3):  # it is never taken for good because it came before
        assert decoder.decode(block) == [(b"x-good", b"1"), (name, value)]
        assert decoder.malformed.startswith(why)
        assert not decoder.too_large
    assert decoder.decode(b"\x82") == [(b":method", b"GET")]
    assert decoder.malformed == ""
    newest = (name, value) if kind == 0x40 else (b"x-good", b"1")
    for _ in range(3):
        assert decoder.decode(b"\x82\xbe") == [(b":method", b"GET"), newest]
        assert decoder.malformed.startswith(why if kind == 0x40 else "")
        assert bool(decoder.malformed) == (kind == 0x40)


def test_a_good_field_after_a_malformed_one_spoils_nothing() -> None:
    decoder = Decoder()
    bad = plain(b"X", b"a")
    assert len(decoder.decode(bad + plain(b"x-good", b"1", kind=0x40))) == 2
    assert decoder.malformed == "the name has upper case: b'X'"
    assert decoder.decode(b"\xbe") == [(b"x-good", b"1")]
    assert decoder.malformed == ""


def test_the_first_of_several_reasons_is_told() -> None:
    decoder = Decoder()
    decoder.decode(plain(b"x", b"a ") + plain(b"X", b"a") + plain(b"y", b"\x00"))
    assert decoder.malformed == "the value begins or ends with a blank: b'x'"


@pytest.mark.parametrize("kind", [0x00, 0x40])
def test_pseudo_fields_and_odd_but_valid_octets_are_well_formed(kind: int) -> None:
    decoder = Decoder()
    fields = [
        (b":path", b"/"),
        (b":protocol", b"websocket"),
        (b"!#$%&'*+-.^_`|~09az", b"a \t b"),
        (b"x", b""),
        (b"y", b"\x80\xff"),
    ]
    assert decoder.decode(b"".join(plain(*field, kind=kind) for field in fields)) == fields
    assert decoder.malformed == ""


def test_a_list_of_too_many_fields_is_cut_and_the_table_stays_right() -> None:
    decoder = Decoder(max_fields=3)
    block = b"\x82" * 3
    assert decoder.decode(block) == [(b":method", b"GET")] * 3
    assert not decoder.too_large
    for more in (b"\x82", b"\x82" * 8, plain(b"x-a", b"1", kind=0x40)):
        assert decoder.decode(block + more) == [(b":method", b"GET")] * 3
        assert decoder.too_large
    assert decoder.decode(b"\xbe") == [(b"x-a", b"1")]
    assert not decoder.too_large


def test_size_updates_are_no_fields() -> None:
    decoder = Decoder(max_fields=1)
    assert decoder.decode(size_update(0) + size_update(4096) + b"\x82") == [(b":method", b"GET")]
    assert not decoder.too_large


@pytest.mark.parametrize("max_fields", [0, 1])
def test_a_limit_below_one_field_is_one(max_fields: int) -> None:
    decoder = Decoder(max_fields=max_fields)
    assert decoder.decode(b"\x82\x84") == [(b":method", b"GET")]
    assert decoder.too_large


def test_a_list_of_too_many_octets_is_cut_by_its_decoded_size() -> None:
    entry = (b"x-a", b"1" * 65)  # 100 octets
    decoder = Decoder(max_list=1000, max_fields=10000)
    decoder.decode(plain(*entry, kind=0x40))
    assert decoder.decode(b"\xbe" * 10) == [entry] * 10
    assert not decoder.too_large
    for count in (11, 5000):
        assert decoder.decode(b"\xbe" * count) == [entry] * 10
        assert decoder.too_large
    assert decoder.decode(b"\xbe") == [entry]
    assert not decoder.too_large


@given(st.lists(ANY_FIELDS, max_size=30), st.integers(32, 3000))
def test_a_list_is_cut_where_its_size_says(fields: list[Field], most: int) -> None:
    decoder = Decoder(max_list=most)
    encoder = Encoder(huffman=True)
    room, expected = most, []
    for name, value in fields:
        room -= len(name) + len(value) + 32
        if room < 0:
            break
        expected.append((name, value))
    for _ in range(3):
        assert decoder.decode(encoder.encode(fields)) == expected
        assert decoder.too_large == (len(expected) < len(fields))


# --- decoder: what it remembers -------------------------------------------------------------------


def test_an_indexed_field_is_the_very_tuple_of_the_table() -> None:
    decoder = Decoder()
    [field] = decoder.decode(plain(b"x-a", b"1", kind=0x40))
    assert decoder.decode(b"\xbe\xbe")[1] is field
    assert decoder.decode(b"\x82")[0] is STATIC[1]


def test_a_block_that_comes_again_is_the_very_same_list() -> None:
    decoder = Decoder()
    lists = [decoder.decode(b"\x82\x84") for _ in range(4)]
    assert lists[0] == [(b":method", b"GET"), (b":path", b"/")]
    assert lists[3] is lists[2]


def test_the_same_block_means_another_list_once_the_table_has_changed() -> None:
    decoder = Decoder()
    for number in range(5):
        value = b"%d" % number
        assert decoder.decode(plain(b"x-a", value, kind=0x40)) == [(b"x-a", value)]
        for _ in range(3):
            assert decoder.decode(b"\xbe") == [(b"x-a", value)]
    decoder.decode(size_update(0))
    with pytest.raises(DownstreamError, match="hpack-index"):
        decoder.decode(b"\xbe")


@pytest.mark.parametrize("coded", [False, True], ids=["as-is", "huffman"])
def test_more_than_is_remembered_is_decoded_all_the_same(coded: bool) -> None:
    decoder = Decoder()
    for _ in range(2):
        for number in range(300):
            field = b"x-%d" % number, b"value-%d" % number
            for _ in range(3):
                assert decoder.decode(literal(*field, 0x00, coded)) == [field]
            assert decoder.malformed == ""


def test_strings_too_long_to_be_remembered_are_decoded_all_the_same() -> None:
    encoder, decoder = reference.Encoder(), Decoder()
    fields = [(b"x" * 300, b"1" * 4000), (b":path", b"/" * 500)]
    for _ in range(3):
        assert decoder.decode(encoder.encode(fields)) == fields


def test_a_sensitive_field_equals_its_twin_but_is_no_key_for_it() -> None:
    twin = (b"x-a", b"1")
    assert Sensitive(twin) == twin
    assert twin not in {Sensitive(twin): 1}
    assert Sensitive(twin) in {Sensitive(twin): 1}


@given(st.lists(st.binary(max_size=40), max_size=6))
def test_any_octets_are_decoded_or_refused(blocks: list[bytes]) -> None:
    decoder = Decoder()
    for block in blocks:
        try:
            fields = decoder.decode(block)
        except DownstreamError:
            break
        assert decoder.malformed == next(filter(None, map(why_malformed, fields)), "")
