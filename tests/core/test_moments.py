"""One exchange, and what may happen at every moment of it: loss, end, drain, push."""

from collections.abc import Callable

import pytest

from sidecar.errors import IdentityError
from tests.core.harness import GET, OK, Harness, Outcome, forwarded
from tests.core.reading import INCOMPLETE, Message, read_response
from tests.core.transport import CLOSED, HALF, OPEN, RESET, FakeTransport

Make = Callable[..., Harness]

HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
REQUEST = HEAD + b"3\r\nabc\r\n0\r\na: 1\r\n\r\n"
INTERIM = b"HTTP/1.1 103 Hints\r\n\r\n"
FINAL = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
RESPONSE = INTERIM + FINAL + b"2\r\nok\r\n0\r\nb: 2\r\n\r\n"
UP = "10.0.0.1:80"
WHOLE = Outcome(200, "", "", 1, 3, 2, UP)
SENT = len(REQUEST)  # the moment in which the request is whole and there is no connection yet
MOMENTS = range(SENT + 1 + len(RESPONSE) + 1)


class Play:
    """The exchange, octet by octet; the connection comes about when the request is whole."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.caller = harness.open()
        self.upstream: FakeTransport | None = None

    def run(self, start: int, end: int) -> None:
        for moment in range(start, end):
            if moment < SENT:
                self.caller.send(REQUEST[moment : moment + 1])
            elif moment == SENT:
                self.upstream = self.harness.connect() if self.harness.begun else None
            elif self.upstream is not None:
                at = moment - SENT - 1
                self.upstream.send(RESPONSE[at : at + 1])


def played(harness: Harness, moment: int) -> Play:
    play = Play(harness)
    play.run(0, moment)
    return play


def is_begun(moment: int) -> bool:
    return moment >= len(HEAD)


def is_over(moment: int) -> bool:
    return moment == MOMENTS[-1]


def drain(harness: Harness) -> None:
    harness.engine.draining = True
    for connection in tuple(harness.listener.connections):
        connection.drain()
    harness.settle()


def tear_down(harness: Harness) -> None:
    for connection in tuple(harness.listener.connections):
        connection.abort()
    harness.settle()


HARMLESS: dict[str, Callable[[Harness], None]] = {
    "nothing": lambda harness: None,
    "a push": lambda harness: harness.swap(route={"match": {"path": "/elsewhere"}}),
    "a push that retires connections": lambda harness: harness.swap(
        cluster={"proxy_protocol": "v1"}
    ),
    "time": lambda harness: harness.advance(5),
    "drain": drain,
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_must_not_disturb_an_exchange(make: Make, name: str) -> None:
    for moment in MOMENTS:
        if not is_begun(moment):
            continue
        harness = make()
        play = played(harness, moment)
        HARMLESS[name](harness)
        play.run(moment, MOMENTS[-1])
        response = read_response(bytes(play.caller.got), b"POST")
        assert isinstance(response, Message)
        assert (response.body, response.trailers) == (b"ok", [(b"b", b"2")])
        assert play.upstream is not None
        assert harness.outcomes == [WHOLE]
        assert (play.caller.fate == CLOSED) == (name == "drain")


def test_a_drain_before_the_head_is_whole_serves_it_still(make: Make) -> None:
    for moment in range(1, len(HEAD)):
        harness = make()
        play = played(harness, moment)
        drain(harness)
        play.run(moment, MOMENTS[-1])
        assert harness.outcomes == [WHOLE]
        assert b"\r\nConnection: close\r\n" in play.caller.take()
        assert play.caller.fate == CLOSED


def test_a_drain_closes_who_has_asked_nothing(harness: Harness) -> None:
    caller = harness.open()
    drain(harness)
    assert caller.fate == CLOSED
    assert harness.open().fate == RESET  # nobody new


@pytest.mark.parametrize("error", [None, ConnectionResetError()])
def test_the_caller_goes(make: Make, error: Exception | None) -> None:
    for moment in MOMENTS:
        harness = make()
        play = played(harness, moment)
        play.caller.lose(error)
        play.run(moment, MOMENTS[-1])
        expected = [] if not is_begun(moment) else [("downstream-closed", "DC")]
        if is_over(moment):
            expected = [("", "")]
        assert [(o.code, o.flag) for o in harness.outcomes] == expected
        if play.upstream is not None and moment > SENT:
            assert (play.upstream.fate == OPEN) == is_over(moment)


def test_the_worker_ends_the_connection(make: Make) -> None:
    for moment in MOMENTS:
        harness = make()
        play = played(harness, moment)
        tear_down(harness)
        assert play.caller.fate == RESET
        assert len(harness.outcomes) == is_begun(moment)


def test_the_caller_says_that_it_has_said_all(make: Make) -> None:
    for moment in MOMENTS:
        harness = make()
        play = played(harness, moment)
        play.caller.end()
        play.run(moment, MOMENTS[-1])
        codes = [o.code for o in harness.outcomes]
        if not is_begun(moment):
            assert codes == []
        elif moment < SENT:
            assert codes == ["body-cut"]
        else:
            assert codes == [""]
            assert read_response(play.caller.take(), b"POST") != INCOMPLETE
        assert play.caller.fate == CLOSED


@pytest.mark.parametrize("how", ["lost", "reset", "end"])
def test_the_endpoint_goes(make: Make, how: str) -> None:
    for moment in MOMENTS[SENT + 1 :]:
        harness = make()
        play = played(harness, moment)
        assert play.upstream is not None
        if how == "end":
            play.upstream.end()
        else:
            play.upstream.lose(None if how == "lost" else ConnectionResetError())
        play.run(moment, MOMENTS[-1])
        assert play.upstream.take().startswith(forwarded(HEAD))
        (outcome,) = harness.outcomes
        came = moment - SENT - 1
        if is_over(moment):
            assert outcome == WHOLE
        elif came < len(INTERIM + FINAL):
            response = read_response(play.caller.take(), b"POST")
            assert isinstance(response, Message)
            assert response.start == (502,)
            code = "upstream-body-cut" if came else "upstream-closed"
            assert outcome[:3] == (502, code, "UC")
            assert play.caller.fate == OPEN
        else:  # what has begun cannot be taken back, but it must not look whole
            assert read_response(play.caller.take(), b"POST", ended=False) == INCOMPLETE
            assert outcome[:3] == (200, "upstream-body-cut", "UC")
            assert play.caller.is_gone


def test_the_endpoint_speaks_nonsense(make: Make) -> None:
    for at in range(len(RESPONSE)):
        harness = make()
        play = played(harness, SENT + 1 + at)
        assert play.upstream is not None
        play.upstream.send(b"\x00\r\n\r\n")
        assert [o[1:3] for o in harness.outcomes] == [("upstream-protocol", "UPE")]
        assert play.upstream.is_gone
        assert (play.caller.fate == OPEN) == (at < len(INTERIM + FINAL))


CUT_DOWN = {
    "a length": (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", RESET),
    "chunks": (FINAL, CLOSED),
    "until the end": (b"HTTP/1.1 200 OK\r\n\r\n", CLOSED),
}


@pytest.mark.parametrize("name", CUT_DOWN)
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
def test_a_cut_response_does_not_look_whole(harness: Harness, name: str, version: bytes) -> None:
    head, fate = CUT_DOWN[name]
    caller = harness.open(b"GET / HTTP/" + version + b"\r\nHost: a\r\n\r\n")
    upstream = harness.connect()
    upstream.send(head)
    upstream.send(b"2\r\nok\r\n" if name == "chunks" else b"ok")
    upstream.lose(ConnectionResetError())
    # HTTP/1.0 has no chunks: there only a reset tells.
    assert caller.fate == (fate if version == b"1.1" else RESET)
    assert read_response(caller.take(), ended=False) == INCOMPLETE
    assert harness.outcomes[0].code == "upstream-body-cut"


def test_the_tls_layer_says_why_a_connection_died(harness: Harness) -> None:
    caller = harness.open(GET)
    harness.connect().lose(IdentityError("upstream-tls-failed", "unknown ca"))
    assert caller.take()[:12] == b"HTTP/1.1 503"
    assert harness.outcomes[0][:3] == (503, "upstream-tls-failed", "UF")


def test_what_arrives_in_the_turn_of_an_abort_changes_nothing(harness: Harness) -> None:
    caller = harness.open(HEAD.replace(b"a\r\n", b"a\r\nConnection: close\r\n"))
    upstream = harness.connect()
    with harness.together():
        upstream.send(OK)
        for connection in tuple(harness.listener.connections):
            connection.abort()
    assert caller.take() == b""
    assert caller.fate == RESET
    assert [o.status for o in harness.outcomes] == [200]


def test_a_drain_while_the_rest_of_a_request_is_dropped(harness: Harness) -> None:
    caller = harness.open(HEAD)
    harness.connect().send(OK)
    assert caller.fate == OPEN
    drain(harness)
    caller.send(REQUEST[len(HEAD) :] + GET)
    assert caller.take() == OK
    assert caller.fate == HALF
    caller.end()
    assert caller.fate == CLOSED
    assert len(harness.outcomes) == 1
