"""Digest trees: every leaf climbs to the root, and nothing else does."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmail_core import _framing
from qmail_core.codec import merkle

digests = st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=40)


def climb(leaf: bytes, index: int, path: bytes | bytearray) -> bytes:
    """Where a leaf leads to, by hashlib; the native code must agree on everything."""
    digest = leaf
    for height in range(len(path) // 32):
        sibling = bytes(path[32 * height : 32 * height + 32])
        pair = sibling + digest if index >> height & 1 else digest + sibling
        digest = hashlib.sha256(b"\1" + pair).digest()
    assert _framing.climb(leaf, index, path) == digest
    return digest


def leaf_of(shard: bytes) -> bytes:
    """The native digest of one shard."""
    (digest,) = _framing.leaf_digests([shard])
    return digest


@given(digests)
def test_every_leaf_climbs_to_the_root(leaves: list[bytes]) -> None:
    tree = merkle.levels(leaves)
    assert len(tree) == merkle.depth(len(leaves)) + 1
    for index, leaf in enumerate(leaves):
        path = merkle.path(tree, index)
        assert len(path) == merkle.DIGEST_SIZE * merkle.depth(len(leaves))
        assert climb(leaf, index, path) == tree[-1][0]


@given(digests, st.data())
def test_a_changed_leaf_path_or_index_leads_elsewhere(leaves: list[bytes], data: st.DataObject) -> None:
    tree = merkle.levels(leaves)
    index = data.draw(st.integers(0, len(leaves) - 1))
    path = bytearray(merkle.path(tree, index))
    bit = data.draw(st.integers(0, 8 * (32 + len(path)) - 1))
    whole = bytearray(leaves[index]) + path
    whole[bit // 8] ^= 1 << bit % 8
    assert climb(bytes(whole[:32]), index, whole[32:]) != tree[-1][0]


@pytest.mark.parametrize(("leaves", "depth"), [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (25, 5), (32, 5), (33, 6)])
def test_the_depth_is_the_logarithm_rounded_up(leaves: int, depth: int) -> None:
    assert merkle.depth(leaves) == depth


def test_leaves_nodes_and_roots_live_apart() -> None:
    left, right = leaf_of(b"a"), leaf_of(b"b")
    top = merkle.levels([left, right])[-1][0]
    assert left == hashlib.sha256(b"\0a").digest()
    assert top == hashlib.sha256(b"\1" + left + right).digest()
    assert leaf_of(left + right) != top
    assert merkle.bind(b"shape", top) == hashlib.sha256(b"\2shape" + top).digest()
    assert merkle.bind(b"shap", b"e" + top) != merkle.bind(b"other", top)


def test_missing_leaves_count_as_zero_digests() -> None:
    three = [leaf_of(bytes((i,))) for i in range(3)]
    assert merkle.levels(three)[-1] == merkle.levels([*three, bytes(32)])[-1]
    assert merkle.levels(three)[-1] != merkle.levels([*three, leaf_of(b"")])[-1]
