"""The bit interleave of the `interop` profile and its inverse, for every number of stripes, at every level.

What is measured: 256 KiB of seeded data through the Python interface, one thread, including the new objects it returns.
The peer is the same function of Python integers; it is measured for three of the thirty stripe counts, being slow.

The goal is for processors with AVX-512 or a fast PEXT. What is left for others, old AMD with AVX2 among them, is the
portable level: on a Zen 5 core 0.4 GB/s for 2 stripes, 1 GB/s from 9 on, 1.5 to 2 GB/s with 24 and more.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from bench.measure import Row, row, timings, want
from qmail_core import _framing

SIZE = 1 << 18
PATHS = ("avx512", "bmi2", "portable")
SHOWN = (4, 7, 24)  # with a peer


def python(block: bytes, d: int) -> list[int]:
    """Bit i of the block to stripe i mod d, as one large number each."""
    bits = bin(int.from_bytes(block, "little"))[:1:-1].ljust(8 * len(block), "0")
    return [int(bits[i::d][::-1] or "0", 2) for i in range(d)]


def stripe_rows(path: str, block: bytes, d: int) -> Iterator[Row]:
    stripes = _framing.interleave(block, d)
    calls = [lambda: _framing.interleave(block, d), lambda: _framing.deinterleave(stripes, len(block))]
    for name, found in zip(("interleave", "deinterleave"), timings(calls, 0.004), strict=True):
        line = row(f"{name} {path}, {d} stripes", SIZE / found.seconds / 1e9, "GB/s", found.spread)
        yield line if path == "portable" else want(line, ">= 1.5 GB/s")


def peer_row(block: bytes, d: int) -> Row:
    assert [int.from_bytes(s, "little") for s in _framing.interleave(block, d)] == python(block, d)
    ours, theirs = timings([lambda: _framing.interleave(block, d), lambda: python(block, d)], 0.004)
    peer = ("Python integers", theirs.seconds / ours.seconds)
    line = row(f"interleave against Python, {d} stripes", SIZE / ours.seconds / 1e9, "GB/s", ours.spread, peer)
    return want(line, ">= 50 x")


def rows() -> Iterator[Row]:
    """Every level this processor has, the widest first, then the peer."""
    block = random.Random(31).randbytes(SIZE)
    try:
        for path in PATHS:
            if _framing._select("bits", path):
                for d in range(2, 32):
                    yield from stripe_rows(path, block, d)
    finally:
        _framing._select("bits", PATHS[0])
    for d in SHOWN:
        yield peer_row(block, d)
