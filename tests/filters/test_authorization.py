"""Who may do what: every condition, deny over allow, what shadow rules say, and no way around."""

import ssl
from collections.abc import Callable
from typing import Any

import pytest

from sidecar.core.tcp import Session
from sidecar.core.types import Caller
from sidecar.telemetry.access_log import AccessLogSink
from sidecar.telemetry.metrics import MetricsSink
from tests.core.asking import HTTP1, PROTOCOLS, Seen, ask
from tests.core.harness import OK, Harness
from tests.core.transport import FakeTransport

Make = Callable[..., Harness]
Rules = list[dict[str, Any]]

BOTH = pytest.mark.parametrize("protocol", PROTOCOLS)
CERTIFICATES = {"certificate": "c", "key": "k", "roots": "r"}
WEB = "spiffe://cluster.local/ns/shop/sa/web"
BATCH = "spiffe://cluster.local/ns/jobs/sa/batch"


def ruled(
    make: Make, rules: Rules, protocol: str = "http", route: Any = None, **listener: Any
) -> Harness:
    """Return an inbound listener with `rules`."""
    harness = make(
        role="inbound",
        protocol=protocol,
        listener={"mtls": "permissive", "authorization": rules, **listener},
        certificates=CERTIFICATES,
        route=route,
    )
    harness.connects_at_once = True
    return harness


def answer(harness: Harness, *request: Any, **more: Any) -> Seen:
    asked = ask(harness, *request, **more)
    for upstream in harness.upstreams:
        if upstream.take():
            upstream.send(OK)
    return asked.answer()


def status(harness: Harness, *request: Any, **more: Any) -> int:
    return answer(harness, *request, **more).status


# What a rule may look at; a request that it holds for, and one that it does not hold for.
CONDITIONS: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    ({"identities": [WEB]}, {"identity": WEB}, {"identity": BATCH}),
    ({"identities": [WEB]}, {"identity": WEB}, {}),
    ({"identities": [WEB, {"prefix": "spiffe://cluster.local/ns/jobs/"}]}, {"identity": BATCH}, {}),
    ({"identities": [{"regex": ".*/sa/(web|x)"}]}, {"identity": WEB}, {"identity": BATCH}),
    ({"identities": [{"exact": WEB, "invert": True}]}, {"identity": BATCH}, {"identity": WEB}),
    ({"identities": [{"present": False}]}, {}, {"identity": WEB}),
    ({"namespaces": ["shop"]}, {"identity": WEB}, {"identity": BATCH}),
    ({"namespaces": ["shop"]}, {"identity": WEB}, {"identity": "spiffe://cluster.local/x/shop/sa/web"}),
    ({"namespaces": ["shop"]}, {"identity": WEB}, {"identity": "spiffe://cluster.local/ns"}),
    ({"namespaces": ["shop"]}, {"identity": WEB}, {}),
    ({"trust_domains": ["cluster.local"]}, {"identity": WEB}, {}),
    ({"sources": ["10.0.0.0/8"]}, {"source": "10.1.2.3"}, {"source": "11.1.2.3"}),
    ({"sources": ["10.0.0.0/8"]}, {"source": "::ffff:10.1.2.3"}, {"source": ""}),
    ({"sources": ["192.0.2.7", "2001:db8::/32"]}, {"source": "192.0.2.7"}, {"source": "192.0.2.8"}),
    ({"sources": ["192.0.2.7", "2001:db8::/32"]}, {"source": "2001:db8::1"}, {"source": "2001:db9::1"}),
    ({"ports": [15006]}, {"identity": WEB}, {}),
    ({"methods": ["GET", "HEAD"]}, {}, {"method": "DELETE"}),
    ({"hosts": ["shop", "*.example.org"]}, {"host": "shop:80"}, {"host": "shopx"}),
    ({"hosts": ["Shop."]}, {"host": "SHOP."}, {"host": "a.shop"}),
    ({"hosts": ["shop", "*.example.org"]}, {"host": "a.example.org"}, {"host": "example.org"}),
    ({"hosts": ["[::1]"]}, {"host": "[::1]:80"}, {"host": "[::2]:80"}),
    ({"paths": ["/a"]}, {"target": "/a?b"}, {"target": "/a/"}),
    ({"paths": ["/a b"]}, {"target": "/a%20b"}, {"target": "/a"}),
    ({"paths": ["/é"]}, {"target": "/%c3%a9"}, {"target": "/e"}),
    ({"paths": ["/x", {"prefix": "/a/"}]}, {"target": "/a"}, {"target": "/ab"}),
    ({"paths": [{"template": "/u/{id}/é"}]}, {"target": "/u/7/%C3%A9"}, {"target": "/u/7/8/%C3%A9"}),
    ({"paths": [{"template": "/u/**"}]}, {"target": "/u/7/8"}, {"target": "/v/7"}),
    ({"paths": [{"regex": "/v[0-9]+/.*"}]}, {"target": "/v2/x"}, {"target": "/v/x"}),
    ({"headers": {"x-t": "1"}}, {"fields": [("X-T", "1")]}, {"fields": [("X-T", "2")]}),
    ({"headers": {"x-t": {"present": False}}}, {}, {"fields": [("X-T", "2")]}),
    ({"headers": {"Host": "shop:80"}}, {"host": "shop:80"}, {"host": "shop"}),
    ({"methods": ["GET"], "paths": ["/a"]}, {"target": "/a"}, {"target": "/b"}),
    ({"methods": ["GET"], "paths": ["/a"]}, {"target": "/a"}, {"target": "/a", "method": "PUT"}),
]  # fmt: skip


def said(harness: Harness, request: dict[str, Any], protocol: str = HTTP1) -> int:
    more = dict(request)
    return status(harness, protocol, more.pop("target", "/"), *more.pop("fields", ()), **more)


@pytest.mark.parametrize(("match", "inside", "outside"), CONDITIONS)
def test_a_rule_holds_for_what_it_says(
    make: Make, match: dict[str, Any], inside: dict[str, Any], outside: dict[str, Any]
) -> None:
    harness = ruled(make, [{"action": "allow", "match": match}])
    assert (said(harness, inside), said(harness, outside)) == (200, 403)
    harness.swap(
        role="inbound",
        certificates=CERTIFICATES,
        listener={"mtls": "permissive", "authorization": [{"action": "deny", "match": match}]},
    )
    assert (said(harness, inside), said(harness, outside)) == (403, 200)


@BOTH
def test_deny_wins_and_one_allow_rule_is_enough(make: Make, protocol: str) -> None:
    rules: Rules = [
        {"action": "allow", "match": {"paths": [{"prefix": "/a"}]}},
        {"action": "allow", "match": {"methods": ["PUT"]}},
        {"action": "deny", "match": {"paths": ["/a/secret"]}},
    ]
    harness = ruled(make, rules)
    targets = ["/a", "/b", "/a/secret"]
    assert [status(harness, protocol, target) for target in targets] == [200, 403, 403]
    found = [status(harness, protocol, target, method="PUT") for target in targets]
    assert found == [200, 200, 403]


def test_a_rule_without_a_match_holds_for_everything(make: Make) -> None:
    assert status(ruled(make, [{"action": "deny"}])) == 403
    assert status(ruled(make, [{"action": "allow"}])) == 200
    assert status(ruled(make, [])) == 200


def test_every_path_begins_with_a_slash_and_so_does_the_asterisk_for_all(make: Make) -> None:
    harness = ruled(make, [{"action": "deny", "match": {"paths": [{"prefix": "/"}]}}])
    assert status(harness, HTTP1, "/a/b") == 403
    assert status(harness, HTTP1, "*", method="OPTIONS") == 403


def test_exceptions_are_taken_out(make: Make) -> None:
    but = {"namespaces": ["shop"], "paths": [{"prefix": "/open"}]}
    harness = ruled(make, [{"action": "deny", "unless": but}])
    assert status(harness, HTTP1, "/open", identity=WEB) == 200
    assert status(harness, HTTP1, "/shut", identity=WEB) == 403
    assert status(harness, HTTP1, "/open", identity=BATCH) == 403


def test_identities_alone_are_looked_up_and_name_their_rule(make: Make) -> None:
    rules: Rules = [
        {"name": "jobs", "action": "deny", "match": {"identities": [BATCH]}},
        {"name": "shop", "action": "allow", "match": {"identities": [WEB]}},
        {"name": "both", "action": "allow", "match": {"identities": [WEB, BATCH]}},
    ]
    harness = ruled(make, rules)
    assert status(harness, identity=WEB) == 200
    seen = answer(harness, identity=BATCH)
    assert seen.status == 403
    assert f"rule jobs, peer {BATCH}".encode() in seen.body
    other = answer(harness, identity=WEB + "2")
    assert b"rule no-allow-rule, peer " in other.body


@BOTH
def test_a_caller_without_identity_is_told_no_names(make: Make, protocol: str) -> None:
    harness = ruled(make, [{"name": "internal-rule", "action": "deny"}])
    seen = answer(harness, protocol)
    assert (seen.status, harness.outcomes[0].flag) == (403, "RBAC")
    assert seen.body.startswith(b"sidecar: this is not allowed (code access-denied, flag RBAC, req")
    assert b"internal-rule" not in seen.body


def test_a_grpc_caller_is_denied_permission(make: Make) -> None:
    harness = ruled(make, [{"action": "deny"}])
    fields = ("Content-Type", "application/grpc")
    seen = answer(harness, HTTP1, "/s/m", fields, method="POST")
    assert seen.fields[b"grpc-status"] == b"7"


def test_rules_of_the_route_come_on_top(make: Make) -> None:
    rules = [{"action": "allow", "match": {"methods": ["GET", "PUT"]}}]
    route = {"authorization": [{"action": "allow", "match": {"methods": ["GET", "POST"]}}]}
    harness = ruled(make, rules, route=route)
    methods = ("GET", "PUT", "POST")
    assert [status(harness, method=method) for method in methods] == [200, 403, 403]


def test_a_preflight_is_answered_before_anybody_is_asked_who_it_is(make: Make) -> None:
    route = {"cors": {"origins": ["https://shop"]}, "authorization": [{"action": "deny"}]}
    harness = ruled(make, [{"action": "deny"}], route=route)
    fields = [("Origin", "https://shop"), ("Access-Control-Request-Method", "PUT")]
    assert status(harness, HTTP1, "/", *fields, method="OPTIONS") == 200
    assert status(harness, HTTP1, "/", *fields) == 403


# Paths:

SPELLINGS = [
    ("/admin", 403, "access-denied"),
    ("/%61dmin", 403, "access-denied"),
    ("/%41dmin", 200, ""),  # another path
    ("//admin", 400, "ambiguous-path"),
    ("/./admin", 400, "ambiguous-path"),
    ("/x/%2e%2e/admin", 400, "ambiguous-path"),
    ("/x%2fadmin", 400, "ambiguous-path"),
    ("/admin%00", 400, "ambiguous-path"),
    ("/admin;x", 400, "ambiguous-path"),
    ("/%2561dmin", 400, "ambiguous-path"),
    ("/x\\admin", 400, "ambiguous-path"),
    ("/other?a=//../%2f", 200, ""),  # the query is not looked at
]


@BOTH
@pytest.mark.parametrize(("target", "expected", "code"), SPELLINGS)
def test_a_rule_by_path_holds_for_every_spelling(
    make: Make, protocol: str, target: str, expected: int, code: str
) -> None:
    harness = ruled(make, [{"action": "deny", "match": {"paths": [{"prefix": "/admin"}]}}])
    assert status(harness, protocol, target) == expected
    assert harness.outcomes[0].code == code


def test_what_goes_on_is_the_target_as_it_came(make: Make) -> None:
    harness = ruled(make, [{"action": "deny", "match": {"paths": ["/admin"]}}])
    ask(harness, HTTP1, "/%7euser/%c3%a9?q=%41")
    assert harness.upstreams[0].take().startswith(b"GET /%7euser/%c3%a9?q=%41 HTTP/1.1\r\n")
    harness.upstreams[0].send(OK)


def test_without_rules_on_paths_no_spelling_is_refused(make: Make) -> None:
    harness = ruled(make, [{"action": "deny", "match": {"methods": ["PUT"]}}])
    assert status(harness, HTTP1, "//a/..%2f;x") == 200


@pytest.mark.parametrize(
    ("word", "target", "expected"),
    [
        ("resolve", "/x/..;/admin", 403),
        ("resolve", "/x%2f..%2fadmin", 403),
        ("resolve", "/adm%00in", 400),
        ("resolve", "/group%2fname", 200),
        ("keep", "/x/../admin", 200),
        ("keep", "/group%2Fname", 200),
        ("keep", "/%61dmin", 403),
        ("keep", "/adm%00in", 400),
    ],
)
def test_an_app_that_reads_paths_otherwise_may_be_named(
    make: Make, word: str, target: str, expected: int
) -> None:
    rules: Rules = [{"action": "deny", "match": {"paths": ["/admin"]}}]
    harness = ruled(make, rules, ambiguous_paths=word)
    assert status(harness, HTTP1, target) == expected


def routed(make: Make, **listener: Any) -> Harness:
    """Return a listener whose policy lies on some of its routes."""
    routes = [
        {"name": "secret", "match": {"prefix": "/admin"}, "cluster": "app",
         "authorization": [{"action": "deny"}]},
        {"name": "users", "match": {"template": "/users/*"}, "cluster": "app"},
        {"name": "rest", "cluster": "app"},
    ]  # fmt: skip
    harness = make(role="inbound", listener={"routes": routes, **listener})
    harness.connects_at_once = True
    return harness


@BOTH
@pytest.mark.parametrize(
    ("target", "expected", "code"),
    [
        ("/admin/x", 403, "access-denied"),
        ("/%61dmin/x", 400, "ambiguous-path"),  # route `rest`, and `secret` to the app
        ("/admin%2fx", 400, "ambiguous-path"),
        ("//admin", 400, "ambiguous-path"),
        ("/users/a%40b", 200, ""),
        ("/users/%7Eme", 200, ""),
        ("/%75sers/me", 400, "ambiguous-path"),
        ("/caf%c3%a9", 200, ""),
        ("/", 200, ""),
    ],
)
def test_no_spelling_leads_past_the_route_that_has_the_policy(
    make: Make, protocol: str, target: str, expected: int, code: str
) -> None:
    harness = routed(make)
    assert status(harness, protocol, target) == expected
    assert harness.outcomes[0].code == code


@pytest.mark.parametrize("host", ["admin", "ADMIN", "admin.", "admin:80", "admin.:80"])
def test_no_spelling_of_a_host_leads_past_the_route_that_has_the_policy(
    make: Make, host: str
) -> None:
    routes = [
        {"match": {"hosts": ["admin."]}, "cluster": "app", "authorization": [{"action": "deny"}]},
        {"cluster": "app"},
    ]
    harness = make(role="inbound", listener={"routes": routes})
    harness.connects_at_once = True
    assert status(harness, host=host) == 403
    assert status(harness, host="other.") == 200


def test_routes_without_a_policy_take_any_spelling(make: Make) -> None:
    routes = [{"match": {"path": "/admin"}, "cluster": "app"}, {"cluster": "app"}]
    harness = make(role="inbound", listener={"routes": routes})
    harness.connects_at_once = True
    assert status(harness, HTTP1, "//%61dmin;x") == 200


def test_a_route_that_is_not_found_by_path_takes_any_spelling(make: Make) -> None:
    harness = ruled(make, [], route={"authorization": [{"action": "allow"}]})
    assert status(harness, HTTP1, "//%61dmin;x") == 200


# Shadow rules:


def shadowed(make: Make, *rules: dict[str, Any]) -> tuple[Harness, list[bytes], MetricsSink]:
    harness = ruled(make, list(rules))
    lines: list[bytes] = []
    metrics = MetricsSink("web", "", 100)
    harness.engine.sinks = (*harness.engine.sinks, metrics, AccessLogSink(lines.append, "text"))
    return harness, lines, metrics


SHADOWS: list[tuple[Rules, int, str | None]] = [
    ([{"action": "deny", "shadow": True, "match": {"paths": ["/a"]}}], 200, "deny authorization[0]"),
    ([{"action": "deny", "shadow": True, "match": {"paths": ["/b"]}}], 200, None),
    ([{"action": "allow", "shadow": True, "match": {"paths": ["/b"]}}], 200, "deny no-allow-rule"),
    ([{"action": "allow", "shadow": True, "name": "n"}, {"action": "allow", "match": {"paths": ["/b"]}}], 403, "allow n"),
    ([{"action": "deny", "shadow": True}, {"action": "deny"}], 403, None),
    ([{"action": "deny", "shadow": True, "match": {"paths": ["/b"]}},
      {"action": "allow", "match": {"paths": ["/a"]}}], 200, None),
]  # fmt: skip


@pytest.mark.parametrize(("rules", "expected", "note"), SHADOWS)
def test_a_shadow_rule_only_tells_where_it_would_have_differed(
    make: Make, rules: Rules, expected: int, note: str | None
) -> None:
    harness, lines, metrics = shadowed(make, *rules)
    assert status(harness, HTTP1, "/a") == expected
    fields = harness.sink.exchanges[0].fields or {}
    assert fields.get("authorization_shadow") == note
    rows = {name: labels for name, labels, _ in metrics.rows()}
    labels = rows.get("sidecar_authorization_shadow_total")
    if note is None:
        assert labels is None
        assert b"shadow" not in lines[0]
    else:
        decision, _, rule = note.partition(" ")
        wanted = (("decision", decision), ("rule", rule), ("source_principal", "unknown"))
        assert labels == wanted
        assert lines[0].endswith(f' authorization_shadow="{note}"\n'.encode()) or expected == 403


@pytest.mark.parametrize(
    ("others", "expected", "note"),
    [([], 200, "deny ambiguous-path"), ([{"action": "deny"}], 403, None)],
)
def test_a_shadow_rule_refuses_no_spelling(
    make: Make, others: Rules, expected: int, note: str | None
) -> None:
    rule = {"action": "deny", "shadow": True, "match": {"paths": ["/admin"]}}
    harness, _, _ = shadowed(make, rule, *others)
    assert status(harness, HTTP1, "//admin") == expected
    fields = harness.sink.exchanges[0].fields or {}
    assert fields.get("authorization_shadow") == note


def test_a_denial_is_counted_and_logged_by_rule_and_caller(make: Make) -> None:
    harness, lines, metrics = shadowed(make, {"name": "closed", "action": "deny"})
    for identity in (WEB, WEB, None):
        assert status(harness, identity=identity) == 403
    rows = {
        labels: v for n, labels, v in metrics.rows() if n == "sidecar_authorization_denied_total"
    }
    assert rows == {
        (("rule", "closed"), ("source_principal", WEB)): (2,),
        (("rule", "closed"), ("source_principal", "unknown")): (1,),
    }
    assert f'peer="{WEB}" route="all"'.encode() in lines[0]
    assert lines[0].endswith(b' authorization_denied="closed"\n')


def test_callers_beyond_the_limit_of_series_are_counted_together(make: Make) -> None:
    harness = ruled(make, [{"name": "closed", "action": "deny"}])
    metrics = MetricsSink("web", "", 2)
    harness.engine.sinks = (metrics,)
    for index in range(5):
        assert status(harness, identity=f"{WEB}{index}") == 403
    rows = {labels[1][1]: v for n, labels, v in metrics.rows() if "denied" in n}
    assert rows == {f"{WEB}0": (1,), f"{WEB}1": (1,), "other": (3,)}


# Opaque sessions:


def session(harness: Harness, identity: str = "", server_name: str = "") -> str:
    """Open a session; return the code of its end, empty while it lives."""
    caller = Caller("10.9.9.9", 5000, ("10.0.0.9", 15006))
    caller.identity, caller.server_name = identity, server_name
    transport = FakeTransport(harness.soon, ("10.9.9.9", 5000))
    harness.callers.append(transport)
    opened = Session(harness.listener, caller, server_name)
    transport.set_protocol(opened)
    with harness.together():
        opened.connection_made(transport)
    return opened.code


DENIED = "access-denied"
SESSIONS: list[tuple[Rules, str, str]] = [
    ([{"action": "allow", "match": {"identities": [WEB]}}], "", DENIED),
    ([{"action": "allow", "match": {"namespaces": ["shop"]}}], "", DENIED),
    ([{"action": "deny", "match": {"namespaces": ["shop"]}}], DENIED, ""),
    ([{"action": "deny", "unless": {"namespaces": ["shop"]}}], "", DENIED),
    ([{"action": "allow", "match": {"sources": ["10.9.9.9"]}, "unless": {"ports": [15006]}}], DENIED, DENIED),
    # What is said of requests cannot be seen: less is let through.
    ([{"action": "allow", "match": {"namespaces": ["shop"], "methods": ["GET"]}}], DENIED, DENIED),
    ([{"action": "allow", "match": {"namespaces": ["shop"]}, "unless": {"methods": ["PUT"]}}], DENIED, DENIED),
    ([{"action": "deny", "match": {"namespaces": ["shop"], "methods": ["GET"]}}], DENIED, ""),
    ([{"action": "deny", "match": {"methods": ["GET"]}}], DENIED, DENIED),
    ([{"action": "deny", "unless": {"namespaces": ["shop"], "paths": ["/a"]}}], DENIED, DENIED),
]  # fmt: skip


@pytest.mark.parametrize(("rules", "of_web", "of_batch"), SESSIONS)
def test_opaque_sessions_are_held_to_what_can_be_seen_of_them(
    make: Make, rules: Rules, of_web: str, of_batch: str
) -> None:
    harness = ruled(make, rules, protocol="auto")
    assert (session(harness, WEB), session(harness, BATCH)) == (of_web, of_batch)


def test_a_session_may_be_told_by_the_name_it_asks_for(make: Make) -> None:
    rules: Rules = [{"action": "allow", "match": {"server_names": ["db", "*.db"]}}]
    harness = ruled(make, rules, protocol="tcp")
    names = ("db", "a.db", "xdb", "")
    assert [session(harness, WEB, name) for name in names] == ["", "", DENIED, DENIED]


def hello(name: str) -> bytes:
    """Return the first octets of a TLS client that asks for `name`."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def test_tls_that_is_passed_on_unopened_is_told_by_its_hello(make: Make) -> None:
    rules: Rules = [{"action": "allow", "match": {"server_names": ["*.internal"]}}]
    route = {"match": {"sni": ["db.internal", "evil.example"]}}
    harness = make(protocol="tcp", listener={"authorization": rules}, route=route)
    harness.connects_at_once = True
    kept, refused = harness.open(hello("DB.internal")), harness.open(hello("evil.example"))
    assert (kept.fate, refused.fate) == ("open", "reset")
    assert [outcome.code for outcome in harness.sink.sessions] == [DENIED]


def test_a_refused_session_says_why_in_log_and_metric(make: Make) -> None:
    rules: Rules = [
        {"name": "closed", "action": "deny", "match": {"namespaces": ["jobs"]}},
        {"name": "soon", "action": "deny", "shadow": True},
    ]
    harness, lines, metrics = shadowed(make, *rules)
    assert (session(harness, BATCH), session(harness, WEB)) == (DENIED, "")
    assert lines[0].endswith(b' authorization_denied="closed"\n')
    harness.callers[1].lose()
    assert lines[1].endswith(b' authorization_shadow="deny soon"\n')
    names = {name for name, _, _ in metrics.rows()}
    assert {"sidecar_authorization_denied_total", "sidecar_authorization_shadow_total"} <= names


def test_no_session_goes_past_the_policy_of_a_route(make: Make) -> None:
    # A caller that stays silent at first would be served as opaque, and could then ask anything.
    harness = routed(make, protocol="auto")
    caller = harness.open()
    harness.advance(1.0)
    assert caller.fate == "reset"
    assert harness.sink.sessions[0].code == "requests-only"
    assert harness.dials == []


def test_http_callers_of_such_a_listener_are_served(make: Make) -> None:
    harness = routed(make, protocol="auto")
    assert status(harness, HTTP1, "/users/me") == 200
