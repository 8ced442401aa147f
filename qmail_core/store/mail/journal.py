"""The journal: every change of a mailbox, in the transaction that made it."""

from __future__ import annotations

import sqlite3

import msgspec

from qmail_core.model import JournalEntry
from qmail_core.store.database import Database

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

    def journal(self, user: int | None, after: int, limit: int) -> list[JournalEntry]:
        mine, args = ("user=? AND", (user, after, limit)) if user is not None else ("", (after, limit))
        with self._db.read() as db:
            rows = db.execute(
                f"SELECT {', '.join(_FIELDS)} FROM journal WHERE {mine} id>? ORDER BY id LIMIT ?", args
            ).fetchall()
        return [JournalEntry(**dict(zip(_FIELDS, row, strict=True))) for row in rows]

    def last_entry(self) -> int:
        with self._db.read() as db:
            row = db.execute("SELECT max(id) FROM journal").fetchone()
        return row[0] or 0

    async def trim_journal(self, before: int) -> int:
        return await self._db.write(lambda db: db.execute("DELETE FROM journal WHERE at<?", (before,)).rowcount)
