"""Objects of the early clients whose size nothing announces: QMail wire D.4 "manifest v0", "old Python"."""

from __future__ import annotations

from collections.abc import Mapping

from typing_extensions import Buffer

from qmail_core.codec.interop import InteropReader, shard_size
from qmail_core.codec.legacy_stripes import CRC_SIZE
from qmail_core.codec.stripes import Outcome, Shards
from qmail_core.errors import ErasureError

PREFIX_SIZE = 4


class OldReader(InteropReader):
    """An object of one block whose size nothing announces: read from the stripes, or else from its end.

    k          data stripes
    size       bytes of a stripe as it was stored
    prefixed   it is an attachment, so its length may stand before it
    """

    def __init__(self, k: int, size: int, *, prefixed: bool) -> None:
        super().__init__(k, 0)
        self._block = 1 << 62  # whatever its size, it is one
        self.root = size.to_bytes(8, "big")  # stripes of another size are of another object
        self._size = size
        self._prefixed = prefixed

    def check_row(self, page: int, found: Mapping[int, Buffer]) -> Outcome:
        """Refuse stripes of another size, and such as their checksums tell to be wrong."""
        wrong: dict[int, ErasureError] = {}
        if self._size >= CRC_SIZE:
            wrong = self._old.look(self._size - CRC_SIZE, found)
        outcome: Outcome = {}
        for stripe, data in found.items():
            if len(memoryview(data)) != self._size or stripe > self.striping.k:
                outcome[stripe] = ErasureError(f"stripe {stripe} has {len(memoryview(data))} bytes, not {self._size}")
            else:
                outcome[stripe] = wrong.get(stripe) or Shards([memoryview(data)])
        return outcome

    def join(self, page: int, shards: Mapping[int, Shards]) -> bytes:
        """The plaintext, without what surrounds it."""
        k, wrong = self.striping.k, self._old.wrong()
        size = self._size - CRC_SIZE if self._old.proven else self._size
        self.length = size * k  # all the stripes can hold
        plain = super().join(0, {i: Shards([rows[0][:size]]) for i, rows in shards.items() if i not in wrong})
        announced = int.from_bytes(plain[:PREFIX_SIZE], "big") + PREFIX_SIZE
        if self._prefixed and announced <= len(plain) and shard_size(k, announced) == size:
            plain = plain[PREFIX_SIZE:announced]
        else:
            plain = plain.rstrip(b"\0")
        self.length = len(plain)
        return plain
