"""Filters that users write in Python."""

from typing import ClassVar, Literal

from sidecar.model.base import Count, Duration, Model


class PythonFilter(Model, frozen=True, kw_only=True):
    """A filter in Python that requests pass; docs/filters.md says how to write one."""

    SHORT: ClassVar[str] = "file"

    file: str = ""
    """Its file; a relative path begins where the config file is. It is watched like the config file."""

    code: str = ""
    """Or its text itself. What `file` holds is read into here when the config is loaded, so that all workers, those
    that are started later too, run what was checked."""

    name: str = ""
    """Its name in log, metrics and replies. Empty: the file's, without directory and `.py`."""

    settings: dict[str, object] = {}
    """Its own settings, as its class `Settings` has them."""

    budget: Duration = 0.05
    """Seconds for which one call of a plain hook, or one step of an `async def`, may hold up everything else; it
    cannot be interrupted, so an overrun is counted."""

    timeout: Duration = 1.0
    """Seconds for the whole of an `async def`, which is cancelled then; that counts as an overrun too."""

    max_overruns: Count = 10
    """Overruns within a minute, per worker; with one more the filter is switched off. 0: it never is."""

    off_time: Duration = 60.0
    """Seconds until a filter that was switched off is tried again."""

    on_error: Literal["closed", "open"] = "closed"
    """What becomes of a request whose filter fails, takes too long or is switched off. `closed`: it is answered 500, 504
    or 503; a filter that guards cannot be passed by making it fail. `open`: it goes on."""

    @property
    def called(self) -> str:
        """Its name, given or not."""
        return self.name or self.file.rpartition("/")[2].removesuffix(".py") or "inline"
