"""Inbox rules of one beacon on disk."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from qmail_core.store.node.medium import Medium


class StoredRule(Struct, frozen=True):
    """A mailbox's rule as it is stored."""

    fee: int  # 10^-8 CC
    class_rejection: int  # signed


class GateTables(Medium):
    """Rules and lists of mailboxes."""

    schema = """
CREATE TABLE IF NOT EXISTS rules (
    mailbox BLOB PRIMARY KEY, fee INTEGER NOT NULL, class_rejection INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lists (
    mailbox BLOB NOT NULL, sender BLOB NOT NULL, word TEXT NOT NULL, PRIMARY KEY (mailbox, sender)
) WITHOUT ROWID;
"""

    def inbox_rule(self, mailbox: bytes) -> StoredRule | None:
        rows = self._rows("SELECT fee, class_rejection FROM rules WHERE mailbox = ?", (mailbox,))
        return StoredRule(*rows[0]) if rows else None

    def set_inbox_rule(self, mailbox: bytes, fee: int, class_rejection: int) -> None:
        self._change("INSERT OR REPLACE INTO rules VALUES (?, ?, ?)", [(mailbox, fee, class_rejection)])

    def list_entry(self, mailbox: bytes, sender: bytes) -> Literal["white", "black"] | None:
        sql = "SELECT word FROM lists WHERE mailbox = ? AND sender = ?"
        word: Literal["white", "black"] | None = self._one(sql, (mailbox, sender))
        return word

    def set_list_entry(self, mailbox: bytes, sender: bytes, word: Literal["white", "black"] | None) -> None:
        if word is None:
            self._change("DELETE FROM lists WHERE mailbox = ? AND sender = ?", [(mailbox, sender)])
        else:
            self._change("INSERT OR REPLACE INTO lists VALUES (?, ?, ?)", [(mailbox, sender, word)])
