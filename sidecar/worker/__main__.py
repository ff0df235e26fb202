"""`python -m sidecar.worker`: see `sidecar.worker.main`."""

from sidecar.worker.main import main

main()
