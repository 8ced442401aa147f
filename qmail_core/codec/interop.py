"""The striping profile `interop`, QMail wire part D: bit interleave over k data stripes and one XOR parity.

A stripe has no framing at all, so that clients of other makers can read it; nothing in it can be checked. One page row
holds one block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from typing_extensions import Buffer

from qmail_core._framing import crc32_combine, deinterleave, interleave
from qmail_core.codec import consts as c
from qmail_core.codec.legacy_stripes import OldFraming
from qmail_core.codec.stripes import Outcome, Read, Shards, code, crc32
from qmail_core.errors import ErasureError, LocalProtocolError
from qmail_core.model import Profile, Striping

DATA = range(2, 32)  # data stripes; a tell lists at most 32 servers

# what command 70's u16 body length leaves for data, after 88 bytes of body around it (C.3), and after the 32 bytes of
# HMAC of type 4 instead of nothing: one limit for both, so that a stripe's command does not depend on encryption
SMALL_STRIPE = c.MAX_SHORT_BODY - 88 - c.HMAC_SIZE


def shard_size(d: int, length: int) -> int:
    """Bytes of each stripe of one interleaved block. Source D.2."""
    return (8 * length + 8 * d - 1) // (8 * d)


def block_size(d: int, length: int) -> int:
    """Plaintext bytes per interleaved block: the whole object if its stripes fit command 70. Source D.3."""
    return max(length, 1) if shard_size(d, length) <= SMALL_STRIPE else d * c.PAGE_SIZE


def pages_of(d: int, length: int) -> int:
    """Blocks, and so pages, of an interop object."""
    return max(1, -(-length // block_size(d, length)))


class InteropWriter:
    """Cuts one object into stripes, block by block; used like `erasure.Writer`. QMail wire D.2, D.3."""

    def __init__(self, striping: Striping, length: int, seed: bytes = b"") -> None:
        if striping.m != 1 or striping.k not in DATA:
            raise LocalProtocolError("the interop profile has 2 to 31 data stripes and exactly one parity stripe")
        self.striping = striping
        self.length = length
        self._block = block_size(striping.k, length)
        self.pages = pages_of(striping.k, length)
        self._crcs = [0] * self.pages
        self.crc32 = 0
        self.root = b""

    @property
    def stripe_size(self) -> int:
        """Bytes of each stripe."""
        last = self.length - (self.pages - 1) * self._block
        return (self.pages - 1) * c.PAGE_SIZE + shard_size(self.striping.k, last)

    def scan(self, read: Read) -> None:
        """The CRC-32 of the object."""
        for page in range(self.pages):
            self.scan_page(page, read)
        self.finish_scan()

    def scan_page(self, page: int, read: Read) -> None:
        """One block's part of `scan`; blocks may be taken by different threads."""
        self._crcs[page] = crc32(self._read(page, read))

    def finish_scan(self) -> None:
        """The CRC-32 from what the blocks came to."""
        for page, crc in enumerate(self._crcs):
            size = min(self._block, self.length - page * self._block)
            self.crc32 = crc32_combine(self.crc32, crc, size)

    def row(self, page: int, read: Read) -> list[bytes]:
        """One page of every stripe: the stripes of one block."""
        data = interleave(self._read(page, read), self.striping.k)
        parity = bytearray(len(data[0]))
        if parity:
            code(self.striping.k, 1).encode_into([*data, parity])
        return [*data, bytes(parity)]

    def _read(self, page: int, read: Read) -> Buffer:
        offset = page * self._block
        size = min(self._block, self.length - offset)
        return read(offset, size) if size else b""


class InteropReader:
    """Used like `erasure.Reader`; nothing can be checked per stripe but its size."""

    def __init__(self, k: int, length: int) -> None:
        if k not in DATA:
            raise ErasureError(f"{k} data stripes announced, 2 to 31 are possible")
        self.striping = Striping(Profile.INTEROP, k, 1)
        self.length = length
        self.pages = pages_of(k, length)
        self._block = block_size(k, length)
        self._old = OldFraming(k)

    def page_size(self, page: int) -> int:
        """Bytes of one page of a stripe."""
        return shard_size(self.striping.k, self._length(page))

    def check_row(self, page: int, found: Mapping[int, Buffer]) -> Outcome:
        """Refuse stripes whose size is wrong, and such as the checksums of old clients tell to be. Source D.5."""
        size = self.page_size(page)
        wrong = self._old.look(size, found) if self.pages == 1 else {}
        outcome: Outcome = {}
        for stripe, data in found.items():
            view = memoryview(data)
            if stripe in wrong:
                outcome[stripe] = wrong[stripe]
            elif len(view) < size or stripe > self.striping.k:
                outcome[stripe] = ErasureError(f"stripe {stripe} page {page} has {len(view)} bytes, not {size}")
            else:
                outcome[stripe] = Shards([view[:size]])
        return outcome

    def join(self, page: int, shards: Mapping[int, Shards]) -> bytes:
        """The plaintext of one block; at most one stripe may be missing."""
        k, length, wrong = self.striping.k, self._length(page), self._old.wrong()
        row = {stripe: found[0] for stripe, found in shards.items() if stripe not in wrong}
        if len(row) < k:
            raise ErasureError(f"{len(row)} good stripes, {k} needed")
        if not length:
            return b""
        whole: Sequence[Buffer | None] = [row.get(stripe) for stripe in range(k + 1)]
        if any(shard is None for shard in whole[:k]):
            whole = code(k, 1).reconstruct(whole)
        return deinterleave([shard for shard in whole[:k] if shard is not None], length)

    def rebuild(
        self, page: int, shards: Mapping[int, Shards], path_from: Buffer, stripes: Sequence[int]
    ) -> list[bytes]:
        """The lost stripes of one block."""
        k = self.striping.k
        if len(shards) < k:
            raise ErasureError(f"{len(shards)} good stripes, {k} needed")
        row = {stripe: found[0] for stripe, found in shards.items()}
        if not self._length(page):
            return [b""] * len(stripes)
        whole = code(k, 1).reconstruct([row.get(stripe) for stripe in range(k + 1)])
        return [bytes(whole[stripe]) for stripe in stripes]

    def _length(self, page: int) -> int:
        return min(self._block, self.length - page * self._block)
