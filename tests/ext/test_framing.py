"""The native framing kernels against published vectors, worked examples, OpenSSL and the slow oracle."""

from __future__ import annotations

import hashlib
import hmac
import os
import random
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from qmail_core import _framing as fr
from tests.reference import framing as slow

AES_PATHS = ("openssl", "aesni", "vaes256", "vaes512")
BIT_PATHS = ("portable", "bmi2", "avx512")
MANY_PATHS = ("single", "pairs", "lanes")
AN = bytes(range(0xA0, 0xB0))
COIN = bytes.fromhex("000000002a")  # DN 0, SN 42
NONCE = bytes.fromhex("1122334455667788")
RANDOM = bytes(range(12))
PREAMBLE_REST = bytes.fromhex("0000000000000000 0006 00 0000002a 00") + AN


@pytest.fixture
def restore() -> Iterator[None]:
    """Give back the widest kernels after a test chose others."""
    yield
    best()


def best() -> None:
    fr._select("aes", "vaes512")
    fr._select("sha", "shani")
    fr._select("many", "lanes")
    fr._select("bits", "avx512")
    fr._select("crc", "vpclmul")


def choose(kernel: str, path: str) -> None:
    if not fr._select(kernel, path):
        pytest.skip(f"this processor has no {path}")


@pytest.fixture(params=AES_PATHS)
def aes(request: pytest.FixtureRequest, restore: None) -> str:
    choose("aes", request.param)
    return str(request.param)


@pytest.fixture(params=BIT_PATHS)
def bits(request: pytest.FixtureRequest, restore: None) -> str:
    choose("bits", request.param)
    return str(request.param)


@pytest.fixture(params=("portable", "shani"))
def sha(request: pytest.FixtureRequest, restore: None) -> str:
    choose("sha", request.param)
    return str(request.param)


def ctr(key: bytes, iv: bytes, data: bytes) -> bytes:
    out = bytearray(len(data))
    fr.aes_ctr(key, iv, data, out)
    return bytes(out)


def openssl(key: bytes, iv: bytes, data: bytes) -> bytes:
    return Cipher(algorithms.AES(key), modes.CTR(iv)).encryptor().update(data)


def one(
    group: int, command: int, enc: int, key: bytes, selector: bytes, head: bytes, tail: bytes, entropy: bytes
) -> str:
    return fr.pack_many(group, command, enc, [11], [key], [selector], [head], [tail], entropy)[0].hex()


# ---- AES-CTR

NIST_PLAIN = bytes.fromhex(
    "6bc1bee22e409f96e93d7e117393172a ae2d8a571e03ac9c9eb76fac45af8e51"
    "30c81c46a35ce411e5fbc1191a0a52ef f69f2445df4f9b17ad2b417be66c3710"
)
NIST = [
    (
        "2b7e151628aed2a6abf7158809cf4f3c",
        "874d6191b620e3261bef6864990db6ce 9806f66b7970fdff8617187bb9fffdff"
        "5ae4df3edbd5d35e5b4f09020db03eab 1e031dda2fbe03d1792170a0f3009cee",
    ),
    (
        "603deb1015ca71be2b73aef0857d7781 1f352c073b6108d72d9810a30914dff4",
        "601ec313775789a5b7a7f504bbf3d228 f443e3ca4d62b59aca84e990cacaf5c5"
        "2b0930daa23de94ce87017ba2d84988d dfc9c58db67aada613c2dd08457941a6",
    ),
]


@pytest.mark.parametrize(("key", "cipher"), NIST)
def test_nist_sp_800_38a(aes: str, key: str, cipher: str) -> None:
    iv = bytes(range(0xF0, 0x100))
    assert ctr(bytes.fromhex(key), iv, NIST_PLAIN) == bytes.fromhex(cipher)


@pytest.mark.parametrize("size", [16, 32])
def test_every_length_up_to_1100(aes: str, size: int) -> None:
    rng = random.Random(size)
    key, iv, data = rng.randbytes(size), rng.randbytes(16), rng.randbytes(1100)
    whole = openssl(key, iv, data)
    assert slow.aes_ctr(key, iv, data) == whole
    for n in range(1101 if aes != "openssl" else 300):
        assert ctr(key, iv, data[:n]) == whole[:n]


@pytest.mark.parametrize("before", [0, 1, 2, 3, 7, 8, 15, 16, 31, 32, 33, 63, 64, 100])
@pytest.mark.parametrize("bits_wide", [32, 64, 128])
def test_counter_carries_across_every_boundary(aes: str, before: int, bits_wide: int) -> None:
    rng = random.Random(before)
    key, data = rng.randbytes(32), rng.randbytes(2345)
    high = rng.getrandbits(128) >> bits_wide << bits_wide
    iv = (high + (1 << bits_wide) - before - 1).to_bytes(16, "big")
    assert ctr(key, iv, data) == openssl(key, iv, data) == slow.aes_ctr(key, iv, data)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(AES_PATHS), st.sampled_from([16, 32]), st.integers(0, 300_000), st.integers(0, 63), st.integers()
)
def test_random_lengths_at_every_alignment(path: str, size: int, n: int, shift: int, seed: int) -> None:
    rng = random.Random(seed)
    key, iv, data = rng.randbytes(size), rng.randbytes(16), rng.randbytes(n + shift)
    out = bytearray(b"\xaa" * (n + 2 * shift + 1))
    fr._select("aes", path)
    try:
        fr.aes_ctr(key, iv, memoryview(data)[shift:], memoryview(out)[shift : shift + n])
    finally:
        best()
    assert out[shift : shift + n] == openssl(key, iv, data[shift:])
    assert set(out[:shift]) | set(out[shift + n :]) == {0xAA}  # not a byte outside


@pytest.mark.parametrize("n", [1, 15, 16, 100, 1000, 40_000])
def test_in_place_and_back(aes: str, n: int) -> None:
    data = random.Random(n).randbytes(n)
    buffer = bytearray(data)
    fr.aes_ctr(AN, bytes(16), buffer, buffer)
    assert buffer == openssl(AN, bytes(16), data)
    view = memoryview(buffer)
    fr.aes_ctr(AN, bytes(16), view, view)
    assert buffer == data


def test_ctr_refuses_wrong_sizes_and_overlap(aes: str) -> None:
    buffer = bytearray(100)
    view = memoryview(buffer)
    bad: list[tuple[bytes, bytes, bytes | memoryview, bytearray | memoryview, str]] = [
        (bytes(24), bytes(16), bytes(4), bytearray(4), "key must be 16 or 32"),
        (bytes(16), bytes(15), bytes(4), bytearray(4), "iv must be 16"),
        (bytes(16), bytes(16), bytes(4), bytearray(5), "as long as data"),
        (bytes(16), bytes(16), view[:50], view[1:51], "overlaps"),
        (bytes(16), bytes(16), view[1:51], view[:50], "overlaps"),
    ]
    for key, iv, data, out, word in bad:
        with pytest.raises(ValueError, match=word):
            fr.aes_ctr(key, iv, data, out)
    with pytest.raises(BufferError):
        fr.aes_ctr(bytes(16), bytes(16), bytes(4), bytes(4))
    with pytest.raises(BufferError):
        fr.aes_ctr(bytes(16), bytes(16), view[:50:2], bytearray(25))
    with pytest.raises(TypeError):
        fr.aes_ctr("k" * 16, bytes(16), bytes(4), bytearray(4))  # type: ignore[arg-type]
    lone = bytearray(4)
    with pytest.raises(ValueError, match="iv must be"):
        fr.aes_ctr(bytes(16), bytes(3), lone, lone)
    lone.append(0)  # a view left behind by the error would forbid this
    fr.aes_ctr(bytes(16), bytes(16), b"", bytearray())


def test_environment_forces_openssl() -> None:
    script = (
        "from qmail_core import _framing as f; out = bytearray(4); f.aes_ctr(bytes(16), bytes(16), bytes(4), out);"
        "print(f.has_aes, out.hex())"
    )
    run = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"QMAIL_AES": "openssl"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.split() == ["False", "66e94bd4"]


# ---- SHA-256, HMAC

RFC_4231 = [
    (b"\x0b" * 20, b"Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
    (b"Jefe", b"what do ya want for nothing?", "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
    (b"\xaa" * 20, b"\xdd" * 50, "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
    (bytes(range(1, 26)), b"\xcd" * 50, "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"),
    (
        b"\xaa" * 131,
        b"Test Using Larger Than Block-Size Key - Hash Key First",
        "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
    ),
    (
        b"\xaa" * 131,
        b"This is a test using a larger than block-size key and a larger than block-size data. "
        b"The key needs to be hashed before being used by the HMAC algorithm.",
        "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
    ),
]


@pytest.mark.parametrize(("key", "data", "mac"), RFC_4231)
def test_rfc_4231(sha: str, key: bytes, data: bytes, mac: str) -> None:
    assert fr.hmac_sha256(key, data).hex() == mac


def test_sha256_of_every_length(sha: str) -> None:
    data = random.Random(1).randbytes(300)
    for n in range(301):
        part = memoryview(data)[300 - n :]
        assert fr.sha256(part) == hashlib.sha256(part).digest()
        assert fr.hmac_sha256(data[:n], part) == hmac.new(data[:n], part, "sha256").digest()
    big = random.Random(2).randbytes(1_000_003)
    assert fr.sha256(big) == hashlib.sha256(big).digest()
    assert fr.hmac_sha256(AN, big) == hmac.new(AN, big, "sha256").digest()


# ---- CRC-32


@pytest.mark.parametrize("path", ["portable", "pclmul", "vpclmul"])
def test_crc32_is_that_of_zlib(restore: None, path: str) -> None:
    choose("crc", path)
    data = random.Random(32).randbytes(2100)
    assert fr.crc32(b"123456789") == 0xCBF43926
    for n in range(2000):
        part = memoryview(data)[n % 64 : n % 64 + n]
        assert fr.crc32(part) == zlib.crc32(part)
        assert fr.crc32(part, n * 0x01234567) == zlib.crc32(part, n * 0x01234567 & 0xFFFFFFFF)
    assert fr.crc32(data, -1) == zlib.crc32(data, 0xFFFFFFFF)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["portable", "pclmul", "vpclmul"]), st.integers(0, 300_000), st.integers(0, 300_000))
def test_crc32_continues(path: str, n: int, cut: int) -> None:
    data = random.Random(n).randbytes(n)
    fr._select("crc", path)
    try:
        assert fr.crc32(data[cut:], fr.crc32(data[:cut])) == zlib.crc32(data)
    finally:
        best()


# ---- bit interleave

EXAMPLES = [
    (b"\x01", ["01", "00"]),
    (b"Hello", ["b8aa0b", "426607"]),
    (b"Hello", ["c60e", "d818", "141f"]),
    (b"Hello, world.", ["04c10900", "a8ebaf03", "fec7fb01", "51051101"]),
]


@pytest.mark.parametrize(("block", "stripes"), EXAMPLES)
def test_examples_of_the_wire_description(bits: str, block: bytes, stripes: list[str]) -> None:
    assert [s.hex() for s in fr.interleave(block, len(stripes))] == stripes
    assert fr.deinterleave([bytes.fromhex(s) for s in stripes], len(block)) == block


@pytest.mark.parametrize("d", range(2, 32))
def test_every_stripe_count_against_the_oracle(bits: str, d: int) -> None:
    rng = random.Random(d)
    for n in [0, 1, 2, d - 1, d, d + 1, 8 * d, 8 * d + 65, 64 * d + 64, 64 * d + 63, 130 * d + 71]:
        block = rng.randbytes(n)
        stripes = slow.interleave(block, d)
        assert fr.interleave(block, d) == stripes
        assert fr.deinterleave(stripes, n) == block
        # Bits beyond the block and longer stripes do not matter.
        longer = [bytearray(s + b"\xff" * 9) for s in stripes]
        assert fr.deinterleave(longer, n) == block


@pytest.mark.parametrize("d", range(2, 32))
def test_every_length_near_the_steps_round_trips(bits: str, d: int) -> None:
    data = random.Random(d).randbytes(64 * d + 200)
    top = len(data)
    for n in [*range(1, 2 * d), *range(16 * d, 18 * d + 70, 3), *range(64 * d - 2, top, 5)]:
        block = memoryview(data)[top - n :]  # every alignment
        stripes = fr.interleave(block, d)
        assert {len(s) for s in stripes} == {-(-n // d)}
        assert fr.deinterleave(stripes, n) == block


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 31), st.integers(0, 200_000), st.integers())
def test_all_paths_agree_on_large_blocks(d: int, n: int, seed: int) -> None:
    block = random.Random(seed).randbytes(n)
    seen = []
    try:
        for path in BIT_PATHS:
            fr._select("bits", path)
            stripes = fr.interleave(block, d)
            seen.append(stripes)
            assert fr.deinterleave(stripes, n) == block
    finally:
        best()
    assert all(s == seen[0] for s in seen)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 31), st.binary(max_size=400), st.sampled_from(BIT_PATHS))
def test_interleave_is_the_oracle(d: int, block: bytes, path: str) -> None:
    fr._select("bits", path)
    try:
        assert fr.interleave(block, d) == slow.interleave(block, d)
    finally:
        best()
    assert slow.deinterleave(fr.interleave(block, d), len(block)) == block


def test_interleave_refuses_wrong_shapes() -> None:
    for d in (-1, 0, 1, 32, 1000):
        with pytest.raises(ValueError, match=r"2\.\.31"):
            fr.interleave(b"abc", d)
    for count in (0, 1, 32):
        with pytest.raises(ValueError, match=r"2\.\.31"):
            fr.deinterleave([b"abc"] * count, 1)
    with pytest.raises(ValueError, match="stripe 1 holds 2 bytes"):
        fr.deinterleave([b"abc", b"ab"], 5)
    with pytest.raises(ValueError, match="negative"):
        fr.deinterleave([b"abc", b"ab"], -1)
    with pytest.raises(TypeError):
        fr.deinterleave([b"abc", None], 1)  # type: ignore[list-item]
    assert fr.deinterleave([b"", b""], 0) == b""


# ---- frames


def test_worked_example_echo_in_clear(aes: str) -> None:
    frame = one(0, 0, 0, b"", b"", b"", b"", bytes(6) + b"\x11\x22" + RANDOM)
    header = "01000b00 00000006 00000000 00000000 00000000 00000012 00000000 00001122".replace(" ", "")
    assert frame == header + "000102030405060708090a0b9270c965" + "3e3e"
    # Only the echo of a type 0 nonce is sent.
    assert one(0, 0, 0, b"", b"", b"", b"", b"\xff" * 6 + b"\x11\x22" + RANDOM) == frame


def test_worked_example_echo_type_1(aes: str) -> None:
    frame = one(0, 0, 1, AN, COIN, b"", b"", NONCE + RANDOM)
    header = "01000b00 00000006 00000000 00000000 01000000 002a0012 11223344 55667788".replace(" ", "")
    assert frame == header + "b0279eae7758b568c8314732990dea97" + "3e3e"


def test_worked_example_ping(aes: str) -> None:
    header = "01000b00 06480006 00000000 00000000 01000000 002a0036 11223344 55667788".replace(" ", "")
    body = (
        "b0279eae7758b568c8314732990dea97 611361d2dbe662eb039552b57f3485ee"
        "653d7a01d56a09e3bb244a1e1252ae75 cd17bda0 3e3e"
    ).replace(" ", "")
    assert one(6, 72, 1, AN, COIN, PREAMBLE_REST, bytes(4), NONCE + RANDOM) == header + body


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([(0, 1), (1, 10), (8, 84), (6, 70), (6, 74), (6, 75), (6, 76), (6, 84), (6, 85)]),
    st.sampled_from([0, 1, 2, 4]),
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), max_size=6),
    st.sampled_from(AES_PATHS),
    st.integers(0, 65535),
    st.integers(),
)
def test_frames_are_the_oracle(
    kind: tuple[int, int], enc: int, sizes: list[tuple[int, int]], path: str, page: int, seed: int
) -> None:
    rng = random.Random(seed)
    group, command = kind
    page = page if kind == (6, 75) else 0
    n, per = len(sizes), 36 if enc == 4 else 20
    raidas = [rng.randrange(256) for _ in sizes]
    keys = [rng.randbytes({0: 3, 1: 16, 2: 16, 4: 32}[enc]) for _ in sizes]
    selectors = [rng.randbytes(5) for _ in sizes]
    heads = [rng.randbytes(a) for a, _ in sizes]
    tails = [bytearray(rng.randbytes(b)) if b % 2 else memoryview(rng.randbytes(b)) for _, b in sizes]
    entropy = rng.randbytes(n * per)
    fr._select("aes", path)
    try:
        frames = fr.pack_many(group, command, enc, raidas, keys, selectors, heads, tails, entropy, page)
    finally:
        best()
    assert frames == [
        slow.pack(
            group, command, enc, raidas[i], keys[i], selectors[i], heads[i] + bytes(tails[i]),
            entropy[i * per : (i + 1) * per], page,
        )
        for i in range(n)
    ]  # fmt: skip
    assert all(type(f) is bytearray for f in frames)


@pytest.mark.parametrize("enc", [0, 1, 2, 4])
@pytest.mark.parametrize("tail", [8192 - 48, 8192, 65_000, 262_144, 1_000_001])
def test_large_bodies_use_the_long_length(aes: str, sha: str, enc: int, tail: int) -> None:
    rng = random.Random(tail)
    key = rng.randbytes(32 if enc == 4 else 16)
    entropy, head, data = rng.randbytes(72 if enc == 4 else 40), rng.randbytes(72), rng.randbytes(tail)
    half = len(entropy) // 2
    frames = fr.pack_many(6, 75, enc, [1, 2], [key] * 2, [COIN] * 2, [head] * 2, [data] * 2, entropy, 513)
    for i, frame in enumerate(frames):
        e = entropy[i * half : (i + 1) * half]
        iv = e[:16] if enc == 4 else e[:8] + bytes(8)
        start, end = (48, -34) if enc == 4 else (32, -2)
        plain = bytes(frame[start:end]) if enc == 0 else openssl(key, iv, bytes(frame[start:end]))
        assert plain[:12] == e[-12:]
        assert plain[16:] == head + data
        assert int.from_bytes(frame[10:14], "big") == len(frame) - start
        assert frame[14:16] == b"\x02\x01"
        short = frame[17:19] if enc == 4 else frame[22:24]
        assert int.from_bytes(short, "big") == min(len(frame) - start, 65535)
        if enc == 4:
            assert frame[-34:-2] == hmac.new(key, frame[48:-34], "sha256").digest()


def codes_of(sizes: list[int], seed: int) -> None:
    """Frames of bodies of these sizes, made in one call, carry the HMAC of OpenSSL."""
    rng = random.Random(seed)
    n = len(sizes)
    keys, entropy = [rng.randbytes(32) for _ in sizes], rng.randbytes(36 * n)
    tails = [rng.randbytes(size) for size in sizes]
    frames = fr.pack_many(0, 1, 4, [7] * n, keys, [COIN] * n, [b""] * n, tails, entropy)
    for i, frame in enumerate(frames):
        assert bytes(frame[48:-34]) == openssl(keys[i], entropy[36 * i : 36 * i + 16], tails[i])
        assert frame[-34:-2] == hmac.new(keys[i], frame[48:-34], "sha256").digest()
        assert frame[-2:] == b">>"


@pytest.mark.parametrize("path", MANY_PATHS)
@pytest.mark.parametrize("count", [2, 9, 10, 15, 16, 17, 25, 31, 32, 33, 65])
def test_codes_of_a_batch(path: str, count: int, restore: None, sha: str) -> None:
    choose("many", path)
    codes_of([1096] * count, count)
    for first in (0, 23, 47, 55, 56, 63, 64):  # around the places where padding takes another block
        codes_of([first + 64 * (i % 3) for i in range(count)], first)
    codes_of([64 * i for i in range(count)], 0)
    codes_of([5000 if i % 16 == 3 else i for i in range(count)], 1)


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(MANY_PATHS),
    st.lists(st.one_of(st.integers(0, 200), st.integers(0, 3000), st.integers(0, 60_000)), min_size=2, max_size=70),
    st.integers(),
)
def test_codes_of_a_batch_of_any_sizes(path: str, sizes: list[int], seed: int) -> None:
    fr._select("many", path)
    try:
        codes_of(sizes, seed)
    finally:
        best()


@pytest.mark.parametrize("enc", [0, 1, 4])
def test_short_length_has_a_limit(enc: int) -> None:
    spare = 65535 - 16 - (34 if enc == 4 else 2)
    args = (6, 70, enc, [3], [bytes(32 if enc == 4 else 16)], [COIN])
    entropy = bytes(36 if enc == 4 else 20)
    frame = fr.pack_many(*args, [bytes(spare)], [b""], entropy)[0]
    assert (frame[17:19] if enc == 4 else frame[22:24]) == b"\xff\xff"
    with pytest.raises(ValueError, match="65536 bytes is above the limit of 65535"):
        fr.pack_many(*args, [bytes(spare)], [b"x"], entropy)


def test_pack_refuses_wrong_shapes() -> None:
    good: dict[str, Any] = {
        "group": 6, "command": 70, "enc": 1, "raidas": [1], "keys": [AN], "selectors": [COIN],
        "heads": [b"h"], "tails": [b"t"], "entropy": bytes(20), "page": 0,
    }  # fmt: skip
    fr.pack_many(**good)
    bad: list[tuple[dict[str, Any], str]] = [
        ({"enc": 3}, "enc must be"),
        ({"group": 256}, "0..255"),
        ({"command": -1}, "0..255"),
        ({"page": 1}, "only group 6 command 75"),
        ({"command": 75, "page": 65536}, "page must be"),
        ({"raidas": [256]}, "raida must be"),
        ({"raidas": [1, 2]}, "one entry per frame"),
        ({"tails": []}, "one entry per frame"),
        ({"keys": [AN + b"x"]}, "frame 0: key must be 16 bytes"),
        ({"keys": [AN], "enc": 4, "entropy": bytes(36)}, "frame 0: key must be 32 bytes"),
        ({"selectors": [b"1234"]}, "selector must be 5"),
        ({"entropy": bytes(19)}, "entropy must be 20 bytes per frame"),
        ({"entropy": bytes(36)}, "entropy must be 20 bytes per frame"),
        ({"enc": 4, "entropy": bytes(20)}, "entropy must be 36 bytes per frame"),
    ]
    for change, word in bad:
        with pytest.raises(ValueError, match=word) as caught:
            fr.pack_many(**(good | change))
        assert AN.hex() not in str(caught.value)
    with pytest.raises(TypeError):
        fr.pack_many(**(good | {"heads": [None]}))
    assert fr.pack_many(6, 70, 1, [], [], [], [], [], b"") == []


def test_no_reference_and_no_view_is_kept() -> None:
    head, tail, entropy = bytearray(50), bytearray(60), bytearray(20)
    key = bytes(bytearray(16))
    before = sys.getrefcount(key), sys.getrefcount(head)
    for _ in range(100):
        fr.pack_many(6, 70, 1, [1], [key], [COIN], [head], [tail], entropy)
        with pytest.raises(ValueError, match="entropy"):
            fr.pack_many(6, 70, 1, [1], [key], [COIN], [head], [tail], bytearray(3))
    assert (sys.getrefcount(key), sys.getrefcount(head)) == before
    for buffer in (head, tail, entropy):
        buffer.append(0)


def test_threads_do_not_disturb_each_other() -> None:
    block = random.Random(5).randbytes(300_000)
    want = openssl(AN, bytes(16), block)
    wrong = dict.fromkeys((2, 7, 12, 24), False)

    def work(d: int) -> None:
        for _ in range(10):
            wrong[d] |= ctr(AN, bytes(16), block) != want
            wrong[d] |= fr.deinterleave(fr.interleave(block, d), len(block)) != block

    threads = [threading.Thread(target=work, args=(d,)) for d in wrong]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not any(wrong.values())


def test_the_nodes_side_refuses_wrong_sizes() -> None:
    short: list[Any] = [1, 0, 250, 0, bytes(8), bytes(16), AN, b""]
    long: list[Any] = [1, 0, 250, 0, 4, bytes(5), bytes(16), bytes(24), bytes(32), b""]
    assert len(fr.answer_short(*short)) == 32
    assert len(fr.answer_long(*long)) == 48
    for position, wrong in ((4, bytes(7)), (5, bytes(15)), (6, bytes(32)), (7, bytes(1 << 24))):
        with pytest.raises(ValueError):
            fr.answer_short(*(*short[:position], wrong, *short[position + 1 :]))
    for position, wrong in ((5, bytes(4)), (6, bytes(15)), (7, bytes(8)), (8, bytes(16)), (9, bytes(1 << 24))):
        with pytest.raises(ValueError):
            fr.answer_long(*(*long[:position], wrong, *long[position + 1 :]))
    for size, key in ((49, b""), (50, bytes(15)), (50, bytes(32))):
        with pytest.raises(ValueError, match="of no use"):
            fr.open_short(bytearray(size), key)
    for size, key in ((81, bytes(32)), (82, bytes(16))):
        with pytest.raises(ValueError, match="of no use"):
            fr.open_long(bytearray(size), key)
    for sizes in ((47, 24, 32), (60, 24, 32), (48, 23, 32), (48, 24, 16)):
        with pytest.raises(ValueError):
            fr.proven(*map(bytes, sizes))
    with pytest.raises(BufferError):
        fr.open_short(bytes(50), b"")
    frame = bytearray(90)
    assert not fr.open_long(frame, bytes(32))
    frame.append(0)  # no view is left behind


def test_a_failed_hmac_leaves_the_frame_alone() -> None:
    (frame,) = fr.pack_many(0, 1, 4, [1], [bytes(32)], [bytes(5)], [b"body"], [b""], bytes(36))
    before = bytes(frame)
    assert not fr.open_long(frame, b"x" * 32)
    assert frame == before
    assert fr.open_long(frame, bytes(32))
    assert frame[48:52] == b"body"
