"""Sidecar: a service mesh proxy for machines that are not in Kubernetes."""

__version__ = "0.1.0"
