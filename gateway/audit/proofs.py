"""Proofs about a Merkle tree: that a leaf is in it, that it only grew. RFC 6962, RFC 9162.

Making one needs the stored hashes (`gateway.audit.merkle.NodeReader`), checking one needs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.audit.merkle import (
    EMPTY_ROOT,
    HASH_BYTES,
    NodeReader,
    node_hash,
    range_hash,
    split,
)
from gateway.errors import AuditError

_MAX_SIZE = 2**53 - 1


def inclusion_proof(index: int, size: int, node: NodeReader) -> list[bytes]:
    """That leaf `index` is in the tree of `size`: RFC 6962 §2.1.1, from the leaf up.

    Raises:
        AuditError: `bad_range`: there is no such leaf.
    """
    if not 0 <= index < size <= _MAX_SIZE:
        raise AuditError("bad_range", "there is no such leaf in a tree of this size")
    proof: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + split(end - start)
        if index < middle:
            proof.append(range_hash(middle, end, node))
            end = middle
        else:
            proof.append(range_hash(start, middle, node))
            start = middle
    return proof[::-1]


def consistency_proof(old: int, new: int, node: NodeReader) -> list[bytes]:
    """That the tree of `old` leaves is the beginning of that of `new`: RFC 6962 §2.1.2.

    Empty for equal sizes and for an empty beginning.

    Raises:
        AuditError: `bad_range`: `old` is greater than `new`.
    """
    if not 0 <= old <= new <= _MAX_SIZE:
        raise AuditError("bad_range", "a tree doesn't shrink")
    proof: list[bytes] = []
    start, end = 0, new
    while old not in (end, 0):
        middle = start + split(end - start)
        if old <= middle:
            proof.append(range_hash(middle, end, node))
            end = middle
        else:
            proof.append(range_hash(start, middle, node))
            start = middle
    if start:
        proof.append(range_hash(start, end, node))
    return proof[::-1]


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes]) -> bytes:
    """The root that the proof leads to; the caller compares it with a signed one.

    RFC 9162 §2.1.3.2.

    Raises:
        AuditError: `bad_proof`: not a proof for this place in a tree of this size.
    """
    if not 0 <= index < size or not _are_hashes([leaf, *proof]):
        raise AuditError("bad_proof", "not an inclusion proof")
    at, last, root = index, size - 1, leaf
    for step in proof:
        if last == 0:
            raise AuditError("bad_proof", "the inclusion proof is too long")
        if at & 1 or at == last:
            root = node_hash(step, root)
            while not at & 1 and at:
                at >>= 1
                last >>= 1
        else:
            root = node_hash(root, step)
        at >>= 1
        last >>= 1
    if last:
        raise AuditError("bad_proof", "the inclusion proof is too short")
    return root


def verify_consistency(
    old: tuple[int, bytes], new: tuple[int, bytes], proof: Sequence[bytes]
) -> None:
    """Both are (size, root). RFC 9162 §2.1.4.2.

    Raises:
        AuditError: `bad_proof`: the older tree isn't shown to be the beginning of the newer one.
    """
    (old_size, old_root), (new_size, new_root) = old, new
    if not 0 <= old_size <= new_size or not _are_hashes([old_root, new_root, *proof]):
        raise AuditError("bad_proof", "not a consistency proof")
    if old_size in (0, new_size):
        is_right = old_root == (new_root if old_size else EMPTY_ROOT) and not proof
    else:
        is_right = _consistent_roots(old_size, old_root, new_size, proof) == (old_root, new_root)
    if not is_right:
        raise AuditError("bad_proof", "the trees aren't consistent")


def _consistent_roots(
    old_size: int, old_root: bytes, new_size: int, proof: Sequence[bytes]
) -> tuple[bytes, bytes] | None:
    """The two roots that a proof leads to, None if its length is wrong."""
    steps = list(proof)
    if old_size.bit_count() == 1:
        steps.insert(0, old_root)
    if not steps:
        return None
    at, last = old_size - 1, new_size - 1
    while at & 1:
        at >>= 1
        last >>= 1
    before = after = steps[0]
    for step in steps[1:]:
        if last == 0:
            return None
        if at & 1 or at == last:
            before, after = node_hash(step, before), node_hash(step, after)
            while not at & 1 and at:
                at >>= 1
                last >>= 1
        else:
            after = node_hash(after, step)
        at >>= 1
        last >>= 1
    return None if last else (before, after)


def _are_hashes(values: Sequence[bytes]) -> bool:
    return all(len(value) == HASH_BYTES for value in values)
