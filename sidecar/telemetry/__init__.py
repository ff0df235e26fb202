"""Sinks that the worker runs, and their other half in the agent."""
