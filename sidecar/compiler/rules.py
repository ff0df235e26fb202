"""What rules within a route have in common: which requests they look at, and by what they tell them apart."""

import re
from typing import Final

from sidecar.compiler.context import Context
from sidecar.compiler.fields import conditions
from sidecar.core.credential import claim_values, credential_of
from sidecar.core.limit import Part
from sidecar.core.plan import Condition
from sidecar.errors import ConfigError
from sidecar.model.match import RouteMatch

_HEADER: Final = re.compile(r"header:([!#$%&'*+.^_`|~0-9A-Za-z-]+)")
_PARTS: Final[dict[str, Part]] = {
    "peer": lambda exchange: exchange.caller.identity.encode(),
    "source": lambda exchange: exchange.caller.host.encode(),
    "path": lambda exchange: exchange.head.path,
    "method": lambda exchange: exchange.head.method,
    "host": lambda exchange: exchange.head.authority,
    "user": lambda exchange: credential_of(exchange).user.encode(),
}


def rule_conditions(match: RouteMatch, path: str, context: Context) -> tuple[Condition, ...]:
    """Return the tests of a rule's `match`."""
    for kind in ("hosts", "sni"):
        if getattr(match, kind):
            detail = "is looked at by the route's match only"
            context.errors.append(ConfigError(f"{path}.{kind}", detail))
    return conditions(match, path, context.errors, context.draw)


def part_of(word: str, path: str, errors: list[ConfigError]) -> Part:
    """Return what one word of `by` means."""
    header = _HEADER.fullmatch(word)
    if header is not None:
        name = header[1].lower().encode()
        return lambda exchange: exchange.head.get(name) or b""
    if word.startswith("claim:"):
        claim = word.removeprefix("claim:")
        return lambda exchange: b",".join(claim_values(credential_of(exchange).claims, claim))
    part = _PARTS.get(word)
    if part is None:
        expected = ", ".join([*_PARTS, "header:NAME", "claim:NAME"])
        errors.append(ConfigError(path, f"expected one of {expected}; got {word!r}"))
        return lambda exchange: b""
    return part
