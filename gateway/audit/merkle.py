"""The Merkle tree of RFC 6962 (the same in RFC 9162), without a place where its hashes are kept.

Whoever keeps them hands in a `NodeReader`. To append, the right edge is enough: at most 64
hashes, which `Frontier` holds and writes down. Blocks of 256 leaves are the tiles of C2SP
tlog-tiles: once the leaves of one are swept, its one hash stands for them, and every proof about
the rest still works. Proofs are made and checked in `gateway.audit.proofs`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256

from gateway.errors import AuditError

HASH_BYTES = 32
#: A tile spans 8 levels of the tree.
TILE_HEIGHT = 8
TILE_WIDTH = 1 << TILE_HEIGHT
EMPTY_ROOT = sha256().digest()

#: (level, index) → the hash over the leaves from `index << level`, `1 << level` of them.
NodeReader = Callable[[int, int], bytes]
#: (level, start, end) → the stored hashes of a level that is a multiple of 8: leaves, tile hashes.
#: Raises LookupError for one that isn't there any more.
StoredReader = Callable[[int, int, int], Sequence[bytes]]
#: A tile hash that became known: level (8, 16 …), index, hash.
TileHash = tuple[int, int, bytes]


def leaf_hash(entry: bytes) -> bytes:
    return sha256(b"\0" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\1" + left + right).digest()


class Frontier:
    """The right edge of a tree: all that appending and the root need.

    A writer appends to a `copy` and keeps that once its transaction is through.
    """

    __slots__ = ("_peaks", "_size")

    def __init__(self) -> None:
        self._size = 0
        self._peaks: list[bytes] = []  # of the full subtrees, the largest first

    @property
    def size(self) -> int:
        return self._size

    def copy(self) -> Frontier:
        other = Frontier()
        other._size, other._peaks = self._size, self._peaks.copy()
        return other

    def append(self, leaf: bytes) -> Sequence[TileHash]:
        """Adds a leaf's hash; gives the tile hashes that it completes, mostly none.

        Costs two hashes on average, one for each level at worst.
        """
        tiles: list[TileHash] = []
        index, level = self._size, 0
        while index & 1:
            leaf = node_hash(self._peaks.pop(), leaf)
            index >>= 1
            level += 1
            if level % TILE_HEIGHT == 0:
                tiles.append((level, index, leaf))
        self._peaks.append(leaf)
        self._size += 1
        return tiles

    def append_tile(self, tile: bytes) -> None:
        """Adds a whole block of 256 leaves by its one hash; the size is a multiple of 256.

        Raises:
            AuditError: `bad_range`: it isn't.
        """
        index, inside = divmod(self._size, TILE_WIDTH)
        if inside:
            raise AuditError("bad_range", "a tile stands at a multiple of 256")
        while index & 1:
            tile = node_hash(self._peaks.pop(), tile)
            index >>= 1
        self._peaks.append(tile)
        self._size += TILE_WIDTH

    def jumped(self, size: int) -> Frontier:
        """A tree that is said to have this size though its leaves aren't there, for a verifier that
        goes on behind a gap. Its root is nothing's."""
        other = Frontier()
        other._size, other._peaks = size, [EMPTY_ROOT] * size.bit_count()
        return other

    def root(self) -> bytes:
        """The tree's root at this size."""
        if not self._peaks:
            return EMPTY_ROOT
        root = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            root = node_hash(peak, root)
        return root

    def save(self) -> bytes:
        """For the row that is written in the same transaction as the leaves."""
        return struct.pack(">Q", self._size) + b"".join(self._peaks)

    @classmethod
    def restore(cls, saved: bytes) -> Frontier:
        """
        Raises:
            AuditError: `bad_frontier`: `save` didn't write this.
        """
        frontier = cls()
        if len(saved) < 8 or (len(saved) - 8) % HASH_BYTES:
            raise AuditError("bad_frontier", "the saved tree has a wrong length")
        frontier._size = struct.unpack_from(">Q", saved)[0]
        frontier._peaks = [saved[at : at + HASH_BYTES] for at in range(8, len(saved), HASH_BYTES)]
        if frontier._size.bit_count() != len(frontier._peaks):
            raise AuditError("bad_frontier", "the saved tree's size doesn't fit its hashes")
        return frontier


def frontier_of(leaves: Iterable[bytes]) -> Frontier:
    """The right edge after these leaf hashes."""
    frontier = Frontier()
    for leaf in leaves:
        frontier.append(leaf)
    return frontier


def frontier_at(size: int, node: NodeReader) -> Frontier:
    """The right edge that a tree had at `size`, from what is stored: for a start after a crash."""
    saved, start = [struct.pack(">Q", size)], 0
    for level in reversed(range(size.bit_length())):
        if size >> level & 1:
            saved.append(node(level, start >> level))
            start += 1 << level
    return Frontier.restore(b"".join(saved))


def tiled(stored: StoredReader) -> NodeReader:
    """Reads any full node from leaves and tile hashes: at most 256 stored hashes for one.

    The reader raises AuditError, `pruned`, where a swept block's inside would be needed.
    """

    def node(level: int, index: int) -> bytes:
        height = level % TILE_HEIGHT
        start = index << height
        try:
            hashes = list(stored(level - height, start, start + (1 << height)))
        except LookupError:
            raise AuditError("pruned", "the hashes needed here have been swept") from None
        for _ in range(height):
            hashes = [node_hash(*hashes[at : at + 2]) for at in range(0, len(hashes), 2)]
        return hashes[0]

    return node


def root_at(size: int, node: NodeReader) -> bytes:
    """The root that the tree had when it held `size` leaves."""
    return range_hash(0, size, node) if size else EMPTY_ROOT


def range_hash(start: int, end: int, node: NodeReader) -> bytes:
    """Over leaves from `start` to before `end`; RFC 6962's cuts, so `start` is aligned."""
    count = end - start
    if count.bit_count() == 1:
        level = count.bit_length() - 1
        return node(level, start >> level)
    middle = start + split(count)
    return node_hash(range_hash(start, middle, node), range_hash(middle, end, node))


def split(count: int) -> int:
    """The largest power of two below `count`: where RFC 6962 cuts a tree in two."""
    return 1 << (count - 1).bit_length() - 1
