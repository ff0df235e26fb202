"""What a field block of HTTP/2 says: HPACK (RFC 7541); `hpack_encoder` writes them.

Theory of operation.  Both tables hold `(name, value)` tuples, so that a field seen before costs one
look-up: the decoder hands out the very tuple of its table, the encoder finds a field's octets under
the tuple itself.  A whole block that changes no table and holds nothing new is remembered too.

Both ends are exact about the dynamic table, because one entry more or less and every later field of
the connection is another one.  So what is malformed or too large is noted, not raised, and decoding
goes on; what cannot be decoded is raised, and ends the connection.
"""

import re
from typing import Any, Final, final

from sidecar.errors import DownstreamError
from sidecar.wire import huffman
from sidecar.wire.fields import Field as Field
from sidecar.wire.hpack_table import FIRST, STATIC, cut_block, integer, no_entry

DEFAULT_TABLE: Final = 4096  # octets; what both ends begin with (RFC 9113 §6.5.2)
OVERHEAD: Final = 32  # octets that an entry counts beside its name and value (§4.1)
_MAX_UPDATES: Final = 2  # at the beginning of a block: the smallest size, then the last (§4.2)

# What is remembered beside the table, per connection.  The figures bound it to about 200 KiB at the
# worst, where a peer sends much that differs; a dict that is full is emptied.
_MAX_REMEMBERED: Final = 64
_MAX_HEADS: Final = 32
MAX_STRING: Final = 128  # octets as coded; longer ones seldom repeat without being indexed
_MAX_HEAD: Final = 128  # octets; a block of many literals holds many times its size in tuples

# RFC 9113 §8.2.1 by the stricter grammar of RFC 9110 §5: tokens without upper case; no control
# octets but HTAB in a value, which could not be sent on over HTTP/1.1.
_NAME: Final = re.compile(rb":?+[!#$%&'*+\-.^_`|~0-9a-z]++")
_VALUE: Final = re.compile(rb"(?:[!-~\x80-\xff]++(?:[ \t]++[!-~\x80-\xff]++)*+)?+")
_CONTROLS: Final = bytes(octet for octet in (*range(0x20), 0x7F) if octet != 0x09)
_BLANKS: Final = b" \t"

_NO_FIELD: Final[Field] = (b"", b"")  # holds the place of index 0, which is none


@final
class Sensitive(tuple[bytes, bytes]):
    """A field that stays a never-indexed literal at every hop (RFC 7541 §7.1.3).

    It equals the plain tuple of its name and value; `type(field) is not tuple` tells it.
    """

    __slots__ = ()

    # Not the plain tuple's hash, and on purpose: no look-up may take one for the other, or the
    # encoder would have to ask every field for its type.
    def __hash__(self) -> int:
        return ~tuple.__hash__(self)


def why_malformed(field: Field) -> str:
    """Return what RFC 9113 §8.2.1 has against `field`, "" if nothing."""
    name, value = field
    if not _NAME.fullmatch(name):
        if not name:
            return "the name is empty"
        if name != name.lower():
            return f"the name has upper case: {name[:64]!r}"
        return f"the name has an octet that none may have: {name[:64]!r}"
    if not _VALUE.fullmatch(value):
        if value.strip(b" \t") != value:
            return f"the value begins or ends with a blank: {name[:64]!r}"
        return f"the value has a control octet: {name[:64]!r}"
    return ""


@final
class Remembered(list[Field]):
    """The fields of a block that has come before; `made` is what their reader makes of them."""

    __slots__ = ("made",)

    made: Any


@final
class Decoder:
    """Field blocks of one direction of one connection, in order."""

    __slots__ = (
        "_changed",
        "_due",
        "_heads",
        "_limit",
        "_max_list",
        "_names",
        "_rounds",
        "_seen",
        "_size",
        "_table",
        "_tainted",
        "_used",
        "_values",
        "_widest",
        "malformed",
        "too_large",
    )

    def __init__(
        self, max_table: int = DEFAULT_TABLE, max_list: int = 61440, max_fields: int = 100
    ) -> None:
        self.malformed = ""  # why the last list is malformed, "" if it is not: a stream error
        self.too_large = False  # the last list passed a limit and was cut: a stream error
        self._max_list = max_list
        self._rounds = range(max_fields or 1)
        self._limit = max_table  # octets that we allow
        self._size = min(max_table, DEFAULT_TABLE)  # octets that the peer chose
        self._due: int | None = None  # the next block must first say a size up to this one
        self._used = 0
        self._table: list[Field] = [_NO_FIELD, *STATIC]  # by index, so the newest entry is first
        self._widest = 64  # octets: no entry was ever larger
        self._tainted = False  # a malformed field was put in the table
        self._names: dict[bytes, bytes] = {}  # string with its length -> good name
        self._values: dict[bytes, bytes] = {}  # Huffman string -> value
        self._heads: dict[bytes, Remembered] = {}  # block -> good list, as the table stands
        self._seen: set[int] = set()  # hashes of blocks that came once
        self._changed = False  # this block changed the table

    def limit(self, size: int) -> None:
        """Allow `size` octets: the peer acknowledged a SETTINGS_HEADER_TABLE_SIZE of ours."""
        self._limit = size
        if size < self._size and (self._due is None or size < self._due):
            self._due = size
            self._heads.clear()

    def decode(self, block: bytes) -> list[Field]:
        """Return the fields of `block`, a whole one; sets `malformed` and `too_large`.

        The list may be returned again for another block: nobody changes it.

        The size of a list is RFC 9113 §10.5.1's: name, value and 32 octets for each field.

        Raises:
            DownstreamError: `hpack-index`, `hpack-integer`, `hpack-huffman`, `hpack-truncated` or
                `hpack-table-size`: the connection's COMPRESSION_ERROR.
        """
        self.malformed = ""
        self.too_large = False
        head = self._heads.get(block)  # emptied by whatever changes the table
        if head is not None:
            return head
        self._changed = False
        fields: list[Field] = []
        at = 0
        if b"\x20" <= block[:1] < b"\x40" or self._due is not None:
            at = self._updates(block)
        at = self._run(block, at, fields)
        while at < len(block):  # for the table's sake; no more than a part is held
            self.too_large = True
            at = self._run(block, at, [])
        # What the list may have at most, so that few lists must be measured.
        if len(fields) * self._widest + 2 * len(block) > self._max_list:
            self._cut_list(fields)
        if self._tainted:
            self.malformed = next(filter(None, map(why_malformed, fields)), self.malformed)
        if not (self._changed or self.malformed or self.too_large or len(block) > _MAX_HEAD):
            self._remember(block, fields)
        return fields

    def _run(self, block: bytes, at: int, fields: list[Field]) -> int:
        """Append the fields from `at` on, at most `max_fields`, and return where the next begins."""
        append = fields.append
        table = self._table
        names = self._names
        end = len(block)
        values: list[bytes] = []  # of literals
        for _ in self._rounds:
            if at >= end:
                break
            octet = block[at]
            at += 1
            if octet > 0x80:  # indexed field, §6.1
                index = octet & 0x7F
                if index == 0x7F:
                    index, at = integer(block, at, 0x7F)
                try:
                    append(table[index])
                except IndexError:
                    raise no_entry() from None
                continue
            if octet < 0x20:  # literal that goes to no table, §6.2.2 and §6.2.3
                index = octet & 0x0F
                if index == 0x0F:
                    index, at = integer(block, at, 0x0F)
            elif 0x40 <= octet < 0x80:  # literal that goes to the table, §6.2.1
                index = octet & 0x3F
                if index == 0x3F:
                    index, at = integer(block, at, 0x3F)
            elif octet == 0x80:
                raise no_entry()
            else:
                raise DownstreamError("hpack-table-size", "expected size updates at the start only")
            if index:
                try:
                    name = table[index][0]
                except IndexError:
                    raise no_entry() from None
            else:
                # A name that came before is found with its length; `_name` reads all others.
                name = names.get(block[at : at + 1 + (block[at] & 0x7F)] if at < end else b"", b"")
                if name:
                    at += 1 + (block[at] & 0x7F)
                else:
                    name, at = self._name(block, at)
            # The value's string, §5.2; `_name` reads another, but a call for each costs (bench: hpack).
            if at >= end:
                raise cut_block("a value")
            coded = block[at]
            size = coded & 0x7F
            begin = at + 1
            if size == 0x7F:
                size, begin = integer(block, begin, 0x7F)
            at = begin + size
            if at > end:
                raise cut_block("a value")
            value = block[begin:at]
            if coded >= 0x80:
                string = value
                known = self._values.get(string)
                value = huffman.decode(string) if known is None else known
                # Of literals for the table, too: nginx inserts the same fields with every head.
                if known is None and not 0x10 <= octet < 0x20 and size <= MAX_STRING:
                    if len(self._values) >= _MAX_REMEMBERED:
                        self._values.clear()
                    self._values[string] = value
            values.append(value)
            if octet < 0x10:
                append((name, value))
            elif octet < 0x20:
                append(Sensitive((name, value)))
            else:
                field = name, value
                append(field)
                self._insert(field)
        if values:
            self._check(values, fields)
        return at

    def _check(self, values: list[bytes], fields: list[Field]) -> None:
        """Note what is malformed in `fields`, whose literals have `values`.

        All at once: a pattern for each value takes twice as long (bench: hpack).
        """
        octets = b"".join(values)
        # Both return the very object where there is nothing to take away.
        is_fine = octets.translate(None, _CONTROLS) is octets
        for value in values:
            is_fine = is_fine and value.strip(_BLANKS) is value
        if self.malformed or not is_fine:
            self.malformed = next(filter(None, map(why_malformed, fields)), self.malformed)
            self._tainted = self._tainted or self._changed

    def _updates(self, block: bytes) -> int:
        """Take the size updates that begin `block` (§4.2, §6.3); return where the fields begin."""
        self._changed = True
        self._heads.clear()
        at = count = 0
        while at < len(block) and 0x20 <= block[at] < 0x40:
            size = block[at] & 0x1F
            at += 1
            if size == 0x1F:
                size, at = integer(block, at, 0x1F)
            count += 1
            if count > _MAX_UPDATES or size > self._limit:
                raise DownstreamError(
                    "hpack-table-size",
                    f"expected at most {_MAX_UPDATES} size updates, each up to {self._limit}",
                )
            if self._due is not None and size <= self._due:
                self._due = None
            self._size = size
            self._evict()
        if self._due is not None:
            raise DownstreamError(
                "hpack-table-size", f"expected a size update to {self._due} octets or less"
            )
        return at

    def _insert(self, field: Field) -> None:
        """Put `field` in the table, §4.4; one that is larger than the table empties it."""
        self._changed = True
        if self._heads:
            self._heads.clear()
        size = len(field[0]) + len(field[1]) + OVERHEAD
        self._table.insert(FIRST, field)
        self._used += size
        if size > self._widest:
            self._widest = size
        if self._used > self._size:
            self._evict()

    def _evict(self) -> None:
        """Take the oldest entries out until the rest fits, §4.3."""
        while self._used > self._size:
            name, value = self._table.pop()
            self._used -= len(name) + len(value) + OVERHEAD

    def _name(self, block: bytes, at: int) -> tuple[bytes, int]:
        """Return the name whose string begins at `at`, which is not known, and the string's end."""
        if at >= len(block):
            raise cut_block("a name")
        start = at
        size = block[at] & 0x7F
        at += 1
        if size == 0x7F:
            size, at = integer(block, at, 0x7F)
        end = at + size
        if end > len(block):
            raise cut_block("a name")
        coded = block[start:end]
        name = huffman.decode(block[at:end]) if block[start] & 0x80 else block[at:end]
        malformed = why_malformed((name, b""))
        if malformed:
            self.malformed = self.malformed or malformed
        elif size < 0x7F:  # its length is one octet, as `_run` looks it up
            if len(self._names) >= _MAX_REMEMBERED:
                self._names.clear()
            self._names[coded] = name
        return name, end

    def _remember(self, block: bytes, fields: list[Field]) -> None:
        """Remember what `block` says, the second time it comes."""
        number = hash(block)
        if number not in self._seen:
            if len(self._seen) >= _MAX_REMEMBERED:
                self._seen.clear()
            self._seen.add(number)
            return
        if len(self._heads) >= _MAX_HEADS:
            self._heads.clear()
        head = self._heads[block] = Remembered(fields)
        head.made = None

    def _cut_list(self, fields: list[Field]) -> None:
        """Cut `fields` where it passes the limit of octets."""
        room = self._max_list
        for count, (name, value) in enumerate(fields):
            room -= len(name) + len(value) + OVERHEAD
            if room < 0:
                self.too_large = True
                del fields[count:]
                return
