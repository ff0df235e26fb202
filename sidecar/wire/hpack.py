"""What a field block of HTTP/2 says, and how one is written: HPACK (RFC 7541).

Theory of operation.  Both tables hold `(name, value)` tuples, so that a field seen before costs one
look-up: the decoder hands out the very tuple of its table, the encoder finds a field's octets under
the tuple itself.  A whole block that changes no table and holds nothing new is remembered too.

Both ends are exact about the dynamic table, because one entry more or less and every later field of
the connection is another one.  So what is malformed or too large is noted, not raised, and decoding
goes on; what cannot be decoded is raised, and ends the connection.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any, Final, final

from sidecar.errors import DownstreamError
from sidecar.wire import huffman
from sidecar.wire.fields import Field as Field
from sidecar.wire.hpack_table import FIRST, STATIC, cut_block, integer, integer_octets, no_entry

DEFAULT_TABLE: Final = 4096  # octets; what both ends begin with (RFC 9113 §6.5.2)
OVERHEAD: Final = 32  # octets that an entry counts beside its name and value (§4.1)
_MAX_UPDATES: Final = 2  # at the beginning of a block: the smallest size, then the last (§4.2)

# What is remembered beside the table, per connection.  The figures bound it to about 200 KiB at the
# worst, where a peer sends much that differs; a dict that is full is emptied.
_MAX_REMEMBERED: Final = 64
_MAX_HEADS: Final = 32
_MAX_STRING: Final = 128  # octets as coded; longer ones seldom repeat without being indexed
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


# --- decoder --------------------------------------------------------------------------------------


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
                if known is None and not 0x10 <= octet < 0x20 and size <= _MAX_STRING:
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


# --- encoder --------------------------------------------------------------------------------------

# Values that differ nearly every time, or are random among so many that they only push others out.
_NEVER_INSERTED: Final = frozenset(
    b"age b3 content-length grpc-timeout traceparent x-b3-spanid x-b3-traceid"
    b" x-envoy-upstream-service-time x-request-id".split()
)
_SECRET: Final = frozenset({b"authorization", b"proxy-authorization"})
_SHORT_COOKIE: Final = 20  # octets; a shorter one can be guessed (§7.1.3; nghttp2's figure)
_PATIENCE: Final = 32  # values of a name that were in no table before none is looked for...
_RETRY: Final = 1024  # ...and how many later it is tried again
_NEVER: Final = 1 << 62  # nor ever
_MAX_LISTS: Final = 64  # whole lists remembered
_MAX_SEEN: Final = 128  # hashes of fields that came once, and names: as many as a table has entries

_NAME_INDEX: Final = {name: at + 1 for at, (name, _) in reversed(tuple(enumerate(STATIC)))}
_STATIC_CODES: Final = {field: integer_octets(at + 1, 7, 0x80) for at, field in enumerate(STATIC)}
_SIZES: Final = tuple(integer_octets(size, 7, 0) for size in range(256))


def _string(octets: bytes) -> bytes:
    """Return `octets` as a string that is not Huffman-coded."""
    size = len(octets)
    return (_SIZES[size] if size < 256 else integer_octets(size, 7, 0)) + octets


def _huffman_string(octets: bytes) -> bytes:
    """Return `octets` as a string of the shorter kind."""
    coded = huffman.encode(octets)
    if len(coded) == len(octets):
        return _string(octets)
    return integer_octets(len(coded), 7, 0x80) + coded


def _literal(name: bytes, bits: int, pattern: int) -> bytes:
    """Return how a literal called `name` begins; `pattern` is its kind, above an index of `bits`."""
    index = _NAME_INDEX.get(name)
    return integer_octets(index, bits, pattern) if index else bytes((pattern,)) + _string(name)


@final
class _Name:
    """How a literal of this name begins, and how many values in a row were in no table."""

    __slots__ = ("begin", "misses")

    def __init__(self, begin: bytes) -> None:
        self.begin: Final = begin
        self.misses = 0


@final
class _Codes(dict[Field, bytes]):
    """Octets by field, as the table stands; a field that is missing is coded by `__missing__`.

    So a list of known fields is coded by one `map` over this dict's look-up.  It is emptied when an
    entry comes or goes, because the indices of all others change, and fills again by use.
    """

    __slots__ = ("_inserted", "_names", "_numbers", "_seen", "_string", "_used", "lists", "size")

    def __init__(self, string: Callable[[bytes], bytes], size: int) -> None:
        self.lists: dict[int, tuple[object, bytes, bool]] = {}  # see `Encoder.known`
        self.size = size  # octets of the table, by the last update
        self._string = string
        self._used = 0
        self._inserted = 0  # entries ever put in the table
        self._numbers: dict[Field, int] = {}  # entry -> which one it was; the oldest first
        self._seen: set[int] = set()  # hashes of fields, which may be large themselves
        self._names: dict[bytes, _Name] = {}

    def __missing__(self, field: Field) -> bytes:
        name, value = field
        if type(field) is not tuple:
            return _literal(name, 4, 0x10) + self._string(value)
        known = self._names.get(name)
        if known is None:
            known = self._know(name)
        if known.misses < _PATIENCE or (name == b"cookie" and len(value) < _SHORT_COOKIE):
            code = self._by_index(field) or self._maybe_inserted(field)
            if code:
                known.misses = 0
                return code
        known.misses += 1
        if known.misses == _RETRY:
            known.misses = 0
        return known.begin + self._string(value)

    def _by_index(self, field: Field) -> bytes:
        """Return the index of `field` in a table, b"" if it is in none."""
        code = _STATIC_CODES.get(field)
        if code is None:
            number = self._numbers.get(field)
            if number is None:
                return b""
            code = integer_octets(FIRST + self._inserted - number, 7, 0x80)
        self[field] = code
        return code

    def _maybe_inserted(self, field: Field) -> bytes:
        """Return the literal of a field that comes the second time or is short, b"" for others."""
        name, value = field
        if name == b"cookie" and len(value) < _SHORT_COOKIE:
            return _literal(name, 4, 0x10) + self._string(value)
        number = hash(field)
        if number in self._seen:
            return self._insert(field)
        if len(self._seen) >= _MAX_SEEN:
            self._seen.clear()
        self._seen.add(number)
        return b""

    def _know(self, name: bytes) -> "_Name":
        """Remember how a literal called `name` begins, and whether it may come into the table."""
        secret = name in _SECRET
        known = _Name(_literal(name, 4, 0x10 if secret else 0))
        if secret or name in _NEVER_INSERTED:
            known.misses = _NEVER
        if len(name) <= _MAX_STRING:
            if len(self._names) >= _MAX_SEEN:
                self._names.clear()
            self._names[name] = known
        return known

    def _insert(self, field: Field) -> bytes:
        """Put `field` in the table, if it takes no more than half of it, and return its literal."""
        name, value = field
        size = len(name) + len(value) + OVERHEAD
        if 2 * size > self.size:
            return _literal(name, 4, 0) + self._string(value)
        self._inserted += 1
        self._numbers[field] = self._inserted
        self._used += size
        self._evict()
        return _literal(name, 6, 0x40) + self._string(value)

    def _evict(self) -> None:
        """Take the oldest entries out until the rest fits; what was known of indices is void."""
        self.clear()
        self.lists.clear()
        while self._used > self.size:
            oldest = next(iter(self._numbers))
            del self._numbers[oldest]
            self._used -= len(oldest[0]) + len(oldest[1]) + OVERHEAD

    def resize(self, size: int) -> None:
        """Let the table have `size` octets from now on."""
        self.size = size
        self._evict()


@final
class Encoder:
    """Field blocks of one direction of one connection, in order.

    A field is put in the table when it comes the second time, so values that never repeat push
    nothing out.  Never indexed are `Sensitive` fields, credentials and short cookies.
    """

    __slots__ = ("_codes", "_least", "_max_table", "code", "wanted")

    def __init__(self, max_table: int = DEFAULT_TABLE, *, huffman: bool = False) -> None:
        self._max_table = max_table
        self._codes = _Codes(_huffman_string if huffman else _string, DEFAULT_TABLE)
        self.code = self._codes.__getitem__
        self.wanted: int | None = None  # the next block says this size
        self._least = DEFAULT_TABLE  # and before it this one, if it is less
        if max_table < DEFAULT_TABLE:
            self.limit(max_table)

    def limit(self, size: int) -> None:
        """Use at most `size` octets: the peer's SETTINGS_HEADER_TABLE_SIZE."""
        self.wanted = min(size, self._max_table)
        self._least = min(self.wanted, self._least)

    def encode(self, fields: Iterable[Field]) -> bytes:
        """Return the block of `fields`; the caller vouches that they are well-formed."""
        if self.wanted is None:
            return b"".join(map(self.code, fields))
        return self._updates(self.wanted) + b"".join(map(self.code, fields))

    def known(self, fields: tuple[Field, ...]) -> bytes:
        """Return the octets of fields that come again, as the very same tuple.

        They are remembered once they have been the same twice, with the table as it stands: before,
        the fields are still on their way into it.
        """
        lists = self._codes.lists
        number = id(fields)
        last = lists.get(number)
        if last is None or last[0] is not fields:
            if len(lists) >= _MAX_LISTS:
                lists.clear()
            block = b"".join(map(self.code, fields))
            lists[number] = fields, block, False
            return block
        if last[2]:
            return last[1]
        block = b"".join(map(self.code, fields))
        lists[number] = fields, block, block == last[1]
        return block

    def _updates(self, wanted: int) -> bytes:
        """Return the size updates that are due, the smallest size since the last block first."""
        codes = self._codes
        updates = b""
        for size in (self._least, wanted):
            if size != codes.size:
                codes.resize(size)
                updates += integer_octets(size, 5, 0x20)
        self.wanted = None
        self._least = wanted
        return updates
