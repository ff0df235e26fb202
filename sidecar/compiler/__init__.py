"""Snapshot to plan: pure, every error with its path, never half."""

from sidecar.plugin import defer

defer(__name__)  # what looks at code of users is loaded when there is some
