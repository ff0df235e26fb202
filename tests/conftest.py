"""How the properties are tried, whichever room they are in."""

from hypothesis import settings

# How fast an example is depends on what else the machine does; what may not be slow has a benchmark.
settings.register_profile("unhurried", settings(), deadline=None)
settings.load_profile("unhurried")
