"""API keys and passwords that requests must bring."""

from typing import ClassVar

from sidecar.model.base import Model


class ApiKeys(Model, frozen=True, kw_only=True):
    """Keys that machines have drawn (Envoy: ApiKeyAuth). Without a known one a request is answered 401."""

    SHORT: ClassVar[str] = "file"

    file: str
    """File with a line for each key, `NAME:sha256:HEX`; `sidecar hash-key NAME` makes one. Watched."""

    locations: tuple[str, ...] = ("header:x-api-key",)
    """Where a key may stand, the first that has one counts: `header:NAME` (in `authorization` behind `Bearer`), `query:NAME`,
    `cookie:NAME`."""

    required: bool = True
    """Refuse requests without a key. False: they pass, and no rule on users matches them; an unknown key is refused all
    the same."""

    forward: bool = False
    """Pass the key on. Otherwise it is taken out."""

    user_header: str = ""
    """Field in which the app is told the key's name. What the caller sends under it is taken out, also with `_` for `-`."""


class BasicAuth(Model, frozen=True, kw_only=True):
    """Names and passwords (RFC 7617; Envoy: BasicAuth). Without a right pair a request is answered 401."""

    SHORT: ClassVar[str] = "file"

    file: str
    """File with a line for each name, `NAME:scrypt:N:R:P:SALT:HASH`; `sidecar hash-key --password NAME` makes one. Watched."""

    required: bool = True
    """Refuse requests without a password. False: they pass, and no rule on users matches them; a wrong one is refused
    all the same."""

    forward: bool = False
    """Pass name and password on. Otherwise they are taken out."""

    user_header: str = ""
    """Field in which the app is told the name. What the caller sends under it is taken out, also with `_` for `-`."""
