"""HTTP and network filters, one a file, each loaded when a plan has it."""

from sidecar.plugin import defer

defer(__name__)
