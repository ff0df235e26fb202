"""How a field block of HTTP/2 is written: the encoding half of HPACK (RFC 7541; `hpack` reads them)."""

from collections.abc import Callable, Iterable
from typing import Final, final

from sidecar.wire import huffman
from sidecar.wire.fields import Field
from sidecar.wire.hpack import DEFAULT_TABLE, MAX_STRING, OVERHEAD
from sidecar.wire.hpack_table import FIRST, STATIC, integer_octets

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
_MAX_LISTS: Final = 64  # whole lists remembered...
_LONG_LIST: Final = 1024  # ...of so many octets at most, as coded
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

    __slots__ = ("_inserted", "_lists", "_names", "_numbers", "_seen", "_string", "_used", "size")

    def __init__(self, string: Callable[[bytes], bytes], size: int) -> None:
        self._lists: dict[int, tuple[object, bytes, bool]] = {}  # see `known`
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
        if len(name) <= MAX_STRING:
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
        self._lists.clear()
        while self._used > self.size:
            oldest = next(iter(self._numbers))
            del self._numbers[oldest]
            self._used -= len(oldest[0]) + len(oldest[1]) + OVERHEAD

    def known(self, fields: tuple[Field, ...]) -> bytes:
        """Return the octets of fields that come again, as the very same tuple.

        They are remembered once they have been the same twice, with the table as it stands, and
        without changing it: before, the fields are still on their way into it.
        """
        lists = self._lists
        last = lists.get(id(fields))
        if last is not None and last[2]:
            return last[1]
        inserted = self._inserted
        block = b"".join(map(self.__getitem__, fields))
        if inserted == self._inserted and len(block) <= _LONG_LIST:
            if last is None and len(lists) >= _MAX_LISTS:
                lists.clear()
            # With the fields themselves, so that nothing else can have their id.
            lists[id(fields)] = fields, block, last is not None and last[1] == block
        return block

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

    __slots__ = ("_codes", "_least", "_max_table", "code", "known", "wanted")

    def __init__(self, max_table: int = DEFAULT_TABLE, *, huffman: bool = False) -> None:
        self._max_table = max_table
        self._codes = _Codes(_huffman_string if huffman else _string, DEFAULT_TABLE)
        self.code = self._codes.__getitem__
        self.known = self._codes.known
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
