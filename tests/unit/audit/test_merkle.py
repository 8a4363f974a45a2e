"""The tree against published vectors and against the definitions of RFC 6962, written plainly."""

from __future__ import annotations

import hashlib
import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.audit.merkle import (
    EMPTY_ROOT,
    Frontier,
    NodeReader,
    frontier_at,
    frontier_of,
    leaf_hash,
    root_at,
    tiled,
)
from gateway.audit.proofs import (
    consistency_proof,
    inclusion_proof,
    verify_consistency,
    verify_inclusion,
)
from gateway.errors import AuditError

MAX = 400
ENTRIES = [b"entry %d" % number for number in range(MAX)]
LEAVES = [leaf_hash(entry) for entry in ENTRIES]

#: The entries and roots of the certificate-transparency project's own tests.
CT_ENTRIES = [
    bytes.fromhex(entry)
    for entry in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
CT_ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def mth(entries: list[bytes]) -> bytes:
    """RFC 6962 §2.1, word for word."""
    if not entries:
        return hashlib.sha256(b"").digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\x00" + entries[0]).digest()
    k = largest_power_below(len(entries))
    return hashlib.sha256(b"\x01" + mth(entries[:k]) + mth(entries[k:])).digest()


def path(m: int, entries: list[bytes]) -> list[bytes]:
    """RFC 6962 §2.1.1, word for word."""
    if len(entries) == 1:
        return []
    k = largest_power_below(len(entries))
    if m < k:
        return [*path(m, entries[:k]), mth(entries[k:])]
    return [*path(m - k, entries[k:]), mth(entries[:k])]


def subproof(m: int, entries: list[bytes], whole: bool) -> list[bytes]:
    """RFC 6962 §2.1.2, word for word."""
    if m == len(entries):
        return [] if whole else [mth(entries)]
    k = largest_power_below(len(entries))
    if m <= k:
        return [*subproof(m, entries[:k], whole), mth(entries[k:])]
    return [*subproof(m - k, entries[k:], False), mth(entries[:k])]


def largest_power_below(count: int) -> int:
    k = 1
    while k * 2 < count:
        k *= 2
    return k


def reader(leaves: list[bytes], pruned_blocks: int = 0) -> NodeReader:
    """What a store keeps: leaves but of pruned blocks, tile hashes of all."""
    stored = {(0, i): leaf for i, leaf in enumerate(leaves) if i >= pruned_blocks * 256}
    frontier = Frontier()
    for leaf in leaves:
        stored |= {(level, index): h for level, index, h in frontier.append(leaf)}
    return tiled(lambda level, start, end: [stored[level, i] for i in range(start, end)])


ROOTS = [mth(ENTRIES[:size]) for size in range(MAX + 1)]


def test_roots_are_those_of_the_published_vectors() -> None:
    frontier = Frontier()
    assert frontier.root() == EMPTY_ROOT == hashlib.sha256().digest()
    for entry, root in zip(CT_ENTRIES, CT_ROOTS, strict=True):
        frontier.append(leaf_hash(entry))
        assert frontier.root().hex() == root


def test_every_size_has_the_root_that_the_definition_gives() -> None:
    frontier = Frontier()
    node = reader(LEAVES)
    for size in range(MAX + 1):
        assert frontier.size == size
        assert frontier.root() == ROOTS[size] == root_at(size, node)
        if size < MAX:
            frontier.append(LEAVES[size])


def test_every_inclusion_proof_is_that_of_the_definition_and_verifies() -> None:
    node = reader(LEAVES)
    for size in [*range(1, 40), 63, 64, 65, 255, 256, 257, 399, 400]:
        for index in range(size):
            proof = inclusion_proof(index, size, node)
            assert verify_inclusion(LEAVES[index], index, size, proof) == ROOTS[size]
            if size < 40 or index % 37 == 0:
                assert proof == path(index, ENTRIES[:size])


def test_every_consistency_proof_is_that_of_the_definition_and_verifies() -> None:
    node = reader(LEAVES)
    for new in [*range(40), 64, 65, 255, 256, 257, 400]:
        for old in range(new + 1):
            proof = consistency_proof(old, new, node)
            verify_consistency((old, ROOTS[old]), (new, ROOTS[new]), proof)
            if old and (new < 40 or old % 37 == 0):
                assert proof == subproof(old, ENTRIES[:new], True)


def test_each_size_up_to_400_is_consistent_with_the_last() -> None:
    node = reader(LEAVES)
    for size in range(1, MAX + 1):
        proof = consistency_proof(size, MAX, node)
        verify_consistency((size, ROOTS[size]), (MAX, ROOTS[MAX]), proof)
        last = inclusion_proof(size - 1, size, node)
        assert verify_inclusion(LEAVES[size - 1], size - 1, size, last) == ROOTS[size]


@given(st.data())
def test_forged_inclusion_proof_leads_elsewhere(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, MAX))
    index = data.draw(st.integers(0, size - 1))
    proof = inclusion_proof(index, size, reader(LEAVES))
    forged = data.draw(forgeries(proof))
    assert not includes(LEAVES[index], index, size, forged)
    other = data.draw(st.integers(0, size - 1).filter(lambda one: one != index))
    assert not includes(LEAVES[other], index, size, proof)
    assert not includes(LEAVES[index], other, size, proof)


@given(st.data())
def test_forged_consistency_proof_is_refused(data: st.DataObject) -> None:
    new = data.draw(st.integers(2, MAX))
    old = data.draw(st.integers(1, new - 1))
    proof = consistency_proof(old, new, reader(LEAVES))
    forged = data.draw(forgeries(proof))
    for roots, steps in (
        ((ROOTS[old], ROOTS[new]), forged),
        ((ROOTS[old - 1], ROOTS[new]), proof),
        ((ROOTS[old], ROOTS[new - 1]), proof),
    ):
        with pytest.raises(AuditError) as caught:
            verify_consistency((old, roots[0]), (new, roots[1]), steps)
        assert caught.value.code == "bad_proof"


@st.composite
def forgeries(draw: st.DrawFn, proof: list[bytes]) -> list[bytes]:
    at = draw(st.integers(0, max(len(proof) - 1, 0)))
    kind = draw(st.sampled_from(["longer", "shorter", "changed", "short hash"]))
    if kind == "longer" or not proof:
        return [*proof[:at], b"\0" * 32, *proof[at:]]
    if kind == "shorter":
        return proof[:at] + proof[at + 1 :]
    changed = b"\0" * 32 if kind == "changed" else proof[at][:-1]
    return [*proof[:at], changed, *proof[at + 1 :]]


def includes(leaf: bytes, index: int, size: int, proof: list[bytes]) -> bool:
    try:
        return verify_inclusion(leaf, index, size, proof) == ROOTS[size]
    except AuditError:
        return False


@pytest.mark.parametrize(("index", "size"), [(-1, 4), (4, 4), (0, 0), (2**53, 2**53 + 1)])
def test_leaf_that_is_not_there_has_no_proof(index: int, size: int) -> None:
    with pytest.raises(AuditError) as caught:
        inclusion_proof(index, size, reader(LEAVES))
    assert caught.value.code == "bad_range"


def test_tree_that_shrank_has_no_proof() -> None:
    with pytest.raises(AuditError) as caught:
        consistency_proof(5, 4, reader(LEAVES))
    assert caught.value.code == "bad_range"
    with pytest.raises(AuditError):
        verify_consistency((5, ROOTS[5]), (4, ROOTS[4]), [])


@pytest.mark.parametrize("size", [0, 1, 2, 255, 256, 300])
def test_saved_edge_goes_on_as_if_nothing_had_been(size: int) -> None:
    frontier = frontier_of(LEAVES[:size])
    restored = Frontier.restore(frontier.save())
    from_rows = frontier_at(size, reader(LEAVES[:size]))
    for one in (restored, from_rows):
        assert one.root() == ROOTS[size]
        for leaf in LEAVES[size:]:
            one.append(leaf)
        assert one.root() == ROOTS[MAX]


@pytest.mark.parametrize("cut", [slice(0, 7), slice(0, -1), slice(0, -32), slice(0, 0)])
def test_damaged_edge_is_refused(cut: slice) -> None:
    with pytest.raises(AuditError) as caught:
        Frontier.restore(frontier_of(LEAVES).save()[cut])
    assert caught.value.code == "bad_frontier"


def test_copy_leaves_its_original_alone() -> None:
    frontier = frontier_of(LEAVES[:100])
    copy = frontier.copy()
    copy.append(LEAVES[100])
    assert (frontier.size, frontier.root()) == (100, ROOTS[100])
    assert (copy.size, copy.root()) == (101, ROOTS[101])


def test_each_full_block_of_256_gives_its_tile_hash() -> None:
    frontier = Frontier()
    leaves = [leaf_hash(b"%d" % number) for number in range(65536)]
    tiles = list(itertools.chain.from_iterable(frontier.append(leaf) for leaf in leaves))
    assert [tile[:2] for tile in tiles if tile[0] == 8] == [(8, index) for index in range(256)]
    assert tiles[0] == (8, 0, frontier_of(leaves[:256]).root())
    assert tiles[-1] == (16, 0, frontier.root())
    assert len(frontier.save()) == 8 + 32


def test_proofs_of_what_is_kept_survive_the_pruning_of_blocks() -> None:
    leaves = [leaf_hash(b"%d" % number) for number in range(1000)]
    whole, pruned = reader(leaves), reader(leaves, pruned_blocks=3)
    for size in (768, 769, 900, 1000):
        assert root_at(size, pruned) == root_at(size, whole)
        proof = consistency_proof(512, size, pruned)
        assert proof == consistency_proof(512, size, whole)
    for index in random.Random(5).sample(range(768, 1000), 50):
        assert inclusion_proof(index, 1000, pruned) == inclusion_proof(index, 1000, whole)


def test_inside_of_a_pruned_block_is_said_to_be_pruned() -> None:
    node = reader(LEAVES, pruned_blocks=1)
    for ask in (
        lambda: inclusion_proof(3, 400, node),
        lambda: root_at(100, node),
        lambda: consistency_proof(100, 400, node),
    ):
        with pytest.raises(AuditError) as caught:
            ask()
        assert caught.value.code == "pruned"
