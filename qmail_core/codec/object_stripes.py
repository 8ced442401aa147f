"""Objects as Object Transfer stripes them: the stripe object of a node is all its pages, one behind the other.

`rs` and `sealed` stripes are those of `codec/erasure.py`, byte for byte. `interop` objects have blocks of k MiB,
whatever their size, so a page is 1 MiB but for the last (QMail wire D.3 "OT"); the one block of a smaller object is
the same as that of command 70.
"""

from __future__ import annotations

from itertools import accumulate

from qmail_core.codec.erasure import Layout, Reader, Writer
from qmail_core.codec.interop import InteropReader, InteropWriter, shard_size
from qmail_core.model import Profile, Striping

BLOCK = 1 << 20  # of one stripe


class BlockWriter(InteropWriter):
    """Cuts an `interop` object into blocks of k MiB."""

    def __init__(self, striping: Striping, length: int) -> None:
        super().__init__(striping, length)
        self._block = striping.k * BLOCK
        self.pages = max(1, -(-length // self._block))
        self._crcs = [0] * self.pages


class BlockReader(InteropReader):
    """Puts blocks of k MiB together again; nothing can be checked per stripe but its size."""

    def __init__(self, k: int, length: int) -> None:
        super().__init__(k, length)
        self._block = k * BLOCK
        self.pages = max(1, -(-length // self._block))


def writer(striping: Striping, length: int, seed: bytes) -> Writer | BlockWriter:
    """The writer of an object's stripe objects; used like those of `erasure.writer`."""
    return BlockWriter(striping, length) if striping.profile == Profile.INTEROP else Writer(striping, length, seed)


def reader(striping: Striping, length: int, root: bytes) -> Reader | BlockReader:
    """The reader for stripe objects; `root` is what the writer came to, empty for `interop`."""
    if striping.profile == Profile.INTEROP:
        return BlockReader(striping.k, length)
    return Reader(Layout(striping, length), root)


def page_starts(striping: Striping, length: int) -> list[int]:
    """Where each page starts in a stripe object, and at the end the size of the whole.

    striping, length   of the object; all its stripes are of one size
    """
    if striping.profile == Profile.INTEROP:
        k = striping.k
        full, rest = divmod(length, k * BLOCK)
        sizes = [BLOCK] * full + ([shard_size(k, rest)] if rest or not full else [])
    else:
        layout = Layout(striping, length)
        sizes = [layout.page_size(page) for page in range(layout.pages)]
    return [0, *accumulate(sizes)]
