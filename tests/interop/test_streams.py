"""Streams beside each other, as no ready-made client drives them: slow ones, tunnels, trailers."""

import asyncio
import contextlib
import hashlib
import os
from pathlib import Path

import pytest

from tests.interop.h2_end import End, ResetError, Stream, calling, find, request
from tests.interop.origin import GOODBYE, digest
from tests.interop.way import WAYS, App, Front, way

MIB = 2**20
BULK = 2 * MIB
STALLED = 24
"""Enough that, at 64 KiB each, what they hold is more than a connection's usual window of 1 MiB."""


# What the app speaks; the caller speaks HTTP/2.
LINES = [(name, app) for name in WAYS for app in ("h1", "h2") if (name, app) != ("direct", "h1")]
over_all_lines = pytest.mark.parametrize(("front", "app"), LINES, indirect=["front"])


async def check_bulk(stream: Stream) -> None:
    """Read a /bytes/BULK to its end."""
    assert find(await stream.head(), b":status") == b"200"
    found = hashlib.sha256()
    async for piece in stream.body():
        found.update(piece)
    assert found.hexdigest() == digest(BULK)


@over_all_lines
async def test_streams_nobody_reads_do_not_hold_up_the_others(
    front: Front, origin: dict[str, App], app: str
) -> None:
    async with calling(front.ports[origin[app]]) as end:
        path = f"/bytes/{BULK}"
        slow = [end.open(request("GET", path)) for _ in range(STALLED)]
        for stream in slow:
            assert find(await stream.head(), b":status") == b"200"
        await check_bulk(end.open(request("GET", path)))
        await check_bulk(end.open(request("GET", path)))
        # And they are whole once somebody does read.
        await check_bulk(slow[0])
        for stream in slow[1:]:
            stream.reset()


@over_all_lines
async def test_uploads_nobody_reads_do_not_hold_up_the_others(
    front: Front, origin: dict[str, App], app: str
) -> None:
    gate = os.urandom(8).hex()
    async with calling(front.ports[origin[app]]) as end, asyncio.TaskGroup() as group:
        slow = [end.open(request("POST", f"/stall/{gate}"), end=False) for _ in range(STALLED)]
        for stream in slow:  # each goes as far as the windows let it
            group.create_task(stream.send(bytes(MIB), end=True))
        bulk = end.open(request("POST", "/echo"), end=False)
        await bulk.send(bytes(4 * MIB), end=True)
        assert find(await bulk.head(), b":status") == b"200"
        assert f'"length": {4 * MIB},'.encode() in await bulk.read()

        assert await end.open(request("POST", f"/go/{gate}")).read() == b"gone"
        for stream in slow:
            assert int(await stream.read()) == MIB


@over_all_lines
async def test_trailers_go_up_and_come_down(front: Front, origin: dict[str, App], app: str) -> None:
    async with calling(front.ports[origin[app]]) as end:
        stream = end.open(request("POST", "/echo", ("te", "trailers")), end=False)
        await stream.send(b"hello")
        stream.send_head([(b"x-checked", b"yes")], end=True)
        assert b'["x-checked", "yes"]' in await stream.read()

        stream = end.open(request("GET", "/bytes/10", ("te", "trailers")))
        assert len(await stream.read()) == 10
        assert find(stream.trailers, b"x-sha256").decode() == digest(10)


# RFC 8441 §5: an orderly end of the connection is END_STREAM; Envoy makes it CONNECT_ERROR.
RUDE = {("envoy", "h1"): (ResetError,), ("sidecar-envoy", "h1"): (ResetError,)}


async def check_websocket(stream: Stream) -> None:
    """Octets come back as they go, and the app hangs up when it is told."""
    assert find(await stream.head(), b":status") == b"200"
    got, sent, body = b"", b"", stream.body()
    for size in (1, 5, 100_000):
        data = os.urandom(size)
        await stream.send(data)
        sent += data
        while len(got) < len(sent):
            got += await anext(body)
    assert got == sent
    await stream.send(GOODBYE)
    assert b"".join([piece async for piece in body]) == GOODBYE


def websocket(end: End) -> Stream:
    return end.open(request("CONNECT", "/chat", (":protocol", "websocket")), end=False)


@over_all_lines
async def test_a_websocket_crosses(front: Front, origin: dict[str, App], app: str) -> None:
    async with calling(front.ports[origin[app]]) as end:
        # What an endpoint takes is known when its SETTINGS are there; so not as the first request.
        assert find(await end.open(request("GET", "/echo")).head(), b":status") == b"200"
        with contextlib.suppress(*RUDE.get((front.name, app), ())):
            await check_websocket(websocket(end))


@pytest.mark.parametrize("name", ["sidecar", "pair"])
async def test_a_websocket_may_be_the_first_request(
    name: str, origin: dict[str, App], tmp_path: Path
) -> None:
    with way(name, [origin["h2"]], tmp_path) as front:
        async with calling(front.ports[origin["h2"]]) as end:
            await check_websocket(websocket(end))
