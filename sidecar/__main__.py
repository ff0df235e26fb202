"""`python -m sidecar`: see `sidecar.cli.main`."""

from sidecar.cli.main import main

main()
