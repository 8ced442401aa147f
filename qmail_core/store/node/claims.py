"""Claims of one node on disk."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from msgspec import Struct

from qmail_core.store.node.medium import Medium


class ClaimLike(Protocol):
    """A claim by shape; see qmail_core.raida.state.Claim."""

    @property
    def payment(self) -> bytes: ...
    @property
    def node(self) -> int: ...
    @property
    def key(self) -> bytes: ...
    @property
    def coins(self) -> bytes: ...


class StoredClaim(Struct, frozen=True):
    """A claim as it is stored. Prints without its secrets."""

    payment: bytes
    node: int
    key: bytes
    coins: bytes

    def __repr__(self) -> str:
        return f"Claim(node {self.node})"


class ClaimTables(Medium):
    """Coins taken, or to be taken, at other nodes."""

    schema = """
CREATE TABLE IF NOT EXISTS claims (
    payment BLOB NOT NULL, node INTEGER NOT NULL, key BLOB NOT NULL, coins BLOB NOT NULL,
    due REAL,  -- NULL: ended, `coins` are the node's there
    PRIMARY KEY (payment, node)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS claims_due ON claims (due) WHERE due IS NOT NULL;
"""

    def add_claims(self, claims: Iterable[ClaimLike]) -> None:
        rows = [(claim.payment, claim.node, claim.key, claim.coins) for claim in claims]
        self._change("INSERT OR REPLACE INTO claims VALUES (?, ?, ?, ?, 0.0)", rows)

    def claims_due(self, now: float, limit: int) -> list[StoredClaim]:
        sql = "SELECT payment, node, key, coins FROM claims WHERE due <= ? ORDER BY due, payment, node LIMIT ?"
        return [StoredClaim(*row) for row in self._rows(sql, (now, limit))]

    def postpone_claim(self, claim: ClaimLike, until: float) -> None:
        self._change("UPDATE claims SET due = ? WHERE payment = ? AND node = ?", [(until, claim.payment, claim.node)])

    def end_claim(self, claim: ClaimLike, taken: bytes) -> None:
        where = (claim.payment, claim.node)
        if taken:
            self._change("UPDATE claims SET due = NULL, coins = ? WHERE payment = ? AND node = ?", [(taken, *where)])
        else:
            self._change("DELETE FROM claims WHERE payment = ? AND node = ?", [where])

    def claimed(self) -> list[tuple[int, bytes]]:
        return self._rows("SELECT node, coins FROM claims WHERE due IS NULL ORDER BY payment, node")
