"""When something waiting in the store is due. Its times are Unix seconds, of a clock that may be set back meanwhile."""

from __future__ import annotations

FOREVER = 1 << 40  # seconds


def latest(now: int, span: int) -> int:
    """When something of this length can end at the latest: what ends later was begun by a clock that was ahead.

    A clock that is put right by less than the span changes nothing, so that nobody gains from it.
    """
    return now + 2 * span
