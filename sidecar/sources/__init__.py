"""Where snapshots come from, one a file."""
