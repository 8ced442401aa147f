"""How this process keeps memory it has freed, and how often it looks for garbage.

What streams a file frees and takes buffers of half a megabyte all the time, in several threads, and so does what reads
25 answers of 64 KiB. The C library gives such memory back to the system at once and gets it page by page again, each
page zeroed: that costs as much as sealing the file, or as reading the answers. So it is told to keep some. Other C
libraries than glibc are left as they are.

Requests leave next to no circles of objects, so looking for them every 700 objects, and at all objects of the process
every now and then, is a stall for nothing: waking 5 000 long polls met several.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc

KEPT = 32 << 20  # bytes each arena keeps at its end, and below which nothing is a mapping of its own
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt(3)


def keep_freed() -> None:
    """Keep what is freed, up to KEPT for each arena; for processes that serve."""
    with contextlib.suppress(AttributeError, OSError):
        library = ctypes.CDLL(None)
        for option in (_TRIM_THRESHOLD, _MMAP_THRESHOLD):
            library.mallopt(option, KEPT)


def collect_seldom() -> None:
    """Leave what there is alone, and look among what comes rarely; for processes that serve, once they do."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
