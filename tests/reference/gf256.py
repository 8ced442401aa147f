"""The Reed-Solomon code of qmail_core._gf256 written as slowly and plainly as possible: the oracle of its tests.

Rule: nothing here is clever. The field is shift and XOR, encoding is schoolbook polynomial division, decoding is
Gaussian elimination over the parity-check equations. No table, no symmetry of the generator and no closed formula is
used; results of the field operations are only remembered.
"""

from collections.abc import Sequence
from functools import cache

POLYNOMIAL = 0x11D
ALPHA = 2


@cache
def mul(a: int, b: int) -> int:
    """Product in GF(256)."""
    product = 0
    while b:
        if b & 1:
            product ^= a
        a <<= 1
        if a & 0x100:
            a ^= POLYNOMIAL
        b >>= 1
    return product


@cache
def power(a: int, e: int) -> int:
    """a to the e, any integer e, a nonzero."""
    result = 1
    for _ in range(e % 255):
        result = mul(result, a)
    return result


@cache
def inverse(a: int) -> int:
    """The b with a * b == 1."""
    return next(b for b in range(1, 256) if mul(a, b) == 1)


def roots(m: int) -> list[int]:
    """Roots of the generator: m consecutive powers of alpha, symmetric about 1 (alpha^128 is sqrt(alpha))."""
    first = -(m - 1) // 2 if m % 2 else 128 - m // 2
    return [power(ALPHA, first + j) for j in range(m)]


def generator(m: int) -> list[int]:
    """Coefficients of the product of (x - root), highest power first."""
    g = [1]
    for root in roots(m):
        g = [a ^ mul(root, b) for a, b in zip([*g, 0], [0, *g], strict=True)]
    return g


def parity(data: Sequence[int], m: int) -> list[int]:
    """Remainder of d(x) x^m divided by the generator, highest power first."""
    g = generator(m)
    rest = [*data, *[0] * m]
    for i in range(len(data)):
        factor = rest[i]
        for j, coefficient in enumerate(g):
            rest[i + j] ^= mul(factor, coefficient)
    return rest[len(data) :]


def encode(shards: Sequence[bytes], m: int) -> list[bytes]:
    """Parity stripes of equally long data stripes, byte column by byte column."""
    columns = [parity(column, m) for column in zip(*shards, strict=True)]
    return [bytes(column[j] for column in columns) for j in range(m)]


def split(data: bytes, k: int) -> list[bytes]:
    """k stripes of ceil(len / k) bytes, the tail padded with zeros."""
    size = -(-len(data) // k)
    return [data[i * size : (i + 1) * size].ljust(size, b"\0") for i in range(k)]


def solve(matrix: list[list[int]], right: list[list[int]]) -> list[list[int]]:
    """Unknown rows x with matrix * x == right, by Gaussian elimination; the matrix is square and regular."""
    rows = [[*a, *b] for a, b in zip(matrix, right, strict=True)]
    size = len(rows)
    for i in range(size):
        pivot = next(r for r in range(i, size) if rows[r][i])
        rows[i], rows[pivot] = rows[pivot], rows[i]
        scale = inverse(rows[i][i])
        rows[i] = [mul(scale, value) for value in rows[i]]
        for r in range(size):
            if r != i and rows[r][i]:
                factor = rows[r][i]
                rows[r] = [a ^ mul(factor, b) for a, b in zip(rows[r], rows[i], strict=True)]
    return [row[size:] for row in rows]


def decode(stripes: Sequence[bytes | None], m: int) -> list[bytes]:
    """All stripes, from any len(stripes) - m of them: every codeword is zero at each root of the generator."""
    n = len(stripes)
    missing = [i for i, stripe in enumerate(stripes) if stripe is None]
    size = len(next(stripe for stripe in stripes if stripe is not None))
    equations = roots(m)[: len(missing)]
    matrix = [[power(root, n - 1 - i) for i in missing] for root in equations]
    right = []
    for root in equations:
        row = [0] * size
        for i, stripe in enumerate(stripes):
            if stripe is not None:
                weight = power(root, n - 1 - i)
                row = [a ^ mul(weight, b) for a, b in zip(row, stripe, strict=True)]
        right.append(row)
    found = dict(zip(missing, map(bytes, solve(matrix, right)), strict=True))
    return [found[i] if stripe is None else stripe for i, stripe in enumerate(stripes)]
