"""Stripes: their bytes are pinned, every path of the kernels makes the same, and wrong bytes never come out."""

from __future__ import annotations

import hashlib
import hmac
import random
import threading
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from qmail_core import ReedSolomon
from qmail_core import _framing as fr
from qmail_core.codec import erasure
from qmail_core.codec.erasure import CANARY, Reader, Writer
from qmail_core.codec.stripes import Shards
from qmail_core.errors import ErasureError
from qmail_core.model import Profile, Striping

SEED = bytes(range(32))
PATHS = {"sha": ("portable", "shani"), "many": ("single", "pairs", "lanes"), "aes": ("openssl", "aesni", "vaes512")}

# SHA-256 over length (4 bytes) and bytes of every stripe of random.Random(length).randbytes(length)
PINNED = [
    (Profile.SEALED, 20, 5, 0, "89e748752573d0f6330ae812d4c8f74200d0ab6f9dbedf2611a844700842ecd1"),
    (Profile.SEALED, 20, 5, 1, "8afef6b991b9ddead0ed78cc83350c2ca00b5e7962f49fb537cf0128354d7fb0"),
    (Profile.SEALED, 20, 5, 148, "06613beb27c28e31a97281df0fbe520efc37676574c35d8cf1fabcf5cedb4efb"),
    (Profile.SEALED, 20, 5, 65_536, "f050ba3f2831697f57cb07b575ef688227b36db8355d57a41956c1f9ca098503"),
    (Profile.SEALED, 20, 5, 1_310_721, "3574fa8a13057c8eafabb976d18ce4c03f77c56fdc761f12d9daf76ec0a38a75"),
    (Profile.SEALED, 20, 5, 5_000_000, "64cb7e5340fb67308de1f1ec0b576a2730efc9d847c3a642702c2e1d64f2b14d"),
    (Profile.SEALED, 3, 2, 0, "3d5f3234a5417915dc02a55015cb93950eb19107ee6ff6f3f667cf4ad3c9a0e3"),
    (Profile.SEALED, 3, 2, 1, "156d9e5251b3697b124d88c20eecf30be5bd72e71a5c8128757cac5a42b1b5e8"),
    (Profile.SEALED, 3, 2, 148, "ff6f594211986702e51dba8d76e4f7081bfdf9f69ce3770e0778741c3ff61de5"),
    (Profile.SEALED, 3, 2, 65_536, "21b6a6fa16927954188c648b4d487d831613cd84930bfedb62ccff49796ae76a"),
    (Profile.SEALED, 3, 2, 1_310_721, "2b18b4e482e887c674c40267992068ad841692a6119c2090607a0da40a513c09"),
    (Profile.SEALED, 3, 2, 5_000_000, "b7d6ad5691ee71436e06910c4c8e7919f2e1444202ff9c73701f4fbbed056d3b"),
    (Profile.RS, 4, 1, 0, "508772f2b606bacac03595c218e7c49de140a422eb8da27e1ff641f4e81db1c2"),
    (Profile.RS, 4, 1, 1, "e4eb6d45de54168f945c977eabae8585a818fa466771ff9f2f9e84e2a004d28d"),
    (Profile.RS, 4, 1, 148, "a814d82ce39fc631000da5ea6662648fa996447053c6893e9dcbed63afa36598"),
    (Profile.RS, 4, 1, 65_536, "8be3af1dcc277bc6cfa8552406240f04b76921f29d019931e4c24343ec0941fc"),
    (Profile.RS, 4, 1, 1_310_721, "a2a86b4d68f17f8a2b544cf68ceebbbea360e66b172bccc76d3cb0c024806ced"),
    (Profile.RS, 4, 1, 5_000_000, "d26ada6db28e674e4bb73386220790398a01a72695b642c1a5e87a402d219bb4"),
    (Profile.SEALED, 60, 10, 0, "4fea36dd473ad19de0b0d3bcc6b48d2fc198ab376ac4f2ad162bd4eed9ae317d"),
    (Profile.SEALED, 60, 10, 1, "f50af7d2b4974659f6a29fe06df7af10a22e301104321a9e2cc97125f9785059"),
    (Profile.SEALED, 60, 10, 148, "6f17bfbebc2b02cb13393e0822e48e158c153201dfb544eb45dc5f9e368f588a"),
    (Profile.SEALED, 60, 10, 65_536, "8a1615fdfd0ca26a120057c128adce2cb3c78d6cfb1ba5de21e2dea0f9980d61"),
    (Profile.SEALED, 60, 10, 1_310_721, "1bead6ed08e5c101a7ade66e4288305cdce4f01609964c4b35e26f13d217e02e"),
    (Profile.SEALED, 60, 10, 5_000_000, "28cb3ae6702a295c0c2a17547b8122dd3205cbe4de5389d516ea842cb01299fa"),
    (Profile.INTEROP, 24, 1, 0, "cd00e292c5970d3c5e2f0ffa5171e555bc46bfc4faddfb4a418b6840b86e79a3"),
    (Profile.INTEROP, 24, 1, 1, "61f1d440137b83edbd41d844ce9bb438147b67c51b8d56d7ae4a9be1a9e9f10d"),
    (Profile.INTEROP, 24, 1, 148, "ccf0dc8e00a1d3db0ae074a748b7d22ea6104cf0da7c3c7db5eda358f09120ab"),
    (Profile.INTEROP, 24, 1, 65_536, "fdc07b81994edca368bd3409982520890cada64a85850e7c9a9a44347a940443"),
    (Profile.INTEROP, 24, 1, 1_310_721, "379aec2ba26fbfbc49e1dcb48321e021090b06775d512a0650dad0e4ce0be7fc"),
    (Profile.INTEROP, 24, 1, 5_000_000, "1cbb1df0d1ef60a631385cbf4a10b1ffc738db6cc542cda29288708a9e15309e"),
]


@pytest.fixture(autouse=True)
def restore() -> Iterator[None]:
    """Give back the widest kernels after a test chose others."""
    yield
    for kernel, paths in PATHS.items():
        fr._select(kernel, paths[-1])


@pytest.mark.parametrize(("profile", "k", "m", "size", "digest"), PINNED)
def test_stripes_are_what_they_always_were(profile: Profile, k: int, m: int, size: int, digest: str) -> None:
    data = random.Random(size).randbytes(size)
    striping = Striping(profile, k, m)
    stripes = erasure.split(data, striping, SEED)
    found = hashlib.sha256(b"".join(len(stripe).to_bytes(4, "big") + stripe for stripe in stripes))
    assert found.hexdigest() == digest
    for lost in (0, k):
        left = {i: stripe for i, stripe in enumerate(stripes) if i != lost}
        assert erasure.join(left, striping, size) == data


@pytest.mark.parametrize(("kernel", "path"), [(kernel, path) for kernel, paths in PATHS.items() for path in paths[:-1]])
def test_every_path_makes_the_same_stripes(kernel: str, path: str) -> None:
    for k, m in ((20, 5), (3, 2), (1, 1), (17, 16), (40, 9)):
        striping = Striping(Profile.SEALED, k, m)
        data = random.Random(k).randbytes(k * 5000 + 77)
        want = erasure.split(data, striping, SEED)
        if not fr._select(kernel, path):
            pytest.skip(f"this processor has no {path}")
        assert erasure.split(data, striping, SEED) == want
        assert erasure.join(dict(enumerate(want)), striping, 0) == data
        assert erasure.join(dict(list(enumerate(want))[m:]), striping, 0) == data
        fr._select(kernel, PATHS[kernel][-1])


def slow_segment(plain: bytes, key: bytes, k: int, m: int, size: int) -> list[bytes]:
    """docs/erasure.md, Sealing, step by step."""
    text = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor().update(plain + CANARY)
    hidden = bytes(a ^ b for a, b in zip(key, hashlib.sha256(text).digest(), strict=True))
    body = (text + hidden).ljust(k * size, b"\0")
    shards = [bytearray(body[i * size : (i + 1) * size]) for i in range(k)] + [bytearray(size) for _ in range(m)]
    ReedSolomon(k, m).encode_into(shards)
    return [bytes(shard) for shard in shards]


@settings(max_examples=80, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 20),
    st.one_of(st.integers(0, 5000), st.integers(0, 300_000)),
    st.integers(0, 200),
    st.sampled_from(PATHS["many"]),
)
def test_a_segment_is_the_oracle(k: int, m: int, size: int, spare: int, path: str) -> None:
    fr._select("many", path)
    rng = random.Random(size)
    plain, key = rng.randbytes(size), rng.randbytes(32)
    shard = -(-(size + 48) // k) + spare
    shards = [bytearray(rng.randbytes(shard)) for _ in range(k + m)]  # whatever was there before is gone afterwards
    text = size + len(CANARY)
    fr.seal_text(plain, key, CANARY, shards[:k])
    final = max(0, text - (k - 1) * shard)  # columns of every shard that the key does not reach
    settled = rng.randint(0, min(final, shard))
    ReedSolomon(k, m).encode_into(shards)
    [(digest, state)] = fr.text_digests([shards], k, [text], [settled])
    fr.seal_key(shards[:k], text, key, digest)
    ReedSolomon(k, m).encode_into(shards)
    assert shards == slow_segment(plain, key, k, m, shard)
    leaves = [hashlib.sha256(b"\0" + bytes(s)).digest() for s in shards]
    assert fr.leaf_digests(shards) == leaves
    assert fr.leaf_digests(shards, fr.text_digests([shards], k, [text], [shard])[0][1]) == leaves
    assert fr.text_digests([shards] * 3, k, [text] * 3, [shard, 0, shard])[1] == (digest, (0, b""))
    assert fr.leaf_digests(shards, state) == leaves
    assert fr.unseal([shards[:k]], [size], [digest], CANARY) == plain
    assert fr.unseal([shards[:k]] * 2, [size] * 2, [digest] * 2, CANARY) == plain * 2
    shards[0][0] ^= 1
    with pytest.raises(ValueError, match="does not open"):
        fr.unseal([shards[:k]], [size], [fr.text_digests([shards], k, [text], [0])[0][0]], CANARY)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 24),
    st.integers(1, 12),
    st.lists(st.tuples(st.integers(1, 9000), st.integers(0, 200)), min_size=1, max_size=5),
    st.sampled_from(PATHS["many"]),
)
def test_digests_of_unequal_segments_together(k: int, m: int, shapes: list[tuple[int, int]], path: str) -> None:
    fr._select("many", path)
    rng = random.Random(k)
    rows = [[rng.randbytes(size) for _ in range(k + m)] for size, _ in shapes]
    texts = [max(0, k * size - spare) for size, spare in shapes]
    columns = [max(0, size - spare) for size, spare in shapes]
    for row, text, (digest, state) in zip(rows, texts, fr.text_digests(rows, k, texts, columns), strict=True):
        assert digest == hashlib.sha256(b"".join(row)[:text]).digest()
        assert fr.leaf_digests(row, state) == [hashlib.sha256(b"\0" + shard).digest() for shard in row]


def test_native_sealing_refuses_wrong_shapes() -> None:
    key, shards = bytes(32), [bytearray(40), bytearray(40)]
    with pytest.raises(ValueError, match="not inside 2 shards of 40"):
        fr.seal_text(bytes(33), key, CANARY, shards)
    with pytest.raises(ValueError, match="key must be 32"):
        fr.seal_text(b"", key[1:], CANARY, shards)
    with pytest.raises(ValueError, match="canary must be 16"):
        fr.seal_text(b"", key, b"", shards)
    with pytest.raises(ValueError, match="shard 1 has 41 bytes"):
        fr.seal_text(b"", key, CANARY, [bytearray(40), bytearray(41)])
    with pytest.raises(BufferError):
        fr.seal_text(b"", key, CANARY, [bytes(48)])
    for count in (0, 256):
        with pytest.raises(ValueError, match=r"1\.\.255 shards"):
            fr.leaf_digests([b""] * count)
    with pytest.raises(ValueError, match="digest must be 32"):
        fr.seal_key(shards, 48, key, b"")
    for text in (-1, 49):
        with pytest.raises(ValueError, match="not inside"):
            fr.seal_key(shards, text, key, key)
    with pytest.raises(ValueError, match="not inside"):
        fr.text_digests([shards], 1, [41], [0])
    with pytest.raises(ValueError, match="k must be"):
        fr.text_digests([shards], 3, [1], [0])
    for columns in (-1, 41):
        with pytest.raises(ValueError, match="columns"):
            fr.text_digests([shards], 1, [1], [columns])
    with pytest.raises(ValueError, match="1 blocks into shards of 40"):
        fr.leaf_digests(shards, (1, bytes(64)))
    with pytest.raises(ValueError, match="state of the leaves must be 64"):
        fr.leaf_digests([bytes(64)] * 2, (1, bytes(32)))
    with pytest.raises(ValueError, match="not inside"):
        fr.unseal([shards], [33], [key], CANARY)
    with pytest.raises(ValueError, match="has no place"):
        fr.unseal([shards, shards], [20, -10], [key, key], CANARY)
    with pytest.raises(ValueError, match="zip"):
        fr.unseal([], [10], [], CANARY)
    with pytest.raises(ValueError, match="even number"):
        fr.tree_level([bytes(32)])
    with pytest.raises(ValueError, match="digest must be"):
        fr.tree_level([bytes(32), bytes(31)])
    with pytest.raises(ValueError, match="siblings"):
        fr.climb(bytes(32), 0, bytes(31))
    with pytest.raises(ValueError, match="negative"):
        fr.raw_buffer(-1)
    shards[0].append(0)  # a view left behind by an error would forbid this


def test_trees_are_what_the_description_says() -> None:
    rng = random.Random(3)
    leaves = [rng.randbytes(32) for _ in range(8)]
    level = leaves
    while len(level) > 1:
        above = [hashlib.sha256(b"\1" + level[i] + level[i + 1]).digest() for i in range(0, len(level), 2)]
        assert fr.tree_level(level) == above
        level = above
    pairs = fr.tree_level(leaves)
    siblings = leaves[4] + pairs[3] + fr.tree_level(pairs)[0]
    assert fr.climb(leaves[5], 5, siblings) == level[0]
    assert fr.climb(leaves[5], 5, b"") == leaves[5]


def test_crc_of_pieces() -> None:
    data = random.Random(4).randbytes(100_000)
    for cut in (0, 1, 7, 50_000, 99_999, 100_000):
        first, second = fr.crc32(data[:cut]), fr.crc32(data[cut:])
        assert fr.crc32_combine(first, second, len(data) - cut) == fr.crc32(data)


def test_pages_scanned_and_made_by_threads_in_any_order() -> None:
    data = random.Random(5).randbytes(3_000_000)
    striping = Striping(Profile.SEALED, 3, 2)
    want = erasure.split(data, striping, SEED)
    writer = Writer(striping, len(data), SEED)

    def read(offset: int, size: int) -> bytes:
        return data[offset : offset + size]

    def scan(first: int) -> None:
        for page in range(first, writer.pages, 2):
            writer.scan_page(page, read)

    threads = [threading.Thread(target=scan, args=(first,)) for first in (1, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.finish_scan()
    assert writer.crc32 == fr.crc32(data)
    rows = {page: writer.row(page, read) for page in reversed(range(writer.pages))}
    assert [b"".join(rows[page][i] for page in range(writer.pages)) for i in range(5)] == want


def test_a_source_that_changed_is_refused() -> None:
    data = bytearray(random.Random(6).randbytes(1_000_000))
    for profile in (Profile.SEALED, Profile.RS):
        writer = Writer(Striping(profile, 3, 2), len(data), SEED)
        writer.scan(lambda offset, size: data[offset : offset + size])
        data[700_000] ^= 1
        with pytest.raises(ErasureError, match="changed"):
            writer.row(1, lambda offset, size: data[offset : offset + size])
        with pytest.raises(ErasureError, match="shorter"):
            writer.row(0, lambda offset, size: b"")


@pytest.mark.parametrize("place", [0, 7, 24])
def test_a_liar_in_a_row_is_named_and_its_text_digest_is_not_used(place: int) -> None:
    data = random.Random(7).randbytes(200_000)
    striping = Striping(Profile.SEALED, 20, 5)
    stripes = erasure.split(data, striping, SEED)
    layout, _, root = erasure.parse_header(stripes[0])
    reader = Reader(layout, root)
    pages = {i: bytearray(stripe) for i, stripe in enumerate(stripes)}
    pages[place][-1] ^= 1
    pages[3] = pages[3][:-1]
    outcome = reader.check_row(0, pages)
    assert {i for i, found in outcome.items() if isinstance(found, ErasureError)} == {place, 3}
    good = {i: found for i, found in outcome.items() if isinstance(found, Shards)}
    assert reader.join(0, good) == data
    assert reader.rebuild(0, good, pages[8], [3, place]) == [stripes[3], stripes[place]]
    with pytest.raises(ErasureError, match="19 good stripes, 20 needed"):
        reader.join(0, dict(list(good.items())[:19]))


def test_digests_of_different_rows_are_not_mixed() -> None:
    """The text digest counts only if every data stripe was checked in the same call."""
    data = random.Random(8).randbytes(50_000)
    stripes = erasure.split(data, Striping(Profile.SEALED, 3, 2), SEED)
    layout, _, root = erasure.parse_header(stripes[0])
    reader = Reader(layout, root)
    whole = reader.check_row(0, dict(enumerate(stripes)))
    single = reader.check_row(0, {1: stripes[1]})
    mixed = {i: found for i, found in (whole | single).items() if isinstance(found, Shards)}
    assert mixed[1].texts is None
    assert mixed[0].texts
    assert reader._texts(mixed) is None
    assert reader.join(0, mixed) == data


def test_a_wrong_canary_is_an_error() -> None:
    """Shards that agree with the root but were never sealed properly."""
    data = bytes(1000)
    key = hmac.digest(SEED, bytes(8), "sha256")
    shards = [bytearray(600), bytearray(600)]
    fr.seal_text(data, key, b"not the canary!!", shards)
    fr.seal_key(shards, 1016, key, fr.text_digests([shards], 2, [1016], [0])[0][0])
    reader = Reader(erasure.Layout(Striping(Profile.SEALED, 2, 1), 1000), bytes(32))
    row = {i: Shards([memoryview(shard)]) for i, shard in enumerate(shards)}
    with pytest.raises(ErasureError, match="does not open"):
        reader.join(0, row)
