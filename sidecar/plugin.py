"""What a plug-in is, and how those in a package are found."""

import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Callable
from typing import Any, Final, final


@final
class Plugin:
    """One file's offer: a name for configs, the type of its settings, and how to make one.

    `make` takes an instance of `settings` and whatever else the kind's contract says.
    """

    __slots__ = ("make", "name", "settings")

    def __init__(self, name: str, settings: type, make: Callable[..., Any]) -> None:
        self.name: Final = name
        self.settings: Final = settings
        self.make: Final = make


def discover(package: str) -> dict[str, Plugin]:
    """Return the plug-ins of `package` (`sidecar.balancers`), by name.

    Every module of the package that has a `PLUGIN` is one; nothing registers itself at import.

    Raises:
        ValueError: two files claim one name (a bug, found by the first test that runs).
    """
    found: dict[str, Plugin] = {}
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        plugin = getattr(importlib.import_module(f"{package}.{module.name}"), "PLUGIN", None)
        if plugin is None:
            continue
        if plugin.name in found:
            raise ValueError(f"two plug-ins of {package} are called {plugin.name!r}")
        found[plugin.name] = plugin
    return found


def defer(package: str) -> None:
    """Have each module of `package` loaded when something of it is first asked for.

    Called by the package itself. Whoever says `from package import module` and reaches for what is in
    it only where a configuration names the plug-in keeps the others out of memory, and what they
    import; whoever imports a name out of a module loads it there and then.
    """
    home = sys.modules[package]
    for module in pkgutil.iter_modules(home.__path__):
        spec = importlib.util.find_spec(f"{package}.{module.name}")
        assert spec is not None
        assert spec.loader is not None
        spec.loader = importlib.util.LazyLoader(spec.loader)
        lazy = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = lazy
        spec.loader.exec_module(lazy)
        setattr(home, module.name, lazy)
