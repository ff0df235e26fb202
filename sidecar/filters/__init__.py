"""HTTP and network filters, one a file."""
