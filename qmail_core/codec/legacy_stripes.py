"""Stripes of the early clients, on the way in. QMail wire D.3 "Python (old)", D.4.

They made one block of the whole file, and put a CRC-32 behind every data stripe before the parity was computed, so the
parity covers the checksums too. An attachment was prefixed with its length. Neither is announced anywhere: a stripe
that is four bytes longer than it should be and ends in its own CRC-32 shows it. Then a data stripe that does not is
wrong, and a parity that rebuilds one that does not is wrong too. Without any such stripe they are taken as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from zlib import crc32

from typing_extensions import Buffer

from qmail_core.errors import ErasureError

CRC_SIZE = 4


class OldFraming:
    """What the stripes of one block have shown so far.

    k   data stripes; stripe k is the parity
    """

    def __init__(self, k: int) -> None:
        self._k = k
        self._good: dict[int, memoryview] = {}  # data stripes that end in their checksum
        self._odd: set[int] = set()
        self._parity: memoryview | None = None

    @property
    def proven(self) -> bool:
        """Whether any stripe ended in its checksum: no accident, but once in four thousand million."""
        return bool(self._good)

    def look(self, size: int, found: Mapping[int, Buffer]) -> dict[int, ErasureError]:
        """Take note of stripes, and name those among them that are known to be wrong now.

        size   bytes of a stripe without checksum
        """
        for stripe, data in found.items():
            view = memoryview(data)
            if len(view) != size + CRC_SIZE or stripe > self._k:
                continue
            if stripe == self._k:
                self._parity = view
            elif crc32(view[:-CRC_SIZE]) == int.from_bytes(view[-CRC_SIZE:], "big"):
                self._good[stripe] = view
            else:
                self._odd.add(stripe)
        wrong = self.wrong()
        return {i: ErasureError(f"stripe {i} does not match its checksum") for i in found if i in wrong}

    def wrong(self) -> set[int]:
        """Stripes that cannot be what was stored."""
        if not self.proven:
            return set()
        return self._odd | ({self._k} if self._parity_lies() else set())

    def _parity_lies(self) -> bool:
        """Whether the parity and all data stripes but one give a stripe that does not match its checksum."""
        if self._parity is None or len(self._good) < self._k - 1:
            return False
        rebuilt = int.from_bytes(self._parity, "big")
        for view in self._good.values():
            rebuilt ^= int.from_bytes(view, "big")
        if len(self._good) == self._k:
            return rebuilt != 0
        whole = rebuilt.to_bytes(len(self._parity), "big")
        return crc32(whole[:-CRC_SIZE]) != int.from_bytes(whole[-CRC_SIZE:], "big")
