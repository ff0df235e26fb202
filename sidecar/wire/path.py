"""Which path a request means: the one spelling that rules by path are decided on.

Theory of operation.  Two programs that read one target may not agree on the path: the one decodes
`%2f`, the other cuts at `;`, a third resolves `..`.  A rule that was decided on one reading is then
walked around by another (CVE-2019-9901, CVE-2021-29492, CVE-2021-32779).  So rules see the normal
form of RFC 3986 §6.2.2, and a path that programs are known to read in two ways has none.  What is
forwarded is the target as it came.
"""

import re
from collections.abc import Callable
from typing import Final

Read = Callable[[bytes], bytes | None]
"""Returns a path (without query) as rules see it, None where it must be refused."""

# What stands for itself: unreserved, sub-delims but `;`, `:`, `@` (RFC 3986 §3.3).
_SELF: Final = rb"!$&'()*+,\-.0-9:=@A-Z_a-z~"
# Segments that are no dots: the path is in normal form already, which one look tells.
_USUAL: Final = re.compile(rb"(?=/)(?:/(?!\.\.?(?:[/?]|\Z))[" + _SELF + rb"]++)*+/?+(?=\?|\Z)")
_STRAY: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_ENCODED: Final = re.compile(rb"%[0-9A-Fa-f]{2}|[^%;/" + _SELF + rb"]")
# In normal form, so digits are capitals.  No program can mean these well: control octets, and octets
# that begin no UTF-8 (`%C0%AF` was once read as a slash, RFC 3629 §10).
_NEVER: Final = re.compile(rb"%(?:[01].|7F|C[01]|E0%[89]|F0%8|F[5-9A-F])")
_TWO_WAYS: Final = re.compile(
    rb"//"  # one slash or two
    rb"|/\.\.?(?:/|\Z)"  # resolved before or after, or not at all (RFC 3986 §5.2.4)
    rb"|%2F|%5C"  # a slash, or part of a segment; the second on systems that separate by it
    rb"|;|%3B"  # what follows may be a parameter that is cut away
    rb"|%25[0-9A-Fa-f]{2}"  # decoded once or twice
)
_PARAMETER: Final = re.compile(rb"(?:;|%3B)[^/]*")
_SLASH: Final = re.compile(rb"%2F|%5C|/")
_PLAIN: Final = frozenset(  # an encoded slash stays encoded
    b"!$&'()*+,-.0123456789:=@ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~"
)


def is_usual(target: bytes) -> bool:
    """Say whether every reading takes the path of `target`, up to its query, as it stands."""
    return _USUAL.match(target) is not None


def strict(path: bytes) -> bytes | None:
    """Return the normal form; None where programs are known to read `path` in more than one way."""
    if _USUAL.fullmatch(path) is not None:
        return path
    form = kept(path)
    return None if form is None or _TWO_WAYS.search(form) else form


def resolved(path: bytes) -> bytes | None:
    """Return what a program makes of `path` that decodes, cuts, merges and resolves all it can."""
    if _USUAL.fullmatch(path) is not None:
        return path
    form = kept(path)
    if form is None or form == b"*":
        return form
    segments: list[bytes] = []
    last = b""
    for last in _PARAMETER.sub(b"", _SLASH.sub(b"/", form)).split(b"/"):
        if last == b"..":
            if segments:
                segments.pop()
        elif last not in (b"", b"."):
            segments.append(last)
    ends = b"/" if segments and last in (b"", b".", b"..") else b""
    return b"/" + b"/".join(segments) + ends


def kept(path: bytes) -> bytes | None:
    """Return the normal form, with whatever could be read in two ways left in it."""
    if _USUAL.fullmatch(path) is not None:
        return path
    if path[:1] != b"/":
        return path if path == b"*" else None  # OPTIONS of the whole server (RFC 9112 §3.2.4)
    if _STRAY.search(path):
        return None
    form = _ENCODED.sub(_respell, path)
    return None if _NEVER.search(form) else form


READS: Final[dict[str, Read]] = {"reject": strict, "resolve": resolved, "keep": kept}
"""By the word that the configuration has for it."""


def _respell(found: re.Match[bytes]) -> bytes:
    """Return one octet as itself if it may stand so, else percent-encoded in capitals."""
    text = found[0]
    octet = int(text[1:], 16) if len(text) == 3 else text[0]
    return bytes((octet,)) if octet in _PLAIN else b"%%%02X" % octet
