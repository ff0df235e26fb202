"""Decisions as arithmetic: `now` and chance are arguments."""
