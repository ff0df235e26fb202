"""Where quota is kept that several sidecars share."""

from typing import ClassVar

from sidecar.model.base import Duration, Model


class Redis(Model, frozen=True, kw_only=True):
    """One Redis, 5 or newer: a single server, or whatever answers for its primary under one address; not a cluster.

    Only the agent speaks to it. Needs the extra `redis` (`pip install 'sidecar[redis]'`).
    """

    SHORT: ClassVar[str] = "url"

    url: str
    """`redis://host:port/database`, `rediss://…` for TLS, or `unix:///run/redis.sock?db=0`; port 6379 and database 0
    where they are left out. Without a password: that is read from `password_file`."""

    username: str = ""
    """Name of an access control list. Empty: the default user."""

    password_file: str = ""
    """File whose first line is the password, read anew for each connection. Empty: none is sent."""

    roots: str = ""
    """With `rediss`: PEM file with the accepted roots. Empty: the system's. The server's name is checked."""

    certificate: str = ""
    """With `rediss`: PEM file with the certificate to show, if the server asks for one."""

    key: str = ""
    """Its private key."""

    timeout: Duration = 0.1
    """Seconds that Redis may take for an answer; after that the connection is given up."""

    connect_timeout: Duration = 1.0
    """Seconds that it may take for a connection."""


class Store(Model, frozen=True, kw_only=True):
    """A place where quota is kept; rules name it in `shared.store`."""

    name: str
    """Its name."""

    redis: Redis
    """How to reach it; a bare URL is enough."""

    prefix: str = "sidecar:quota:"
    """What its keys begin with. Sidecars share a rule if store, prefix and the rule's key are the same."""
