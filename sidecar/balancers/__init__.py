"""Policies that pick the endpoint, one a file."""
