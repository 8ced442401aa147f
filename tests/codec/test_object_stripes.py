"""codec.object_stripes: what a node holds of an object is its pages one behind the other."""

from __future__ import annotations

import hashlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmail_core.codec import object_stripes as stripes
from qmail_core.codec.stripes import Shards
from qmail_core.errors import ErasureError
from qmail_core.model import Profile, Striping

SHAPES = [Striping(Profile.INTEROP, 3, 1), Striping(Profile.RS, 4, 2), Striping(Profile.SEALED, 4, 2)]


def cut(data: bytes, striping: Striping) -> tuple[list[bytes], bytes]:
    """All stripe objects, and the digest root."""
    writer = stripes.writer(striping, len(data), bytes(32))
    writer.scan(lambda offset, size: data[offset : offset + size])
    rows = [writer.row(page, lambda offset, size: data[offset : offset + size]) for page in range(writer.pages)]
    return [b"".join(map(bytes, pages)) for pages in zip(*rows, strict=True)], writer.root


def join(found: dict[int, bytes], striping: Striping, size: int, root: bytes) -> bytes:
    reader, starts = stripes.reader(striping, size, root), stripes.page_starts(striping, size)
    out = []
    for page in range(reader.pages):
        outcome = reader.check_row(page, {i: each[starts[page] : starts[page + 1]] for i, each in found.items()})
        out.append(reader.join(page, {i: shards for i, shards in outcome.items() if isinstance(shards, Shards)}))
    return b"".join(out)


@settings(max_examples=25, deadline=None)
@given(striping=st.sampled_from(SHAPES), size=st.sampled_from([0, 1, 70_000, 800_000, 3_145_728, 3_145_729, 6_500_000]))
def test_any_k_stripes_give_the_object_back(striping: Striping, size: int) -> None:
    data = random.Random(size).randbytes(size)
    whole, root = cut(data, striping)
    assert {len(each) for each in whole} == {stripes.page_starts(striping, size)[-1]}
    left = dict(list(enumerate(whole))[striping.m :])
    assert join(left, striping, size, root) == data


def test_the_reconstruction_example() -> None:
    # QMail wire D.5: D = 3, blocks of 3 MiB, stripe 1 removed
    size = 3_145_728 + 12_345
    data = bytes((i * 131 + i // 17) & 0xFF for i in range(size))
    assert hashlib.sha256(data).hexdigest() == "27604ca59a064d81fa349814c81410d938bfc1974785b135858eb8970f1f82ba"
    whole, root = cut(data, SHAPES[0])
    assert len(whole[0]) == (1 << 20) + 4115
    assert join({0: whole[0], 2: whole[2], 3: whole[3]}, SHAPES[0], size, root) == data
    with pytest.raises(ErasureError):
        join({0: whole[0], 3: whole[3]}, SHAPES[0], size, root)
