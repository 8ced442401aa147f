"""What the modules that make stripes share: the code, page buffers, and what a Reader gives for a page.

Rule: nothing here knows a profile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache

from typing_extensions import Buffer

from qmail_core._framing import crc32 as crc32  # for the engine as well, which imports no kernel
from qmail_core._framing import raw_buffer
from qmail_core._gf256 import ReedSolomon
from qmail_core.errors import ErasureError

Read = Callable[[int, int], Buffer]  # (offset, size) -> exactly size bytes of the object


@lru_cache(maxsize=64)
def code(k: int, m: int) -> ReedSolomon:
    """The Reed-Solomon code of a striping, which is dear to make and has no state."""
    return ReedSolomon(k, m)


def cut(size: int, count: int) -> list[memoryview]:
    """`count` buffers of `size` undefined bytes, in one allocation: small ones would each be mapped and unmapped."""
    whole = memoryview(raw_buffer(size * count))
    return [whole[i * size : (i + 1) * size] for i in range(count)]


class Shards(list[memoryview]):
    """The checked shards of one page of one stripe, in segment order."""

    def __init__(self, shards: Iterable[memoryview] = (), texts: list[bytes] | None = None) -> None:
        super().__init__(shards)
        self.texts = texts  # digests of the sealed texts, the same list for all stripes they were computed from


Outcome = dict[int, Shards | ErasureError]  # by stripe index
