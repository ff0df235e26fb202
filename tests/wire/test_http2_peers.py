"""Our HTTP/2 against the h2 library: conversations that both understand the same, and what is refused."""

from collections.abc import Sequence
from typing import cast

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
from hypothesis import HealthCheck, given, settings, strategies as st

from sidecar.wire.fields import Field
from sidecar.wire.http2 import Link
from sidecar.wire.http2_outgoing import CONNECTION_WINDOW
from tests.wire.field_blocks import NAMES, VALUES
from tests.wire.http2_ends import REQUEST, RESPONSE, TRAILERS, Fed, Told

# --- the same conversation ------------------------------------------------------------------------

EXTRA = st.lists(
    st.tuples(NAMES.filter(lambda n: n[:1] != b":" and n != b"content-length"), VALUES)
)
BODIES = st.lists(
    st.sampled_from([0, 1, 500, 16384, 16385, 40_000]).map(lambda n: b"%d" % (n % 7) * n),
    max_size=3,
)
MESSAGES = st.tuples(EXTRA, BODIES, st.booleans())  # fields, pieces of the body, trailers?
CUTS = st.sampled_from([2**30, 16384, 1000, 61])
# Of each stream: the question, the answer, how often 1xx comes before it.
EXCHANGES = st.lists(st.tuples(MESSAGES, MESSAGES, st.integers(0, 2)), min_size=1, max_size=5)


NOTHING = ("data", b"", False)  # an empty frame that ends nothing: not worth telling


class Library:
    """The h2 library as one end, told in our words."""

    def __init__(self, *, client: bool, window: int = 65535) -> None:
        self.client = client
        self.told: list[Told] = []
        self.waiting: dict[int, list[tuple[bytes, bool]]] = {}
        self.tails: dict[int, list[Field]] = {}
        config = h2.config.H2Configuration(client_side=client, normalize_inbound_headers=False)
        self.connection = h2.connection.H2Connection(config)
        self.connection.local_settings = h2.settings.Settings(
            client, {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window}
        )
        self.connection.initiate_connection()

    def receive(self, octets: bytes) -> None:
        for event in self.connection.receive_data(octets):
            self.note(event)
        self.go_on()

    def note(self, event: h2.events.Event) -> None:
        kind = {
            h2.events.RequestReceived: "opened",
            h2.events.ResponseReceived: "headers",
            h2.events.InformationalResponseReceived: "headers",
            h2.events.TrailersReceived: "headers",
        }.get(type(event))
        ended = getattr(event, "stream_ended", None) is not None
        if kind is not None:
            fields = [tuple(field) for field in event.headers]  # type: ignore[attr-defined]
            self.told.append((kind, event.stream_id, fields, ended))  # type: ignore[attr-defined]
        elif isinstance(event, h2.events.DataReceived):
            self.told.append(("data", event.stream_id, bytes(event.data), ended))
            size = event.flow_controlled_length
            self.connection.acknowledge_received_data(size, event.stream_id)

    def body(self, number: int, parts: list[bytes], tail: list[Field]) -> None:
        """Send a body and its end as windows allow."""
        whole = b"".join(parts)
        cut = [whole[at : at + 16384] for at in range(0, len(whole), 16384)] or [b""]
        self.waiting[number] = [(part, part is cut[-1] and not tail) for part in cut]
        self.tails[number] = tail
        self.go_on()

    def go_on(self) -> None:
        for number, parts in list(self.waiting.items()):
            while parts:
                part, end = parts[0]
                room = self.connection.local_flow_control_window(number)
                if part and room <= 0:
                    break
                if len(part) > room:
                    self.connection.send_data(number, part[:room])
                    parts[0] = (part[room:], end)
                    break
                self.connection.send_data(number, part, end_stream=end)
                del parts[0]
            if not parts:
                del self.waiting[number]
                if self.tails[number]:
                    self.connection.send_headers(number, self.tails[number], end_stream=True)


def joined(told: Sequence[Told]) -> dict[int, list[Told]]:
    """Return what was told of each stream, the pieces of a body made one."""
    found: dict[int, list[Told]] = {}
    for what, number, *more in told:
        events = found.setdefault(number, [])
        if what == "data" and events and events[-1][0] == "data":
            events[-1] = ("data", events[-1][1] + more[0], more[1])
        else:
            events.append((what, *more))
    return {number: [e for e in events if e != NOTHING] for number, events in found.items()}


def expected(
    first: str, head: list[Field], parts: list[bytes], tail: list[Field], interim: int = 0
) -> list[Told]:
    events: list[Told] = [("headers", [(b":status", b"103")], False)] * interim
    events += [(first, head, False), ("data", b"".join(parts), not tail)]
    events += [("headers", tail, True)] if tail else []
    return [event for event in events if event != NOTHING]


def carry(ours: Fed, library: Library, cut: int) -> None:
    """Carry octets both ways until nobody says anything more."""
    while True:
        here, there = ours.link.take(), library.connection.data_to_send()
        if not here and not there:
            return
        for at in range(0, len(here), cut):
            library.receive(here[at : at + cut])
        for at in range(0, len(there), cut):
            ours.link.receive(there[at : at + cut])


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(EXCHANGES, st.booleans(), st.sampled_from([65535, 1000, 300_000]), CUTS)
def test_every_conversation_is_understood_the_same(
    exchanges: list[tuple[tuple[list[Field], list[bytes], bool], ...]],
    ours_asks: bool,
    window: int,
    cut: int,
) -> None:
    ours = Fed(client=ours_asks, fresh=True)
    library = Library(client=not ours_asks, window=window)
    carry(ours, library, cut)

    def speak(by_us: bool, number: int, head: list[Field], parts: list[bytes], tail: bool) -> None:
        end: list[Field] = TRAILERS if tail else []
        if by_us:
            stream = ours.link.streams.get(number) or ours.link.open()
            assert stream.id == number
            ours.link.send_headers(stream, head, end=False)
            for part in parts:
                ours.link.send_data(stream, part, end=False)
            ours.link.end(stream, end)
        else:
            library.connection.send_headers(number, head)
            library.body(number, parts, end)

    for at, ((fields, parts, tail), _, _) in enumerate(exchanges):
        speak(ours_asks, 2 * at + 1, REQUEST + fields, parts, tail)
    carry(ours, library, cut)
    for at, (_, (fields, parts, tail), interim) in enumerate(exchanges):
        number = 2 * at + 1
        for _ in range(interim):  # type: ignore[call-overload]
            if ours_asks:
                library.connection.send_headers(number, [(b":status", b"103")])
            else:
                ours.link.send_headers(ours.link.streams[number], [(b":status", b"103")], end=False)
        speak(not ours_asks, number, RESPONSE + fields, parts, tail)
    carry(ours, library, cut)

    told = (joined([t for t in ours.told if len(t) > 2]), joined(library.told))
    asked, answered = told[::-1] if ours_asks else told
    for at, ((ask, ask_body, ask_tail), (say, say_body, say_tail), interim) in enumerate(exchanges):
        tails: tuple[list[Field], list[Field]] = (
            TRAILERS if ask_tail else [],
            TRAILERS if say_tail else [],
        )
        number = 2 * at + 1
        assert asked[number] == expected("opened", REQUEST + ask, ask_body, tails[0])
        assert answered[number] == expected(
            "headers",
            RESPONSE + say,
            say_body,
            tails[1],
            interim,  # type: ignore[arg-type]
        )
    assert not ours.link.streams
    # The windows agree: what we believe to be allowed is what h2 allows, and the reverse.
    link, connection = cast("Link", ours.link), library.connection
    assert link._send_window == connection.inbound_flow_control_window
    assert CONNECTION_WINDOW - link._credit == connection.outbound_flow_control_window
