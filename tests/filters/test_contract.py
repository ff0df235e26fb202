"""What every filter promises, whichever file it is in: tried with the settings of config/full.yaml.

It takes any head without an error, over both versions of HTTP alike, lets pass unchanged what it has
nothing to do with, answers with codes that have a reply, and holds on to no exchange that has ended.

A new filter is found by `discover`; its example is its entry in the full config, or, for what that
cannot show, one more config in `MORE`.
"""

import ast
import gc
import inspect
import re
import types
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final, final

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from sidecar.compiler.snapshot import compile_snapshot
from sidecar.core.api import Answer, HttpFilter, NetworkFilter, Pause, Verdict
from sidecar.core.book import Book
from sidecar.core.exchange import Exchange
from sidecar.core.plan import Plan, overrides
from sidecar.core.replies import REPLIES
from sidecar.core.tcp import Session
from sidecar.core.types import Caller
from sidecar.model.snapshot import Snapshot
from sidecar.plugin import Plugin, discover
from sidecar.sources.decode import decode
from sidecar.sources.file import FileSource
from tests.core.asking import HTTP1, HTTP2
from tests.core.harness import Harness, tree
from tests.core.http2_peer import Peer
from tests.core.keeper import Keeper
from tests.core.transport import FakeTransport
from tests.full_config import secret_of

ROOT: Final = Path(__file__).parents[2]
PLUGINS: Final = discover("sidecar.filters")
MOST: Final = 2  # filters of one plug-in that are tried with all that hypothesis thinks of
HOOKS: Final = ("on_request", "on_response", "on_reply", "on_finish", "on_session")
MORE: Final[dict[str, dict[str, Any]]] = {
    "attempt_count": tree(retry={"attempt_count": True}),
}
"""Configs for filters that the full one does not make, by the plug-in's name."""


def module_of(plugin: Plugin) -> types.ModuleType:
    found = inspect.getmodule(plugin.make)
    assert found is not None
    return found


def reachable(root: object) -> Iterator[object]:
    """Yield what `root` holds on to, itself and through others; not what code refers to by name."""
    seen = {id(root)}
    waiting: list[object] = [root]
    while waiting:
        one = waiting.pop()
        yield one
        if isinstance(one, types.FunctionType):
            parts: list[object] = [*(one.__closure__ or ()), one.__defaults__, one.__kwdefaults__]
        else:
            parts = gc.get_referents(one)
        for part in parts:
            if id(part) not in seen and not isinstance(part, type | types.ModuleType):
                seen.add(id(part))
                waiting.append(part)


def nobody(*what: object) -> None:
    """Dial nobody: what a filter asks of a cluster is never answered."""


def compiled(snapshot: Snapshot) -> Plan:
    return compile_snapshot(snapshot, secret_of(snapshot), Book(), nobody)


def filters_of(plan: Plan) -> Iterator[HttpFilter | NetworkFilter]:
    for one in reachable(plan.listeners):
        if isinstance(one, HttpFilter | NetworkFilter):
            yield one


@cache
def full() -> Snapshot:
    return FileSource(str(ROOT / "config" / "full.yaml")).load()


def examples(name: str) -> list[HttpFilter | NetworkFilter]:
    """Return the filters that the configs make of plug-in `name`, new ones each time."""
    module = module_of(PLUGINS[name]).__name__
    configs = [full(), *([decode(MORE[name], Snapshot)] if name in MORE else [])]
    return [
        one
        for config in configs
        for one in filters_of(compiled(config))
        if type(one).__module__ == module
    ]


@pytest.fixture(scope="module", params=sorted(PLUGINS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def every(name: str) -> list[HttpFilter | NetworkFilter]:
    """Return all filters of one plug-in, for what only looks at them."""
    return examples(name)


@pytest.fixture(scope="module")
def found(every: list[HttpFilter | NetworkFilter]) -> list[HttpFilter | NetworkFilter]:
    """Return filters of one plug-in; the same ones meet all that hypothesis thinks of."""
    return every[:MOST]


@pytest.fixture
def twins(name: str) -> list[tuple[HttpFilter | NetworkFilter, HttpFilter | NetworkFilter]]:
    """Return such filters that have met nothing, each with another that is just like it."""
    return [*zip(examples(name)[:MOST], examples(name)[:MOST], strict=True)]


def test_every_filter_has_an_example(name: str, every: list[HttpFilter | NetworkFilter]) -> None:
    assert every, f"no config makes a {name}: give it an entry in config/full.yaml, or in MORE"


def test_settings_say_what_they_mean(name: str) -> None:
    kind = PLUGINS[name].settings
    if kind is type(None):
        return
    (node,) = [
        item
        for item in ast.parse(inspect.getsource(module_of(PLUGINS[name]))).body
        if isinstance(item, ast.ClassDef) and item.name == kind.__name__
    ]
    assert ast.get_docstring(node)
    for field, text in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign):
            assert isinstance(text, ast.Expr), f"{ast.unparse(field.target)} has no string under it"
            assert isinstance(text.value, ast.Constant)


def test_a_filter_has_a_hook_of_its_own(every: list[HttpFilter | NetworkFilter]) -> None:
    for one in every:
        assert isinstance(one, HttpFilter | NetworkFilter)
        assert any(overrides(one, hook) for hook in HOOKS)


# What comes in:


@cache
def words() -> tuple[bytes, ...]:
    """Return every text in the full config: what filters compare with."""
    found = re.findall(r"""[^\s{}\[\],"']+""", (ROOT / "config" / "full.yaml").read_text())
    return tuple(sorted({word.encode() for word in found if not word.endswith(":")}))


@cache
def names() -> tuple[bytes, ...]:
    """Return every field's name in the code of filters, and in the config."""
    found = {word.lower() for word in words() if re.fullmatch(rb"[a-z][a-z0-9-]*", word)}
    for plugin in PLUGINS.values():
        for node in ast.walk(ast.parse(inspect.getsource(module_of(plugin)))):
            if isinstance(node, ast.Constant) and isinstance(node.value, bytes):
                found |= set(re.findall(rb"[a-z][a-z0-9-]+", node.value))
    return tuple(sorted(found - OURS))


OURS: Final = {
    # Of these the engine itself makes something, and the codecs refuse most values.
    b"host", b"content-length", b"transfer-encoding", b"connection", b"te", b"upgrade", b"expect",
    b"keep-alive", b"proxy-connection", b"trailer",
}  # fmt: skip

# Whatever a codec lets through: RFC 9110 §5.5.
octets = st.binary(max_size=40).map(lambda b: re.sub(rb"[\x00-\x08\x0a-\x1f\x7f]", b"", b).strip())
values = st.one_of(
    st.deferred(lambda: st.sampled_from(words())),
    octets,
    st.integers(-10, 10**20).map(lambda n: b"%d" % n),
    st.sampled_from(
        [b"", b",", b"=", b";=;", b"a" * 5000, b"\xff" * 300, b"application/grpc", b"%%%", b"1e9"]
    ),
)
fields = st.lists(st.tuples(st.deferred(lambda: st.sampled_from(names())), values), max_size=8)
targets = st.one_of(
    st.deferred(lambda: st.sampled_from([w for w in words() if w.startswith(b"/")])),
    st.binary(max_size=40).map(lambda b: b"/" + re.sub(rb"[^!-~]|#", b"", b)),
)
methods = st.sampled_from([b"GET", b"HEAD", b"POST", b"OPTIONS", b"DELETE", b"PURGE"])
requests = st.tuples(methods, targets, fields)
responses = st.tuples(st.sampled_from([200, 201, 204, 304, 404, 500, 503]), fields)
hostile = settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])

Request = tuple[bytes, bytes, list[tuple[bytes, bytes]]]
MARKS: Final = [
    (b"x-contract-a", b"1"),
    (b"x-contract-b", b"caf\xc3\xa9 \xff"),
    (b"x-contract-a", b"2"),
]
BODY: Final = b"\x00\r\n\r\n0\r\n\r\nbody"


class Trial:
    """One filter in the engine, between a caller and an endpoint that answers everything."""

    def __init__(self, *filters: HttpFilter | NetworkFilter) -> None:
        self.harness = Harness(filters=tuple(f for f in filters if isinstance(f, HttpFilter)))
        self.harness.connects_at_once = True
        self.keeper = Keeper(self.harness)
        self.sent_up: list[bytes] = []

    def exchange(
        self, protocol: str, request: Request, response: bytes, body: bytes = b""
    ) -> FakeTransport:
        """Ask and answer, and let time pass until nothing waits; the caller's side stays open."""
        harness = self.harness
        method, target, fields = request
        if protocol == HTTP1:
            lines = b"".join([b"%b: %b\r\n" % field for field in fields])
            length = b"Content-Length: %d\r\n" % len(body) if body else b""
            head = b"%b %b HTTP/1.1\r\nHost: a\r\n%b%b\r\n" % (method, target, lines, length)
            caller = harness.open(head + body)
        else:
            caller = harness.open()
            peer = Peer(caller, caller=True)
            peer.ask(method, target, fields, body=body)
        for _ in range(3):
            self.keeper.grant()
            for job in harness.jobs:
                job.step()
            harness.advance(60)
        for upstream in harness.upstreams:
            sent = upstream.take()
            if sent:
                self.sent_up.append(sent)
                upstream.send(response)
        harness.advance(60)
        return caller

    def end(self) -> None:
        """Let everybody go, and look whether something is left or went wrong."""
        self.keeper.fail()
        self.harness.check()
        for outcome in self.harness.outcomes:
            assert outcome.code in REPLIES or outcome.code == ""


def answer(response: tuple[int, list[tuple[bytes, bytes]]], *more: tuple[bytes, bytes]) -> bytes:
    status, fields = response
    lines = b"".join([b"%b: %b\r\n" % field for field in [*fields, *more]])
    body = b"" if status in (204, 304) else BODY
    return b"HTTP/1.1 %d Said\r\n%bContent-Length: %d\r\n\r\n%b" % (status, lines, len(body), body)


@pytest.mark.parametrize("protocol", [HTTP1, HTTP2])
@hostile
@given(st.data())
def test_no_head_makes_it_fail(
    found: list[HttpFilter | NetworkFilter], protocol: str, data: st.DataObject
) -> None:
    trial = Trial(*found)
    for request, response in data.draw(st.lists(st.tuples(requests, responses), max_size=4)):
        trial.exchange(protocol, request, answer(response))
    trial.end()


@pytest.mark.parametrize("protocol", [HTTP1, HTTP2])
@hostile
@given(st.data())
def test_what_is_not_its_own_passes_unchanged(
    found: list[HttpFilter | NetworkFilter], protocol: str, data: st.DataObject
) -> None:
    request, response = data.draw(requests), data.draw(responses)
    method, target, fields = request
    for one in found:
        trial = Trial(one)
        caller = trial.exchange(
            protocol, (method, target, [*MARKS, *fields]), answer(response, *MARKS), BODY
        )
        for sent in trial.sent_up:
            head, _, body = sent.partition(b"\r\n\r\n")
            assert sent.startswith(method + b" ")
            assert marks(head) == MARKS
            assert body in (BODY, b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY))
        if trial.sent_up and trial.harness.outcomes and not trial.harness.outcomes[0].code:
            got = bytes(caller.got)
            if protocol == HTTP1 and method != b"HEAD":
                assert marks(got.partition(b"\r\n\r\n")[0]) == MARKS
                assert got.count(b"\r\nContent-Length: ") <= 1
        trial.end()


def marks(head: bytes) -> list[tuple[bytes, bytes]]:
    found = re.findall(rb"(?i)\r\n(x-contract-.): ([^\r]*)", head)
    return [(key.lower(), value) for key, value in found]


@hostile
@given(st.lists(requests, min_size=1, max_size=4))
def test_both_versions_of_http_are_alike(
    twins: list[tuple[HttpFilter | NetworkFilter, HttpFilter | NetworkFilter]],
    asked: list[Request],
) -> None:
    for one, two in twins:
        first, second = Trial(one), Trial(two)
        for method, target, fields in asked:
            request = (method, target, list(dict(fields).items()))
            response = answer((200, []))
            first.exchange(HTTP1, request, response)
            second.exchange(HTTP2, request, response)
        for trial in (first, second):
            trial.end()
        seen = [
            [(o.status, o.code, o.flag, o.attempts) for o in trial.harness.outcomes]
            for trial in (first, second)
        ]
        assert seen[0] == seen[1]
        assert [said(sent) for sent in first.sent_up] == [said(sent) for sent in second.sent_up]


def said(sent: bytes) -> tuple[bytes, Counter[tuple[bytes, bytes]]]:
    """Return the request line and the fields, as far as both versions can say them."""
    line, *lines = sent.partition(b"\r\n\r\n")[0].split(b"\r\n")
    pairs = [each.partition(b":")[::2] for each in lines]
    return line, Counter((k.lower(), v.strip()) for k, v in pairs if k.lower() not in OURS)


@pytest.mark.parametrize("protocol", [HTTP1, HTTP2])
@pytest.mark.parametrize("is_patient", [True, False])
def test_it_holds_on_to_nobody(name: str, protocol: str, is_patient: bool) -> None:
    found = examples(name)
    trial = Trial(*found)
    harness = trial.harness
    for index in range(5):
        request = (b"POST", b"/%d" % index, [(b"x-chaos", b"please"), (b"origin", b"https://a")])
        if is_patient:
            trial.exchange(protocol, request, answer((200, [])))
            continue
        harness.connects_at_once = index % 2 == 0
        caller = harness.open(b"POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n" % index)
        caller.lose()
    trial.keeper.fail()
    harness.advance(600)
    trial.end()
    ours = [x for x in harness.sink.exchanges if x.listener is harness.listener.plan]
    assert len(ours) == 5  # and, with some filters, calls of their own
    ours.clear()
    for one in found:
        held = [what for what in reachable(one) if isinstance(what, Exchange | Session)]
        assert held == []


def test_sessions_are_refused_with_a_code_or_let_through(
    every: list[HttpFilter | NetworkFilter],
) -> None:
    for one in every:
        if not isinstance(one, NetworkFilter) or not overrides(one, "on_session"):
            continue
        harness = Harness(protocol="tcp")
        for host, identity, server in (
            ("", "", ""),
            ("10.9.9.9", "spiffe://example.org/ns/shop/sa/checkout", "catalog.internal"),
            ("2001:db8::1", "spiffe://" + "x" * 3000, "\xff.\x00"),
        ):
            caller = Caller(host, 5000)
            caller.identity = identity
            said = one.on_session(Session(harness.listener, caller, server))
            if isinstance(said, Pause):
                said = said.refusal
            assert said is None or isinstance(said, str | Answer)
            code = said.code if isinstance(said, Answer) else said
            assert code is None or code in REPLIES


# What the trials would notice:


@final
class Rogue(HttpFilter):
    """Breaks the contract in one way."""

    def __init__(self, way: str) -> None:
        self.way = way
        self.kept: list[Exchange] = []

    def on_request(self, exchange: Exchange) -> Verdict:
        if self.way == "raises":
            raise ValueError
        if self.way == "changes":
            exchange.head.remove(b"x-contract-b")
        if self.way == "keeps":
            self.kept.append(exchange)
        return "no-such-code" if self.way == "says" else None


@pytest.mark.parametrize("way", ["raises", "says"])
def test_an_error_and_an_unknown_code_are_noticed(way: str) -> None:
    trial = Trial(Rogue(way))
    trial.exchange(HTTP1, (b"GET", b"/", []), answer((200, [])))
    with pytest.raises(AssertionError):
        trial.end()


def test_a_field_that_is_gone_is_noticed() -> None:
    for way, is_whole in (("nothing", True), ("changes", False)):
        trial = Trial(Rogue(way))
        trial.exchange(HTTP1, (b"GET", b"/", MARKS), answer((200, [])))
        assert (marks(trial.sent_up[0].partition(b"\r\n\r\n")[0]) == MARKS) is is_whole


def test_who_holds_on_is_noticed() -> None:
    rogue = Rogue("keeps")
    trial = Trial(rogue)
    trial.exchange(HTTP1, (b"GET", b"/", []), answer((200, [])))
    trial.end()
    assert any(isinstance(what, Exchange) for what in reachable(rogue))
