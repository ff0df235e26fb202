"""What is wrong with stores, and with their names where rules use them."""

from collections.abc import Collection
from typing import Final
from urllib.parse import SplitResult, urlsplit

from sidecar.errors import ConfigError, nearest
from sidecar.model.store import Redis, Store

_SCHEMES: Final = ("redis", "rediss", "unix")
_FOR_TLS: Final = ("roots", "certificate", "key")


def check_stores(stores: tuple[Store, ...], errors: list[ConfigError]) -> tuple[str, ...]:
    """Return the names of `stores`, after noting what is wrong with them."""
    names: list[str] = []
    for index, store in enumerate(stores):
        path = f"stores[{index}]"
        if not store.name:
            errors.append(ConfigError(f"{path}.name", "expected a name, got an empty text"))
        if store.name in names:
            errors.append(ConfigError(f"{path}.name", f"{store.name!r} is defined twice"))
        names.append(store.name)
        _check_redis(store.redis, f"{path}.redis", errors)
    return tuple(names)


def store_named(name: str, path: str, stores: Collection[str], errors: list[ConfigError]) -> None:
    """Note an error that offers the nearest name unless there is a store called `name`."""
    if name not in stores:
        near = nearest(name, stores)
        hint = f" (did you mean {near!r}?)" if near else ""
        errors.append(ConfigError(path, f"no store is named {name!r}{hint}"))


def _check_redis(redis: Redis, path: str, errors: list[ConfigError]) -> None:
    problem, scheme = "", ""
    try:
        url = urlsplit(redis.url)
        scheme = url.scheme
        problem = _problem(url)
    except ValueError as error:  # of the port, or of brackets
        problem = f"not a URL: {error}"
    if problem:
        errors.append(ConfigError(f"{path}.url", problem))
    if scheme != "rediss":
        errors += [
            ConfigError(f"{path}.{name}", "needs a url that begins with rediss://")
            for name in _FOR_TLS
            if getattr(redis, name)
        ]
    if bool(redis.certificate) != bool(redis.key):
        errors.append(ConfigError(path, "expected both of certificate and key, or neither"))
    errors += [
        ConfigError(f"{path}.{name}", "expected more than 0")
        for name in ("timeout", "connect_timeout")
        if not getattr(redis, name)
    ]


def _problem(url: SplitResult) -> str:
    """Return what is wrong with the URL of a Redis; empty if nothing is."""
    if url.scheme not in _SCHEMES:
        return f"expected redis://, rediss:// or unix://, got {url.scheme or 'nothing'!r}"
    if url.username is not None or url.password is not None:
        return "expected no user and no password: use `username` and `password_file`"
    if url.scheme == "unix":
        is_number = not url.query or url.query.removeprefix("db=").isdecimal()
        return "" if url.path and is_number else "expected unix:///path or unix:///path?db=NUMBER"
    database = url.path.removeprefix("/")
    if not url.hostname or url.query or (database and not database.isdecimal()):
        return "expected redis://host:port/database"
    return "" if url.port != 0 else "expected a port from 1 to 65535, got 0"
