"""Filters are tried in the engine, as a config names them."""

from tests.core.conftest import harness, make

__all__ = ["harness", "make"]
