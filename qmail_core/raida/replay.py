"""Frames a node has seen: a request that comes a second time, byte for byte, is not acted on again.

Rule: constant time and bounded memory, whatever peers send. Coins share a few buckets, by a hash nobody outside can
foresee, and each bucket keeps two generations of marks; a new generation starts after `window` seconds or when the
young one has its share of the room. So a mark lives at least one window, unless the coins of its own bucket are busier
than the room allows: then the oldest are forgotten, and nobody is refused for lack of room.
"""

from __future__ import annotations

from msgspec import Struct

BUCKETS = 16  # one busy coin displaces the marks of a sixteenth of the others, at most


class _Bucket(Struct):
    """Marks are 64-bit hashes, keyed anew in every process."""

    begun: float
    young: set[int]
    old: set[int]


class Recent:
    """Marks of the frames of many coins.

    window   seconds a mark is kept at least
    room     marks kept at most, in all
    """

    def __init__(self, window: float, room: int) -> None:
        self._window, self._share = window, max(1, room // (2 * BUCKETS))
        self._buckets = [_Bucket(0.0, set(), set()) for _ in range(BUCKETS)]

    def __len__(self) -> int:
        return sum(len(bucket.young) + len(bucket.old) for bucket in self._buckets)

    def first(self, coin: bytes, mark: bytes, now: float) -> bool:
        """Whether this mark is new for the coin; it is not, from now on."""
        bucket = self._buckets[hash(coin) % BUCKETS]
        if len(bucket.young) >= self._share or now - bucket.begun >= self._window:
            bucket.begun, bucket.old, bucket.young = now, bucket.young, set()
        number = hash(coin + mark)
        if number in bucket.young or number in bucket.old:
            return False
        bucket.young.add(number)
        return True
