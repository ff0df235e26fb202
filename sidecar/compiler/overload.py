"""What can be said wrongly about overload."""

from sidecar.errors import ConfigError
from sidecar.model.overload import Overload
from sidecar.traffic.pressure import LEAST_MEMORY


def check_overload(overload: Overload, errors: list[ConfigError]) -> None:
    """Add what is wrong with `overload` to `errors`."""
    limit = overload.memory.limit
    if 0 < limit < LEAST_MEMORY:
        detail = (
            f"expected {LEAST_MEMORY} octets or more, got {limit}: a worker takes 50 MB for itself"
        )
        errors.append(ConfigError("overload.memory.limit", detail))
    for name in ("memory", "loop_lag", "descriptors"):
        part = getattr(overload, name)
        if 0 < part.saturation_threshold < part.scaling_threshold:
            errors.append(
                ConfigError(
                    f"overload.{name}.scaling_threshold",
                    f"expected saturation_threshold, {part.saturation_threshold:g}, or less; "
                    f"got {part.scaling_threshold:g}",
                )
            )
