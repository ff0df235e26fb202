"""Snapshot to plan: pure, every error with its path, never half."""
