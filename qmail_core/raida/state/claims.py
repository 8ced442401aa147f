"""Coins a node was paid with and takes at the other nodes too, with the numbers they get there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from msgspec import Struct

from qmail_core.raida.state.medium import MemoryTables


class Claim(Protocol):
    """What one payment is worth at one other node."""

    @property
    def payment(self) -> bytes:
        """16 bytes that name the payment."""

    @property
    def node(self) -> int:
        """Where the coins are to be taken."""

    @property
    def key(self) -> bytes:
        """The key of the locker there."""

    @property
    def coins(self) -> bytes:
        """(selector, new AN) pairs, one after another."""


class ClaimState(Protocol):
    """Claims of a node, by payment and node."""

    def add_claims(self, claims: Iterable[Claim]) -> None:
        """Record claims of a new payment, due at once."""

    def claims_due(self, now: float, limit: int) -> Sequence[Claim]:
        """Claims that are not ended and due by `now`, those due first first, then by payment and node."""

    def postpone_claim(self, claim: Claim, until: float) -> None:
        """Make a claim due later."""

    def end_claim(self, claim: Claim, taken: bytes) -> None:
        """Keep what was taken, (selector, AN) pairs; nothing is kept of a claim that got nothing."""

    def claimed(self) -> list[tuple[int, bytes]]:
        """(node, pairs taken there) of all ended claims, by payment and node."""


class MemoryClaim(Struct, frozen=True):
    """A Claim in memory. Prints without its secrets."""

    payment: bytes
    node: int
    key: bytes
    coins: bytes

    def __repr__(self) -> str:
        return f"Claim(node {self.node})"


class _Row(Struct, frozen=True):
    claim: Claim
    due: float | None = 0.0  # None: ended


class MemoryClaims(MemoryTables):
    """ClaimState in dictionaries."""

    def __init__(self) -> None:
        super().__init__()
        self._claims: dict[tuple[bytes, int], _Row] = {}

    def add_claims(self, claims: Iterable[Claim]) -> None:
        for claim in claims:
            self._put(self._claims, (claim.payment, claim.node), _Row(claim))

    def claims_due(self, now: float, limit: int) -> list[Claim]:
        due = [(row.due, key, row.claim) for key, row in self._claims.items() if row.due is not None and row.due <= now]
        return [claim for _, _, claim in sorted(due, key=lambda entry: entry[:2])[:limit]]

    def postpone_claim(self, claim: Claim, until: float) -> None:
        self._put(self._claims, (claim.payment, claim.node), _Row(claim, until))

    def end_claim(self, claim: Claim, taken: bytes) -> None:
        ended = _Row(MemoryClaim(claim.payment, claim.node, claim.key, taken), None)
        self._put(self._claims, (claim.payment, claim.node), ended if taken else None)

    def claimed(self) -> list[tuple[int, bytes]]:
        ended = sorted((key, row.claim.coins) for key, row in self._claims.items() if row.due is None)
        return [(node, coins) for (_, node), coins in ended]
