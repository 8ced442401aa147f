"""Users: made whole or not at all, changed, removed with everything that was theirs."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

import msgspec

from qmail_core.errors import AddressExists, UserExists
from qmail_core.store.accounts import Account, Credentials, Entry, NewAccount, Page
from qmail_core.store.database import Database
from qmail_core.store.mail import SqliteMail, filing
from qmail_core.store.mail.accounts.authlog import write_entry
from qmail_core.store.mail.mailboxes import insert_mailbox
from qmail_core.store.mail.rows import Row, page_of
from qmail_core.store.mailbox import HOME

_FIELDS = Account.__struct_fields__
_COMPUTED = {
    "address": "coalesce((SELECT a.address FROM address a WHERE a.user=u.id AND a.main), '')",
    "enabled2fa": "u.totp_enabled",
    "has_password": "u.password<>''",
    "used": "max(u.used, 0)",
}
_ACCOUNT = f"SELECT {', '.join(_COMPUTED.get(name, f'u.{name}') for name in _FIELDS)} FROM user u"
_NAMED = "replace(username, '.', '')=replace(?, '.', '')"  # as the index has it
_LIMITS = ("retention", "quota", "recipients", "forwards")
_CHANGEABLE = {"name", "password", "language", *_LIMITS, "forward", "target_url", "disabled", "meta"}
_POST = ("relay", "allowance", "filter", "autoreply", "autoreplied", "webhook")
_OWNED = (*_POST, "token", "authlog", "asp", "address", "thread", "journal", "mailbox")


class UserPart:
    """The user methods of the store."""

    _db: Database
    _mail: SqliteMail

    async def adopt_home(self, username: str, address: str, oid: bytes, address_oid: bytes, now: int) -> None:
        def change(db: sqlite3.Connection) -> None:
            if db.execute(f"SELECT 1 FROM user WHERE {_NAMED} AND id<>?", (username, HOME)).fetchone():
                raise UserExists("This username already exists")
            # nobody has seen the id it was made with
            db.execute(
                "UPDATE user SET oid=?, activated=1, updated_at=? WHERE id=? AND NOT activated", (oid, now, HOME)
            )
            db.execute("UPDATE user SET username=? WHERE id=?", (username, HOME))
            main = db.execute("SELECT 1 FROM address WHERE user=? AND main", (HOME,)).fetchone() is None
            db.execute(
                "INSERT INTO address (oid, user, address, main, created_at) VALUES (?,?,?,?,?)"
                " ON CONFLICT (address) DO NOTHING",
                (address_oid, HOME, address, main, now),
            )

        await self._db.write(change)

    async def create_account(self, new: NewAccount, now: int) -> Account:
        account = await self._db.write(lambda db: _create(db, new, now))
        self._mail.changed()
        return account

    # ------------------------------------------------------------------ reading
    def account(self, oid: bytes) -> Account | None:
        return self._one("u.oid=?", oid)

    def account_named(self, username: str) -> Account | None:
        return self._one(_NAMED, username)

    def account_at(self, address: str) -> Account | None:
        return self._one("u.id=(SELECT user FROM address WHERE address=?)", address)

    def _one(self, where: str, value: object) -> Account | None:
        with self._db.read() as db:
            row = db.execute(f"{_ACCOUNT} WHERE {where}", (value,)).fetchone()
        return None if row is None else _account(row)

    def accounts(
        self, limit: int, *, words: str = "", after: bytes | None = None, before: bytes | None = None
    ) -> Page[Account]:
        where, args = "instr(u.username, ?)", (words,)
        with self._db.read() as db:
            (total,) = db.execute(f"SELECT count(*) FROM user u WHERE {where}", args).fetchone()
            rows, more, earlier = page_of(db, f"{_ACCOUNT} WHERE {where}", args, "u.oid", limit, after, before, up=True)
        return Page(tuple(map(_account, rows)), total, more, earlier)

    def credentials(self, user: int) -> Credentials:
        with self._db.read() as db:
            row = db.execute("SELECT password, totp_seed, totp_enabled FROM user WHERE id=?", (user,)).fetchone()
        return Credentials("", None, False) if row is None else Credentials(row[0], row[1], bool(row[2]))

    # ------------------------------------------------------------------ changing
    async def change_account(
        self, user: int, fields: Mapping[str, object], now: int, entry: Entry | None = None
    ) -> bool:
        unknown = fields.keys() - _CHANGEABLE
        if unknown:
            raise ValueError(f"no such field: {', '.join(sorted(unknown))}")
        values = dict(fields) | {"updated_at": now}
        if "password" in fields:
            values["password_at"] = now

        def change(db: sqlite3.Connection) -> bool:
            marks = ", ".join(f"{name}=?" for name in values)
            changed = db.execute(f"UPDATE user SET {marks} WHERE id=?", (*values.values(), user)).rowcount
            if "password" in fields:
                db.execute("DELETE FROM token WHERE user=?", (user,))
            if entry is not None:
                write_entry(db, user, entry)
            return changed > 0

        return await self._db.write(change)

    async def remove_account(self, user: int, now: int) -> tuple[list[str], list[bytes]]:
        sealed = "SELECT id FROM transfer_file WHERE user=?1 UNION ALL SELECT id FROM transfer_upload WHERE user=?1"

        def change(db: sqlite3.Connection) -> tuple[list[str], list[bytes]]:
            ids = [number for (number,) in db.execute("SELECT id FROM message WHERE user=?", (user,))]
            files = filing.remove(db, user, ids, now)
            uploaded = [number for (number,) in db.execute(sealed, (user,))]
            for table in _OWNED:
                db.execute(f"DELETE FROM {table} WHERE user=?", (user,))
            db.execute("DELETE FROM user WHERE id=?", (user,))
            return files, uploaded

        return await self._db.write(change)

    async def recount(self, user: int) -> tuple[int, int]:
        def change(db: sqlite3.Connection) -> tuple[int, int]:
            (was,) = db.execute("SELECT used FROM user WHERE id=?", (user,)).fetchone() or (0,)
            (used,) = db.execute("SELECT coalesce(sum(size), 0) FROM message WHERE user=?", (user,)).fetchone()
            db.execute("UPDATE user SET used=? WHERE id=?", (used, user))
            return was, used

        return await self._db.write(change)


def _account(row: Row) -> Account:
    # SQLite's 0 and 1 become truth values where the field is one
    return msgspec.convert(dict(zip(_FIELDS, row, strict=True)), Account, strict=False)


def _create(db: sqlite3.Connection, new: NewAccount, now: int) -> Account:
    """Insert a user, inactive until mailboxes and address are there as well."""
    if db.execute(f"SELECT 1 FROM user WHERE {_NAMED}", (new.username,)).fetchone():
        raise UserExists("This username already exists")
    number = _new_number(db)
    columns = {
        "id": number,
        "oid": new.oid,
        "username": new.username,
        "password": new.password,
        "password_at": now,
        "created_at": now,
        "updated_at": now,
        **new.fields,
    }
    db.execute(
        f"INSERT INTO user ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})", tuple(columns.values())
    )
    for mailbox in new.mailboxes:
        insert_mailbox(
            db,
            number,
            mailbox.path,
            mailbox.oid,
            now,
            special_use=mailbox.special_use,
            retention=mailbox.retention,
        )
    try:
        db.execute(
            "INSERT INTO address (oid, user, address, main, created_at) VALUES (?,?,?,1,?)",
            (new.address_oid, number, new.address, now),
        )
    except sqlite3.IntegrityError as error:
        raise AddressExists("Selected email address already exists") from error
    db.execute("UPDATE user SET activated=1 WHERE id=?", (number,))
    return _account(db.execute(f"{_ACCOUNT} WHERE u.id=?", (number,)).fetchone())


def _new_number(db: sqlite3.Connection) -> int:
    number = db.execute("INSERT INTO user_number DEFAULT VALUES").lastrowid
    assert number is not None
    db.execute("DELETE FROM user_number WHERE id<?", (number,))
    return number
