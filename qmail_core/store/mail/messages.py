"""Messages of a user: filing, pages, search, flags."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable
from typing import TypeVar

from qmail_core.errors import NotFound
from qmail_core.model import Content, MessagePages, MessageState, Query
from qmail_core.store.database import Database
from qmail_core.store.mail import filing as changes
from qmail_core.store.mail.pieces import BLOB_LIMIT, Pieces, Prepared, forget_unused
from qmail_core.store.mail.rows import MESSAGE, find_message, message_of, page_of
from qmail_core.store.mail.search import conditions, count, words_alone
from qmail_core.store.mailbox import Filing

T = TypeVar("T")


class MessagePart:
    """The message methods of the store."""

    _db: Database
    _pieces: Pieces
    changed: Callable[[], None]

    async def _change(self, change: Callable[[sqlite3.Connection], T]) -> T:
        raise NotImplementedError

    # ------------------------------------------------------------------ filing
    async def file(self, user: int, filing: Filing, quota: int | None = None) -> MessageState:
        prepared = await self._prepare(filing)
        try:
            message, unused = await self._change(lambda db: changes.insert(db, user, filing, prepared, quota))
        except Exception:
            # not when cancelled: the writer may yet name them; files it does not are removed at the next start
            self._pieces.discard(prepared)
            raise
        self._pieces.discard(unused)
        return message

    async def _prepare(self, filing: Filing) -> list[Prepared]:
        if sum(memoryview(piece).nbytes for piece in filing.pieces) <= BLOB_LIMIT:
            return self._pieces.prepare(filing.pieces)
        work = asyncio.get_running_loop().run_in_executor(None, self._pieces.prepare, filing.pieces)
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            work.add_done_callback(self._forget)
            raise

    def _forget(self, work: asyncio.Future[list[Prepared]]) -> None:
        if not work.cancelled() and work.exception() is None:
            self._pieces.discard(work.result())

    async def flag(self, user: int, ids: Iterable[int], now: int, **flags: bool) -> list[MessageState]:
        return await self._change(lambda db: changes.flag(db, user, ids, now, flags))

    async def set_expiry(self, user: int, ids: Iterable[int], expires: int | None) -> int:
        rows = [(expires, number, user) for number in ids]
        return await self._change(
            lambda db: db.executemany("UPDATE message SET expires=? WHERE id=? AND user=?", rows).rowcount
        )

    async def move(self, user: int, ids: Iterable[int], mailbox: int, now: int) -> list[MessageState]:
        return await self._change(lambda db: changes.move(db, user, ids, mailbox, now))

    async def remove(self, user: int, ids: Iterable[int], now: int) -> list[str]:
        return await self._change(lambda db: changes.remove(db, user, ids, now))

    async def expire(self, now: int, limit: int = 500) -> list[str]:
        def change(db: sqlite3.Connection) -> list[str]:
            rows = db.execute("SELECT user, id FROM message WHERE expires<=? LIMIT ?", (now, limit)).fetchall()
            return [path for user, number in rows for path in changes.remove(db, user, [number], now)]

        return await self._change(change)

    async def collect(self, limit: int = 500) -> list[str]:
        names = await self._db.write(lambda db: forget_unused(db, limit))
        return [self._pieces.path(name) for name in names]

    async def forget_threads(self, before: int, now: int, limit: int = 500) -> None:
        def change(db: sqlite3.Connection) -> None:
            rows = db.execute(
                "SELECT EXISTS (SELECT 1 FROM message AS m WHERE m.user=t.user AND m.thread=t.thread), user, key"
                " FROM thread AS t WHERE used_at<? ORDER BY used_at LIMIT ?",
                (before, limit),
            ).fetchall()
            alive = [(now, user, key) for needed, user, key in rows if needed]
            db.executemany("UPDATE thread SET used_at=? WHERE user=? AND key=?", alive)
            gone = [(user, key) for needed, user, key in rows if not needed]
            db.executemany("DELETE FROM thread WHERE user=? AND key=?", gone)

        await self._db.write(change)

    # ------------------------------------------------------------------ reading
    def message(self, user: int, oid: bytes) -> MessageState:
        with self._db.read() as db:
            return find_message(db, "user=? AND oid=?", user, oid)

    def by_email_id(self, user: int, email_id: bytes) -> MessageState:
        with self._db.read() as db:
            return find_message(db, "user=? AND email_id=?", user, email_id)

    def by_uid(self, user: int, mailbox: int, uid: int) -> MessageState:
        with self._db.read() as db:
            return find_message(db, "user=? AND mailbox=? AND uid=?", user, mailbox, uid)

    def uid_range(self, user: int, mailbox: int, first: int, last: int | None) -> list[MessageState]:
        with self._db.read() as db:
            rows = db.execute(
                f"SELECT {MESSAGE} FROM message WHERE user=? AND mailbox=? AND uid BETWEEN ? AND ? ORDER BY uid",
                (user, mailbox, first, (1 << 62) if last is None else last),
            )
            return list(map(message_of, rows))

    def content(self, message: int) -> Content:
        fields = ", ".join(Content.__struct_fields__)
        with self._db.read() as db:
            row = db.execute(f"SELECT {fields} FROM content WHERE message=?", (message,)).fetchone()
        if row is None:
            raise NotFound("This message does not exist")
        return Content(**dict(zip(Content.__struct_fields__, row, strict=True)))

    def raw(self, message: int) -> list[bytes | str]:
        with self._db.read() as db:
            rows = db.execute(
                "SELECT data, name FROM piece JOIN blob USING (hash) WHERE message=? ORDER BY position", (message,)
            ).fetchall()
        return [self._pieces.path(name) if data is None else bytes(data) for data, name in rows]

    def page(
        self,
        user: int,
        mailbox: int,
        limit: int,
        *,
        after: int | None = None,
        before: int | None = None,
        up: bool = False,
    ) -> MessagePages:
        source = f"SELECT {MESSAGE} FROM message WHERE mailbox=? AND user=?"
        with self._db.read() as db:
            (total,) = db.execute("SELECT total FROM mailbox WHERE id=? AND user=?", (mailbox, user)).fetchone()
            rows, more, earlier = page_of(db, source, (mailbox, user), "uid", limit, after, before, up=up)
        return MessagePages(tuple(map(message_of, rows)), total, more, earlier)

    def search(
        self, user: int, query: Query, limit: int, *, after: int | None = None, before: int | None = None
    ) -> MessagePages:
        with self._db.read() as db:
            (total,) = db.execute(*count(user, query)).fetchone()
            found, more, earlier = self._matches(db, user, query, limit, after, before)
        return MessagePages(tuple(found), total, more, earlier)

    def _matches(
        self, db: sqlite3.Connection, user: int, query: Query, limit: int, after: int | None, before: int | None
    ) -> tuple[list[MessageState], bool, bool]:
        """A page without its total, which costs a look at every match."""
        words = words_alone(user, query)
        if words:
            source = "SELECT rowid FROM search WHERE search MATCH ?"
            rows, more, earlier = page_of(db, source, (words,), "rowid", limit, after, before)
            return changes.messages(db, user, [number for (number,) in rows]), more, earlier
        where, args = conditions(user, query)
        source = f"SELECT {MESSAGE} FROM message WHERE {where}"
        rows, more, earlier = page_of(db, source, args, "id", limit, after, before)
        return list(map(message_of, rows)), more, earlier
