"""The journal: every change of a mailbox, in the transaction that made it."""

from __future__ import annotations

import sqlite3

import msgspec

from qmail_core.store.database import Database
from qmail_core.store.mailbox import JournalEntry

_FIELDS = JournalEntry.__struct_fields__


def record(
    db: sqlite3.Connection,
    now: int,
    user: int,
    command: str,
    mailbox: bytes | None = None,
    message: bytes | None = None,
    uid: int | None = None,
    modseq: int | None = None,
    **detail: object,
) -> None:
    """Append one entry."""
    db.execute(
        "INSERT INTO journal (at, user, command, mailbox, message, uid, modseq, detail) VALUES (?,?,?,?,?,?,?,?)",
        (now, user, command, mailbox, message, uid, modseq, msgspec.json.encode(detail)),
    )


class JournalPart:
    """The reading side, and trimming."""

    _db: Database

    def journal(self, user: int, after: int, limit: int) -> list[JournalEntry]:
        with self._db.read() as db:
            rows = db.execute(
                f"SELECT {', '.join(_FIELDS)} FROM journal WHERE user=? AND id>? ORDER BY id LIMIT ?",
                (user, after, limit),
            ).fetchall()
        return [JournalEntry(**dict(zip(_FIELDS, row, strict=True))) for row in rows]

    def last_entry(self) -> int:
        with self._db.read() as db:
            row = db.execute("SELECT max(id) FROM journal").fetchone()
        return row[0] or 0

    async def trim_journal(self, before: int) -> int:
        return await self._db.write(lambda db: db.execute("DELETE FROM journal WHERE at<?", (before,)).rowcount)
