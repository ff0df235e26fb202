"""Which API keys and passwords a listener or route takes, as its filters."""

from __future__ import annotations

import re
from collections.abc import Callable
from hashlib import sha256
from typing import TypeVar

from sidecar.compiler.context import Context
from sidecar.compiler.locations import header_names, location
from sidecar.core.credential import lookalikes
from sidecar.errors import ConfigError
from sidecar.filters import api_keys, basic_auth
from sidecar.identity.hashed import nobody, read_keys, read_passwords
from sidecar.model.credentials import ApiKeys, BasicAuth

Table = TypeVar("Table")


def api_keys_filter(model: ApiKeys, path: str, context: Context) -> api_keys.ApiKeys:
    """Return the filter for `model`."""
    if not model.locations:
        context.errors.append(ConfigError(f"{path}.locations", "expected at least one"))
    header, spoofed = _told(model, path, context)
    return api_keys.ApiKeys(
        api_keys.Settings(
            _read(model.file, path, context, read_keys)[0] or {},
            tuple(
                location(word, f"{path}.locations[{index}]", context.errors)
                for index, word in enumerate(model.locations)
            ),
            model.required,
            model.forward,
            header,
            spoofed,
        )
    )


def basic_auth_filter(model: BasicAuth, path: str, context: Context) -> basic_auth.BasicAuth:
    """Return the filter for `model`."""
    header, spoofed = _told(model, path, context)
    found, digest = _read(model.file, path, context, read_passwords)
    passwords = found or {}
    return basic_auth.BasicAuth(
        basic_auth.Settings(
            passwords,
            nobody(passwords),
            model.required,
            model.forward,
            header,
            spoofed,
            context.keep(("basic_auth", path, digest), basic_auth.State),
        )
    )


def _told(
    model: ApiKeys | BasicAuth, path: str, context: Context
) -> tuple[bytes, re.Pattern[bytes] | None]:
    """Return the field for the name, and what callers may not send then."""
    if not model.user_header:
        return b"", None
    (name,) = header_names([model.user_header], f"{path}.user_header", context.errors)
    return name, lookalikes([name])


def _read(
    file: str, path: str, context: Context, read: Callable[[bytes], Table]
) -> tuple[Table | None, bytes]:
    """Return what is in `file`, and a digest of it; without any entry it is a mistake."""
    data = context.read(file, f"{path}.file")
    if data is None:
        return None, b""
    try:
        found = read(data)
    except ValueError as error:
        context.errors.append(ConfigError(f"{path}.file", str(error)))
        return None, b""
    if not found:
        context.errors.append(ConfigError(f"{path}.file", f"{file!r} has no entry"))
    return found, sha256(data).digest()
