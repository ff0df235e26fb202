"""What a filter in Python adds to an exchange: `python -m benchmarks.micro.filters`.

Whole exchanges in memory (see `micro.exchange`) by a worker's own loop, so that hooks that wait are
real tasks.  The cases take turns; the figure is the median over rounds of what a case takes more
than none does in the same round, in microseconds of CPU an exchange.
"""

import asyncio
import random
import statistics
import time
from pathlib import Path
from typing import Any, Final

import uvloop

from benchmarks.micro.exchange import HTTP1_ANSWER, Stand, http1_request
from sidecar.runtime.clock import stopwatch
from sidecar.runtime.tasks import background

ROUNDS: Final = 25
EXCHANGES: Final = 400  # a round
EXAMPLES: Final = Path(__file__).parents[2] / "config" / "filters"
HEAD: Final = "from sidecar.filter import Filter\nclass Mine(Filter[None]):\n"


def hooks(*lines: str) -> list[dict[str, Any]]:
    """Return a filter of these hooks."""
    return [{"code": HEAD + "".join(f"    {line}\n" for line in lines)}]


CASES: Final[dict[str, list[dict[str, Any]]]] = {
    "no filter": [],
    "on_request, empty": hooks("def on_request(self, request): pass"),
    "on_request, reads one field": hooks("def on_request(self, request): request.header('accept')"),
    "on_request, sets one field": hooks(
        "def on_request(self, request): request.set_header('x-a', '1')"
    ),
    "on_request, on_response, on_finish, empty": hooks(
        "def on_request(self, request): pass",
        "def on_response(self, request, response): pass",
        "def on_finish(self, request, outcome): pass",
    ),
    "on_request, async, empty": hooks("async def on_request(self, request): pass"),
    "on_response, async, empty": hooks("async def on_response(self, request, response): pass"),
    "ab_cookie.py": [{"code": (EXAMPLES / "ab_cookie.py").read_text(), "name": "ab"}],
    "scrub_header.py": [
        {
            "code": (EXAMPLES / "scrub_header.py").read_text(),
            "settings": {"request": ["user-agent"], "response": ["server"]},
        }
    ],
}


async def run(filters: list[dict[str, Any]], count: int) -> float:
    """Return microseconds of CPU that an exchange takes."""
    stand = Stand(upstream="http1", filters=filters)
    stand.engine.background = background
    stand.engine.stopwatch = stopwatch
    caller = stand.open()
    chance = random.Random(7541)  # noqa: S311 - no secret
    requests = [http1_request(number, chance) for number in range(100)]
    is_async = any("async" in one["code"] for one in filters)
    begin = 0.0
    for number in range(count + 50):
        if number == 50:
            begin = time.process_time()
        caller.protocol.data_received(requests[number % 100])
        if is_async:
            while not stand.upstreams or stand.upstreams[0].writes <= number:  # noqa: ASYNC110 - its turns are measured
                await asyncio.sleep(0)
        stand.upstreams[0].protocol.data_received(HTTP1_ANSWER)
        if is_async:
            while caller.writes <= number:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0)
    spent = time.process_time() - begin
    assert caller.writes == count + 50
    return spent / count * 1e6


async def main() -> None:
    """Print the table."""
    found: dict[str, list[float]] = {name: [] for name in CASES}
    bare = []
    for _ in range(ROUNDS):
        took = {name: await run(filters, EXCHANGES) for name, filters in CASES.items()}
        bare.append(took["no filter"])
        for name, value in took.items():
            found[name].append(value - took["no filter"])
    print(f"{statistics.median(bare):8.1f}  an exchange without a filter")
    for name, values in list(found.items())[1:]:
        print(f"{statistics.median(values):+8.1f}  {name}")


if __name__ == "__main__":
    uvloop.run(main())
