"""Both ends of HPACK together, and against the vectors, the RFC's examples and the `hpack` library."""

import json
from pathlib import Path
from typing import Any

import hpack as reference
import pytest
from hypothesis import given, strategies as st

from sidecar.wire.hpack import Decoder, Field, Sensitive, why_malformed
from sidecar.wire.hpack_encoder import Encoder
from tests.wire.field_blocks import ANY_FIELDS, table_octets

VECTORS = Path(__file__).parents[3] / "shared" / "reference" / "vectors" / "hpack-test-case"
STORIES = sorted(VECTORS.rglob("story_*.json"))
if not STORIES:
    STORIES = [VECTORS]  # one case, to be skipped

# A head, or the size that the table may have from then on.
STEPS = st.lists(
    st.one_of(
        st.lists(ANY_FIELDS, max_size=12),
        st.sampled_from([0, 1, 40, 100, 500, 4096, 5000, 65536]),
    ),
    max_size=12,
)


# --- vectors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", STORIES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_story_is_decoded_exactly(path: Path) -> None:
    if not path.is_file():
        pytest.skip(f"no HPACK stories at {path}")
    decoder = Decoder(max_fields=1000)
    for case in json.loads(path.read_text())["cases"]:
        if "header_table_size" in case:
            decoder.limit(case["header_table_size"])
        expected = [
            (name.encode(), value.encode())
            for field in case["headers"]
            for name, value in field.items()
        ]
        assert decoder.decode(bytes.fromhex(case["wire"])) == expected
        # Some were recorded with blanks around values.
        assert decoder.malformed == next(filter(None, map(why_malformed, expected)), "")
        assert not decoder.too_large


@pytest.mark.parametrize("path", STORIES[::8], ids=lambda path: f"{path.parent.name}-{path.stem}")
@pytest.mark.parametrize("coded", [False, True], ids=["plain", "huffman"])
def test_a_story_comes_back_from_our_encoder(path: Path, coded: bool) -> None:
    if not path.is_file():
        pytest.skip(f"no HPACK stories at {path}")
    encoder, decoder = Encoder(huffman=coded), Decoder(max_fields=1000)
    peer = reference.Decoder(max_header_list_size=1 << 20)
    for case in json.loads(path.read_text())["cases"]:
        head = [(n.encode(), v.encode()) for field in case["headers"] for n, v in field.items()]
        block = encoder.encode(head)
        assert decoder.decode(block) == head
        assert [tuple(field) for field in peer.decode(block, raw=True)] == head


# RFC 7541 appendix C: the size of the table, then (block, fields, octets in the table) in order.
GET = [
    (b":method", b"GET"),
    (b":scheme", b"http"),
    (b":path", b"/"),
    (b":authority", b"www.example.com"),
]
GET_2 = [*GET, (b"cache-control", b"no-cache")]
GET_3 = [
    (b":method", b"GET"),
    (b":scheme", b"https"),
    (b":path", b"/index.html"),
    (b":authority", b"www.example.com"),
    (b"custom-key", b"custom-value"),
]
DATE = (b"date", b"Mon, 21 Oct 2013 20:13:21 GMT")
PRIVATE = (b"cache-control", b"private")
LOCATION = (b"location", b"https://www.example.com")
REPLY = [(b":status", b"302"), PRIVATE, DATE, LOCATION]
REPLY_2 = [(b":status", b"307"), *REPLY[1:]]
REPLY_3 = [
    (b":status", b"200"),
    PRIVATE,
    (b"date", b"Mon, 21 Oct 2013 20:13:22 GMT"),
    LOCATION,
    (b"content-encoding", b"gzip"),
    (b"set-cookie", b"foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"),
]
Exchange = list[tuple[str, list[Field], int]]
APPENDIX: dict[str, tuple[int, Exchange]] = {
    "C.2.1": (
        4096,
        [
            (
                "400a637573746f6d2d6b65790d637573746f6d2d686561646572",
                [(b"custom-key", b"custom-header")],
                55,
            )
        ],
    ),
    "C.2.2": (4096, [("040c2f73616d706c652f70617468", [(b":path", b"/sample/path")], 0)]),
    "C.2.3": (4096, [("100870617373776f726406736563726574", [(b"password", b"secret")], 0)]),
    "C.2.4": (4096, [("82", [(b":method", b"GET")], 0)]),
    "C.3": (
        4096,
        [
            ("828684410f7777772e6578616d706c652e636f6d", GET, 57),
            ("828684be58086e6f2d6361636865", GET_2, 110),
            ("828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565", GET_3, 164),
        ],
    ),
    "C.4": (
        4096,
        [
            ("828684418cf1e3c2e5f23a6ba0ab90f4ff", GET, 57),
            ("828684be5886a8eb10649cbf", GET_2, 110),
            ("828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf", GET_3, 164),
        ],
    ),
    "C.5": (
        256,
        [
            (
                "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120"
                "474d546e1768747470733a2f2f7777772e6578616d706c652e636f6d",
                REPLY,
                222,
            ),
            ("4803333037c1c0bf", REPLY_2, 222),
            (
                "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738"
                "666f6f3d4153444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d33"
                "3630303b2076657273696f6e3d31",
                REPLY_3,
                215,
            ),
        ],
    ),
    "C.6": (
        256,
        [
            (
                "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad1718"
                "63c78f0b97c8e9ae82ae43d3",
                REPLY,
                222,
            ),
            ("4883640effc1c0bf", REPLY_2, 222),
            (
                "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7"
                "b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
                REPLY_3,
                215,
            ),
        ],
    ),
}


@pytest.mark.parametrize("section", APPENDIX)
def test_the_examples_of_appendix_c(section: str) -> None:
    size, exchange = APPENDIX[section]
    decoder = Decoder(size)
    for block, fields, used in exchange:
        assert decoder.decode(bytes.fromhex(block)) == fields
        assert table_octets(decoder) == used


# --- both directions ------------------------------------------------------------------------------


@given(STEPS, st.booleans(), st.sampled_from([0, 50, 4096, 10000]))
def test_what_we_write_the_reference_and_we_read(
    steps: list[list[Field] | int], coded: bool, most: int
) -> None:
    encoder = Encoder(most, huffman=coded)
    decoder = Decoder(max_list=1 << 20)
    peer = reference.Decoder(max_header_list_size=1 << 20)
    for step in steps:
        if isinstance(step, int):
            encoder.limit(step)
            decoder.limit(step)
            peer.max_allowed_table_size = step
            continue
        block = encoder.encode(step)
        decoded = decoder.decode(block)
        assert decoded == step
        theirs = peer.decode(block, raw=True)
        assert [tuple(field) for field in theirs] == step
        for sent, got, other in zip(step, decoded, theirs, strict=True):
            secret = type(sent) is Sensitive or (sent[0] == b"authorization" and sent[1] != b"")
            assert type(got) is Sensitive if secret else type(got) in (tuple, Sensitive)
            assert isinstance(other, reference.NeverIndexedHeaderTuple) == (type(got) is Sensitive)


@given(STEPS, st.booleans())
def test_what_the_reference_writes_we_read(steps: list[list[Field] | int], coded: bool) -> None:
    peer = reference.Encoder()
    decoder = Decoder(max_list=1 << 20)
    for step in steps:
        if isinstance(step, int):
            decoder.limit(step)
            peer.header_table_size = step
            # At once: of several changes it says each, or none (hpack 4.2), neither of which is
            # RFC 7541 §4.2's.
            assert decoder.decode(peer.encode([])) == []
            continue
        fields: list[Any] = [(*field, type(field) is Sensitive) for field in step]
        decoded = decoder.decode(peer.encode(fields, huffman=coded))
        assert decoded == step
        assert decoder.malformed == ""


@given(STEPS)
def test_the_encoder_never_fills_more_than_the_size_in_force(
    steps: list[list[Field] | int],
) -> None:
    encoder, decoder = Encoder(), Decoder(max_list=1 << 20)
    size = 4096
    for step in steps:
        if isinstance(step, int):
            size = step
            encoder.limit(step)
            decoder.limit(step)
        else:
            decoder.decode(encoder.encode(step))
            assert table_octets(decoder) <= min(size, 4096)


@given(
    st.lists(ANY_FIELDS, min_size=1, max_size=4).map(tuple),
    st.lists(st.lists(ANY_FIELDS, max_size=3), max_size=30),
    st.sampled_from([0, 40, 60, 100, 200, 4096]),
)
def test_a_tuple_that_comes_again_is_coded_as_the_table_stands(
    again: tuple[Field, ...], between: list[list[Field]], table: int
) -> None:
    encoder, decoder = Encoder(), Decoder(max_fields=1000)
    encoder.limit(table)  # also one in which the fields push each other out
    assert decoder.decode(encoder.encode([])) == []
    for fields in between:
        block = encoder.known(again) + b"".join(map(encoder.code, fields))
        assert decoder.decode(block) == [*again, *fields]


def test_tuples_take_no_more_memory_than_their_room() -> None:
    encoder, decoder = Encoder(), Decoder()
    kept = [((b"x-%d" % number, b"1"),) for number in range(200)]
    for _ in range(4):
        for fields in kept:
            assert decoder.decode(encoder.known(fields)) == list(fields)
    assert len(encoder._codes._lists) <= 64
    for _ in range(5):  # into the table, as an index, and so from then on
        assert decoder.decode(encoder.known(kept[0])) == list(kept[0])
    block = encoder.known(kept[0])
    assert len(block) == 1
    assert encoder._codes._lists[id(kept[0])] == (kept[0], block, True)
    long = ((b"x-long", b"v" * 1100),)
    assert decoder.decode(encoder.known(long)) == list(long)
    assert id(long) not in encoder._codes._lists
