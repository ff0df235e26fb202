"""What every structure of the model is made of: the base class and the units of its fields."""

from typing import Annotated, ClassVar

from msgspec import Meta, Struct

Duration = Annotated[float, Meta(ge=0, extra={"unit": "duration"})]
"""Seconds; a file may write `250ms`, `15s`, `5m`, `1h`, or a plain number of seconds."""

Timeout = Annotated[float, Meta(gt=0, extra={"unit": "duration"})]
"""A duration of more than nothing: there is no call without a limit."""

Size = Annotated[int, Meta(ge=0, extra={"unit": "size"})]
"""Octets; a file may write `64KiB`, `1MiB`, `1GiB`, or a plain number."""

Address = Annotated[str, Meta(extra={"unit": "address"})]
"""`host:port`, `[v6]:port` or `unix:/path`."""

AddressOrOff = Annotated[str, Meta(extra={"unit": "address or off"})]
"""An address, or `off`."""

Percent = Annotated[float, Meta(ge=0, le=100, extra={"unit": "percent"})]
"""0 to 100; fractions are allowed."""

Port = Annotated[int, Meta(ge=1, le=65535)]
"""A port of TCP."""

Count = Annotated[int, Meta(ge=0)]
"""A whole number, not negative."""

Status = Annotated[int, Meta(ge=100, le=599)]
"""A response code of HTTP."""


class Model(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all structures of the configuration.

    `SHORT` names the field that a bare value stands for: where a file has `web` in the place of a
    structure with `SHORT = "name"`, it means `{name: web}`.
    """

    SHORT: ClassVar[str] = ""
