"""What a request head of twelve fields costs in HPACK: `python -m benchmarks.micro.hpack`.

Medians of rounds in which the cases take turns, in microseconds a head.  "Repeating" heads are all
the same; in "differing" ones path, request id, traceparent and cookie are new each time, sent plain
or Huffman-coded and never put in the table (the last line: always, as grpc-go does).
"""

import random
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from typing import Final

import hpack

from sidecar.wire.hpack import Decoder, Field
from sidecar.wire.hpack_encoder import Encoder

ROUNDS: Final = 15
HEADS: Final = 2000  # a round, and as many differing heads
WARM: Final = 50


def head(random_hex: Callable[[int], str]) -> list[Field]:
    """Return a request head whose path, request id, traceparent and cookie come from `random_hex`."""
    fields = (
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", "catalog.shop.internal:8443"),
        (":path", f"/api/v1/products/{random_hex(8)}?view=full"),
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"),
        ("accept", "application/json, text/plain, */*"),
        ("accept-encoding", "gzip, deflate, br"),
        ("accept-language", "en-GB,en;q=0.9"),
        ("x-request-id", f"{random_hex(8)}-{random_hex(4)}-4{random_hex(3)}-{random_hex(12)}"),
        ("traceparent", f"00-{random_hex(32)}-{random_hex(16)}-01"),
        ("cookie", f"session={random_hex(32)}; theme=dark; visits=17"),
        ("x-forwarded-for", "10.12.0.7"),
    )
    return [(name.encode(), value.encode()) for name, value in fields]


def heads() -> list[list[Field]]:
    """Return differing heads, the same in every run."""
    chance = random.Random(7541)  # noqa: S311 - no secret
    return [
        head(lambda digits: f"{chance.getrandbits(4 * digits):0{digits}x}") for _ in range(HEADS)
    ]


def blocks(encode: Callable[[list[Field]], bytes], source: Iterable[list[Field]]) -> list[bytes]:
    """Return the heads of `source` as one encoder writes them, in order."""
    return [encode(fields) for fields in source]


def cases() -> dict[str, Callable[[], float]]:
    """Return what is measured: by its name, a round that returns seconds."""
    differing = heads()
    same = [list(differing[0]) for _ in range(HEADS)]

    def decoding(
        encode: Callable[[list[Field]], bytes], source: list[list[Field]]
    ) -> Callable[[], float]:
        sent = blocks(encode, source)

        def run() -> float:
            decoder = Decoder()
            for block in sent[:WARM]:
                decoder.decode(block)
            decode = decoder.decode
            begin = time.perf_counter()
            for block in sent[WARM:]:
                decode(block)
            return time.perf_counter() - begin

        return run

    def encoding(source: list[list[Field]], *, huffman: bool = False) -> Callable[[], float]:
        def run() -> float:
            encode = Encoder(huffman=huffman).encode
            for fields in source[:WARM]:
                encode(fields)
            begin = time.perf_counter()
            for fields in source[WARM:]:
                encode(fields)
            return time.perf_counter() - begin

        return run

    def all_inserted() -> Callable[[list[Field]], bytes]:
        return hpack.Encoder().encode

    return {
        "decode repeating": decoding(Encoder().encode, same),
        "decode differing, plain": decoding(Encoder().encode, differing),
        "decode differing, Huffman": decoding(Encoder(huffman=True).encode, differing),
        "decode differing, Huffman, inserted": decoding(all_inserted(), differing),
        "encode repeating": encoding(same),
        "encode differing": encoding(differing),
        "encode differing, Huffman": encoding(differing, huffman=True),
    }


def main() -> None:
    """Measure and print."""
    table = cases()
    seconds: dict[str, list[float]] = {name: [] for name in table}
    for _ in range(ROUNDS):
        for name, run in table.items():
            seconds[name].append(run())
    print(f"Python {sys.version.split()[0]}, µs a head, median of {ROUNDS} rounds (least)")
    for name, rounds in seconds.items():
        per_head = [1e6 * s / (HEADS - WARM) for s in rounds]
        print(f"  {name:38} {statistics.median(per_head):6.2f} ({min(per_head):.2f})")


if __name__ == "__main__":
    main()
