"""Measurements beside other proxies, in one run."""
