"""Stripes of the early clients: with checksum and length prefix, without, damaged, and of unknown size."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmail_core.codec.interop import InteropReader
from qmail_core.codec.legacy_reader import OldReader
from qmail_core.codec.stripes import Shards
from qmail_core.errors import ErasureError
from tests.reference import legacy as reference

Found = dict[int, bytes]


def read(reader: InteropReader, found: Found) -> tuple[bytes, set[int]]:
    """The plaintext, and the stripes that were named."""
    outcome = reader.check_row(0, found)
    good = {i: shards for i, shards in outcome.items() if isinstance(shards, Shards)}
    return reader.join(0, good), set(found) - set(good)


def damaged(found: Found, stripe: int) -> Found:
    return found | {stripe: bytes([found[stripe][0] ^ 1]) + found[stripe][1:]}


def text(size: int) -> bytes:
    return random.Random(size).randbytes(size - 1) + b"." if size else b""


def cut(data: bytes, d: int, **how: bool) -> Found:
    return dict(enumerate(reference.stripes(data, d, **how)))


@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 200), d=st.integers(2, 9), crc=st.booleans(), lost=st.integers(0, 9), known=st.booleans())
def test_bodies_and_attachments(size: int, d: int, crc: bool, lost: int, known: bool) -> None:
    data = text(size)
    for attachment in (False, True):
        found = cut(data, d, attachment=attachment, crc=crc)
        found.pop(lost, None)
        if known and not attachment:
            assert read(InteropReader(d, size), found) == (data, set())
        else:
            assert read(OldReader(d, len(found[d - 1 if lost != d - 1 else 0]), prefixed=attachment), found) == (
                data,
                set(),
            )


@pytest.mark.parametrize("known", [True, False])
def test_a_lying_stripe_is_named(known: bool) -> None:
    data = text(100)
    found = cut(data, 4)

    def reader() -> InteropReader:
        return InteropReader(4, 100) if known else OldReader(4, len(found[0]), prefixed=False)

    for stripe in range(4):
        assert read(reader(), damaged(found, stripe)) == (data, {stripe})
    assert read(reader(), damaged(found, 4)) == (data, {4})
    without = {i: each for i, each in found.items() if i != 2}
    with pytest.raises(ErasureError):
        read(reader(), damaged(without, 4))
    with pytest.raises(ErasureError):
        read(reader(), damaged(without, 3))


def test_a_liar_that_came_first_is_left_out_of_the_join() -> None:
    data = text(100)
    found = damaged(cut(data, 4), 0)
    reader = InteropReader(4, 100)
    good: dict[int, Shards] = {}
    for stripe, each in found.items():
        outcome = reader.check_row(0, {stripe: each})[stripe]
        assert isinstance(outcome, Shards)  # nothing was known against it yet
        good[stripe] = outcome
    assert reader.join(0, good) == data


def test_without_any_checksum_nothing_is_refused() -> None:
    found = {i: each + b"odd." for i, each in cut(text(100), 4, crc=False).items()}
    assert read(InteropReader(4, 100), found) == (text(100), set())


def test_an_object_of_unknown_size() -> None:
    for data in (b"", b"x", text(70_000)):
        found = cut(data, 3, attachment=True)
        assert read(OldReader(3, len(found[0]), prefixed=True), found)[0] == data
    # bytes that only look like a prefix are part of the text
    odd = b"\0\0\0\2" + text(50)
    found = cut(odd, 3)
    reader = OldReader(3, len(found[0]), prefixed=True)
    assert read(reader, found)[0] == odd
    assert reader.length == len(odd)
    assert read(OldReader(3, 1, prefixed=False), dict.fromkeys(range(4), b"\0"))[0] == b""


def test_stripes_of_another_size_or_place() -> None:
    found = cut(text(50), 3)
    reader = OldReader(3, len(found[0]), prefixed=False)
    assert read(reader, found | {1: b"short", 9: found[0]})[1] == {1, 9}
