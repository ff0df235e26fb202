"""The gRPC interop cases, with grpcio (threads, asyncio) and grpclib at both ends, over all ways.

One table of cases; the names are those of the gRPC project's own interop tests where it has one.
"""

import contextlib
import itertools
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.e2e.stand import free_port
from tests.interop.grpc_caller import CALLERS, CANCELLED, DEADLINE_EXCEEDED, Told, Wish
from tests.interop.grpc_service import (
    ECHO_INITIAL,
    ECHO_TRAILING,
    ID,
    METHODS,
    SERVICE,
    Metadata,
    Record,
    ask,
    read_record,
)
from tests.interop.h2_end import calling, find, request
from tests.interop.nginx import Server, nginx
from tests.interop.peer import python
from tests.interop.way import PROXIES, WAYS, App, Front, way

UNIMPLEMENTED = 12
UNAVAILABLE = 14

# caller, server: each library is at each end once, and never talks to itself only.
PAIRS = (("grpcio", "grpclib"), ("grpcio-aio", "grpcio"), ("grpclib", "grpcio-aio"))

SPECIAL = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n 100%"
INITIAL = (ECHO_INITIAL, "test_initial_metadata_value")
TRAILING = (ECHO_TRAILING, b"\xab\xab\xab\x00\xff,=")
numbers = itertools.count(1)


@dataclass(frozen=True)
class Case:
    """A call and what must come of it."""

    name: str
    method: str
    requests: tuple[bytes, ...] = (ask(0),)
    replies: tuple[int | bytes, ...] = ()
    """Sizes, or the replies themselves."""

    code: int = 0
    text: str = ""
    metadata: Metadata = ()
    in_turn: bool = False
    service: str = SERVICE


def status(name: str, code: int, text: str, method: str = "Unary", *sizes: int) -> Case:
    requests = (ask(*sizes, code=code, text=text),)
    return Case(name, method, requests, sizes, code, text)


PING_PONG = tuple(
    ask(size, pad=pad)
    for size, pad in zip((31415, 9, 2653, 58979), (27182, 8, 1828, 45904), strict=True)
)
CASES = (
    Case("empty_unary", "Unary", (ask(0),), (0,)),
    Case("large_unary", "Unary", (ask(314159, pad=271828),), (314159,)),
    Case("very_large_unary", "Unary", (ask(3_500_000, pad=3_500_000),), (3_500_000,)),
    Case(
        "client_streaming",
        "Gather",
        tuple(ask(pad=pad) for pad in (27182, 8, 1828, 45904)),
        (b"74922",),
    ),
    Case("client_streaming_nothing", "Gather", (), (b"0",)),
    Case("server_streaming", "Scatter", (ask(31415, 9, 2653, 58979),), (31415, 9, 2653, 58979)),
    Case("server_streaming_nothing", "Scatter", (ask(),), ()),
    Case("server_streaming_much", "Scatter", (ask(*[10_000] * 300),), (10_000,) * 300),
    Case("ping_pong", "Chat", PING_PONG, (31415, 9, 2653, 58979), in_turn=True),
    Case("all_at_once", "Chat", PING_PONG, (31415, 9, 2653, 58979)),
    Case("empty_stream", "Chat", (), ()),
    Case("custom_metadata_unary", "Unary", (ask(5),), (5,), metadata=(INITIAL, TRAILING)),
    Case("custom_metadata_stream", "Chat", (ask(5),), (5,), metadata=(INITIAL, TRAILING)),
    status("status_code_and_message", 2, "test status message"),
    status("status_code_and_message_stream", 2, "test status message", "Chat"),
    status("special_status_message", 2, SPECIAL),
    status("special_status_message_after_replies", 9, SPECIAL, "Scatter", 100, 20_000),
    *(status(f"status_{code}", code, f"number {code}") for code in range(1, 17)),
    Case("unimplemented_method", "Nothing", (ask(0),), (), UNIMPLEMENTED),
    Case("unimplemented_service", "Unary", (ask(0),), (), UNIMPLEMENTED, service="interop.None"),
)


@dataclass(frozen=True)
class Line:
    """One library calling another over one way."""

    caller: str
    port: int
    behind: int
    """The server's own port, for asking it what it saw."""

    def call(self, wish: Wish) -> Told:
        return CALLERS[self.caller](self.port, wish)

    def seen(self, id_: str, state: str) -> Record:
        """What the server saw of a call, once it `holds`, or has its `end`."""
        wish = Wish(
            f"/{SERVICE}/Seen", METHODS["Seen"], (ask(seen=f"{id_}/{state}"),), timeout=10.0
        )
        told = CALLERS["grpcio"](self.behind, wish)
        assert told.code == 0, f"the server did not see its {state!r}: {told}"
        return read_record(told.messages[0])


@pytest.fixture(scope="module")
def apps() -> Iterator[dict[str, App]]:
    """A server of each library, and a place where there is none."""
    with contextlib.ExitStack() as stack:
        found = {}
        for _, server in PAIRS:
            ports = stack.enter_context(python("tests.interop.grpc_server", server))
            found[server] = App(ports["grpc"])
        # Bound, so that nobody else gets the port, and not listening.
        nobody = stack.enter_context(socket.socket())
        nobody.bind(("127.0.0.1", 0))
        yield found | {"nobody": App(nobody.getsockname()[1])}


@pytest.fixture(scope="module", params=WAYS)
def front(
    request: pytest.FixtureRequest,
    apps: dict[str, App],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Front]:
    with way(request.param, [*apps.values()], tmp_path_factory.mktemp("way")) as found:
        yield found


@pytest.fixture(params=PAIRS, ids="-to-".join)
def line(request: pytest.FixtureRequest, front: Front, apps: dict[str, App]) -> Line:
    caller, server = request.param
    return Line(caller, front.ports[apps[server]], apps[server].port)


def wish_of(case: Case) -> Wish:
    return Wish(
        f"/{case.service}/{case.method}",
        METHODS.get(case.method, (False, False)),
        case.requests,
        case.metadata,
        timeout=20.0,
        in_turn=case.in_turn,
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_call_comes_out_as_the_case_says(line: Line, case: Case) -> None:
    check(case, line.call(wish_of(case)))


def check(case: Case, told: Told) -> None:
    """Assert that a call came out as the case says."""
    assert (told.code, told.text if case.text else "") == (case.code, case.text)
    assert [
        len(got) if isinstance(expected, int) else got
        for got, expected in zip(told.messages, case.replies, strict=True)
    ] == [*case.replies]
    if case.metadata:
        assert INITIAL in told.initial
        assert TRAILING in told.trailing


def numbered(wish: Wish) -> tuple[str, Wish]:
    """Return an id of its own, and the wish that carries it."""
    id_ = str(next(numbers))
    return id_, replace(wish, metadata=[*wish.metadata, (ID, id_)])


def test_the_server_sees_the_metadata(line: Line) -> None:
    sent: Metadata = [
        ("x-plain", "a value, with=signs"),
        ("x-plain", "twice"),
        ("x-some-bin", b"\x00\xff\n"),
    ]
    id_, wish = numbered(Wish(f"/{SERVICE}/Unary", (False, False), (ask(1),), sent))
    assert line.call(wish).code == 0

    seen = line.seen(id_, "end").metadata
    assert [value for key, value in seen if key == "x-plain"] == ["a value, with=signs", "twice"]
    assert ("x-some-bin", "00ff0a") in seen


@pytest.mark.parametrize("method", ["Unary", "Chat"])
def test_a_deadline_is_seen_by_both_sides(line: Line, method: str) -> None:
    id_, wish = numbered(
        Wish(f"/{SERVICE}/{method}", METHODS[method], (ask(hold=True),), timeout=0.25)
    )
    assert line.call(wish).code == DEADLINE_EXCEEDED

    seen = line.seen(id_, "end")
    assert seen.end == "cancelled"
    assert seen.remaining is not None
    assert 0 < seen.remaining <= 0.27  # grpcio sends it rounded up


@pytest.mark.parametrize("replies", [0, 1], ids=["after_begin", "after_first_response"])
def test_the_server_sees_that_the_caller_cancels(line: Line, replies: int) -> None:
    requests = (ask(*[7] * replies, hold=True),)
    id_, wish = numbered(Wish(f"/{SERVICE}/Chat", METHODS["Chat"], requests))
    told = line.call(
        replace(wish, cancel_after=replies, before_cancel=lambda: line.seen(id_, "holds"))
    )

    assert told.code == CANCELLED
    assert [len(message) for message in told.messages] == [7] * replies
    assert line.seen(id_, "end").end == "cancelled"


@pytest.mark.parametrize("front", PROXIES, indirect=True)
@pytest.mark.parametrize("caller", CALLERS)
def test_a_reply_of_the_proxy_is_a_grpc_status(
    front: Front, apps: dict[str, App], caller: str
) -> None:
    wish = Wish(f"/{SERVICE}/Unary", (False, False), (ask(1),), timeout=20.0)
    told = CALLERS[caller](front.ports[apps["nobody"]], wish)

    assert told.code == UNAVAILABLE
    assert told.text


@pytest.mark.parametrize("server", [server for _, server in PAIRS])
async def test_trailers_only_stays_one_head(
    front: Front, apps: dict[str, App], server: str
) -> None:
    fields = request(
        "POST", f"/{SERVICE}/Nothing", ("te", "trailers"), ("content-type", "application/grpc")
    )
    async with calling(front.ports[apps[server]]) as end:
        stream = end.open(fields, end=False)
        await stream.send(bytes(5), end=True)
        head = await stream.head()
    assert stream.head_ended
    assert (find(head, b":status"), find(head, b"grpc-status")) == (b"200", b"12")


def passing(port: int, to: int) -> Server:
    """gRPC passed on by nginx; its default limit is on whole bodies, and a stream has no end."""
    pass_on = f"location / {{ grpc_pass grpc://127.0.0.1:{to}; }}"
    return Server(port, "http2", f"client_max_body_size 0; {pass_on}")


@pytest.mark.parametrize(("caller", "server"), PAIRS)
@pytest.mark.parametrize("first", ["nginx", "sidecar"])
def test_nginx_passes_grpc_to_us_and_from_us(
    apps: dict[str, App], first: str, caller: str, server: str, tmp_path: Path
) -> None:
    app, port = apps[server], free_port()
    with contextlib.ExitStack() as stack:
        if first == "sidecar":
            nginx(stack, tmp_path, passing(port, app.port))
            app = App(port)
        front = stack.enter_context(way("sidecar", [app], tmp_path))
        port = front.ports[app]
        if first == "nginx":
            port = free_port()
            nginx(stack, tmp_path, passing(port, front.ports[app]))
        for case in CASES:
            check(case, CALLERS[caller](port, wish_of(case)))
