"""What can be said wrongly about API keys and passwords, told with its path."""

from typing import Any

import pytest

from sidecar.compiler.access import named_files
from sidecar.compiler.snapshot import compile_snapshot, no_dial
from sidecar.core.book import Book
from sidecar.filters.basic_auth import BasicAuth
from sidecar.identity.hashed import key_line, password_line
from sidecar.model.identity import Secret
from sidecar.model.snapshot import Snapshot
from sidecar.sources.decode import decode
from tests.compiler.test_jwt import told
from tests.core.harness import tree

FILES = {
    "/keys": key_line("a", b"k").encode(),
    "/passwords": password_line("a", b"p").encode(),
    "/empty": b"# nothing\n",
}
HERE = "inbound[0].routes[0]"
WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"api_keys": "/none"}, ".api_keys.file", "the file '/none' was not read"),
    ({"api_keys": "/empty"}, ".api_keys.file", "'/empty' has no entry"),
    ({"api_keys": "/passwords"}, ".api_keys.file", "line 1: expected NAME:sha256:HEX: a slow hash is for passwords"),
    ({"api_keys": {"file": "/keys", "locations": []}}, ".api_keys.locations", "expected at least one"),
    ({"api_keys": {"file": "/keys", "locations": ["x"]}}, ".api_keys.locations[0]",
     "expected header:NAME, query:NAME or cookie:NAME, got 'x'"),
    ({"api_keys": {"file": "/keys", "user_header": "a b"}}, ".api_keys.user_header.a b", "no field of ours can be called 'a b'"),
    ({"basic_auth": "/none"}, ".basic_auth.file", "the file '/none' was not read"),
    ({"basic_auth": "/empty"}, ".basic_auth.file", "'/empty' has no entry"),
    ({"basic_auth": "/keys"}, ".basic_auth.file",
     "line 1: expected NAME:scrypt:N:R:P:SALT:HASH: a fast hash can be guessed from"),
    ({"basic_auth": {"file": "/passwords", "user_header": "Host"}}, ".basic_auth.user_header.Host",
     "no field of ours can be called 'Host'"),
    ({"authorization": [{"action": "deny", "match": {"users": ["a"]}}]}, ".authorization[0].match.users",
     "needs `api_keys` or `basic_auth` here or on the listener"),
]  # fmt: skip


@pytest.mark.parametrize(("route", "below", "detail"), WRONG)
def test_what_is_wrong(route: dict[str, Any], below: str, detail: str) -> None:
    assert told(FILES, route=route) == [(HERE + below, detail)]


@pytest.mark.parametrize("kind", ["api_keys", "basic_auth"])
def test_what_the_listener_takes_out_the_route_does_not_get(kind: str) -> None:
    both = {kind: "/keys" if kind == "api_keys" else "/passwords"}
    detail = f"comes too late: the listener's `{kind}` takes it out (set its `forward`)"
    assert told(FILES, route=both, listener=both) == [(f"{HERE}.{kind}", detail)]
    assert told(FILES, route=both, listener={kind: {"file": both[kind], "forward": True}}) == []
    found = told(FILES, protocol="tcp", listener=both)
    assert found == [(f"inbound[0].{kind}", "a tcp listener sees no requests")]


def test_a_rule_on_users_may_stand_below_what_finds_them() -> None:
    rule = {"action": "deny", "match": {"users": ["a"]}}
    assert told(FILES, listener={"api_keys": "/keys"}, route={"authorization": [rule]}) == []


def test_the_files_are_named() -> None:
    both = {"api_keys": "/keys", "basic_auth": "/passwords"}
    found = named_files(decode(tree(role="outbound", route=both, listener=both), Snapshot))
    places = ["outbound[0]", "outbound[0].routes[0]"]
    assert found == [
        (f"{place}.{kind}.file", file) for place in places for kind, file in both.items()
    ]


def test_pairs_that_were_right_are_known_until_the_file_changes() -> None:
    snapshot = decode(tree(role="inbound", route={"basic_auth": "/passwords"}), Snapshot)
    book = Book()

    def state(files: dict[str, bytes]) -> object:
        plan = compile_snapshot(snapshot, Secret(files=files), book, no_dial)
        (listener,) = plan.listeners.values()
        route = listener.routes.find_name("x")
        assert route is not None
        (stop,) = [stop for stop in route.on_request if isinstance(stop, BasicAuth)]
        return stop._settings.state

    first = state(FILES)
    assert state(FILES) is first
    assert state({"/passwords": password_line("a", b"q").encode()}) is not first
