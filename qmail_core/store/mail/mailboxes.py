"""Mailboxes of a user: the tree, renaming, dropping."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, TypeVar

from qmail_core.errors import Conflict, NotFound, UsageError
from qmail_core.model import Folder, MailboxState
from qmail_core.store.database import Database
from qmail_core.store.mail import filing
from qmail_core.store.mail.journal import record
from qmail_core.store.mail.rows import MAILBOX, find_mailbox, mailbox_of, marks, next_number

T = TypeVar("T")
INBOX = "INBOX"


class MailboxPart:
    """The mailbox methods of the store."""

    _db: Database
    changed: Callable[[], None]

    async def _change(self, change: Callable[[sqlite3.Connection], T]) -> T:
        """Run a change and tell the listeners."""
        result = await self._db.write(change)
        self.changed()
        return result

    def user_of(self, oid: bytes) -> int:
        return int(self._user("id", "oid", oid))

    def oid_of(self, user: int) -> bytes:
        return bytes(self._user("oid", "id", user))

    def _user(self, wanted: str, known: str, value: object) -> Any:
        with self._db.read() as db:
            row = db.execute(f"SELECT {wanted} FROM user WHERE {known}=?", (value,)).fetchone()
        if row is None:
            raise NotFound("This user does not exist")
        return row[0]

    def mailboxes(self, user: int) -> list[MailboxState]:
        with self._db.read() as db:
            rows = db.execute(
                f"SELECT {MAILBOX} FROM mailbox WHERE user=? ORDER BY path <> '{INBOX}', NOT subscribed, path", (user,)
            )
            return list(map(mailbox_of, rows))

    def mailbox(self, user: int, oid: bytes) -> MailboxState:
        with self._db.read() as db:
            return find_mailbox(db, "user=? AND oid=?", user, oid)

    def mailbox_at(self, user: int, path: str) -> MailboxState | None:
        with self._db.read() as db:
            row = db.execute(f"SELECT {MAILBOX} FROM mailbox WHERE user=? AND path=?", (user, path)).fetchone()
        return None if row is None else mailbox_of(row)

    def mailbox_for(self, user: int, folder: Folder) -> MailboxState:
        with self._db.read() as db:
            return home_of(db, user, folder)

    async def add_mailbox(
        self,
        user: int,
        path: str,
        oid: bytes,
        now: int,
        *,
        special_use: str | None = None,
        retention: int | None = None,
    ) -> MailboxState:
        def change(db: sqlite3.Connection) -> MailboxState:
            return insert_mailbox(db, user, path, oid, now, special_use=special_use, retention=retention)

        return await self._change(change)

    async def change_mailbox(
        self,
        user: int,
        oid: bytes,
        now: int,
        *,
        path: str | None = None,
        subscribed: bool | None = None,
        retention: int | None = None,
    ) -> MailboxState:
        def change(db: sqlite3.Connection) -> MailboxState:
            mailbox = find_mailbox(db, "user=? AND oid=?", user, oid)
            if path is not None and path != mailbox.path:
                _rename(db, mailbox, path, now)
            for name, value in (("subscribed", subscribed), ("retention", retention)):
                if value is not None:
                    db.execute(f"UPDATE mailbox SET {name}=? WHERE id=?", (value, mailbox.id))
            return find_mailbox(db, "id=?", mailbox.id)

        return await self._change(change)

    async def drop_mailbox(self, user: int, oid: bytes, now: int) -> list[str]:
        def change(db: sqlite3.Connection) -> list[str]:
            mailbox = find_mailbox(db, "user=? AND oid=?", user, oid)
            if mailbox.path == INBOX or mailbox.special_use:
                raise UsageError("This mailbox can not be deleted")
            ids = [number for (number,) in db.execute("SELECT id FROM message WHERE mailbox=?", (mailbox.id,))]
            files = filing.remove(db, user, ids, now)
            db.execute("DELETE FROM mailbox WHERE id=?", (mailbox.id,))
            record(db, now, user, "DROP", mailbox.oid)
            return files

        return await self._change(change)


def home_of(db: sqlite3.Connection, user: int, folder: int) -> MailboxState:
    """The oldest mailbox the node API shows as this folder."""
    return find_mailbox(db, "user=? AND folder=? ORDER BY id LIMIT 1", user, folder)


def insert_mailbox(
    db: sqlite3.Connection,
    user: int,
    path: str,
    oid: bytes,
    now: int,
    *,
    special_use: str | None = None,
    retention: int | None = None,
) -> MailboxState:
    """Add a mailbox; Conflict if the path is taken."""
    folder = {None: Folder.ARCHIVE, "\\Sent": Folder.SENT, "\\Drafts": Folder.DRAFTS, "\\Archive": Folder.ARCHIVE}.get(
        special_use, Folder.TRASH
    )
    if path == INBOX:
        folder = Folder.INBOX
    if retention is None:
        (retention,) = db.execute("SELECT retention FROM user WHERE id=?", (user,)).fetchone()
    number = next_number(db, "mailbox")
    try:
        db.execute(
            "INSERT INTO mailbox (id, oid, user, path, special_use, folder, uidvalidity, retention)"
            " VALUES (?,?,?,?,?,?,?,?)",
            (number, oid, user, path, special_use, folder, now, retention),
        )
    except sqlite3.IntegrityError as error:
        raise Conflict("A mailbox with this path exists") from error
    record(db, now, user, "CREATE", oid, path=path)
    return find_mailbox(db, "id=?", number)


def _rename(db: sqlite3.Connection, mailbox: MailboxState, path: str, now: int) -> None:
    """Give a mailbox another path, and those below it with it."""
    if mailbox.path == INBOX:
        raise UsageError("The inbox can not be renamed")
    if path.startswith(f"{mailbox.path}/"):
        raise UsageError("A mailbox can not be moved below itself")
    below = db.execute(
        "SELECT id, oid, path FROM mailbox WHERE user=? AND (id=? OR substr(path, 1, ?)=?)",
        (mailbox.user, mailbox.id, len(mailbox.path) + 1, f"{mailbox.path}/"),
    ).fetchall()
    renamed = {number: path + old[len(mailbox.path) :] for number, _, old in below}
    taken = db.execute(
        f"SELECT 1 FROM mailbox WHERE user=? AND path IN ({marks(renamed)}) AND id NOT IN ({marks(renamed)})",
        (mailbox.user, *renamed.values(), *renamed),
    )
    if taken.fetchone():
        raise Conflict("A mailbox with this path exists")
    for number, oid, _ in below:
        # by way of a path nobody can have, so that no two rows meet on the way
        db.execute("UPDATE mailbox SET path=? WHERE id=?", (f"\0{number}", number))
        record(db, now, mailbox.user, "RENAME", oid, path=renamed[number])
    db.executemany("UPDATE mailbox SET path=? WHERE id=?", [(new, number) for number, new in renamed.items()])
