"""The parent process: sources, issuers, supervision, statistics."""
