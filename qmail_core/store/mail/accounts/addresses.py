"""Addresses of users. One of a user's addresses is the main one, always; an index keeps it from being two."""

from __future__ import annotations

import sqlite3

from qmail_core.errors import AddressExists, AddressNotFound, ChangeNotAllowed, UserNotFound
from qmail_core.store.accounts import AddressState, Page
from qmail_core.store.database import Database
from qmail_core.store.mail.rows import Row, page_of

_ADDRESS = "SELECT a.id, a.oid, u.oid, a.address, a.main, a.created_at FROM address a JOIN user u ON u.id=a.user"
_UNKNOWN = "Invalid or unknown email address identifier"


class AddressPart:
    """The address methods of the store."""

    _db: Database

    def addresses(self, user: int) -> list[AddressState]:
        with self._db.read() as db:
            return list(map(_address, db.execute(f"{_ADDRESS} WHERE a.user=? ORDER BY a.address", (user,))))

    def address(self, user: int, oid: bytes) -> AddressState | None:
        with self._db.read() as db:
            row = db.execute(f"{_ADDRESS} WHERE a.user=? AND a.oid=?", (user, oid)).fetchone()
        return None if row is None else _address(row)

    def all_addresses(
        self, limit: int, *, words: str = "", after: bytes | None = None, before: bytes | None = None
    ) -> Page[AddressState]:
        where, args = "instr(a.address, ?)", (words,)
        with self._db.read() as db:
            (total,) = db.execute(f"SELECT count(*) FROM address a WHERE {where}", args).fetchone()
            rows, more, earlier = page_of(db, f"{_ADDRESS} WHERE {where}", args, "a.oid", limit, after, before, up=True)
        return Page(tuple(map(_address, rows)), total, more, earlier)

    async def add_address(self, user: int, oid: bytes, address: str, now: int, *, main: bool) -> None:
        def change(db: sqlite3.Connection) -> None:
            if not db.execute("SELECT 1 FROM user WHERE id=?", (user,)).fetchone():
                raise UserNotFound("This user does not exist")
            if db.execute("SELECT 1 FROM address WHERE address=?", (address,)).fetchone():
                raise AddressExists("This email address already exists")
            first = not db.execute("SELECT 1 FROM address WHERE user=? AND main", (user,)).fetchone()
            row = "INSERT INTO address (oid, user, address, created_at) VALUES (?,?,?,?)"
            number = db.execute(row, (oid, user, address, now)).lastrowid
            if main or first:
                _make_main(db, user, number)

        await self._db.write(change)

    async def set_main_address(self, user: int, oid: bytes) -> None:
        def change(db: sqlite3.Connection) -> None:
            number, main = _find(db, user, oid)
            if main:
                raise ChangeNotAllowed("Selected address is already the main email address for the user")
            _make_main(db, user, number)

        await self._db.write(change)

    async def remove_address(self, user: int, oid: bytes) -> None:
        def change(db: sqlite3.Connection) -> None:
            number, main = _find(db, user, oid)
            if main:
                raise ChangeNotAllowed("Trying to delete main address. Set a new main address first")
            db.execute("DELETE FROM address WHERE id=?", (number,))

        await self._db.write(change)


def _address(row: Row) -> AddressState:
    return AddressState(row[0], row[1], row[2], row[3], bool(row[4]), row[5])


def _find(db: sqlite3.Connection, user: int, oid: bytes) -> tuple[int, bool]:
    row = db.execute("SELECT id, main FROM address WHERE user=? AND oid=?", (user, oid)).fetchone()
    if row is None:
        raise AddressNotFound(_UNKNOWN)
    return row[0], bool(row[1])


def _make_main(db: sqlite3.Connection, user: int, number: int | None) -> None:
    db.execute("UPDATE address SET main=0 WHERE user=? AND main", (user,))
    db.execute("UPDATE address SET main=1 WHERE id=?", (number,))
