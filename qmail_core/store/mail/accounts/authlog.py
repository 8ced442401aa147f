"""The authentication log, and the gates that close after too many failures."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from qmail_core.store.accounts import Entry, Gate, Page
from qmail_core.store.database import Database
from qmail_core.store.mail.rows import Row, page_of
from qmail_core.store.when import latest

_DETAIL = msgspec.json.Decoder(dict[str, str])


class AuthlogPart:
    """The methods of the store for log and gates."""

    _db: Database

    async def record_login(
        self, user: int | None, entry: Entry | None, failed: Sequence[Gate], now: int, *, asp: bytes | None = None
    ) -> None:
        def change(db: sqlite3.Connection) -> None:
            count_failure(db, failed, now)
            if user is not None and entry is not None:
                write_entry(db, user, entry)
            if asp is not None:
                db.execute("UPDATE asp SET used_at=? WHERE user=? AND oid=?", (now, user, asp))

        await self._db.write(change)

    def log(
        self,
        user: int,
        since: int,
        limit: int,
        *,
        action: str | None = None,
        after: bytes | None = None,
        before: bytes | None = None,
    ) -> Page[Entry]:
        where = "user=? AND created_at>=?"
        args: tuple[object, ...] = (user, since)
        if action is not None:
            where, args = f"{where} AND action=?", (*args, action)
        source = f"SELECT oid, action, created_at, detail FROM authlog WHERE {where}"
        with self._db.read() as db:
            (total,) = db.execute(f"SELECT count(*) FROM authlog WHERE {where}", args).fetchone()
            rows, more, earlier = page_of(db, source, args, "oid", limit, after, before)
        return Page(tuple(map(_entry, rows)), total, more, earlier)

    def closed_for(self, gates: Sequence[Gate], now: int) -> int:
        with self._db.read() as db:
            return closed_for(db, gates, now)

    async def forget(self, before: int, now: int) -> None:
        def change(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM authlog WHERE created_at<?", (before,))
            db.execute("DELETE FROM token WHERE expires_at<=?", (now,))
            db.execute("DELETE FROM throttle WHERE until<=?", (now,))

        await self._db.write(change)


def _entry(row: Row) -> Entry:
    return Entry(row[0], row[1], row[2], _DETAIL.decode(row[3]))


def write_entry(db: sqlite3.Connection, user: int, entry: Entry) -> None:
    """Append a row, unless the user has gone meanwhile."""
    db.execute(
        "INSERT INTO authlog (oid, user, action, created_at, detail) SELECT ?1, id, ?3, ?4, ?5 FROM user WHERE id=?2",
        (entry.oid, user, entry.action, entry.created_at, msgspec.json.encode(entry.detail)),
    )


def count_failure(db: sqlite3.Connection, gates: Sequence[Gate], now: int) -> None:
    """One failure more at each gate; the first one opens a span of time, and counting starts again after it."""
    for gate in gates:
        db.execute("DELETE FROM throttle WHERE gate=? AND NOT until BETWEEN ? AND ?", (gate.name, *_counts(gate, now)))
        db.execute(
            "INSERT INTO throttle (gate, failures, until) VALUES (?1, 1, ?2 + ?3)"
            " ON CONFLICT (gate) DO UPDATE SET failures=failures+1",
            (gate.name, now, gate.seconds),
        )


def closed_for(db: sqlite3.Connection, gates: Sequence[Gate], now: int) -> int:
    """Seconds until every gate has borne fewer failures than it may."""
    closed = 0
    for gate in gates:
        row = db.execute(
            "SELECT failures, until FROM throttle WHERE gate=? AND until BETWEEN ? AND ?",
            (gate.name, *_counts(gate, now)),
        ).fetchone()
        if row is not None and row[0] >= gate.most:
            closed = max(closed, row[1] - now)
    return closed


def _counts(gate: Gate, now: int) -> tuple[int, int]:
    """Between which times a span that still counts ends."""
    return now + 1, latest(now, gate.seconds)
