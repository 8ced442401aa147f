"""The coins a node knows: authenticity numbers, lockers, and what the node earned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Protocol

from qmail_core.raida.state.medium import MemoryTables

LOCKER_TAIL = b"\xff\xff\xff\xff"  # QMail wire B.5: only such ANs are lockers, whatever else two coins may share


class CoinState(Protocol):
    """Coins of a node."""

    def an(self, selector: bytes) -> bytes | None:
        """The AN held for a coin; None if the coin is unknown here."""

    def set_ans(self, coins: Iterable[tuple[bytes, bytes]]) -> None:
        """Record (selector, AN) pairs, new or changed."""

    def drop_coins(self, selectors: Iterable[bytes]) -> None:
        """Forget coins; one that is unknown is no error."""

    def held(self, first: bytes, last: bytes) -> list[bytes]:
        """Selectors of the coins known from `first` to `last`, both included, in order of their bytes."""

    def locker(self, key: bytes) -> list[bytes]:
        """Coins whose AN equals a locker key, in selector order. MUST be empty for a key without a locker's ending."""

    def locker_by_prefix(self, prefix: bytes) -> bytes | None:
        """The lowest locker key in use that starts with these five bytes."""

    def denominations(self) -> dict[int, int]:
        """How many coins of each denomination (signed) are known here; may take long."""

    def earn(self, coins: Iterable[tuple[bytes, bytes]]) -> None:
        """Record (selector, fresh AN) pairs as the node's own: as `set_ans`, and listed by `earned`."""

    def earned(self) -> list[tuple[bytes, bytes]]:
        """(selector, AN) of coins the node earned and still holds, in selector order."""


class MemoryCoins(MemoryTables):
    """CoinState in dictionaries."""

    def __init__(self) -> None:
        super().__init__()
        self._ans: dict[bytes, bytes] = {}
        self._lockers: dict[bytes, dict[bytes, bool]] = {}
        self._earned: dict[bytes, bytes] = {}

    def an(self, selector: bytes) -> bytes | None:
        return self._ans.get(selector)

    def set_ans(self, coins: Iterable[tuple[bytes, bytes]]) -> None:
        for selector, an in coins:
            self._leave_locker(selector)
            if an.endswith(LOCKER_TAIL):
                self._put(self._lockers.setdefault(an, {}), selector, True)
            self._put(self._ans, selector, an)

    def _leave_locker(self, selector: bytes) -> None:
        old = self._ans.get(selector, b"")
        if old.endswith(LOCKER_TAIL):
            self._put(self._lockers[old], selector, None)

    def drop_coins(self, selectors: Iterable[bytes]) -> None:
        for selector in selectors:
            self._leave_locker(selector)
            self._put(self._ans, selector, None)

    def held(self, first: bytes, last: bytes) -> list[bytes]:
        low, high = int.from_bytes(first, "big"), int.from_bytes(last, "big")
        known = (number.to_bytes(len(first), "big") for number in range(low, high + 1))
        return [selector for selector in known if selector in self._ans]

    def locker(self, key: bytes) -> list[bytes]:
        return sorted(self._lockers.get(key, ()))

    def locker_by_prefix(self, prefix: bytes) -> bytes | None:
        return min((key for key, coins in self._lockers.items() if coins and key.startswith(prefix)), default=None)

    def denominations(self) -> dict[int, int]:
        return Counter(int.from_bytes(selector[:1], "big", signed=True) for selector in self._ans)

    def earn(self, coins: Iterable[tuple[bytes, bytes]]) -> None:
        for selector, an in coins:
            self.set_ans([(selector, an)])
            self._put(self._earned, selector, an)

    def earned(self) -> list[tuple[bytes, bytes]]:
        return sorted(pair for pair in self._earned.items() if self._ans.get(pair[0]) == pair[1])
