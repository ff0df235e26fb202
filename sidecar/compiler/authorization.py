"""Authorization rules to the policy that the filter decides by."""

import ipaddress
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from sidecar.compiler.fields import text_test
from sidecar.compiler.patterns import path_test
from sidecar.core.credential import claim_values, credential_of
from sidecar.core.exchange import Exchange
from sidecar.errors import ConfigError
from sidecar.filters.authorization import (
    Authorization,
    Clause,
    Decision,
    OfCaller,
    OfRequest,
    Policy,
    Rule,
    Settings,
)
from sidecar.identity.spiffe import is_spiffe_id, namespace, trust_domain
from sidecar.model.authorization import AccessMatch, AuthorizationRule, PathMatch
from sidecar.model.match import StringMatch
from sidecar.wire.path import READS, kept

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_FIELD: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 §5.1
_LABEL: Final = re.compile(r"[a-zA-Z0-9._-]+")
_PORT: Final = re.compile(rb":[0-9]*$")
_OF_IDENTITIES: Final = ("identities", "namespaces", "trust_domains")
OF_REQUESTS: Final = ("hosts", "methods", "paths", "headers", "claims", "users")
"""Conditions that opaque sessions cannot have."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What the rules of one listener, and of its routes, stand on."""

    ambiguous_paths: str = "reject"
    """The listener's word."""

    has_identities: bool = True
    """Callers may show certificates."""

    is_tcp: bool = False
    """There are no requests."""

    has_claims: bool = False
    """Requests bring tokens."""

    has_users: bool = False
    """Requests bring API keys or passwords."""

    taken: frozenset[str] = frozenset()
    """Fields of a listener that take out what they have verified."""


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A rule in each of the forms that it is used in."""

    model: AuthorizationRule
    rule: Rule
    for_sessions: Rule | None  # None: it never matches there
    looks_at_paths: bool


def authorization_filter(
    rules: tuple[AuthorizationRule, ...], path: str, ground: Ground, errors: list[ConfigError]
) -> Authorization:
    """Return the filter that decides by `rules`."""
    names: set[str] = set()
    found = []
    for index, model in enumerate(rules):
        where = f"{path}[{index}]"
        name = model.name or f"authorization[{index}]"
        if name in names:
            errors.append(ConfigError(f"{where}.name", f"two rules are called {name!r}"))
        names.add(name)
        found.append(_compile(model, name, where, ground, errors))
    real = [rule for rule in found if not rule.model.shadow]
    has_shadow = len(real) < len(found)
    read = READS[ground.ambiguous_paths]
    sees_paths = any(rule.looks_at_paths for rule in real)
    shadow_sees = any(rule.looks_at_paths for rule in found)
    return Authorization(
        Settings(
            _policy(real),
            _policy(real, sessions=True),
            read if sees_paths else None,
            _policy(found) if has_shadow else None,
            _policy(found, sessions=True) if has_shadow else None,
            read if shadow_sees and not sees_paths else None,
        )
    )


def wants_server_names(rules: Iterable[AuthorizationRule]) -> bool:
    """Say whether any rule looks at the name of the caller's TLS hello."""
    return any(m.server_names for rule in rules for m in (rule.match, rule.unless) if m is not None)


def _compile(
    model: AuthorizationRule, name: str, path: str, ground: Ground, errors: list[ConfigError]
) -> _Compiled:
    match = _clause(model.match, f"{path}.match", ground, errors)
    unless = None
    sees_paths = bool(model.match.paths)
    if model.unless is not None:
        if model.unless == AccessMatch():
            errors.append(ConfigError(f"{path}.unless", "excepts everything: expected a condition"))
        unless = _clause(model.unless, f"{path}.unless", ground, errors)
        sees_paths = sees_paths or bool(model.unless.paths)
    rule = Rule(Decision(model.action == "allow", name), match, unless)
    return _Compiled(model, rule, _for_sessions(rule), sees_paths)


def _for_sessions(rule: Rule) -> Rule | None:
    """Return `rule` where nothing is known of requests, in the sense that lets fewer through."""
    match, unless = Clause(rule.match.caller), rule.unless
    if rule.decision.allowed:
        if rule.match.request:
            return None
        if unless is not None:
            unless = Clause(unless.caller)  # what is not known might hold: so it does
    elif unless is not None and unless.request:
        unless = None  # what is not known might not hold: so it does not
    return Rule(rule.decision, match, unless)


def _policy(rules: list[_Compiled], *, sessions: bool = False) -> Policy:
    tables: dict[str, dict[str, Decision]] = {"allow": {}, "deny": {}}
    others: dict[str, list[Rule]] = {"allow": [], "deny": []}
    for compiled in rules:
        model = compiled.model
        rule = compiled.for_sessions if sessions else compiled.rule
        if rule is None:
            continue
        exact = _only_identities(model)
        if exact is None:
            others[model.action].append(rule)
        else:
            for identity in exact:
                tables[model.action].setdefault(identity, rule.decision)
    return Policy(
        tables["deny"],
        tuple(others["deny"]),
        tables["allow"],
        tuple(others["allow"]),
        not any(compiled.model.action == "allow" for compiled in rules),
    )


def _only_identities(model: AuthorizationRule) -> list[str] | None:
    """Return the identities of a rule that says nothing but whole ones."""
    identities = model.match.identities
    exact = _exact(identities)
    is_plain = model.unless is None and model.match == AccessMatch(identities=identities)
    return exact if is_plain and exact and len(exact) == len(identities) else None


def _clause(match: AccessMatch, path: str, ground: Ground, errors: list[ConfigError]) -> Clause:
    """Return the tests of `match`, the cheap ones first."""
    if not ground.has_identities:
        errors += [
            ConfigError(f"{path}.{kind}", "needs mtls: without it nobody has an identity")
            for kind in _OF_IDENTITIES
            if getattr(match, kind)
        ]
    if ground.is_tcp:
        errors += [
            ConfigError(f"{path}.{kind}", "a tcp listener sees no requests")
            for kind in OF_REQUESTS
            if getattr(match, kind)
        ]
    return Clause(_of_caller(match, path, errors), _of_request(match, path, ground, errors))


def _of_caller(match: AccessMatch, path: str, errors: list[ConfigError]) -> tuple[OfCaller, ...]:
    found: list[OfCaller] = []
    if match.ports:
        ports = frozenset(match.ports)
        found.append(lambda caller: caller.local[1] in ports)
    for kind in ("namespaces", "trust_domains"):
        for index, word in enumerate(getattr(match, kind)):
            if not _LABEL.fullmatch(word):
                detail = f"expected one label of a SPIFFE ID, got {word!r}"
                errors.append(ConfigError(f"{path}.{kind}[{index}]", detail))
    if match.trust_domains:
        domains = frozenset(match.trust_domains)
        found.append(lambda caller: trust_domain(caller.identity) in domains)
    if match.namespaces:
        spaces = frozenset(match.namespaces)
        found.append(lambda caller: namespace(caller.identity) in spaces)
    if match.server_names:
        named = _names(match.server_names, f"{path}.server_names", errors)
        found.append(lambda caller: named(caller.server_name.encode()))
    if match.identities:
        for index, text in enumerate(match.identities):
            if text.exact is not None and not is_spiffe_id(text.exact):
                where = f"{path}.identities[{index}]"
                errors.append(ConfigError(where, f"no SPIFFE ID: {text.exact!r}"))
        texts = any_text(match.identities, f"{path}.identities", errors)
        found.append(lambda caller: texts(caller.identity.encode() or None))
    if match.sources:
        found.append(_sources(match.sources, f"{path}.sources", errors))
    return tuple(found)


def _of_request(
    match: AccessMatch, path: str, ground: Ground, errors: list[ConfigError]
) -> tuple[OfRequest, ...]:
    found: list[OfRequest] = []
    for index, method in enumerate(match.methods):
        if not method or method != method.upper():  # methods are case-sensitive: RFC 9110 §9.1
            where = f"{path}.methods[{index}]"
            errors.append(ConfigError(where, f"expected capitals, got {method!r}"))
    if match.methods:
        methods = frozenset(method.encode() for method in match.methods)
        found.append(lambda exchange, path: exchange.head.method in methods)
    if match.hosts:
        named = _names(match.hosts, f"{path}.hosts", errors)
        found.append(lambda exchange, path: named(_host(exchange.head.authority)))
    if match.paths:
        found.append(_paths(match.paths, f"{path}.paths", ground, errors))
    for name, text in match.headers.items():
        where = f"{path}.headers.{name}"
        if not _FIELD.fullmatch(name):
            errors.append(ConfigError(where, f"no field can be called {name!r}"))
        found.append(_header(name.lower().encode(), text, where, errors))
    if match.claims and not ground.has_claims and not ground.is_tcp:
        errors.append(ConfigError(f"{path}.claims", "needs `jwt` here or on the listener"))
    for name, text in match.claims.items():
        found.append(_claim(name, text, f"{path}.claims.{name}", errors))
    if match.users and not ground.has_users and not ground.is_tcp:
        detail = "needs `api_keys` or `basic_auth` here or on the listener"
        errors.append(ConfigError(f"{path}.users", detail))
    if match.users:
        users = any_text(match.users, f"{path}.users", errors)
        found.append(lambda exchange, path: users(credential_of(exchange).user.encode() or None))
    return tuple(found)


def any_text(
    matches: tuple[StringMatch, ...], path: str, errors: list[ConfigError]
) -> Callable[[bytes | None], bool]:
    """Return the test whether one of `matches` holds: a set for whole texts, then one by one."""
    tests = [text_test(match, f"{path}[{index}]", errors) for index, match in enumerate(matches)]
    exact = frozenset(text.encode() for text in _exact(matches))
    others = [t for t, match in zip(tests, matches, strict=True) if not _exact((match,))]
    return lambda value: value in exact or any(test(value) for test in others)


def _exact(matches: tuple[StringMatch, ...]) -> list[str]:
    """Return the texts that are given whole."""
    return [m.exact for m in matches if m.exact is not None and not m.invert]


def _names(names: tuple[str, ...], path: str, errors: list[ConfigError]) -> Callable[[bytes], bool]:
    for index, name in enumerate(names):
        if not re.fullmatch(r"(?:\*\.)?[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]", name):
            detail = f"expected a name or *.name, without port or path; got {name!r}"
            errors.append(ConfigError(f"{path}[{index}]", detail))
    low = [name.lower().rstrip(".").encode() for name in names]
    exact = frozenset(name for name in low if not name.startswith(b"*."))
    below = tuple(name[1:] for name in low if name.startswith(b"*."))
    return lambda name: name in exact or name.endswith(below)


def _host(authority: bytes) -> bytes:
    """Return the host that is meant: `a.` is `a`, as for who resolves it."""
    return _PORT.sub(b"", authority).rstrip(b".")


def _sources(sources: tuple[str, ...], path: str, errors: list[ConfigError]) -> OfCaller:
    networks: list[Network] = []
    for index, text in enumerate(sources):
        try:
            networks.append(ipaddress.ip_network(text))
        except ValueError as error:
            detail = f"expected a network like 10.0.0.0/8, or an address: {error}"
            errors.append(ConfigError(f"{path}[{index}]", detail))
    hosts = frozenset(str(n.network_address) for n in networks if n.num_addresses == 1)
    wide = [n for n in networks if n.num_addresses > 1]

    @lru_cache(1024)  # reading an address takes 2 us
    def holds(host: str) -> bool:
        try:
            address = ipaddress.ip_address(host)
        except ValueError:  # a unix socket
            return False
        plain = getattr(address, "ipv4_mapped", None) or address  # `::ffff:10.0.0.1` is 10.0.0.1
        return str(plain) in hosts or any(plain in network for network in wide)

    return lambda caller: holds(caller.host)


def _paths(
    paths: tuple[PathMatch, ...], path: str, ground: Ground, errors: list[ConfigError]
) -> OfRequest:
    exact: set[bytes] = set()
    tests = []
    for index, match in enumerate(paths):
        where = f"{path}[{index}]"
        if match == PathMatch():
            detail = "expected one of path, prefix, regex, template"
            errors.append(ConfigError(where, detail))
        for kind in ("path", "prefix", "template"):
            value = getattr(match, kind) or ""
            if value[:1] == "/" and READS[ground.ambiguous_paths](value.encode()) != _spell(value):
                detail = f"no path of a request is read as {value!r} (see `ambiguous_paths`)"
                errors.append(ConfigError(f"{where}.{kind}", detail))
        test = path_test(match, where, errors, _spell) or (lambda target: True)
        if match.path is not None:
            exact.add(_spell(match.path))
        else:
            tests.append(test)
    if not exact and len(tests) == 1:
        (only,) = tests
        return lambda exchange, path: only(path)
    return lambda exchange, path: path in exact or any(test(path) for test in tests)


def _spell(text: str) -> bytes:
    return kept(text.encode()) or text.encode()


def _header(name: bytes, text: StringMatch, path: str, errors: list[ConfigError]) -> OfRequest:
    test = text_test(text, path, errors)
    if name == b"host":  # HTTP/2 has it as the authority
        return lambda exchange, path: test(exchange.head.authority)
    return lambda exchange, path: test(exchange.head.get(name))


def _claim(name: str, text: StringMatch, path: str, errors: list[ConfigError]) -> OfRequest:
    test = text_test(text, path, errors)
    every = all if text.invert else any  # `not admin`: no element is

    def holds(exchange: Exchange, path: bytes) -> bool:
        values = claim_values(credential_of(exchange).claims, name)
        return every(map(test, values)) if values else test(None)

    return holds
