"""What a health check can say wrongly."""

import re
from typing import Final

from sidecar.errors import ConfigError
from sidecar.model.cluster import Cluster
from sidecar.model.health import HealthCheck

KINDS: Final = ("http", "tcp", "grpc", "command")

_PATH: Final = re.compile(r"/[!-~]*")  # RFC 9112 §3.2.1: visible ASCII
_AUTHORITY: Final = re.compile(r"[A-Za-z0-9._~:\[\]-]*")  # RFC 3986 §3.2.2 and a port
_STATUSES: Final = re.compile(r"([1-5][0-9][0-9])(?:-([1-5][0-9][0-9]))?")


def check_health(cluster: Cluster, path: str, errors: list[ConfigError]) -> None:
    """Add what is wrong with the health checks of `cluster` to `errors`."""
    for index, check in enumerate(cluster.health_checks):
        _check(cluster, check, f"{path}.health_checks[{index}]", errors)


def statuses(text: str) -> range | None:
    """Return the statuses that `200` or `200-299` means; None if it means none."""
    match = _STATUSES.fullmatch(text)
    if match is None:
        return None
    return range(int(match[1]), int(match[2] or match[1]) + 1) or None


def _check(cluster: Cluster, check: HealthCheck, path: str, errors: list[ConfigError]) -> None:
    given = [kind for kind in KINDS if getattr(check, kind) is not None]
    if len(given) != 1:
        what = f"got {' and '.join(given)}" if given else "got none (`tcp: {}` is the simplest)"
        errors.append(ConfigError(path, f"expected exactly one of {', '.join(KINDS)}; {what}"))
    if check.http is not None:
        http = check.http
        if not _PATH.fullmatch(http.path) or "#" in http.path:
            detail = f"expected a leading / and visible ASCII, got {http.path[:80]!r}"
            errors.append(ConfigError(f"{path}.http.path", detail))
        _authority(http.host, f"{path}.http.host", errors)
        where = f"{path}.http.expected_statuses"
        if not http.expected_statuses:
            errors.append(ConfigError(where, "expected at least one status"))
        for index, text in enumerate(http.expected_statuses):
            if statuses(text) is None:
                detail = f"expected a status like 200 or a range like 200-299, got {text[:80]!r}"
                errors.append(ConfigError(f"{where}[{index}]", detail))
    if check.grpc is not None:
        _authority(check.grpc.authority, f"{path}.grpc.authority", errors)
        if cluster.protocol == "http1":
            errors.append(ConfigError(f"{path}.grpc", "needs HTTP/2, and `protocol` says http1"))
    if check.command is not None:
        argv = check.command.argv
        if not argv or not argv[0] or any("\0" in word for word in argv):
            detail = f"expected a program and its arguments, got {list(argv)!r}"
            errors.append(ConfigError(f"{path}.command.argv", detail))


def _authority(text: str, path: str, errors: list[ConfigError]) -> None:
    if not _AUTHORITY.fullmatch(text):
        errors.append(ConfigError(path, f"expected a host, or host:port, got {text[:80]!r}"))
