"""Rows of the mail tables as values, the two look-ups everything else starts from, and what files take."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from qmail_core.errors import NotFound
from qmail_core.model import MailboxState, MessageState

Row = tuple[Any, ...]

MAILBOX = ", ".join(MailboxState.__struct_fields__)
MESSAGE = ", ".join(MessageState.__struct_fields__)
_FLAGS = frozenset(("outgoing", "seen", "flagged", "deleted", "draft", "answered", "forwarded"))
_FLAG_AT = tuple(at for at, name in enumerate(MessageState.__struct_fields__) if name in _FLAGS)
_SUBSCRIBED = MailboxState.__struct_fields__.index("subscribed")


def mailbox_of(row: Row) -> MailboxState:
    values = list(row)
    values[_SUBSCRIBED] = bool(values[_SUBSCRIBED])
    return MailboxState(**dict(zip(MailboxState.__struct_fields__, values, strict=True)))


def message_of(row: Row) -> MessageState:
    values = list(row)
    for at in _FLAG_AT:
        values[at] = values[at] == 1
    return MessageState(**dict(zip(MessageState.__struct_fields__, values, strict=True)))


def find_message(db: sqlite3.Connection, where: str, *args: object) -> MessageState:
    """The one message that meets a condition; NotFound if none does."""
    row = db.execute(f"SELECT {MESSAGE} FROM message WHERE {where}", args).fetchone()
    if row is None:
        raise NotFound("This message does not exist")
    return message_of(row)


def find_mailbox(db: sqlite3.Connection, where: str, *args: object) -> MailboxState:
    """The one mailbox that meets a condition; NotFound if none does."""
    row = db.execute(f"SELECT {MAILBOX} FROM mailbox WHERE {where}", args).fetchone()
    if row is None:
        raise NotFound("This mailbox does not exist")
    return mailbox_of(row)


def next_number(db: sqlite3.Connection, kind: str) -> int:
    """The number of the next row of a table, which none has ever had."""
    taken = f"max(last, (SELECT coalesce(max(id), 0) FROM {kind}))"
    row = db.execute(f"UPDATE number SET last={taken}+1 WHERE kind=? RETURNING last", (kind,)).fetchone()
    return int(row[0])


def marks(values: Iterable[object]) -> str:
    """As many SQL parameters as there are values."""
    return ",".join("?" * len(list(values)))


def page_of(
    db: sqlite3.Connection,
    source: str,
    args: Sequence[object],
    key: str,
    limit: int,
    after: object,
    before: object,
    *,
    up: bool = False,
) -> tuple[list[Row], bool, bool]:
    """A page by a growing key, and whether there is more behind and in front of it.

    With `before` the rows are read backwards. One row more than asked tells of others.
    """
    backwards = before is not None
    cursor = before if backwards else after
    ascending = up != backwards
    limited = f" AND {key} {'>' if ascending else '<'} ?" if cursor is not None else ""
    rows: list[Row] = db.execute(
        f"{source}{limited} ORDER BY {key} {'ASC' if ascending else 'DESC'} LIMIT ?",
        (*args, *(() if cursor is None else (cursor,)), limit + 1),
    ).fetchall()
    beyond = len(rows) > limit
    rows = rows[:limit]
    if backwards:
        rows.reverse()
        return rows, True, beyond
    return rows, beyond, after is not None


def uploaded(db: sqlite3.Connection, user: int) -> int:
    """Bytes of a user's files, and of what uploads under way have said they bring."""
    (files,) = db.execute("SELECT coalesce(sum(size), 0) FROM transfer_file WHERE user=?", (user,)).fetchone()
    coming = "SELECT coalesce(sum(coalesce(length, size)), 0) FROM transfer_upload WHERE user=?"
    return int(files + db.execute(coming, (user,)).fetchone()[0])
