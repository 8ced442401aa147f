"""The `sealed` profile: an object into stripes and back, against the ciphers it consists of.

What is measured: one thread, memory to memory, as the engine does it: a Writer reads views of the object and fills page
buffers, a Reader takes pages, checks every shard against the root and gives the plaintext. The peer is the slower of
AES-256-CTR and SHA-256 alone over the same bytes, in the same run; SHA-256 is, by far. An object of more than one page
is read twice by the Writer: both passes are measured apart, and only the first has to hash the text. Note what the peer
does not do: both sides hash the text and then all shards again, for the digests of the tree. To split with 20+5 is to
put 2.25 bytes through SHA-256 for each byte of the object. Texts of two segments are hashed in each other's gaps, so
objects of one segment (1 MiB at 20+5) stay behind: their text is a single chain, which takes as long as the peer, and
15 % more with the leaves in its gaps.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from bench.measure import Row, Timing, row, timings, want
from qmail_core import _framing
from qmail_core.codec.erasure import Reader, Writer
from qmail_core.codec.stripes import Shards
from qmail_core.model import Profile, Striping

CODES = ((20, 5), (10, 4), (4, 1))
SIZES = (64 << 10, 1 << 20, 8 << 20, 32 << 20)
SEED = bytes(32)
PEER = "slower of AES-256-CTR and SHA-256"


class Case:
    """One object and what can be done with it."""

    def __init__(self, k: int, m: int, size: int) -> None:
        self.striping = Striping(Profile.SEALED, k, m)
        self.data = random.Random(size).randbytes(size)
        self.out = bytearray(size)
        self.writer = Writer(self.striping, size, SEED)
        self.writer.scan(self.read)
        self.rows = [self.writer.row(page, self.read) for page in range(self.writer.pages)]
        self.reader = Reader(self.writer.layout, self.writer.root)
        assert b"".join(self.join(0)) == self.data == b"".join(self.join(1))

    def read(self, offset: int, size: int) -> memoryview:
        return memoryview(self.data)[offset : offset + size]

    def aes(self) -> None:
        _framing.aes_ctr(SEED, bytes(16), self.data, self.out)

    def sha(self) -> None:
        _framing.sha256(self.data)

    def first_pass(self) -> None:
        """All there is to do for an object of one page, and the digests of a larger one."""
        writer = Writer(self.striping, len(self.data), SEED)
        writer.scan(self.read)
        if writer.pages == 1:
            writer.row(0, self.read)

    def second_pass(self) -> None:
        for page in range(self.writer.pages):
            self.writer.row(page, self.read)

    def join(self, lost: int) -> Iterator[bytes]:
        """Check and open k stripes, without the first `lost`, row by row."""
        for page, row_of in enumerate(self.rows):
            found = {stripe: row_of[stripe] for stripe in range(lost, self.striping.k + lost)}
            good = self.reader.check_row(page, found)
            yield self.reader.join(page, {i: s for i, s in good.items() if isinstance(s, Shards)})

    def whole_join(self, lost: int) -> None:
        """All rows; like the engine, which writes each away before the next."""
        for _ in self.join(lost):
            pass


def case_rows(k: int, m: int, size: int) -> Iterator[Row]:
    case = Case(k, m, size)
    calls = [case.aes, case.sha, case.first_pass, lambda: case.whole_join(0), lambda: case.whole_join(1)]
    if case.writer.pages > 1:
        calls.append(case.second_pass)
    aes, sha, *found = timings(calls)
    limit = max(aes.seconds, sha.seconds)
    names = [f"sealed split {k}+{m}", f"sealed join {k}+{m}", f"sealed join with a loss {k}+{m}"]
    for name, timing in zip([*names, f"sealed second pass {k}+{m}"], found, strict=False):
        line = speed(f"{name}, {size >> 10} KiB", size, timing, limit)
        goal = size >= 1 << 20 and name in names[:2]
        yield want(line, ">= 0.8 x") if goal else line


def speed(what: str, size: int, found: Timing, limit: float) -> Row:
    return row(what, size / found.seconds / 1e9, "GB/s", found.spread, (PEER, limit / found.seconds))


def base_rows() -> Iterator[Row]:
    data, out = random.Random(0).randbytes(1 << 20), bytearray(1 << 20)
    calls = [lambda: _framing.aes_ctr(SEED, bytes(16), data, out), lambda: _framing.sha256(data)]
    for name, found in zip(("AES-256-CTR", "SHA-256"), timings(calls), strict=True):
        yield row(f"alone, {name}", len(data) / found.seconds / 1e9, "GB/s", found.spread)


def rows() -> Iterator[Row]:
    """The ciphers alone, then every code and size."""
    yield from base_rows()
    for k, m in CODES:
        for size in SIZES:
            yield from case_rows(k, m, size)
