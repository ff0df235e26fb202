"""A rate that a service keeps, as a filter."""

from typing import Final

from sidecar.compiler.context import Context
from sidecar.compiler.rules import part_of, rule_conditions
from sidecar.core.api import HttpFilter
from sidecar.core.limit import Part
from sidecar.errors import ConfigError
from sidecar.filters import global_rate_limit
from sidecar.model.quota import RateLimit, RateLimitService

_KEYS: Final = {"source": "remote_address"}  # what Envoy's users call it
_OWN: Final = RateLimit()
_NOT_OURS: Final = ("requests", "per", "burst", "max_keys", "shared")


def service_filter(
    model: RateLimit, service: RateLimitService, name: str, path: str, context: Context
) -> HttpFilter:
    """Return the filter of a rule that `service` keeps."""
    errors = context.errors
    errors += [
        ConfigError(f"{path}.{kind}", "is the service's to say")
        for kind in _NOT_OURS
        if getattr(model, kind) != getattr(_OWN, kind)
    ]
    for word in service.keys:
        if word not in model.by:
            errors.append(ConfigError(f"{path}.service.keys.{word}", "is not among `by`"))
    entries = [
        (_key(word, service), part_of(word, f"{path}.by[{index}]", errors))
        for index, word in enumerate(model.by)
    ]
    where = f"{path}.service.cluster"
    call = context.call(
        "ratelimit", service.cluster, where, service.timeout, repeatable=True, grpc=True
    )
    tests = rule_conditions(model.match, f"{path}.match", context)
    if call is None:
        return HttpFilter()
    name = model.name or name
    settings = global_rate_limit.Settings(
        name,
        tests,
        call,
        (service.authority or service.cluster).encode(),
        service.domain.encode(),
        tuple(entries) or ((b"generic_key", _named(name)),),
        service.on_failure == "open",
        model.shadow,
    )
    return global_rate_limit.GlobalRateLimit(settings)


def _key(word: str, service: RateLimitService) -> bytes:
    usual = _KEYS.get(word)
    if usual is None:
        kind, _, name = word.partition(":")
        usual = name.lower() if kind == "header" else name or kind
    return service.keys.get(word, usual).encode()


def _named(name: str) -> Part:
    value = name.encode()
    return lambda exchange: value
