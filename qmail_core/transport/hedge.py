"""When to ask somebody else as well: after a server's own p95, and never for more than a twentieth of the traffic.

The budget is a token bucket in bytes. What is asked in the first place earns a share of itself; a hedge spends what its
answer will weigh, and gets it back when the one it stood in for never answered (then nothing came twice). A retry after
a failure is no hedge: it replaces bytes that never come.
"""

from __future__ import annotations

SHARE = 0.05
_BURST = 1 << 20  # bytes: what may be spent at once after a quiet time, and at the start


class Budget:
    """Bytes that may be asked for twice."""

    def __init__(self, share: float = SHARE, burst: int = _BURST) -> None:
        self.share = share
        self.asked = 0  # bytes, in the first place
        self.spent = 0  # bytes, on hedges that were not given back
        self._burst = float(burst)
        self._tokens = float(burst)

    def earn(self, size: int) -> None:
        """So many bytes were asked for in the first place."""
        self.asked += size
        # a bucket smaller than one hedge would never let one through
        self._burst = max(self._burst, float(size))
        self._tokens = min(self._burst, self._tokens + self.share * size)

    def spend(self, size: int) -> bool:
        """Take the price of one hedge; False when the budget does not allow it."""
        if self._tokens < size:
            return False
        self._tokens -= size
        self.spent += size
        return True

    def give_back(self, size: int) -> None:
        """The hedge replaced an answer that never came."""
        self.spent -= size
        self._tokens = min(self._burst, self._tokens + size)
