"""A connection that is held to a rate: what waits, who is held meanwhile, and what the end waits for."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from sidecar.core.pace import Paced
from sidecar.traffic.pace import Bucket
from tests.core.harness import GET, OK, Harness
from tests.core.http2_peer import Peer
from tests.core.transport import CLOSED, HALF, OPEN, RESET, FakeTransport

Make = Callable[..., Harness]

RATE = 10_000  # octets a second; a tenth of it may pass at once


class Above(asyncio.Protocol):
    """Who serves the connection."""

    def __init__(self) -> None:
        self.got = bytearray()
        self.told: list[str] = []
        self.keeps_open = True
        self.answers: Callable[[bytes], None] = lambda data: None

    def data_received(self, data: bytes) -> None:
        self.got += data
        self.answers(data)

    def eof_received(self) -> bool:
        self.told.append("eof")
        return self.keeps_open

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append("lost")

    def drain(self) -> None:
        self.told.append("drain")

    def take(self) -> list[str]:
        told, self.told = self.told, []
        return told


class Rig:
    def __init__(self, harness: Harness, up: int = RATE, down: int = RATE) -> None:
        self.harness = harness
        self.peer = FakeTransport(harness.soon, ("10.0.0.9", 1))
        self.above = Above()
        self.parted = 0
        lanes = (self._buckets(up), self._buckets(down))
        self.paced = Paced(harness.listener, self.peer, lanes, self._part)
        self.paced.set_protocol(self.above)
        self.peer.set_protocol(self.paced)

    def _buckets(self, rate: int) -> tuple[Bucket, ...]:
        return (Bucket(rate),) if rate else ()

    def _part(self) -> None:
        self.parted += 1


@pytest.fixture
def rig(harness: Harness) -> Rig:
    return Rig(harness)


def test_what_fits_the_rate_passes_at_once_both_ways(rig: Rig) -> None:
    rig.peer.send(b"u" * 1000)
    rig.paced.write(b"d" * 600)
    rig.paced.write(bytearray(b"d" * 400))
    assert (len(rig.above.got), len(rig.peer.got)) == (1000, 1000)
    assert rig.above.told == []
    assert rig.paced.is_reading()


def test_what_goes_to_the_peer_keeps_the_rate_and_whoever_sends_is_held(rig: Rig) -> None:
    data = bytes(range(250)) * 40
    rig.paced.write(data)
    assert rig.peer.take() == data[:1000]
    assert rig.paced.get_write_buffer_size() == 9000
    assert rig.above.take() == ["pause"]
    rig.harness.advance(0.5)
    rig.paced.write(b"end")
    assert 4_500 <= len(rig.peer.got) <= 5_000
    rig.harness.advance(0.5)
    assert rig.peer.take() == data[1000:] + b"end"
    assert rig.above.take() == ["resume"]
    assert rig.paced.get_write_buffer_size() == 0


def test_what_comes_from_the_peer_keeps_the_rate_and_it_is_not_read_meanwhile(rig: Rig) -> None:
    rig.peer.send(b"u" * 6000)
    rig.peer.send(b"U" * 10)
    assert rig.above.got == b"u" * 1000
    assert not rig.paced.is_reading()
    assert rig.peer.waiting == 10
    rig.harness.advance(0.25)
    assert 3_000 <= len(rig.above.got) <= 3_600
    rig.harness.advance(0.35)
    assert rig.above.got == b"u" * 6000 + b"U" * 10
    assert rig.paced.is_reading()


def test_a_way_without_a_rate_is_not_held(harness: Harness) -> None:
    rig = Rig(harness, up=0, down=0)
    rig.peer.send(b"u" * 100_000)
    rig.paced.write(b"d" * 100_000)
    assert (len(rig.above.got), len(rig.peer.got)) == (100_000, 100_000)


def test_all_rates_hold(harness: Harness) -> None:
    rig = Rig(harness)
    paced = Paced(harness.listener, rig.peer, ((), (Bucket(RATE), Bucket(RATE // 2))), rig._part)
    paced.set_protocol(rig.above)
    paced.write(b"d" * 3000)
    assert len(rig.peer.got) == 500
    harness.advance(0.2)
    assert 1_400 <= len(rig.peer.got) <= 1_600


def test_a_peer_that_reads_more_slowly_than_it_may_is_waited_for(rig: Rig) -> None:
    rig.peer.set_write_buffer_limits(100)
    rig.peer.stall()
    rig.paced.write(b"d" * 500)  # within the rate, but the peer is full
    assert rig.above.take() == ["pause"]
    rig.paced.write(b"e" * 700)
    assert rig.paced.get_write_buffer_size() == 1200
    rig.harness.advance(5.0)
    assert rig.peer.buffered == 500
    rig.peer.catch_up()
    assert rig.peer.take() == b"d" * 500 + b"e" * 700
    assert rig.above.take() == ["resume"]


def test_and_goes_on_to_keep_the_rate(rig: Rig) -> None:
    rig.peer.set_write_buffer_limits(100)
    rig.paced.write(b"d" * 3000)
    rig.peer.stall()
    rig.harness.advance(0.07)
    assert rig.peer.buffered > 100
    rig.peer.catch_up()
    assert len(rig.peer.take()) < 2000
    rig.harness.advance(0.3)
    assert rig.above.take() == ["pause", "resume"]


def test_who_serves_it_may_stop_the_reading_too(rig: Rig) -> None:
    rig.paced.pause_reading()
    assert not rig.paced.is_reading()
    rig.peer.send(b"u" * 3000)
    rig.paced.resume_reading()
    assert len(rig.above.got) == 1000
    rig.paced.pause_reading()  # while some waits for its time
    rig.harness.advance(1.0)
    assert len(rig.above.got) == 1000
    rig.paced.resume_reading()
    assert len(rig.above.got) == 2000  # a tenth of a second's, and no more, has been saved up
    rig.harness.advance(0.2)
    assert len(rig.above.got) == 3000
    assert rig.paced.is_reading()


def test_the_end_of_what_the_peer_says_comes_behind_it(rig: Rig) -> None:
    rig.peer.send(b"u" * 1500)
    rig.peer.end()
    assert rig.above.take() == []
    rig.harness.advance(0.1)
    assert len(rig.above.got) == 1500
    assert rig.above.take() == ["eof"]
    assert rig.peer.fate == OPEN


@pytest.mark.parametrize(("keeps_open", "fate"), [(True, OPEN), (False, CLOSED)])
def test_an_end_that_comes_while_octets_wait_waits_too(
    rig: Rig, keeps_open: bool, fate: str
) -> None:
    rig.peer.send(b"u" * 1500)
    rig.above.keeps_open = keeps_open
    assert rig.paced.eof_received()
    rig.harness.advance(0.1)
    assert rig.above.take()[0] == "eof"
    assert rig.peer.fate == fate


def test_without_a_wait_the_end_is_told_at_once(rig: Rig) -> None:
    rig.peer.end()
    assert rig.above.take() == ["eof"]
    assert rig.peer.fate == OPEN


def test_the_own_end_goes_behind_what_waits(rig: Rig) -> None:
    assert rig.paced.can_write_eof()
    rig.paced.write(b"d" * 1500)
    rig.paced.write_eof()
    assert rig.peer.fate == OPEN
    rig.harness.advance(0.1)
    assert (len(rig.peer.got), rig.peer.fate) == (1500, HALF)


def test_without_a_wait_the_own_direction_is_closed_at_once(rig: Rig) -> None:
    rig.paced.write_eof()
    assert rig.peer.fate == HALF


def test_a_connection_is_closed_behind_what_waits_and_a_drain_sees_it(rig: Rig) -> None:
    rig.paced.write(b"d" * 1500)
    rig.paced.close()
    rig.paced.close()
    assert rig.paced.is_closing()
    assert rig.paced in rig.harness.listener.connections
    rig.paced.write(b"too late")
    rig.peer.send(b"nobody reads this")
    rig.paced.drain()
    assert rig.paced.eof_received()  # the other direction stays open for it
    rig.harness.advance(0.1)
    assert rig.peer.got == b"d" * 1500
    assert rig.peer.fate == CLOSED
    assert not rig.paced.eof_received()
    assert rig.harness.listener.connections == set()
    assert rig.above.got == b""
    assert (rig.above.take(), rig.parted) == (["pause", "resume", "lost"], 1)


def test_without_a_wait_it_is_closed_at_once(rig: Rig) -> None:
    rig.paced.close()
    assert rig.peer.fate == CLOSED
    assert rig.above.take() == ["lost"]


def test_who_gives_up_loses_what_waits(rig: Rig) -> None:
    rig.paced.write(b"d" * 1500)
    rig.peer.send(b"u" * 1500)
    rig.paced.abort()
    assert rig.peer.fate == RESET
    assert rig.paced.is_closing()
    rig.harness.advance(1.0)
    assert len(rig.above.got) == 1000
    assert rig.above.take() == ["pause", "lost"]


def test_a_connection_that_is_lost_forgets_what_waits(rig: Rig) -> None:
    rig.paced.write(b"d" * 1500)
    rig.peer.send(b"u" * 1500)
    rig.peer.lose(OSError("gone"))
    rig.harness.advance(1.0)
    assert (len(rig.above.got), rig.above.take(), rig.parted) == (1000, ["pause", "lost"], 1)
    assert rig.paced.is_closing()
    rig.paced.pause_reading()
    rig.paced.resume_reading()


def test_reading_is_not_resumed_on_a_transport_that_closes(rig: Rig) -> None:
    rig.paced.pause_reading()
    rig.peer.stall()
    rig.paced.write(b"d")
    rig.peer.close()
    rig.paced.resume_reading()
    assert not rig.peer.is_reading()
    rig.peer.catch_up()
    assert rig.above.take() == ["lost"]


def test_octets_may_end_the_connection_that_they_come_from(rig: Rig) -> None:
    rig.above.answers = lambda data: rig.paced.abort()
    rig.peer.send(b"u" * 3000)
    rig.harness.advance(1.0)
    assert len(rig.above.got) == 1000
    assert rig.above.take() == ["lost"]


def test_a_drain_is_passed_on(rig: Rig) -> None:
    rig.paced.drain()
    assert rig.above.take() == ["drain"]
    assert rig.paced.get_extra_info("peername") == ("10.0.0.9", 1)
    assert rig.paced.get_protocol() is rig.above


# In the engine:


def limited(make: Make, protocol: str = "http", **limit: Any) -> Harness:
    harness = make(protocol=protocol, listener={"bandwidth_limits": [limit]})
    harness.connects_at_once = True
    return harness


def body(size: int) -> bytes:
    return bytes(n % 251 for n in range(size))


def answer(size: int) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + body(size)


def test_a_response_over_http1_comes_at_the_rate_and_whole(make: Make) -> None:
    harness = limited(make, down=20_000)
    caller = harness.open(GET)
    harness.upstreams[0].send(answer(30_000))
    assert len(caller.got) == 2000
    harness.advance(0.5)
    assert 10_000 < len(caller.got) < 13_000
    harness.advance(1.1)
    assert caller.take().endswith(body(30_000))
    caller.send(GET)
    harness.upstreams[0].send(OK)
    harness.advance(0.1)
    assert caller.take().endswith(b"ok")


def test_a_response_over_http2_comes_at_the_rate_and_whole(make: Make) -> None:
    harness = limited(make, down=20_000)
    peer: Peer = harness.call()
    harness.advance(1.0)
    peer.ask(b"GET", b"/", [], authority=b"a")
    harness.upstreams[0].send(answer(30_000))
    harness.advance(0.7)
    assert len(peer[1].data) <= 16_384  # of the frame under way nothing is seen yet
    harness.advance(0.9)
    assert peer[1].data == body(30_000)
    assert peer[1].ended


def test_a_session_comes_and_goes_at_the_rate(make: Make) -> None:
    harness = limited(make, "tcp", up=10_000, down=20_000)
    caller = harness.open(body(5_000))
    endpoint = harness.upstreams[0]
    assert endpoint.take() == body(5_000)[:1000]
    endpoint.send(body(8_000))
    endpoint.end()
    caller.end()
    harness.advance(0.1)
    assert len(caller.got) < 6_000
    harness.advance(1.0)
    assert caller.take() == body(8_000)
    assert endpoint.take() == body(5_000)[1000:]
    assert (caller.fate, endpoint.fate) == (CLOSED, CLOSED)


def test_octets_keep_their_order_when_the_endpoint_is_there_only_then(make: Make) -> None:
    harness = make(protocol="tcp", listener={"bandwidth_limits": [{"up": 10_000}]})
    caller = harness.open(body(2_000))
    harness.advance(0.15)
    caller.send(body(3_000))
    endpoint = harness.connect()
    harness.advance(1.0)
    assert endpoint.take() == body(2_000) + body(3_000)


def test_connections_of_one_source_share_its_rate(make: Make) -> None:
    harness = limited(make, "tcp", down=10_000, by=["source"])
    callers = [harness.open(b"x", host=host) for host in ("10.0.0.1", "10.0.0.1", "10.0.0.2")]
    for endpoint in harness.upstreams:
        endpoint.send(body(20_000))
    harness.advance(1.0)
    sizes = [len(caller.got) for caller in callers]
    assert 10_500 <= sizes[0] + sizes[1] <= 11_500
    assert 10_500 <= sizes[2] <= 11_500


def test_a_push_keeps_what_was_used_and_holds_for_new_connections(make: Make) -> None:
    limits = {"bandwidth_limits": [{"down": 10_000, "by": ["source"]}]}
    harness = make(protocol="tcp", listener=limits)
    harness.connects_at_once = True
    harness.open(b"x")
    harness.upstreams[0].send(body(1000))
    harness.swap(protocol="tcp", listener={**limits, "idle_timeout": 60})
    caller = harness.open(b"x")
    harness.upstreams[1].send(body(1000))
    assert len(caller.got) == 0
    harness.advance(0.2)
    assert len(caller.got) == 1000
    harness.swap(protocol="tcp")
    caller = harness.open(b"x")
    harness.upstreams[2].send(body(100_000))
    assert len(caller.got) == 100_000


def test_a_silent_caller_of_a_protocol_in_which_the_server_speaks_is_paced_too(make: Make) -> None:
    harness = limited(make, "auto", down=10_000)
    caller = harness.open()
    caller.end()  # opaque octets, if any
    harness.upstreams[0].send(body(3_000))
    harness.upstreams[0].end()
    assert len(caller.got) == 1000
    harness.advance(1.0)
    assert caller.take() == body(3_000)


def test_a_request_that_has_begun_is_served_when_the_drain_comes(make: Make) -> None:
    harness = limited(make, down=10_000)
    caller = harness.open(b"G")
    (front,) = harness.listener.connections
    front.drain()
    caller.send(GET[1:])
    harness.upstreams[0].send(OK)
    assert b"Connection: close" in caller.take()


def test_limits_of_the_buffer_are_those_of_the_transport(rig: Rig) -> None:
    rig.paced.set_write_buffer_limits(10)
    rig.peer.stall()
    rig.paced.write(b"d" * 11)
    assert rig.above.take() == ["pause"]
