"""Configuration as data: frozen structures, a string under every field, no behaviour."""
