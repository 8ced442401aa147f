"""Objects and stripes: every profile, every size that matters, every pattern of loss, and no wrong byte ever out."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import Buffer

from qmail_core import _framing
from qmail_core.codec import consts as c
from qmail_core.codec import erasure
from qmail_core.codec.erasure import Layout, Reader, Writer
from qmail_core.codec.interop import SMALL_STRIPE, InteropReader, InteropWriter
from qmail_core.codec.stripes import Shards
from qmail_core.errors import ErasureError, LocalProtocolError, QMailError
from qmail_core.model import Profile, Striping

SEED = bytes(range(32))
SMALL = [Striping(p, k, m) for p in (Profile.RS, Profile.SEALED) for k in (1, 2, 3, 4) for m in (1, 2, 3)]
INTEROP = [Striping(Profile.INTEROP, k, 1) for k in (2, 3, 4, 7)]
WIDE = Striping(Profile.SEALED, 20, 5)


def data_of(size: int, seed: int = 0) -> bytes:
    return random.Random(seed * 1_000_003 + size).randbytes(size)


def split(data: bytes, striping: Striping, seed: bytes = SEED) -> list[bytes]:
    return erasure.split(data, striping, seed)


def join(stripes: Mapping[int, Buffer], striping: Striping, size: int) -> bytes:
    return erasure.join(stripes, striping, size)


def kept(stripes: Sequence[bytes], indices: Sequence[int]) -> dict[int, bytes]:
    return {index: stripes[index] for index in indices}


def pages_of(striping: Striping, data: bytes, seed: bytes = SEED) -> tuple[Writer, list[list[bytes]]]:
    """Pages by page and stripe."""
    writer = Writer(striping, len(data), seed)

    def read(offset: int, size: int) -> bytes:
        return data[offset : offset + size]

    writer.scan(read)
    return writer, [[bytes(page) for page in writer.row(number, read)] for number in range(writer.pages)]


def check_all(reader: Reader | InteropReader, page: int, found: Mapping[int, Buffer]) -> dict[int, Shards]:
    """Check pages of one row together; raises what `check_row` found wrong with any of them."""
    outcome = reader.check_row(page, found)
    assert set(outcome) == set(found)
    good: dict[int, Shards] = {}
    for stripe, shards in outcome.items():
        if isinstance(shards, ErasureError):
            raise shards
        good[stripe] = shards
    return good


def check(reader: Reader | InteropReader, stripe: int, page: int, data: Buffer) -> Shards:
    """Check one page of one stripe alone."""
    return check_all(reader, page, {stripe: data})[stripe]


def refused(reader: Reader, page: int, row: Sequence[Buffer], stripe: int, wrong: Buffer) -> bool:
    """Whether a wrong page is refused, alone and among the good pages of its row, and only it."""
    outcome = reader.check_row(page, {**dict(enumerate(row)), stripe: wrong})
    assert set(outcome) == set(range(len(row)))
    bad = {index for index, shards in outcome.items() if isinstance(shards, ErasureError)}
    with pytest.raises(ErasureError):
        check(reader, stripe, page, wrong)
    return bad == {stripe}


# ------------------------------------------------------------------------------------------------------------------
# Worked examples


@pytest.mark.parametrize(
    ("block", "d", "stripes"),
    [
        (b"\x01", 2, "01 00 01"),
        (b"Hello", 2, "b8aa0b 426607 facc0c"),
        (b"Hello", 3, "c60e d818 141f 0a09"),
        (b"Hello, world.", 4, "04c10900 a8ebaf03 fec7fb01 51051101 03e84c03"),
        (bytes.fromhex("1c1c0248656c6c6f2c20776f726c642e"), 2, "6680abba02bfac2a 2221647646756574 44a1cfcc44cac95e"),
    ],
)
def test_the_documented_stripes(block: bytes, d: int, stripes: str) -> None:
    striping = Striping(Profile.INTEROP, d, 1)
    cut = split(block, striping)
    assert [stripe.hex() for stripe in cut] == stripes.split()
    for gone in range(d + 1):
        assert join({i: s for i, s in enumerate(cut) if i != gone}, striping, len(block)) == block


def conformance_source() -> bytes:
    size = 3 * 1024 * 1024 + 12_345
    table = bytes(range(256))
    # byte i = (i * 131 + i // 17) & 0xFF: within 17 bytes only the first term moves
    return b"".join(
        bytes(table[(i * 131 + i // 17) & 0xFF] for i in range(start, min(start + 17, size)))
        for start in range(0, size, 17)
    )


def test_the_reconstruction_conformance_input() -> None:
    source = conformance_source()
    digest = "27604ca59a064d81fa349814c81410d938bfc1974785b135858eb8970f1f82ba"
    assert hashlib.sha256(source).hexdigest() == digest
    striping = Striping(Profile.INTEROP, 3, 1)
    stripes = split(source, striping)
    assert {len(stripe) for stripe in stripes} == {len(stripes[0])}
    whole = join(kept(stripes, (0, 2, 3)), striping, len(source))
    assert hashlib.sha256(whole).hexdigest() == digest
    # a wrong byte gives another digest, which is what the receiver refuses by
    wrong = bytearray(stripes[0])
    wrong[7] ^= 1
    changed = join({0: wrong, 2: stripes[2], 3: stripes[3]}, striping, len(source))
    assert hashlib.sha256(changed).hexdigest() != digest


# The format may never drift: stripes that were stored must stay readable. These are the digests of all stripes in
# index order, for 1 000 000 bytes of the generator below and the seed 00..1F.
GOLDEN = {
    Striping(Profile.SEALED, 20, 5): "052114db14f578cf93317fbc26d5a3176fd6cf74ef4eb6f646394e605521ae6a",
    Striping(Profile.RS, 4, 1): "5253d0a4f28121f7add3ae37a82c94e39b363109c2a11395eb5b7dc73ef84d8f",
    Striping(Profile.INTEROP, 4, 1): "1e31d2996be1f7cc083c0853d21f960cc081aa7bbe6a64a5b42b39c343d568a7",
}


def golden_data() -> bytes:
    return b"".join(hashlib.sha256(i.to_bytes(4, "big")).digest() for i in range(31_250))


@pytest.mark.parametrize("striping", GOLDEN)
def test_the_format_does_not_drift(striping: Striping) -> None:
    data = golden_data()
    digest = hashlib.sha256(b"".join(split(data, striping))).hexdigest()
    assert digest == GOLDEN[striping]


# ------------------------------------------------------------------------------------------------------------------
# There and back


def edges(striping: Striping) -> list[int]:
    if striping.profile == Profile.INTEROP:
        block = striping.k * SMALL_STRIPE
        page = striping.k * c.PAGE_SIZE
        return [0, 1, 2, striping.k, block - 1, block, block + 1, page - 1, page, page + 1, 2 * page + 5]
    segment = striping.k * erasure.SHARD_PLAIN
    page = segment * erasure.PAGE_SEGMENTS
    return [0, 1, 2, striping.k, segment - 1, segment, segment + 1, page - 1, page, page + 1, 2 * page + 5]


@pytest.mark.parametrize("striping", [*INTEROP[:3], *SMALL[::4]], ids=str)
def test_sizes_around_every_boundary_come_back(striping: Striping) -> None:
    for size in edges(striping):
        data = data_of(size)
        stripes = split(data, striping)
        assert len({len(stripe) for stripe in stripes}) == 1
        assert join(dict(enumerate(stripes)), striping, size) == data
        last = list(range(striping.n))[-striping.k :]
        assert join(kept(stripes, last), striping, size) == data


@pytest.mark.parametrize("striping", [*INTEROP, *SMALL], ids=str)
@pytest.mark.parametrize("size", [0, 1, 5, 1000])
def test_any_k_stripes_are_enough_and_no_fewer(striping: Striping, size: int) -> None:
    data = data_of(size)
    stripes = split(data, striping)
    for indices in itertools.combinations(range(striping.n), striping.k):
        assert join(kept(stripes, indices), striping, size) == data
    for indices in itertools.combinations(range(striping.n), striping.k - 1):
        if size or striping.profile != Profile.INTEROP:
            with pytest.raises(ErasureError):
                join(kept(stripes, indices), striping, size)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 5000), st.randoms(use_true_random=False), st.sampled_from([Profile.RS, Profile.SEALED]))
def test_20_of_25_stripes_are_enough(size: int, rng: random.Random, profile: Profile) -> None:
    striping = Striping(profile, 20, 5)
    data = data_of(size)
    stripes = split(data, striping)
    assert join(kept(stripes, rng.sample(range(25), 20)), striping, size) == data


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=400), st.integers(2, 24))
def test_interop_comes_back_whatever_is_lost(data: bytes, k: int) -> None:
    striping = Striping(Profile.INTEROP, k, 1)
    stripes = split(data, striping)
    for gone in range(k + 1):
        assert join({i: s for i, s in enumerate(stripes) if i != gone}, striping, len(data)) == data


def test_the_same_seed_makes_the_same_stripes_and_another_seed_others() -> None:
    data = data_of(10_000)
    assert split(data, WIDE) == split(data, WIDE)
    other = split(data, WIDE, bytes(32))
    assert all(a != b for a, b in zip(split(data, WIDE), other, strict=True))


def test_sealed_stripes_show_nothing_of_the_text() -> None:
    data = b"all work and no play makes jack a dull boy " * 200
    assert not any(b"work" in stripe for stripe in split(data, WIDE))
    assert any(b"work" in stripe for stripe in split(data, Striping(Profile.RS, 20, 5)))


# ------------------------------------------------------------------------------------------------------------------
# Headers and single stripes


def test_every_truncation_of_a_header_or_stripe_is_refused() -> None:
    striping = Striping(Profile.SEALED, 3, 2)
    writer, pages = pages_of(striping, data_of(100))
    reader = Reader(writer.layout, writer.root)
    for stripe in range(striping.n):
        page = pages[0][stripe]
        assert check(reader, stripe, 0, page)
        for size in range(len(page)):
            assert refused(reader, 0, pages[0], stripe, page[:size])
            if size < erasure.HEADER_SIZE:
                with pytest.raises(ErasureError):
                    erasure.parse_header(page[:size])
        assert refused(reader, 0, pages[0], stripe, page + b"\0")


@pytest.mark.parametrize("profile", [Profile.RS, Profile.SEALED])
@pytest.mark.parametrize("size", [0, 40])
def test_every_flipped_bit_of_a_stripe_is_detected(profile: Profile, size: int) -> None:
    striping = Striping(profile, 2, 1)
    writer, pages = pages_of(striping, data_of(size))
    reader = Reader(writer.layout, writer.root)
    for stripe in range(striping.n):
        page = pages[0][stripe]
        for bit in range(8 * len(page)):
            wrong = bytearray(page)
            wrong[bit // 8] ^= 1 << bit % 8
            assert refused(reader, 0, pages[0], stripe, wrong)


def test_every_flipped_bit_of_later_pages_is_detected_too() -> None:
    striping = Striping(Profile.RS, 2, 1)
    data = data_of(6 * erasure.SHARD_PLAIN + 90)
    writer, pages = pages_of(striping, data)
    reader = Reader(writer.layout, writer.root)
    page = pages[1][1]
    for bit in range(8 * len(page)):
        wrong = bytearray(page)
        wrong[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ErasureError):
            check(reader, 1, 1, wrong)
    with pytest.raises(ErasureError):
        check(reader, 0, 1, page)


@settings(max_examples=300)
@given(st.binary(min_size=64, max_size=64))
def test_random_headers_raise_nothing_but_erasure_errors(noise: bytes) -> None:
    for head in (noise, erasure.MAGIC + b"\1\2" + noise[6:]):
        try:
            layout, index, _ = erasure.parse_header(head)
        except ErasureError:
            continue
        assert 0 <= index < layout.striping.n


def header(**fields: int) -> bytes:
    raw = bytearray(Layout(Striping(Profile.RS, 2, 1), 100).header(0, bytes(32)))
    for name, value in fields.items():
        raw[{"magic": 0, "version": 4, "profile": 5, "k": 6, "m": 7, "index": 8, "segment": 15}[name]] = value
    return bytes(raw)


@pytest.mark.parametrize(
    "wrong",
    [
        {"magic": 0},
        {"version": 2},
        {"profile": 0},
        {"profile": 3},
        {"k": 0},
        {"m": 0},
        {"k": 255},
        {"index": 3},
        {"segment": 1},
    ],
    ids=str,
)
def test_headers_that_contradict_themselves_are_refused(wrong: dict[str, int]) -> None:
    assert erasure.parse_header(header())[1] == 0
    with pytest.raises(ErasureError):
        erasure.parse_header(header(**wrong))


# ------------------------------------------------------------------------------------------------------------------
# Liars


def test_a_stripe_of_something_else_is_refused() -> None:
    striping = Striping(Profile.SEALED, 3, 2)
    data = data_of(5000)
    writer, pages = pages_of(striping, data)
    reader = Reader(writer.layout, writer.root)
    old = pages_of(striping, data_of(5000, seed=1))[1][0]
    resealed = pages_of(striping, data, bytes(32))[1][0]
    longer = pages_of(striping, data + b"x")[1][0]
    wider = pages_of(Striping(Profile.SEALED, 3, 1), data)[1][0]
    plain = pages_of(Striping(Profile.RS, 3, 2), data)[1][0]
    for lie in (pages[0][1], old[0], resealed[0], longer[0], wider[0], plain[0], pages[0][0][:-1], pages[0][0] + b"\0"):
        assert refused(reader, 0, pages[0], 0, lie)
    # the right index on another stripe's bytes
    forged = bytearray(pages[0][1])
    forged[8] = 0
    assert refused(reader, 0, pages[0], 0, forged)


def test_pages_cannot_change_places() -> None:
    striping = Striping(Profile.RS, 1, 2)
    writer, pages = pages_of(striping, bytes(9 * erasure.SHARD_PLAIN))
    reader = Reader(writer.layout, writer.root)
    assert check(reader, 0, 1, pages[1][0])
    with pytest.raises(ErasureError):
        check(reader, 0, 2, pages[1][0])  # the same plaintext, but another place


@pytest.mark.parametrize("liars", [1, 2, 5])
def test_join_outvotes_liars_who_agree_with_each_other(liars: int) -> None:
    data, lie = data_of(4000), data_of(4000, seed=1)
    stripes, wrong = split(data, WIDE), split(lie, WIDE)
    rng = random.Random(liars)
    for _ in range(5):
        mixed = dict(enumerate(stripes))
        mixed |= {index: wrong[index] for index in rng.sample(range(25), liars)}
        assert join(mixed, WIDE, len(data)) == data


def test_join_survives_m_damaged_stripes_of_any_kind() -> None:
    data = data_of(4000)
    stripes = split(data, WIDE)
    damages: list[bytes] = [b"", stripes[0][:70], stripes[0][:-1], stripes[7], bytes(len(stripes[0]))]
    for shift in range(25):
        mixed: dict[int, bytes] = dict(enumerate(stripes))
        for number, damage in enumerate(damages):
            mixed[(shift + 3 * number + 1) % 25] = damage
        assert join(mixed, WIDE, len(data)) == data


def test_join_never_gives_what_m_plus_1_liars_want() -> None:
    data, lie = data_of(4000), data_of(4000, seed=1)
    mixed = dict(enumerate(split(data, WIDE))) | {i: s for i, s in enumerate(split(lie, WIDE)) if i < 6}
    with pytest.raises(ErasureError, match="no 20 good ones belong together"):
        join(mixed, WIDE, len(data))


def seal(plain: bytes, key: bytes, padded: int) -> bytearray:
    """One segment in one shard, by the native steps a Writer takes."""
    sealed, text = bytearray(padded), len(plain) + len(erasure.CANARY)
    _framing.seal_text(plain, key, erasure.CANARY, [sealed])
    [(digest, _)] = _framing.text_digests([[sealed]], 1, [text], [0])
    _framing.seal_key([sealed], text, key, digest)
    return sealed


def unseal(sealed: bytearray, size: int) -> bytes:
    """A Reader's way back from one checked shard."""
    reader = Reader(Layout(Striping(Profile.SEALED, 1, 1), size), bytes(32))
    return reader.join(0, {0: Shards([memoryview(sealed)])})


def test_a_sealed_segment_of_wrong_bytes_does_not_open() -> None:
    sealed = seal(b"secret", bytes(32), 80)
    assert unseal(sealed, 6) == b"secret"
    for bit in range(8 * (6 + 16 + 32)):
        wrong = bytearray(sealed)
        wrong[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ErasureError):
            unseal(wrong, 6)


def test_consistent_stripes_of_a_broken_seal_are_still_refused() -> None:
    """Whoever writes the stripes can make their digests agree; the canary is what then stops a wrong text."""
    striping = Striping(Profile.SEALED, 2, 1)

    class Broken(Writer):
        def _finish_seals(self, rows: dict[int, list[memoryview]]) -> None:
            super()._finish_seals(rows)
            rows[0][0][0] ^= 1
            self._code.encode_into(rows[0])
            self._leaves[0] = _framing.leaf_digests(rows[0])

    writer = Broken(striping, 10, SEED)
    writer.scan(lambda offset, size: b"0123456789")
    row = writer.row(0, lambda offset, size: b"0123456789")
    reader = Reader(writer.layout, writer.root)
    alone = {stripe: check(reader, stripe, 0, page) for stripe, page in enumerate(row)}
    together = check_all(reader, 0, dict(enumerate(row)))  # brings the digest of the text along
    assert together[0].texts
    for shards in (alone, together, {1: alone[1], 2: alone[2]}):
        with pytest.raises(ErasureError, match="does not open"):
            reader.join(0, shards)


# ------------------------------------------------------------------------------------------------------------------
# Rebuilding


@pytest.mark.parametrize("striping", [Striping(Profile.RS, 2, 2), Striping(Profile.SEALED, 3, 2)], ids=str)
@pytest.mark.parametrize("size", [0, 1, 70_000, 800_000])
def test_rebuilt_pages_are_byte_for_byte_what_was_stored(striping: Striping, size: int) -> None:
    writer, pages = pages_of(striping, data_of(size))
    reader = Reader(writer.layout, writer.root)
    for page, row in enumerate(pages):
        for lost in itertools.combinations(range(striping.n), striping.m):
            shards = {i: check(reader, i, page, row[i]) for i in range(striping.n) if i not in lost}
            donor = row[next(iter(shards))]
            assert reader.rebuild(page, shards, donor, lost) == [row[i] for i in lost]
            shards = check_all(reader, page, {i: row[i] for i in shards})
            assert reader.rebuild(page, shards, donor, lost) == [row[i] for i in lost]


def test_rebuilding_from_too_few_is_refused() -> None:
    writer, pages = pages_of(Striping(Profile.RS, 2, 2), data_of(10))
    reader = Reader(writer.layout, writer.root)
    with pytest.raises(ErasureError):
        reader.rebuild(0, {0: check(reader, 0, 0, pages[0][0])}, pages[0][0], [1])


@pytest.mark.parametrize("size", [0, 1, 1000, 2_000_000])
def test_interop_pages_are_rebuilt_too(size: int) -> None:
    striping, data = Striping(Profile.INTEROP, 3, 1), data_of(size)
    writer = InteropWriter(striping, size)
    reader = InteropReader(3, size)
    assert reader.pages == writer.pages
    for page in range(writer.pages):
        row = writer.row(page, lambda offset, count: data[offset : offset + count])
        for lost in range(4):
            shards = {i: check(reader, i, page, row[i]) for i in range(4) if i != lost}
            assert reader.rebuild(page, shards, row[0], [lost]) == [row[lost]]
    with pytest.raises(ErasureError):
        reader.rebuild(0, {}, b"", [0])
    if size:
        with pytest.raises(ErasureError):
            check(reader, 0, 0, b"")
    with pytest.raises(ErasureError):
        check(reader, 4, 0, bytes(3_000_000))


# ------------------------------------------------------------------------------------------------------------------
# Writers


@pytest.mark.parametrize("size", [100_000, 1_000_000])
def test_a_source_that_changes_between_the_passes_is_refused(size: int) -> None:
    striping = Striping(Profile.SEALED, 1, 1)
    data = bytearray(data_of(size))
    writer = Writer(striping, size, SEED)

    def read(offset: int, count: int) -> bytes:
        return bytes(data[offset : offset + count])

    writer.scan(read)
    data[size // 2] ^= 1
    if writer.pages == 1:  # small objects are read once
        assert join(dict(enumerate(writer.row(0, read))), striping, size) != bytes(data)
        return
    changed = size // 2 // (erasure.SHARD_PLAIN * erasure.PAGE_SEGMENTS)
    for page in range(writer.pages):
        if page == changed:
            with pytest.raises(ErasureError, match="changed"):
                writer.row(page, read)
        else:
            writer.row(page, read)


def test_a_source_that_shrinks_is_refused() -> None:
    writer = Writer(Striping(Profile.RS, 2, 1), 100, SEED)
    with pytest.raises(ErasureError, match="shorter"):
        writer.scan(lambda offset, size: bytes(size - 1))


def test_the_checksum_and_sizes_are_those_of_the_object() -> None:
    from zlib import crc32

    data = data_of(800_000)
    for striping in (Striping(Profile.SEALED, 2, 1), Striping(Profile.INTEROP, 2, 1)):
        writer = erasure.writer(striping, len(data), SEED)
        writer.scan(lambda offset, size: data[offset : offset + size])
        assert writer.crc32 == crc32(data)
        rows = [writer.row(page, lambda offset, size: data[offset : offset + size]) for page in range(writer.pages)]
        assert {sum(map(len, pages)) for pages in zip(*rows, strict=True)} == {writer.stripe_size}


def test_pages_stay_below_what_the_wire_carries() -> None:
    for k, m in ((1, 1), (20, 5), (27, 5)):
        for size in (0, 1, 10**6, 10**9, 4 << 30):
            layout = Layout(Striping(Profile.SEALED, k, m), size)
            assert max(layout.page_size(page) for page in (0, layout.pages // 2, layout.pages - 1)) <= c.PAGE_SIZE
            assert layout.pages <= 65_536


def test_what_a_writer_cannot_do_is_our_error() -> None:
    with pytest.raises(LocalProtocolError):
        Writer(WIDE, 1, b"short")
    for k, m in ((3, 2), (1, 1), (32, 1)):
        with pytest.raises(LocalProtocolError):
            InteropWriter(Striping(Profile.INTEROP, k, m), 1)


@pytest.mark.parametrize("k", [0, 1, 32, 255])
def test_an_interop_tell_with_impossible_stripes_is_refused(k: int) -> None:
    with pytest.raises(ErasureError):
        InteropReader(k, 100)


def test_joining_nothing_is_refused() -> None:
    for striping in (WIDE, Striping(Profile.INTEROP, 3, 1)):
        with pytest.raises(QMailError):
            join({}, striping, 10)
