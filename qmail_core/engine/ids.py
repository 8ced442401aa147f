"""Object ids: 12 bytes that sort by the time they were made, as clients of the mailbox API expect."""

from __future__ import annotations

from collections.abc import Callable


class ObjectIds:
    """Four bytes of Unix time, five drawn once, three that count: unique here, and hardly ever equal elsewhere."""

    def __init__(self, clock: Callable[[], float], entropy: Callable[[int], bytes]) -> None:
        drawn = entropy(8)
        self._clock = clock
        self._self = drawn[:5]
        self._count = int.from_bytes(drawn[5:], "big")

    def __call__(self) -> bytes:
        self._count = (self._count + 1) & 0xFFFFFF
        seconds = int(self._clock()) & 0xFFFFFFFF
        return seconds.to_bytes(4, "big") + self._self + self._count.to_bytes(3, "big")
