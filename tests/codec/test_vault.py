"""Files at rest: nothing can be cut off, swapped, moved or changed, and nothing opens with another key."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given, settings
from hypothesis import strategies as st

from qmail_core.codec import vault
from qmail_core.codec.vault import KEY, SEGMENT, Segments
from qmail_core.errors import Tampered

HEADS = list(vault._LAYOUTS)
A, B = bytes(range(32)), bytes(range(1, 33))
FRESH = b"random!"


def seal(sealer: Segments, number: int, plain: bytes, *, last: bool) -> memoryview:
    return memoryview(b"".join(sealer.seal(number, plain, FRESH, last=last)))


@pytest.mark.parametrize("head", HEADS)
def test_a_segment_opens_only_in_its_place(head: bytes) -> None:
    sealer = Segments(head, A, b"one")
    sealed = seal(sealer, 3, b"text", last=False)
    assert sealer.open(3, sealed, last=False) == b"text"
    for number, last in ((2, False), (4, False), (3, True)):
        with pytest.raises(Tampered, match="segment"):
            sealer.open(number, sealed, last=last)
    for other in (Segments(head, B, b"one"), Segments(head, A, b"two")):
        with pytest.raises(Tampered):
            other.open(3, sealed, last=False)


@pytest.mark.parametrize("head", HEADS)
def test_a_segment_that_was_cut_short_does_not_open(head: bytes) -> None:
    sealer = Segments(head, A, b"one")
    sealed = seal(sealer, 0, b"text", last=True)
    for length in range(len(sealed)):
        with pytest.raises(Tampered, match="segment"):
            sealer.open(0, sealed[:length], last=True)


def test_the_layout_is_bound_to_the_segments() -> None:
    sealed = seal(Segments(HEADS[0], A, b"one"), 0, b"text", last=True)
    with pytest.raises(Tampered):
        Segments(HEADS[1], A, b"one").open(0, sealed, last=True)


def test_a_segment_that_is_sealed_again_has_another_nonce() -> None:
    sealer = Segments(vault.NEW, A, b"one")
    once, again = (b"".join(sealer.seal(0, bytes(64), fresh, last=False)) for fresh in (b"1234567", b"7654321"))
    assert once[vault.FRESH :] != again[vault.FRESH :]
    keystream = bytes(x ^ y for x, y in zip(once[7:71], again[7:71], strict=True))
    assert keystream != bytes(64)


def test_a_nonce_has_the_number_and_the_end_in_it() -> None:
    """The construction, spelt out: 7 random bytes, the number, whether it is the last."""
    front, sealed = Segments(vault.NEW, A, b"id").seal(0x01020304, b"text", FRESH, last=True)
    assert front == FRESH
    nonce = FRESH + bytes((1, 2, 3, 4, 1))
    assert sealed == ChaCha20Poly1305(A).encrypt(nonce, b"text", vault.NEW + b"id")


@pytest.mark.parametrize("head", [b"", b"QMF1", b"QMF3\2\0\0\0", b"QMF1\0\0\0\0", b"QMF2\1\0\0\0", HEADS[0] + b"\0"])
def test_a_header_that_is_none_is_refused(head: bytes) -> None:
    with pytest.raises(Tampered):
        Segments(head, A, b"one")


@given(st.binary(max_size=200), st.data())
@settings(max_examples=50)
def test_any_changed_bit_is_found(plain: bytes, data: st.DataObject) -> None:
    sealer = Segments(vault.NEW, A, b"one")
    sealed = bytearray(seal(sealer, 0, plain, last=True))
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(Tampered):
        sealer.open(0, memoryview(sealed), last=True)


@pytest.mark.parametrize(
    ("size", "segments"), [(0, 1), (1, 1), (SEGMENT - 1, 1), (SEGMENT, 1), (SEGMENT + 1, 2), (2 << 30, 32768)]
)
def test_sizes(size: int, segments: int) -> None:
    assert vault.segments_of(size) == segments
    for head in HEADS:
        more = 23 if head == vault.NEW else 16
        assert Segments(head, A, b"one").stored(size) == 8 + size + more * segments


def test_a_key_sealed_to_somebody_opens_for_nobody_else() -> None:
    sealed = vault.seal_to(vault.public_of(A), B, b"k" * KEY, b"file")
    assert vault.open_with(A, sealed, b"file") == b"k" * KEY
    for private, raw, bound in ((B, sealed, b"file"), (A, sealed, b"elif"), (A, sealed[:-1] + b"x", b"file")):
        with pytest.raises(Tampered):
            vault.open_with(private, raw, bound)
    for length in range(len(sealed)):
        with pytest.raises(Tampered):
            vault.open_with(A, sealed[:length], b"file")
    with pytest.raises(Tampered):  # a point of small order
        vault.open_with(A, bytes(32) + sealed[32:], b"file")


def test_a_wrapped_secret_opens_for_its_purpose_only() -> None:
    wrapped = vault.wrap(A, bytes(12), b"secret", b"pin")
    assert vault.unwrap(A, wrapped, b"pin") == b"secret"
    assert vault.unwrap(B, wrapped, b"pin") is None
    assert vault.unwrap(A, wrapped, b"upload") is None
    for length in range(len(wrapped)):
        assert vault.unwrap(A, wrapped[:length], b"pin") is None


def test_a_pin_gives_a_key_by_salt_and_cost() -> None:
    keys = {vault.pin_secret(pin, salt, cost) for pin in ("1234", "1235") for salt in (A, B) for cost in (2, 4)}
    assert len(keys) == 8
    assert {len(key) for key in keys} == {KEY}
