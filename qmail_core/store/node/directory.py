"""The directory of one node on disk."""

from __future__ import annotations

from collections.abc import Iterable

from qmail_core.store.node.medium import Medium

_END = b"\xff"  # above every byte of UTF-8


class DirectoryTables(Medium):
    """User records and lists of senders."""

    schema = """
DROP TABLE IF EXISTS rules;  -- of version 2: the fee and class that user records hold now
DROP TABLE IF EXISTS lists;
CREATE TABLE IF NOT EXISTS users (
    mailbox BLOB PRIMARY KEY, first BLOB NOT NULL, last BLOB NOT NULL, record BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS users_first ON users (first, last, mailbox);  -- both hold all a search compares
CREATE INDEX IF NOT EXISTS users_last ON users (last, first, mailbox);
CREATE TABLE IF NOT EXISTS listed (
    mailbox BLOB NOT NULL, sender BLOB NOT NULL, kind INTEGER NOT NULL, PRIMARY KEY (mailbox, sender)
) WITHOUT ROWID;
"""

    def user(self, mailbox: bytes) -> bytes | None:
        found: bytes | None = self._one("SELECT record FROM users WHERE mailbox = ?", (mailbox,))
        return found

    def put_user(self, mailbox: bytes, record: bytes, first: bytes, last: bytes) -> None:
        self._change("INSERT OR REPLACE INTO users VALUES (?, ?, ?, ?)", [(mailbox, first, last, record)])

    def remove_user(self, mailbox: bytes) -> None:
        self._change("DELETE FROM users WHERE mailbox = ?", [(mailbox,)])

    def find_users(self, first: bytes | None, last: bytes | None, limit: int) -> list[bytes]:
        by_last = first is None or (last is not None and len(last) > len(first))
        lead, other = ("last", "first") if by_last else ("first", "last")
        prefixes = {"first": first or b"", "last": last or b""}
        low, also = prefixes[lead], prefixes[other]
        # the inner query needs nothing but the index: only the records that are found are fetched
        rows = self._rows(
            f"SELECT users.record FROM (SELECT {lead}, {other}, mailbox FROM users INDEXED BY users_{lead}"
            f" WHERE {lead} >= ? AND {lead} < ? AND {other} >= ? AND {other} < ?"
            f" ORDER BY {lead}, {other}, mailbox LIMIT ?) AS found"
            f" CROSS JOIN users USING (mailbox) ORDER BY found.{lead}, found.{other}, mailbox",
            (low, low + _END, also, also + _END, limit),
        )
        return [record for (record,) in rows]

    def listed(self, mailbox: bytes, sender: bytes) -> int | None:
        kind: int | None = self._one("SELECT kind FROM listed WHERE mailbox = ? AND sender = ?", (mailbox, sender))
        return kind

    def set_listed(self, mailbox: bytes, entries: Iterable[tuple[bytes, int | None]]) -> None:
        for sender, kind in entries:
            if kind is None:
                self._change("DELETE FROM listed WHERE mailbox = ? AND sender = ?", [(mailbox, sender)])
            else:
                self._change("INSERT OR REPLACE INTO listed VALUES (?, ?, ?)", [(mailbox, sender, kind)])

    def list_entries(self, mailbox: bytes) -> list[tuple[bytes, int]]:
        return self._rows("SELECT sender, kind FROM listed WHERE mailbox = ? ORDER BY sender", (mailbox,))
