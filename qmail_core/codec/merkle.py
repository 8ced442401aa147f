"""Digest trees over the stripes of one object: a tree per segment over its n shards, and one tree over the segments.

Two levels, so that a lost shard's path can be rebuilt from its own segment and any survivor's upper half. Leaves and
inner nodes are hashed under different prefixes, missing leaves are zero digests, and the final root also binds the
object's shape, so that no shard, position or length can be swapped for another. docs/erasure.md, "Integrity".
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from qmail_core._framing import tree_level

DIGEST_SIZE = 32
_ROOT = b"\x02"
_EMPTY = bytes(DIGEST_SIZE)


def depth(leaves: int) -> int:
    """Levels of siblings above a leaf: ceil(log2(leaves)), 0 for a single leaf."""
    return (leaves - 1).bit_length()


def levels(digests: Sequence[bytes]) -> list[list[bytes]]:
    """All levels of the tree, leaves (padded with zero digests to a power of two) first, the root level last."""
    level = list(digests)
    level += [_EMPTY] * ((1 << depth(len(level))) - len(level))
    tree = [level]
    while len(level) > 1:
        level = tree_level(level)
        tree.append(level)
    return tree


def path(tree: Sequence[Sequence[bytes]], index: int) -> bytes:
    """Siblings of one leaf from the bottom up, concatenated."""
    return b"".join([level[(index >> height) ^ 1] for height, level in enumerate(tree[:-1])])


def bind(shape: bytes, top: bytes) -> bytes:
    """The object's root: the tree's root bound to the fields that give the stripes their meaning."""
    return hashlib.sha256(_ROOT + shape + top).digest()
