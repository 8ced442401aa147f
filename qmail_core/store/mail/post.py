"""PostStore in SQLite: queue, allowances, filters, automatic answers, webhooks."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from qmail_core.errors import Conflict
from qmail_core.store.database import Database
from qmail_core.store.mail.rows import Row
from qmail_core.store.post import Autoreply, Filter, Queued, Usage, Webhook
from qmail_core.store.when import FOREVER, latest

_QUEUED = "SELECT oid, user, sender, recipients, raw, attempts, next_attempt, created_at FROM relay"
_FILTER = "SELECT oid, name, query, action, disabled, created_at FROM filter"
_AUTOREPLY = 'SELECT status, name, subject, text, html, start, "end" FROM autoreply WHERE user=?'
_WEBHOOK = ", ".join(Webhook.__struct_fields__)
_NAMES = msgspec.json.Decoder(tuple[str, ...])
_decode = msgspec.json.decode
_encode = msgspec.json.encode


class SqlitePost:
    """PostStore."""

    def __init__(self, database: Database) -> None:
        self._db = database

    # ------------------------------------------------------------------ the queue
    async def enqueue(self, item: Queued) -> None:
        row = (item.oid, item.user, item.sender, _encode(item.recipients), item.raw)
        await self._db.write(
            lambda db: db.execute(
                "INSERT INTO relay (oid, user, sender, recipients, raw, attempts, next_attempt, created_at)"
                " VALUES (?,?,?,?,?,?,?,?)",
                (*row, item.attempts, item.next_attempt, item.created_at),
            )
        )

    def due(self, now: int, limit: int, longest: int = FOREVER) -> list[Queued]:
        sql = f"{_QUEUED} WHERE next_attempt<=? OR next_attempt>? ORDER BY next_attempt, id LIMIT ?"
        with self._db.read() as db:
            return list(map(_queued, db.execute(sql, (now, now + longest, limit))))

    def queued(self, user: int) -> list[Queued]:
        with self._db.read() as db:
            return list(map(_queued, db.execute(f"{_QUEUED} WHERE user=? ORDER BY id", (user,))))

    async def attempt(self, oid: bytes, next_attempt: int) -> None:
        sql = "UPDATE relay SET attempts=attempts+1, next_attempt=? WHERE oid=?"
        await self._db.write(lambda db: db.execute(sql, (next_attempt, oid)))

    async def release(self, oid: bytes, now: int) -> None:
        await self._db.write(lambda db: db.execute("UPDATE relay SET next_attempt=? WHERE oid=?", (now, oid)))

    async def settle(self, oid: bytes, recipients: Sequence[str]) -> None:
        def change(db: sqlite3.Connection) -> None:
            if recipients:
                db.execute("UPDATE relay SET recipients=? WHERE oid=?", (_encode(recipients), oid))
            else:
                db.execute("DELETE FROM relay WHERE oid=?", (oid,))

        await self._db.write(change)

    # ------------------------------------------------------------------ allowances
    async def take(self, user: int, kind: str, count: int, allowed: int, now: int, seconds: int) -> bool:
        def change(db: sqlite3.Connection) -> bool:
            over = (user, kind, now, latest(now, seconds))
            db.execute("DELETE FROM allowance WHERE user=? AND kind=? AND (until<=? OR until>?)", over)
            row = db.execute("SELECT used FROM allowance WHERE user=? AND kind=?", (user, kind)).fetchone()
            if (row[0] if row else 0) + count > allowed:
                return False
            db.execute(
                "INSERT INTO allowance VALUES (?1,?2,?3,?4) ON CONFLICT DO UPDATE SET used=used+?3",
                (user, kind, count, now + seconds),
            )
            return True

        return await self._db.write(change)

    async def give_back(self, user: int, kind: str, count: int) -> None:
        sql = "UPDATE allowance SET used=max(0, used-?) WHERE user=? AND kind=?"
        await self._db.write(lambda db: db.execute(sql, (count, user, kind)))

    def usage(self, user: int, kind: str) -> Usage:
        with self._db.read() as db:
            row = db.execute("SELECT used, until FROM allowance WHERE user=? AND kind=?", (user, kind)).fetchone()
        return Usage() if row is None else Usage(*row)

    # ------------------------------------------------------------------ filters and automatic answers
    def filters(self, user: int) -> list[Filter]:
        with self._db.read() as db:
            return list(map(_filter, db.execute(f"{_FILTER} WHERE user=? ORDER BY oid", (user,))))

    async def put_filter(self, user: int, item: Filter) -> None:
        values = (item.name, _encode(item.query), _encode(item.action), item.disabled)

        def change(db: sqlite3.Connection) -> None:
            put = db.execute(
                "INSERT INTO filter (oid, user, created_at, name, query, action, disabled)"
                " VALUES (?1,?2,?3,?4,?5,?6,?7) ON CONFLICT (oid) DO UPDATE"
                " SET name=?4, query=?5, action=?6, disabled=?7 WHERE user=?2",
                (item.oid, user, item.created_at, *values),
            )
            if not put.rowcount:
                raise Conflict("a filter with this id exists")

        await self._db.write(change)

    async def remove_filter(self, user: int, oid: bytes) -> bool:
        return await self._db.write(
            lambda db: db.execute("DELETE FROM filter WHERE user=? AND oid=?", (user, oid)).rowcount > 0
        )

    def autoreply(self, user: int) -> Autoreply | None:
        with self._db.read() as db:
            row = db.execute(_AUTOREPLY, (user,)).fetchone()
        if row is None:
            return None
        fields = dict(zip(Autoreply.__struct_fields__, row, strict=True))
        return Autoreply(**fields | {"status": bool(row[0])})

    async def put_autoreply(self, user: int, item: Autoreply | None) -> None:
        def change(db: sqlite3.Connection) -> None:
            for table in ("autoreply", "autoreplied"):
                db.execute(f"DELETE FROM {table} WHERE user=?", (user,))
            if item is not None:
                db.execute("INSERT INTO autoreply VALUES (?,?,?,?,?,?,?,?)", (user, *msgspec.structs.astuple(item)))

        await self._db.write(change)

    async def may_answer(self, user: int, address: str, now: int, seconds: int) -> bool:
        def change(db: sqlite3.Connection) -> bool:
            over = (user, now, latest(now, seconds))
            db.execute("DELETE FROM autoreplied WHERE user=? AND (until<=? OR until>?)", over)
            row = (user, address, now + seconds)
            return db.execute("INSERT OR IGNORE INTO autoreplied VALUES (?,?,?)", row).rowcount > 0

        return await self._db.write(change)

    # ------------------------------------------------------------------ webhooks
    def webhooks(self) -> list[Webhook]:
        with self._db.read() as db:
            rows = db.execute(f"SELECT {_WEBHOOK} FROM webhook ORDER BY oid").fetchall()
        return [Webhook(**dict(zip(Webhook.__struct_fields__, row, strict=True))) for row in rows]

    async def add_webhook(self, item: Webhook) -> None:
        marks = ",".join("?" * len(Webhook.__struct_fields__))
        values = msgspec.structs.astuple(item)
        await self._db.write(lambda db: db.execute(f"INSERT INTO webhook ({_WEBHOOK}) VALUES ({marks})", values))

    async def webhook_told(self, oid: bytes, told: int, attempts: int, next_attempt: int) -> None:
        sql = "UPDATE webhook SET told=?, attempts=?, next_attempt=? WHERE oid=?"
        await self._db.write(lambda db: db.execute(sql, (told, attempts, next_attempt, oid)))

    async def remove_webhook(self, oid: bytes) -> bool:
        return await self._db.write(lambda db: db.execute("DELETE FROM webhook WHERE oid=?", (oid,)).rowcount > 0)


def _queued(row: Row) -> Queued:
    fields = dict(zip(Queued.__struct_fields__, row, strict=True))
    return Queued(**fields | {"recipients": _NAMES.decode(row[3])})


def _filter(row: Row) -> Filter:
    return Filter(
        oid=row[0],
        name=row[1],
        query=_decode(row[2]),
        action=_decode(row[3]),
        disabled=bool(row[4]),
        created_at=row[5],
    )
