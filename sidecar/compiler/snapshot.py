"""A snapshot to a plan: whole, or not at all and with every error."""

import hashlib
import random
from collections.abc import Callable, Container, Hashable
from functools import cache
from typing import Any

import msgspec

from sidecar.compiler.access import notes_names
from sidecar.compiler.clusters import ClusterCompiler
from sidecar.compiler.context import Context
from sidecar.compiler.listeners import (
    APP,
    app_cluster,
    compile_inbound,
    compile_outbound,
    make_server_tls,
    make_simple_tls,
)
from sidecar.compiler.overload import check_overload
from sidecar.compiler.stores import check_stores
from sidecar.core.api import Draw
from sidecar.core.book import Book, Endpoint
from sidecar.core.plan import ClusterPlan, Dial, Dialled, ListenerPlan, Plan
from sidecar.core.types import Caller
from sidecar.errors import ConfigError, ConfigErrors
from sidecar.model.identity import Secret
from sidecar.model.snapshot import Snapshot
from sidecar.plugin import Plugin, discover


def version_of(snapshot: Snapshot) -> str:
    """Return a short name of what `snapshot` says: equal snapshots have equal versions."""
    return hashlib.sha256(msgspec.msgpack.encode(snapshot)).hexdigest()[:12]


def check(snapshot: Snapshot, secret: Secret | None, *, runs_filters: bool = False) -> None:
    """Compile `snapshot` for its errors alone.

    The code of filters is looked at, and run only if `runs_filters` says so.

    Raises:
        ConfigErrors: all that is wrong, each with its path.
    """
    compile_snapshot(snapshot, secret, Book(), no_dial, runs_filters=runs_filters)


def compile_snapshot(
    snapshot: Snapshot,
    secret: Secret | None,
    book: Book,
    dial: Dial,
    draw: Draw = random.random,
    *,
    is_trial: bool = False,
    runs_filters: bool = True,
) -> Plan:
    """Return the plan of `snapshot`, with the endpoints that `book` knows already.

    `book` is renewed only when there is no error; one of a trial is thrown away.  Listeners are keyed
    by address, clusters by name.

    Raises:
        ConfigErrors: all that is wrong, each with its path.
    """
    errors: list[ConfigError] = []
    _check_names(snapshot, errors)
    check_overload(snapshot.overload, errors)
    if book.clusters and not is_trial:
        trial = book.outline()
        compile_snapshot(
            snapshot, secret, trial, dial, is_trial=True, runs_filters=runs_filters
        )  # raises before it touches
        book.kept = trial.kept  # what was begun there is not begun again: code runs once
    compiler = ClusterCompiler(snapshot, secret, book, _balancers(), dial, draw, errors)
    models = [(c, f"clusters[{i}]") for i, c in enumerate(snapshot.clusters)]
    for index, inbound in enumerate(snapshot.inbound):
        app = app_cluster(inbound)
        if app is not None:
            models.append((app, f"inbound[{index}].app"))
    clusters: dict[str, ClusterPlan] = {}
    for model, path in models:
        plan = clusters[model.name] = compiler.compile(model, path)
        plan.state.renew(compiler.fingerprint(model))
        if model.name.startswith(APP):
            plan.service = snapshot.workload.name
    needs_tls = any(listener.mtls != "off" for listener in snapshot.inbound)
    noting = notes_names(snapshot)
    tls = make_server_tls(secret, errors, notes_names=noting) if needs_tls else None
    kept: dict[Hashable, Any] = {}

    def keep(key: Hashable, begin: Callable[[], Any]) -> Any:
        kept[key] = book.kept[key] if key in book.kept else begin()
        return kept[key]

    context = Context(
        clusters=clusters,
        subset=compiler.subset,
        keep=keep,
        workers=snapshot.process.workers,
        stores=check_stores(snapshot.stores, errors),
        draw=draw,
        errors=errors,
        runs_filters=runs_filters,
        listeners=(
            *[listener.address for listener in snapshot.inbound],
            *[listener.address for listener in snapshot.outbound],
        ),
        files={} if secret is None else secret.files,
    )
    listeners: dict[str, ListenerPlan] = {}
    for index, inbound in enumerate(snapshot.inbound):
        path, own = f"inbound[{index}]", tls
        if inbound.tls is not None:
            own = make_simple_tls(inbound, path, secret, errors, notes_names=noting)
        listeners[inbound.address] = compile_inbound(inbound, path, snapshot, context, own)
    for index, outbound in enumerate(snapshot.outbound):
        listeners[outbound.address] = compile_outbound(outbound, f"outbound[{index}]", context)
    if errors:
        book.clusters.clear()  # it was empty: what had one was compiled for its errors before
        raise ConfigErrors(errors)
    for name in [n for n in book.clusters if n not in clusters]:
        book.cluster(name).renew(b"removed")
        del book.clusters[name]
    book.kept = kept
    return Plan(version_of(snapshot), snapshot.workload.identity, listeners, clusters, snapshot)


def compile_clusters(
    snapshot: Snapshot, secret: Secret | None, names: Container[str], dial: Dial
) -> dict[str, ClusterPlan]:
    """Return plans of the clusters in `names` that say how their endpoints are reached, not which.

    Raises:
        ConfigErrors: all that is wrong with these clusters.
    """
    errors: list[ConfigError] = []
    compiler = ClusterCompiler(snapshot, secret, Book(), _balancers(), dial, random.random, errors)
    plans = {
        # One endpoint stands for all: balancers make large tables for many.
        cluster.name: compiler.compile(
            msgspec.structs.replace(cluster, endpoints=cluster.endpoints[:1]), f"clusters[{index}]"
        )
        for index, cluster in enumerate(snapshot.clusters)
        if cluster.name in names
    }
    if errors:
        raise ConfigErrors(errors)
    return plans


def _check_names(snapshot: Snapshot, errors: list[ConfigError]) -> None:
    if not snapshot.inbound and not snapshot.outbound:
        errors.append(ConfigError("", "no listener: expected `inbound` or `outbound`"))
    if not snapshot.workload.name:
        errors.append(ConfigError("workload.name", "expected a name, got an empty text"))
    seen: set[str] = set()
    for index, cluster in enumerate(snapshot.clusters):
        problem = ""
        if not cluster.name:
            problem = "expected a name, got an empty text"
        elif cluster.name.startswith(APP):
            problem = f"names that begin with {APP} are taken: they stand for the apps of listeners"
        elif cluster.name in seen:
            problem = f"{cluster.name!r} is defined twice"
        if problem:
            errors.append(ConfigError(f"clusters[{index}].name", problem))
        seen.add(cluster.name)
    addresses: dict[str, str] = {}
    names: dict[str, str] = {}
    listeners = [(f"inbound[{i}]", x.address, x.name) for i, x in enumerate(snapshot.inbound)]
    listeners += [(f"outbound[{i}]", x.address, x.name) for i, x in enumerate(snapshot.outbound)]
    for path, address, name in listeners:
        for value, taken, what in ((address, addresses, "address"), (name, names, "name")):
            if value and value in taken:
                errors.append(
                    ConfigError(f"{path}.{what}", f"{value} is used by {taken[value]} already")
                )
            taken[value] = path


@cache
def _balancers() -> dict[str, Plugin]:
    return discover("sidecar.balancers")


def no_dial(
    cluster: ClusterPlan, endpoint: Endpoint, protocol: Dialled, caller: Caller | None
) -> None:
    """Stand in for a dialler where a plan is made to be looked at only."""
    raise AssertionError("a plan that is only checked dials nobody")
