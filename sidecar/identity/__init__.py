"""Key material to TLS contexts, certificates to SPIFFE IDs."""
