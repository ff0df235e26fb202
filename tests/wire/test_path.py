"""The path that rules see: spellings that programs read alike are one, those they do not are none."""

import re
from collections.abc import Callable
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given, strategies as st

from sidecar.wire.path import kept, resolved, strict

ALIKE = [
    (b"/", b"/"),
    (b"*", b"*"),
    (b"/admin", b"/admin"),
    (b"/%61dmin", b"/admin"),
    (b"/%41%2d%2E%5f%7e", b"/A-._~"),
    (b"/a%40b%3Ac%2c", b"/a@b:c,"),
    (b"/a%20b", b"/a%20b"),
    (b"/caf%c3%a9", b"/caf%C3%A9"),
    (b"/caf\xc3\xa9", b"/caf%C3%A9"),  # as a configuration may write it
    (b"/caf%E9", b"/caf%E9"),  # Latin-1
    (b'/{id}"<>^`|', b"/%7Bid%7D%22%3C%3E%5E%60%7C"),
    (b"/c%23", b"/c%23"),
    (b"/what%3f", b"/what%3F"),
    (b"/100%25", b"/100%25"),
    (b"/100%25zz", b"/100%25zz"),
    (b"/.well-known/x", b"/.well-known/x"),
    (b"/a/...", b"/a/..."),
    (b"/a..b/c.", b"/a..b/c."),
    (b"/%e2%82%ac", b"/%E2%82%AC"),
]
# What programs read in two ways; as one that resolves all of it would, and as it was written.
TWO_WAYS = [
    (b"/public/../admin", b"/admin", b"/public/../admin"),
    (b"/public/%2e%2e/admin", b"/admin", b"/public/../admin"),
    (b"/public/.%2E/admin", b"/admin", b"/public/../admin"),
    (b"/public/..", b"/", b"/public/.."),
    (b"/public/.", b"/public/", b"/public/."),
    (b"/../../admin", b"/admin", b"/../../admin"),
    (b"/./admin", b"/admin", b"/./admin"),
    (b"/%2e/admin", b"/admin", b"/./admin"),
    (b"//admin", b"/admin", b"//admin"),
    (b"/admin//", b"/admin/", b"/admin//"),
    (b"/public%2fadmin", b"/public/admin", b"/public%2Fadmin"),
    (b"/public/..%2Fadmin", b"/admin", b"/public/..%2Fadmin"),
    (b"/%2e%2e%2fadmin", b"/admin", b"/..%2Fadmin"),
    (b"/public%5c..%5Cadmin", b"/admin", b"/public%5C..%5Cadmin"),
    (b"/public\\admin", b"/public/admin", b"/public%5Cadmin"),
    (b"/admin;x", b"/admin", b"/admin;x"),
    (b"/admin;x=1/b", b"/admin/b", b"/admin;x=1/b"),
    (b"/public/..;/admin", b"/admin", b"/public/..;/admin"),
    (b"/;/admin", b"/admin", b"/;/admin"),
    (b"/admin%3bx", b"/admin", b"/admin%3Bx"),
    (b"/%2561dmin", b"/%2561dmin", b"/%2561dmin"),
    (b"/%25%36%31dmin", b"/%2561dmin", b"/%2561dmin"),
    (b"/%252e%252e/admin", b"/%252e%252e/admin", b"/%252e%252e/admin"),
]
NEVER = [
    b"",
    b"admin",
    b"/admin%00",
    b"/admin%0d%0aX:y",
    b"/admin%09",
    b"/admin%1F",
    b"/admin%7f",
    b"/%",
    b"/%4",
    b"/%zz",
    b"/%u002fadmin",
    b"/%%32%65%%32%65/",
    b"/%c0%ae%c0%ae/admin",
    b"/%c0%af",
    b"/%C1%9C",
    b"/%e0%80%af",
    b"/%f0%80%80%af",
    b"/%ff",
]


@pytest.mark.parametrize(("path", "form"), ALIKE)
def test_one_path_has_one_spelling(path: bytes, form: bytes) -> None:
    assert (strict(path), kept(path), resolved(path)) == (form, form, form)


@pytest.mark.parametrize(("path", "as_resolved", "as_written"), TWO_WAYS)
def test_what_programs_read_in_two_ways_is_refused_unless_one_is_chosen(
    path: bytes, as_resolved: bytes, as_written: bytes
) -> None:
    assert (strict(path), resolved(path), kept(path)) == (None, as_resolved, as_written)


@pytest.mark.parametrize("path", NEVER)
def test_what_nobody_can_mean_well_is_refused_whatever_is_chosen(path: bytes) -> None:
    assert (strict(path), resolved(path), kept(path)) == (None, None, None)


# Programs behind us, as they are known to read a path.


def merged(path: bytes) -> bytes:
    return re.sub(rb"/+", b"/", path)


def undotted(path: bytes) -> bytes:
    out: list[bytes] = []
    for segment in path.split(b"/"):
        if segment == b"..":
            if len(out) > 1:  # never above the root
                out.pop()
        elif segment != b".":
            out.append(segment)
    return b"/".join(out)


def cut(path: bytes) -> bytes:
    return re.sub(rb";[^/]*", b"", path)


PROGRAMS: list[Callable[[bytes], bytes]] = [
    unquote_to_bytes,
    lambda path: undotted(unquote_to_bytes(path)),
    lambda path: unquote_to_bytes(undotted(path)),
    lambda path: merged(unquote_to_bytes(path)),
    lambda path: unquote_to_bytes(merged(path)),
    lambda path: undotted(merged(unquote_to_bytes(path))),
    lambda path: cut(unquote_to_bytes(path)),
    lambda path: unquote_to_bytes(cut(path)),
    lambda path: unquote_to_bytes(path.replace(b"\\", b"/")),
    lambda path: unquote_to_bytes(path).replace(b"\\", b"/"),
    lambda path: unquote_to_bytes(unquote_to_bytes(path)),
    lambda path: unquote_to_bytes(path).partition(b"\x00")[0],
]
PIECES = st.sampled_from(
    [b"/", b"a", b"A", b".", b"..", b";", b"\\", b"//", b"%", b"2", b"5", b"e", b"f", b"%2e", b"%2F",
     b"%5c", b"%3b", b"%25", b"%00", b"%61", b"%32", b"%35", b"%65", b"%66", b"%C3%A9", b"@", b"%40",
     b"{", b"~", b"%7E", b"%3F", b"%23"]
)  # fmt: skip
PATHS = st.lists(PIECES, max_size=12).map(lambda pieces: b"/" + b"".join(pieces))


@given(PATHS)
def test_every_program_reads_a_path_that_is_let_through_as_the_rules_do(path: bytes) -> None:
    form = strict(path)
    if form is not None:
        assert {program(path) for program in PROGRAMS} == {unquote_to_bytes(form)}


@given(PATHS, PATHS)
def test_two_paths_are_one_to_the_rules_if_they_are_to_a_program(one: bytes, other: bytes) -> None:
    forms = strict(one), strict(other)
    if None not in forms:
        assert (forms[0] == forms[1]) is (unquote_to_bytes(one) == unquote_to_bytes(other))


@given(PATHS)
def test_a_normal_form_is_its_own(path: bytes) -> None:
    for read in (strict, resolved, kept):
        form = read(path)
        assert form is None or read(form) == form


@given(st.binary(max_size=40).map(lambda octets: b"/" + octets))
def test_any_octets_give_printable_ones_or_nothing(path: bytes) -> None:
    for read in (strict, resolved, kept):
        form = read(path)
        assert form is None or re.fullmatch(rb"/[!-~]*", form)
