"""How near a resource is to its end, as a number from 0 to 1, and what one worker may have of it."""

from typing import Final, final

LASTS: Final = 3  # samples in a row that must show it: one that hangs once is no overload
AGENT_SHARE: Final = (
    134_217_728  # octets that the process beside the workers is left: it takes 70 MB
)

LEAST_MEMORY: Final = 100_663_296  # octets; a worker takes 50 MB for itself


def scaled(value: float, scaling: float, saturation: float) -> float:
    """Return 0 up to `scaling`, 1 from `saturation` on, between them the way that is done.

    A `saturation` of 0 means that the resource is not looked at (Envoy: ScaledTrigger).
    """
    if not saturation or value <= scaling:
        return 0.0
    if value >= saturation:
        return 1.0
    return (value - scaling) / (saturation - scaling)


def memory_of_worker(group: int, workers: int) -> int:
    """Return what one of `workers` may take of `group` octets, which the agent is in as well.

    0 means that it is not to be looked at: there is no limit, or one so low that a worker without any
    traffic would be at it.
    """
    share = (group - min(group // 2, AGENT_SHARE)) // workers
    return share if share >= LEAST_MEMORY else 0


def connections_for(
    descriptors: int, other: int, downstream: int, upstream: int, reserve: float
) -> int:
    """Return how many connections of callers `descriptors` are enough for, by what is open now.

    `other` is what is open besides connections.  Each caller that comes is reckoned with one more
    connection to an endpoint; those that are there have theirs.  `reserve` is a share.
    """
    free = int(descriptors * (1 - reserve)) - other - downstream - upstream
    return max(0, downstream + free // 2)


@final
class Lasting:
    """The least of the last samples: what has lasted, not what came once."""

    __slots__ = ("_samples",)

    def __init__(self) -> None:
        self._samples: Final[list[float]] = []

    def add(self, sample: float) -> float:
        """Take a sample, and return the least of the last `LASTS`; 0 before there are so many."""
        samples = self._samples
        samples.append(sample)
        if len(samples) > LASTS:
            del samples[0]
        return min(samples) if len(samples) == LASTS else 0.0
