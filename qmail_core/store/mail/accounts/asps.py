"""Application-specific passwords: found by selector, told apart by hash."""

from __future__ import annotations

import sqlite3

import msgspec

from qmail_core.store.accounts import Asp, Entry
from qmail_core.store.database import Database
from qmail_core.store.mail.accounts.authlog import write_entry
from qmail_core.store.mail.rows import Row

_ASP = "SELECT oid, description, scopes, created_at, used_at, hash FROM asp"
_SCOPES = msgspec.json.Decoder(tuple[str, ...])


class AspPart:
    """The methods of the store for application passwords."""

    _db: Database

    def asps(self, user: int) -> list[Asp]:
        with self._db.read() as db:
            return list(map(_asp, db.execute(f"{_ASP} WHERE user=? ORDER BY oid", (user,))))

    def selected_asps(self, user: int, selector: bytes) -> list[tuple[Asp, bytes]]:
        with self._db.read() as db:
            rows = db.execute(f"{_ASP} WHERE user=? AND selector=?", (user, selector))
            return [(_asp(row), row[5]) for row in rows]

    async def add_asp(self, user: int, asp: Asp, selector: bytes, hashed: bytes, entry: Entry) -> None:
        def change(db: sqlite3.Connection) -> None:
            db.execute(
                "INSERT INTO asp (oid, user, selector, hash, description, scopes, created_at) VALUES (?,?,?,?,?,?,?)",
                (asp.oid, user, selector, hashed, asp.description, msgspec.json.encode(asp.scopes), asp.created_at),
            )
            write_entry(db, user, entry)

        await self._db.write(change)

    async def remove_asp(self, user: int, oid: bytes, entry: Entry) -> bool:
        def change(db: sqlite3.Connection) -> bool:
            removed = db.execute("DELETE FROM asp WHERE user=? AND oid=?", (user, oid)).rowcount > 0
            if removed:
                write_entry(db, user, entry)
            return removed

        return await self._db.write(change)


def _asp(row: Row) -> Asp:
    return Asp(oid=row[0], description=row[1], scopes=_SCOPES.decode(row[2]), created_at=row[3], used_at=row[4])
