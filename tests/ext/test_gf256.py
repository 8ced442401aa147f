"""qmail_core._gf256 against the slow oracle in tests/reference/gf256.py, on every instruction level of this CPU.

Long stripes are checked against table look-ups in numpy, whose table comes from the oracle.
"""

import ctypes
import gc
import itertools
import mmap
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from array import array
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmail_core import _gf256
from qmail_core._gf256 import ReedSolomon
from tests.reference import gf256 as oracle

LEVELS = _gf256.isa_levels()
LENGTHS = (0, 1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 130, 255, 256, 257, 1000, 4096 + 3)
CODES = ((1, 1), (4, 1), (3, 2), (17, 3), (10, 4), (20, 5), (7, 6), (9, 7), (5, 8), (6, 9), (3, 20))

# Stripe i holds 7 i + j^2 + 1 at column j, four columns; parity computed once by the oracle. See docs/erasure.md.
GOLDEN = {
    (4, 1): "100c001c",
    (3, 2): "b405f58e f02cdbae",
    (17, 3): "df2cf69d 96fc850d 78f246da",
    (10, 4): "b7178aeb c2f848e0 ca037e73 58fd774f",
    (20, 5): "58e36cda 584ad150 f2149672 67580a2c 25b96118",
}

Array = npt.NDArray[np.uint8]


@pytest.fixture(params=LEVELS)
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the test once on each level, and put the old one back."""
    before = _gf256.isa
    _gf256.set_isa(request.param)
    assert _gf256.isa == request.param
    yield request.param
    _gf256.set_isa(before)


@pytest.fixture(scope="module")
def table() -> Array:
    """All products of the field, from the oracle."""
    return np.array([[oracle.mul(a, b) for b in range(256)] for a in range(256)], dtype=np.uint8)


def shards(count: int, size: int, seed: int = 1) -> list[bytes]:
    source = random.Random(f"{count} {size} {seed}")
    return [source.randbytes(size) for _ in range(count)]


def filled(code: ReedSolomon, size: int, seed: int = 1) -> list[bytes]:
    """A whole valid set of stripes."""
    stripes = [*map(bytearray, shards(code.k, size, seed)), *(bytearray(size) for _ in range(code.m))]
    code.encode_into(stripes)
    return [bytes(stripe) for stripe in stripes]


def product(table: Array, matrix: list[bytes], data: list[bytes]) -> list[bytes]:
    """Matrix times stripes by table look-up."""
    out = []
    for row in matrix:
        total = np.zeros(len(data[0]), dtype=np.uint8)
        for coefficient, shard in zip(row, data, strict=True):
            total ^= table[coefficient][np.frombuffer(shard, dtype=np.uint8)]
        out.append(total.tobytes())
    return out


def without(stripes: list[bytes], lost: tuple[int, ...]) -> list[bytes | None]:
    return [None if i in lost else stripe for i, stripe in enumerate(stripes)]


# ---- the field and the code ----


def test_every_product_of_the_field_appears_in_update(level: str, table: Array) -> None:
    code = ReedSolomon(127, 128)
    matrix = code.generator_matrix()
    seen = set()
    for index in range(127):
        parity = [bytearray(256) for _ in range(128)]
        code.update_into(parity, index, bytes(256), bytes(range(256)))
        for row, stripe in zip(matrix, parity, strict=True):
            assert bytes(stripe) == table[row[index]].tobytes()
            seen.add(row[index])
        if len(seen) == 255:
            break
    assert seen == set(range(1, 256))


def test_encoding_equals_polynomial_division_for_every_small_code(level: str) -> None:
    for n in range(2, 33):
        for k in range(1, n):
            data = shards(k, 3)
            assert ReedSolomon(k, n - k).encode(b"".join(data)) == [*data, *oracle.encode(data, n - k)], (k, n - k)


@pytest.mark.parametrize(("k", "m"), [(1, 254), (254, 1), (127, 128), (253, 2), (100, 50)])
def test_encoding_equals_polynomial_division_for_large_codes(level: str, k: int, m: int) -> None:
    data = shards(k, 1)
    code = ReedSolomon(k, m)
    assert code.encode(b"".join(data)) == [*data, *oracle.encode(data, m)]
    lost = tuple(random.Random(7).sample(range(k + m), min(m, k + m - 1)))
    stripes = filled(code, 130)
    assert code.reconstruct(without(stripes, lost)) == stripes


@pytest.mark.parametrize(("k", "m"), GOLDEN)
def test_golden_vectors(level: str, k: int, m: int) -> None:
    data = [bytes(7 * i + j * j + 1 & 255 for j in range(4)) for i in range(k)]
    parity = [bytes.fromhex(text) for text in GOLDEN[k, m].split()]
    assert oracle.encode(data, m) == parity
    assert ReedSolomon(k, m).encode(b"".join(data)) == [*data, *parity]


def test_the_word_qmail_in_three_and_two(level: str) -> None:
    stripes = ReedSolomon(3, 2).encode(b"qmail!")
    assert stripes == [b"qm", b"ai", b"l!", bytes.fromhex("5e6d"), bytes.fromhex("6277")]


@pytest.mark.parametrize("m", [1, 2, 3, 4, 5, 8, 17, 254])
def test_the_generator_is_a_palindrome_with_consecutive_roots(m: int) -> None:
    g = oracle.generator(m)
    assert g == g[::-1]
    assert g[0] == 1
    found = oracle.roots(m)
    assert [oracle.mul(root, oracle.ALPHA) for root in found[:-1]] == found[1:]


@pytest.mark.parametrize("size", LENGTHS)
def test_every_length_at_unaligned_offsets(level: str, table: Array, size: int) -> None:
    for k, m in CODES:
        code = ReedSolomon(k, m)
        data = shards(k, size)
        space = [bytearray(b"\xee" * (size + 32)) for _ in range(k + m)]
        starts = [(5 * i + size) % 16 for i in range(k + m)]
        stripes = [memoryview(block)[s : s + size] for block, s in zip(space, starts, strict=True)]
        for stripe, shard in zip(stripes, data, strict=False):
            stripe[:] = shard
        code.encode_into(stripes)
        want = [*data, *product(table, code.generator_matrix(), data)]
        assert [bytes(stripe) for stripe in stripes] == want
        assert code.verify(stripes)
        lost = random.Random(size).sample(range(k + m), m)
        for i in lost:
            stripes[i][:] = b"\xaa" * size
        code.reconstruct_into(stripes, lost)
        assert [bytes(stripe) for stripe in stripes] == want
        for block, s in zip(space, starts, strict=True):  # nothing outside was touched
            assert block[:s] == b"\xee" * s
            assert block[s + size :] == b"\xee" * (32 - s)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs mprotect")
def test_nothing_is_touched_next_to_the_stripes(level: str) -> None:
    """Every stripe ends, or starts, at a page that must not be touched: a stray access is a crash."""
    page = mmap.PAGESIZE
    libc = ctypes.CDLL(None, use_errno=True)
    arena = mmap.mmap(-1, 64 * page)
    view = memoryview(arena)
    anchor = ctypes.c_char.from_buffer(arena)
    start = ctypes.addressof(anchor)
    for i in range(0, 64, 2):
        assert libc.mprotect(ctypes.c_void_p(start + i * page), page, 0) == 0
    for k, m in ((3, 1), (4, 2), (20, 5), (6, 9)):
        code = ReedSolomon(k, m)
        for size in (*range(1, 70), 127, 128, 129, 255, 257):
            for at_end in (False, True):
                stripes = []
                for i in range(k + m):
                    offset = (2 * i + 1) * page + (page - size if at_end else 0)
                    stripes.append(view[offset : offset + size])
                code.encode_into(stripes)
                assert code.verify(stripes)
                code.reconstruct_into(stripes, range(m))
                code.update_into(stripes[k:], 0, stripes[0], stripes[1])
                assert len(code.encode(stripes[0])) == k + m
                code.update_into(stripes[k:], 0, stripes[1], stripes[0])
                assert code.locate(stripes) == []


def test_galois_agrees_through_the_generator_matrix_for_every_small_code() -> None:
    galois: Any = pytest.importorskip("galois")
    field = galois.GF(2**8, irreducible_poly=oracle.POLYNOMIAL, primitive_element=oracle.ALPHA)
    for n in range(2, 33):
        for k in range(1, n):
            code = ReedSolomon(k, n - k)
            data = shards(k, 5)
            matrix = field([list(row) for row in code.generator_matrix()])
            parity = matrix @ field([list(shard) for shard in data])
            assert code.encode(b"".join(data))[k:] == [bytes(row.tolist()) for row in parity], (k, n - k)


def regular(matrices: Array, table: Array) -> npt.NDArray[np.bool_]:
    """Which of a stack of square matrices are regular: elimination by rows, all of the stack at once."""
    inverse = np.array([0, *(oracle.inverse(value) for value in range(1, 256))], dtype=np.uint8)
    left, everyone = matrices.copy(), np.arange(len(matrices))
    good = np.ones(len(left), dtype=bool)
    for column in range(left.shape[1]):
        pivot = column + np.argmax(left[:, column:, column] != 0, axis=1)
        left[everyone, pivot], left[:, column] = left[:, column].copy(), left[everyone, pivot]
        good &= left[:, column, column] != 0
        row = table[inverse[left[:, column, column]][:, None], left[:, column]]
        left ^= np.where(
            (np.arange(left.shape[1]) > column)[None, :, None], table[left[:, :, column, None], row[:, None]], 0
        ).astype(np.uint8)
    return good


def test_every_square_submatrix_is_regular_up_to_sixteen_stripes(table: Array) -> None:
    assert regular(np.array([[[1, 2], [3, 4]], [[1, 2], [1, 2]]], dtype=np.uint8), table).tolist() == [True, False]
    for n in range(2, 17):
        for k in range(1, n):
            matrix = np.array([list(row) for row in ReedSolomon(k, n - k).generator_matrix()], dtype=np.uint8)
            for size in range(1, min(k, n - k) + 1):
                chosen = np.array(list(itertools.combinations(range(n - k), size)))
                columns = np.array(list(itertools.combinations(range(k), size)))
                stack = matrix[chosen[:, None, :, None], columns[None, :, None, :]]
                assert regular(stack.reshape(-1, size, size), table).all(), (k, n - k, size)


@pytest.mark.parametrize("m", [1, 3, 5, 7, 9])
def test_odd_codes_sum_to_zero(level: str, m: int) -> None:
    total = 0
    for stripe in filled(ReedSolomon(6, m), 77):
        total ^= int.from_bytes(stripe)
    assert total == 0


# ---- reconstruct ----


@pytest.mark.parametrize("n", range(2, 13))
def test_every_erasure_pattern(level: str, n: int) -> None:
    for k in range(1, n):
        code = ReedSolomon(k, n - k)
        stripes = filled(code, 67)
        for count in range(n - k + 1):
            for lost in itertools.combinations(range(n), count):
                assert code.reconstruct(without(stripes, lost)) == stripes, (k, lost)


def test_random_erasures_of_larger_codes(level: str) -> None:
    source = random.Random(17)
    for _ in range(40):
        n = source.randint(13, 255)
        k = source.randint(1, n - 1)
        code = ReedSolomon(k, n - k)
        stripes = filled(code, 19)
        lost = tuple(source.sample(range(n), source.randint(1, n - k)))
        assert code.reconstruct(without(stripes, lost)) == stripes, (k, n - k, lost)


def test_all_53130_five_losses_of_twenty_and_five() -> None:
    code = ReedSolomon(20, 5)
    stripes = filled(code, 3)
    for lost in itertools.combinations(range(25), 5):
        assert code.reconstruct(without(stripes, lost)) == stripes, lost


def test_reconstruction_equals_gaussian_elimination() -> None:
    source = random.Random(3)
    for _ in range(50):
        k, m = source.randint(1, 12), source.randint(1, 8)
        stripes = filled(ReedSolomon(k, m), 4)
        lost = tuple(source.sample(range(k + m), source.randint(1, m)))
        # any bytes are a codeword once enough of it is missing, so random survivors will do
        if len(lost) == m:
            stripes = shards(k + m, 4, source.randint(0, 999))
        given = without(stripes, lost)
        assert ReedSolomon(k, m).reconstruct(given) == oracle.decode(given, m)


def test_present_stripes_come_back_as_the_same_objects() -> None:
    code = ReedSolomon(4, 3)
    stripes = filled(code, 9)
    given: list[Any] = [bytearray(stripes[0]), None, memoryview(stripes[2]), np.frombuffer(stripes[3], np.uint8)]
    given += [None, stripes[5], stripes[6]]
    whole = code.reconstruct(given)
    assert all(back is mine for back, mine in zip(whole, given, strict=True) if mine is not None)
    assert [whole[1], whole[4]] == [stripes[1], stripes[4]]
    assert type(whole[1]) is bytes


def test_reconstruct_without_a_loss_changes_nothing() -> None:
    stripes = filled(ReedSolomon(4, 2), 9)
    assert ReedSolomon(4, 2).reconstruct(stripes) == stripes
    ReedSolomon(4, 2).reconstruct_into(stripes, [])


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_what_was_split_can_be_joined(data: st.DataObject) -> None:
    k, m = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 12))
    content = data.draw(st.binary(max_size=700))
    code = ReedSolomon(k, m)
    stripes = code.encode(content)
    assert stripes[:k] == oracle.split(content, k)
    assert code.verify(stripes)
    lost = data.draw(st.lists(st.integers(0, k + m - 1), max_size=m, unique=True))
    whole = code.reconstruct(without(stripes, tuple(lost)))
    assert b"".join(bytes(stripe) for stripe in whole[:k])[: len(content)] == content


@pytest.mark.parametrize("size", [5 * 4096, 5 * 4096 + 1, 300_001])
def test_objects_of_many_blocks(level: str, table: Array, size: int) -> None:
    content = random.Random(size).randbytes(size)
    for k, m in ((4, 1), (5, 4), (3, 11)):
        code = ReedSolomon(k, m)
        stripes = code.encode(content)
        data = oracle.split(content, k)
        assert stripes == [*data, *product(table, code.generator_matrix(), data)]
        assert code.verify(stripes)
        lost = tuple(range(0, min(2 * m, k + m), 2))[:m]
        assert code.reconstruct(without(stripes, lost)) == stripes
        broken = [bytearray(stripe) for stripe in stripes]
        broken[k][-1] ^= 1
        assert not code.verify(broken)


def test_empty_data_gives_empty_stripes() -> None:
    code = ReedSolomon(4, 2)
    assert code.encode(b"") == [b""] * 6
    assert code.verify([b""] * 6)
    assert code.locate([b""] * 6) == []
    assert code.reconstruct([b"", None, b"", None, b"", b""]) == [b""] * 6


# ---- verify, locate, update ----


def test_verify_sees_each_single_bit(level: str) -> None:
    code = ReedSolomon(3, 2)
    stripes = [bytearray(stripe) for stripe in filled(code, 70)]
    for stripe in stripes:
        for bit in range(0, 560, 7):
            stripe[bit // 8] ^= 1 << bit % 8
            assert not code.verify(stripes)
            stripe[bit // 8] ^= 1 << bit % 8
    assert code.verify(stripes)


@pytest.mark.parametrize("size", [1, 40, 64, 5000])
def test_locate_names_as_many_liars_as_it_promises(level: str, size: int) -> None:
    source = random.Random(size)
    for k, m in ((4, 2), (3, 3), (10, 4), (20, 5), (5, 8), (4, 20)):
        code = ReedSolomon(k, m)
        for missing in {0, m % 2, m // 2, m}:
            order = source.sample(range(k + m), k + m)
            gone, liars = order[:missing], sorted(order[missing : missing + (m - missing) // 2])
            stripes: list[bytearray | None] = [bytearray(stripe) for stripe in filled(code, size)]
            for i in gone:
                stripes[i] = None
            assert code.locate(stripes) == []
            for throughout in (False, True):  # one wrong byte each, then every byte wrong
                for i in liars:
                    stripe = stripes[i]
                    assert stripe is not None
                    for x in range(size) if throughout else [source.randrange(size)]:
                        stripe[x] ^= source.randint(1, 127) if throughout else 0x80
                assert code.locate(stripes) == liars, (k, m, gone)


@pytest.mark.parametrize(("k", "m", "liars"), [(6, 4, [0, 3, 5, 8, 9]), (6, 2, [0, 3, 7]), (4, 2, [1, 2, 3, 4, 5])])
def test_locate_takes_the_union_over_columns(k: int, m: int, liars: list[int]) -> None:
    code = ReedSolomon(k, m)
    stripes = [bytearray(stripe) for stripe in filled(code, 200)]
    for column, i in enumerate(liars):
        stripes[i][column * 40] ^= 0x55
        stripes[i][column * 40 + 1] ^= 0x01
    assert code.locate(stripes) == liars


def test_locate_refuses_what_it_cannot_explain() -> None:
    code = ReedSolomon(20, 5)
    stripes = [bytearray(stripe) for stripe in filled(code, 400)]
    for i in (1, 4, 9):
        stripes[i][:] = random.Random(i).randbytes(400)
    with pytest.raises(ValueError, match="no 2 or fewer wrong stripes"):
        code.locate(stripes)
    single = [*map(bytearray, filled(ReedSolomon(4, 1), 9))]
    single[2][3] ^= 1
    with pytest.raises(ValueError, match="no 0 or fewer"):
        ReedSolomon(4, 1).locate(single)


def test_locate_never_calls_a_wrong_column_clean() -> None:
    code = ReedSolomon(4, 2)
    good = filled(code, 1)
    refused = 0
    for value in range(1, 256):  # two liars, one more than it can name: refused, or a stripe that explains it as well
        stripes = [bytearray(stripe) for stripe in good]
        stripes[1][0] ^= 1
        stripes[4][0] ^= value
        try:
            named = code.locate(stripes)
        except ValueError:
            refused += 1
            continue
        assert len(named) == 1
        code.reconstruct_into(stripes, named)
        assert code.verify(stripes)
    assert refused > 240


@pytest.mark.parametrize("size", [1, 15, 64, 127, 130, 4099, 20000])
def test_update_equals_encoding_anew(level: str, size: int) -> None:
    for k, m in ((4, 1), (20, 5), (3, 9)):
        code = ReedSolomon(k, m)
        before = filled(code, size)
        for index in {0, k // 2, k - 1}:
            new = shards(1, size, seed=index + 50)[0]
            parity = [bytearray(stripe) for stripe in before[k:]]
            code.update_into(parity, index, before[index], new)
            changed: list[Any] = [*before[:k], *parity]
            changed[index] = new
            assert code.verify(changed)
    parity = [bytearray(size)]
    same = bytes(size)
    ReedSolomon(4, 1).update_into(parity, 1, same, same)
    assert parity == [bytearray(size)]


# ---- buffers and errors ----


def test_any_contiguous_buffer_will_do() -> None:
    code = ReedSolomon(3, 2)
    want = filled(code, 16)
    with mmap.mmap(-1, 16) as page:
        page[:] = want[0]
        floats: Any = np.frombuffer(want[1], dtype=np.float64)  # numpy declares its buffer for Python 3.12 and later
        square: Any = np.zeros((4, 4), dtype=np.uint8)
        words = array("I", [0] * 4)
        code.encode_into([page, floats, memoryview(want[2]), square, words])
        assert [square.tobytes(), words.tobytes()] == want[3:]
    rows: Any = np.frombuffer(b"".join(want), dtype=np.uint8).reshape(5, 16).copy()
    rows[3:] = 0
    code.encode_into(rows)  # a matrix is a sequence of its rows
    assert rows.tobytes() == b"".join(want)
    assert code.encode(rows[:3]) == want


@pytest.mark.parametrize(
    ("k", "m"), [(0, 1), (1, 0), (-1, 3), (255, 1), (200, 56), (1, 255), (10**30, 1), (1, -(10**30))]
)
def test_codes_out_of_range_are_refused(k: int, m: int) -> None:
    with pytest.raises(ValueError, match=r"must be"):
        ReedSolomon(k, m)


def test_codes_of_another_type_are_refused() -> None:
    with pytest.raises(TypeError):
        ReedSolomon(2.0, 1)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        ReedSolomon(2)  # type: ignore[call-arg]


def test_wrong_number_of_stripes_is_refused() -> None:
    code = ReedSolomon(4, 2)
    stripes: list[Any] = [bytearray(8) for _ in range(5)]
    for call in (code.encode_into, code.reconstruct, code.verify, code.locate):
        with pytest.raises(ValueError, match="need 6 stripes, got 5"):
            call(stripes)
    with pytest.raises(ValueError, match="need 6 stripes, got 5"):
        code.reconstruct_into(stripes, [0])
    with pytest.raises(ValueError, match="need 2 parity stripes, got 5"):
        code.update_into(stripes, 0, b"", b"")


def test_unequal_lengths_are_refused() -> None:
    code = ReedSolomon(4, 2)
    stripes: list[Any] = [bytearray(8) for _ in range(6)]
    stripes[3] = bytearray(9)
    for call in (code.encode_into, code.reconstruct, code.verify, code.locate):
        with pytest.raises(ValueError, match="stripe 3 has 9 bytes, the first stripe has 8"):
            call(stripes)
    with pytest.raises(ValueError, match="new has 9 bytes"):
        code.update_into([bytearray(8), bytearray(8)], 0, bytes(8), bytes(9))
    for stripe in stripes:
        stripe.append(0)  # no export was left behind


def test_read_only_outputs_are_refused() -> None:
    code = ReedSolomon(2, 1)
    with pytest.raises(ValueError, match="stripe 2 is read-only"):
        code.encode_into([b"ab", b"cd", b"ef"])
    with pytest.raises(ValueError, match="stripe 1 is read-only"):
        code.reconstruct_into([b"ab", b"cd", bytearray(b"ef")], [1])
    with pytest.raises(ValueError, match="parity 0 is read-only"):
        code.update_into([b"ef"], 0, b"ab", b"cd")


def test_buffers_with_gaps_are_refused() -> None:
    code = ReedSolomon(2, 1)
    gaps: Any = np.zeros(8, dtype=np.uint8)[::2]
    turned: Any = np.asfortranarray(np.zeros((2, 2), np.uint8))
    with pytest.raises(ValueError, match="stripe 1 is not one C-contiguous block"):
        code.verify([b"abcd", gaps, b"abcd"])
    with pytest.raises(ValueError, match="stripe 2 is not one C-contiguous block"):
        code.encode_into([b"abcd", b"abcd", memoryview(bytearray(8))[::2]])
    with pytest.raises(ValueError, match="stripe 0 is not one C-contiguous block"):
        code.verify([turned, b"abcd", b"abcd"])
    with pytest.raises(ValueError, match="data is not one C-contiguous block"):
        code.encode(gaps)


def test_objects_without_a_buffer_are_refused() -> None:
    code = ReedSolomon(2, 1)
    stripes: list[Any] = ["ab", b"cd", bytearray(2)]
    with pytest.raises(TypeError, match="stripe 0 must be a bytes-like object, not str"):
        code.encode_into(stripes)
    with pytest.raises(TypeError, match="stripe 1 must be a bytes-like object, not NoneType"):
        code.verify([b"ab", None, b"ef"])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="data must be a bytes-like object, not int"):
        code.encode(7)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        code.encode_into(3)  # type: ignore[arg-type]


def test_overlapping_outputs_are_refused() -> None:
    code = ReedSolomon(2, 2)
    block = memoryview(bytearray(64))
    apart = [block[i * 16 : i * 16 + 16] for i in range(4)]
    code.encode_into(apart)
    code.encode_into([apart[3], apart[1], apart[0], apart[2]])
    code.encode_into([apart[0], apart[0], apart[2], apart[3]])  # inputs may coincide
    for bad in (
        [apart[0], apart[1], apart[2], apart[2]],
        [apart[0], apart[1], block[31:47], apart[3]],
        [apart[0], apart[1], apart[1], apart[3]],
        [apart[0], block[33:49], apart[2], apart[3]],
        [block[1:17], apart[2], apart[0], apart[3]],
    ):
        with pytest.raises(ValueError, match="overlaps"):
            code.encode_into(bad)
    with pytest.raises(ValueError, match="overlaps"):
        code.reconstruct_into([apart[0], block[15:31], apart[2], apart[3]], [1])
    with pytest.raises(ValueError, match="overlaps"):
        code.update_into([apart[0], apart[1]], 0, apart[2], block[17:33])
    code.update_into([apart[0], apart[1]], 0, apart[2], apart[2])


def test_too_few_stripes_are_refused() -> None:
    code = ReedSolomon(5, 3)
    stripes: list[Any] = [b"a", None, None, b"b", None, None, None, b"c"]
    for call in (code.reconstruct, code.locate):
        with pytest.raises(ValueError, match="have 3 stripes of 8, need 5"):
            call(stripes)
    buffers = [bytearray(1) for _ in range(8)]
    with pytest.raises(ValueError, match="have 4 stripes of 8, need 5"):
        code.reconstruct_into(buffers, [0, 1, 2, 3])
    with pytest.raises(ValueError, match="have 0 stripes of 8, need 5"):
        code.reconstruct([None] * 8)


@pytest.mark.parametrize(
    ("missing", "words"), [([8], "0..7, got 8"), ([-1], "0..7, got -1"), ([2, 2], "stripe 2 twice")]
)
def test_bad_positions_are_refused(missing: list[int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ReedSolomon(5, 3).reconstruct_into([bytearray(1) for _ in range(8)], missing)


def test_update_refuses_a_parity_position() -> None:
    with pytest.raises(ValueError, match=r"index must be 0\.\.4, got 5"):
        ReedSolomon(5, 1).update_into([bytearray(1)], 5, b"a", b"b")


def test_codes_are_readable_and_unchangeable() -> None:
    code = ReedSolomon(k=20, m=5)
    assert (code.k, code.m, code.n) == (20, 5, 25)
    assert repr(code) == "ReedSolomon(k=20, m=5)"
    assert repr(ReedSolomon(4, 1, threads=2)) == "ReedSolomon(k=4, m=1, threads=2)"
    assert pickle.loads(pickle.dumps(ReedSolomon(4, 1, threads=2))).threads == 2
    copy = pickle.loads(pickle.dumps(code))
    assert copy.generator_matrix() == code.generator_matrix()
    for name in ("k", "m", "n", "threads", "other"):
        with pytest.raises(AttributeError):
            setattr(code, name, 3)
    assert ReedSolomon(4, 1).generator_matrix() == [b"\1\1\1\1"]


def test_no_references_are_kept() -> None:
    code = ReedSolomon(3, 2)
    stripes: list[Any] = [bytearray(40) for _ in range(5)]
    odd: list[Any] = [*stripes[:4], bytearray(41)]
    frozen: list[Any] = [*stripes[:4], bytes(40)]
    index = 10**6

    def everything() -> None:
        code.encode_into(stripes)
        code.encode(stripes[0])
        code.reconstruct([None, *stripes[1:4], None])
        code.reconstruct_into(stripes, [4, 1])
        code.verify(stripes)
        code.locate(stripes)
        code.update_into(stripes[3:], 0, stripes[0], stripes[1])
        code.generator_matrix()
        for bad in (odd, frozen, stripes[:3], [*stripes[:4], None]):
            with pytest.raises((ValueError, TypeError)):
                code.encode_into(bad)
        with pytest.raises(ValueError):
            code.update_into(stripes[3:], index, stripes[0], stripes[1])

    def counts() -> list[int]:
        gc.collect()
        return [sys.getrefcount(item) for item in (*stripes, odd[4], frozen[4], code, index, None)]

    everything()
    before, blocks = counts(), sys.getallocatedblocks()
    for _ in range(200):
        everything()
    after = counts()
    assert after[:-1] == before[:-1]
    assert after[-1] - before[-1] < 50
    assert sys.getallocatedblocks() - blocks < 150
    for stripe in stripes:
        stripe.append(1)  # still exported buffers would refuse


def test_two_threads_share_one_code() -> None:
    code = ReedSolomon(10, 4)
    failures: list[object] = []

    def work(seed: int) -> None:
        try:
            for size in (100, 30_000) * 10:
                stripes = filled(code, size, seed)
                lost = tuple(random.Random(seed).sample(range(14), 4))
                assert code.reconstruct(without(stripes, lost)) == stripes
                assert code.verify(stripes)
                stripes[seed] = bytes(size)
                assert code.locate(stripes) == [seed]
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


# ---- stores past the cache ----


@pytest.fixture
def streaming() -> Iterator[None]:
    """Let every call store past the cache, however small it is."""
    before = _gf256._stream_above(0)
    yield
    _gf256._stream_above(before)


@pytest.mark.usefixtures("streaming")
@pytest.mark.parametrize("lead", [0, 1, 16, 63])
@pytest.mark.parametrize("skew", [0, 1])
def test_streaming_stores_give_the_same_bytes(level: str, lead: int, skew: int) -> None:
    """`lead` is where in a cache line the stripes begin, `skew` how much that differs between them."""
    for m in range(1, 11):
        code = ReedSolomon(4, m)
        for size in (1, 63, 64, 65, 200, 1024, 5000):
            step = size // 64 * 64 + 192
            space = np.full(step * code.n + 64, 0xEE, dtype=np.uint8)
            space = space[-space.ctypes.data % 64 :]
            starts = [lead + i * (step + skew) for i in range(code.n)]
            stripes = [memoryview(space.data)[at : at + size] for at in starts]
            for stripe, shard in zip(stripes, shards(4, size), strict=False):
                stripe[:] = shard
            want = code.encode(b"".join(stripes[:4]))  # in blocks that stay in the cache
            code.encode_into(stripes)
            assert [bytes(stripe) for stripe in stripes] == want, (m, size)
            lost = random.Random(size).sample(range(code.n), random.Random(m).randint(1, m))
            for i in lost:
                stripes[i][:] = bytes(size)
            code.reconstruct_into(stripes, lost)
            assert [bytes(stripe) for stripe in stripes] == want, (m, size, lost)
            for at, after in zip(starts, [*starts[1:], starts[-1] + step], strict=True):
                assert not np.any(space[at + size : after] != 0xEE)  # nothing outside was touched


# ---- stripes in each of the caches ----


@pytest.mark.parametrize(("k", "m"), [(10, 4), (9, 2), (11, 3), (20, 5), (7, 1)])
@pytest.mark.parametrize("total", [40_000, 400_000, 3_000_000, 14_000_000])
def test_every_place_of_the_stripes_gives_the_same_bytes(level: str, k: int, m: int, total: int) -> None:
    """Kernels order their work by the bytes of all stripes; encode() works in blocks of the second cache."""
    code = ReedSolomon(k, m)
    each = total // (k + m)
    want = code.encode(random.Random(total).randbytes(k * each))
    stripes = [*map(bytearray, want[:k]), *(bytearray(each) for _ in range(m))]
    code.encode_into(stripes)
    assert stripes == want
    lost = [0, k - 1, k + m - 1][:m]
    for i in lost:
        stripes[i][:] = bytes(each)
    code.reconstruct_into(stripes, lost)
    assert stripes == want


# ---- threads ----

SHARED = 9 << 20  # bytes of data that two threads share


def halves(code: ReedSolomon, seed: int = 1) -> list[bytearray]:
    """Data of SHARED bytes and room for the parity, encoded without threads by encode()."""
    return [bytearray(stripe) for stripe in code.encode(random.Random(seed).randbytes(SHARED - 5))]


@pytest.mark.parametrize(("k", "m"), [(5, 1), (4, 4), (3, 11)])
def test_threads_give_the_same_bytes(level: str, k: int, m: int) -> None:
    alone, shared = ReedSolomon(k, m), ReedSolomon(k, m, threads=2)
    whole = halves(alone)
    want = [bytes(stripe) for stripe in whole]
    assert shared.encode(b"".join(want[:k])[: SHARED - 5]) == want
    for stripe in whole[k:]:
        stripe[:] = bytes(len(stripe))
    shared.encode_into(whole)
    assert whole == want
    for lost in ([k - 1], [*range(k, k + m)], [*range(m)][: k + m - 1]):
        for i in lost:
            whole[i][:] = bytes(len(whole[i]))
        shared.reconstruct_into(whole, lost)
        assert whole == want, lost
    assert shared.reconstruct([None, *want[1:]]) == want
    assert shared.verify(whole)
    for column in (0, len(want[0]) // 2, -1):
        whole[k][column] ^= 1
        assert not shared.verify(whole)
        whole[k][column] ^= 1


def test_many_calls_with_helpers_at_once() -> None:
    code = ReedSolomon(4, 2, threads=16)
    want = halves(ReedSolomon(4, 2))
    failures: list[object] = []

    def work() -> None:
        try:
            mine = [bytearray(stripe) for stripe in want]
            for _ in range(5):
                mine[4][:] = bytes(len(mine[4]))
                code.encode_into(mine)
                assert mine == want
                code.reconstruct_into(mine, [1, 5])
                assert mine == want
        except BaseException as error:
            failures.append(error)
            raise

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_fork_in_the_middle_of_a_shared_call_leaves_both_sides_able_to_work() -> None:
    code = ReedSolomon(4, 2, threads=2)
    want = halves(ReedSolomon(4, 2))
    stop = threading.Event()

    def work() -> None:
        mine = [bytearray(stripe) for stripe in want]
        while not stop.is_set():
            code.encode_into(mine)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for _ in range(5):
            child = os.fork()
            if child == 0:
                mine = [*want[:4], bytearray(len(want[4])), bytearray(len(want[5]))]
                code.encode_into(mine)
                os._exit(0 if mine == want else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        stop.set()
        worker.join()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts threads in /proc")
def test_helpers_end_with_the_call_and_take_no_signals() -> None:
    code = ReedSolomon(4, 2, threads=8)
    stripes = [bytearray(16 << 20) for _ in range(6)]
    before = len(os.listdir("/proc/self/task"))
    masks: set[str] = set()
    seen = threading.Event()
    deadline = time.monotonic() + 20  # a helper lives for milliseconds, so work goes on until one was caught

    def work() -> None:
        while not seen.is_set() and time.monotonic() < deadline:
            code.encode_into(stripes)

    worker = threading.Thread(target=work)
    worker.start()
    most = 0
    while worker.is_alive():
        tasks = os.listdir("/proc/self/task")
        most = max(most, len(tasks))
        for task in tasks:
            try:
                with open(f"/proc/self/task/{task}/status") as status:
                    masks |= {line.split()[1] for line in status if line.startswith("SigBlk")}
            except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
                continue
        if most > before + 1 and any(int(mask, 16) & (1 << (signal.SIGINT - 1)) for mask in masks):
            seen.set()
    worker.join()
    assert seen.is_set()
    while len(os.listdir("/proc/self/task")) > before and time.monotonic() < deadline:
        time.sleep(0.01)  # the kernel takes a joined thread off its list a moment later
    assert len(os.listdir("/proc/self/task")) == before


@pytest.mark.parametrize("threads", [0, -1, 17, 10**30])
def test_thread_counts_out_of_range_are_refused(threads: int) -> None:
    with pytest.raises(ValueError, match=r"threads must be 1\.\.16"):
        ReedSolomon(4, 1, threads)


# ---- instruction levels ----


def imported(**settings: str) -> subprocess.CompletedProcess[str]:
    """Import the module in a new interpreter with these environment variables and print its level."""
    environ = {name: value for name, value in os.environ.items() if name not in ("QMAIL_ISA", "QMAIL_SCALAR")}
    environ |= {"PYTHONPATH": os.pathsep.join(filter(None, [os.getcwd(), *sys.path])), **settings}
    program = "import qmail_core._gf256 as g; print(g.isa)"
    return subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=False)


def test_the_environment_forces_a_level() -> None:
    assert imported().stdout.strip() == LEVELS[-1]
    assert imported(QMAIL_SCALAR="1").stdout.strip() == "scalar"
    assert imported(QMAIL_SCALAR="0").stdout.strip() == LEVELS[-1]
    for name in LEVELS:
        assert imported(QMAIL_ISA=name).stdout.strip() == name


def test_an_unknown_level_is_refused() -> None:
    assert LEVELS[0] == "scalar"
    result = imported(QMAIL_ISA="mmx")
    assert result.returncode != 0
    assert "ImportError: QMAIL_ISA: no GF(256) kernel 'mmx' on this CPU; there are scalar" in result.stderr
    before = _gf256.isa
    with pytest.raises(ValueError, match="no GF"):
        _gf256.set_isa("neon" if "neon" not in LEVELS else "avx2")
    assert _gf256.isa == before
