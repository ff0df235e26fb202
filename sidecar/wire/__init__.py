"""Bytes in, events out: the codecs; no I/O, no clock."""
