"""Who gives us key material, one a file."""
