"""Changes of messages, each a function over the writer's connection: file, flag, move, remove."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence

from qmail_core.errors import Conflict, NotFound, QuotaError
from qmail_core.model import MailboxState, MessageState
from qmail_core.store.mail.journal import record
from qmail_core.store.mail.pieces import Prepared, name_pieces
from qmail_core.store.mail.rows import MESSAGE, find_mailbox, find_message, marks, message_of, next_number, uploaded
from qmail_core.store.mailbox import PREVIEW, Filing

FLAGS = ("seen", "flagged", "deleted", "draft", "answered", "forwarded")
_HIDDEN = ("\\Trash", "\\Junk")
_END = 253402300799  # the last second of the year 9999


def scope_of(user: int, special_use: str | None = None) -> str:
    """The word that keeps a user's search among that user's messages, and out of trash and junk."""
    return f"{'h' if special_use in _HIDDEN else 'u'}{user}"


def known_message(db: sqlite3.Connection, user: int, filing: Filing) -> MessageState | None:
    """The message a guid was filed as before."""
    if filing.guid is None:
        return None
    row = db.execute(
        f"SELECT {MESSAGE} FROM message WHERE guid=? AND outgoing=? AND user=?", (filing.guid, filing.outgoing, user)
    ).fetchone()
    return None if row is None else message_of(row)


def insert(
    db: sqlite3.Connection, user: int, filing: Filing, prepared: Sequence[Prepared], quota: int | None
) -> tuple[MessageState, list[Prepared]]:
    """File a message; returns it, and the prepared pieces it did not need."""
    known = known_message(db, user, filing)
    if known is not None:
        return known, list(prepared)
    mailbox = find_mailbox(db, "id=? AND user=?", filing.mailbox, user)
    if quota is not None:
        _check_room(db, user, filing.size, quota)
    uid, modseq = next_uid(db, mailbox.id)
    message, now = next_number(db, "message"), filing.filed_at or filing.received_at
    row = {
        "id": message,
        "oid": filing.oid,
        "email_id": filing.email_id,
        "user": user,
        "mailbox": mailbox.id,
        "uid": uid,
        "modseq": modseq,
        "guid": filing.guid,
        "outgoing": filing.outgoing,
        "thread": _thread(db, user, filing),
        "subject": filing.content.subject,
        "preview": filing.content.text[:PREVIEW],
        "from_name": filing.from_name,
        "from_address": filing.from_address,
        "denomination": filing.denomination,
        "serial": filing.serial,
        "recipients": filing.recipients,
        "received_at": filing.received_at,
        "sent_at": filing.sent_at,
        "size": filing.size,
        "seen": filing.seen,
        "flagged": filing.flagged,
        "deleted": filing.deleted,
        "draft": filing.draft,
        "attachments": len(filing.attachments),
        "inbox_fee": filing.inbox_fee,
        "expires": _expiry(mailbox, now),
    }
    try:
        db.execute(f"INSERT INTO message ({', '.join(row)}) VALUES ({marks(row)})", tuple(row.values()))
    except sqlite3.IntegrityError as error:
        raise Conflict("a message with this id exists") from error
    _insert_content(db, scope_of(user, mailbox.special_use), message, filing)
    unused = name_pieces(db, message, prepared)
    record(
        db, now, user, "EXISTS", mailbox.oid, filing.oid, uid, modseq,
        unseen=not filing.seen, email_id=filing.email_id.hex(),
    )  # fmt: skip
    return find_message(db, "id=?", message), unused


def _check_room(db: sqlite3.Connection, user: int, size: int, quota: int) -> None:
    used, own = db.execute("SELECT used, quota FROM user WHERE id=?", (user,)).fetchone()
    if own:  # one's own quota is for messages and files together
        used += uploaded(db, user)
    if used + size > (own or quota):
        raise QuotaError(f"{size} bytes do not fit: {used} of {own or quota} are used")


def _insert_content(db: sqlite3.Connection, scope: str, message: int, filing: Filing) -> None:
    content = filing.content
    db.execute(
        "INSERT INTO content (message, scope, subject, sender, recipients, text, html, headers, structure)"
        " VALUES (?,?,?,?,?,?,?,?,?)",
        (
            message,
            scope,
            content.subject,
            content.sender,
            content.recipients,
            content.text,
            content.html,
            content.headers,
            content.structure,
        ),
    )
    db.executemany(
        "INSERT INTO attachment (message, position, name, content_type, size, mode) VALUES (?,?,?,?,?,?)",
        [(message, at, one.name, one.content_type, one.size, one.mode) for at, one in enumerate(filing.attachments)],
    )


def next_uid(db: sqlite3.Connection, mailbox: int) -> tuple[int, int]:
    """Take the next uid and modseq of a mailbox."""
    row = db.execute(
        "UPDATE mailbox SET uidnext=uidnext+1, modseq=modseq+1 WHERE id=? RETURNING uidnext-1, modseq", (mailbox,)
    ).fetchone()
    return row[0], row[1]


def _next_modseq(db: sqlite3.Connection, mailbox: int) -> int:
    row = db.execute("UPDATE mailbox SET modseq=modseq+1 WHERE id=? RETURNING modseq", (mailbox,)).fetchone()
    return int(row[0])


def _expiry(mailbox: MailboxState, now: int) -> int | None:
    return min(now + mailbox.retention // 1000, _END) if mailbox.retention else None


def _thread(db: sqlite3.Connection, user: int, filing: Filing) -> bytes:
    """The thread that knows one of the message's keys, else a new one; from now on it knows all of them."""
    keys = filing.thread_keys
    found = db.execute(
        f"SELECT thread FROM thread WHERE user=? AND key IN ({marks(keys)}) ORDER BY used_at DESC LIMIT 1",
        (user, *keys),
    ).fetchone()
    thread: bytes = found[0] if found else filing.oid
    db.executemany(
        "INSERT INTO thread VALUES (?1,?2,?3,?4) ON CONFLICT DO UPDATE SET used_at=?4",
        [(user, key, thread, filing.filed_at or filing.received_at) for key in keys],
    )
    return thread


def messages(db: sqlite3.Connection, user: int, ids: Iterable[int]) -> list[MessageState]:
    """Messages by number, in the order given; those the user does not have are left out."""
    wanted = list(dict.fromkeys(ids))
    found: dict[int, MessageState] = {}
    for start in range(0, len(wanted), 500):
        part = wanted[start : start + 500]
        # by id: many ids make the index of the user look better, which is all the user's mail
        rows = db.execute(f"SELECT {MESSAGE} FROM message WHERE +user=? AND id IN ({marks(part)})", (user, *part))
        found |= {message.id: message for message in map(message_of, rows)}
    return [found[number] for number in wanted if number in found]


def _mailbox_oids(db: sqlite3.Connection, user: int) -> dict[int, bytes]:
    return dict(db.execute("SELECT id, oid FROM mailbox WHERE user=?", (user,)).fetchall())


def flag(
    db: sqlite3.Connection, user: int, ids: Iterable[int], now: int, flags: Mapping[str, bool]
) -> list[MessageState]:
    """Set flags; returns the messages that changed."""
    unknown = set(flags) - set(FLAGS)
    if unknown:
        raise ValueError(f"no such flag: {', '.join(sorted(unknown))}")
    changed = []
    oids = _mailbox_oids(db, user)
    for message in messages(db, user, ids):
        if all(getattr(message, name) == value for name, value in flags.items()):
            continue
        modseq = _next_modseq(db, message.mailbox)
        sets = ", ".join(f"{name}=?" for name in flags)
        db.execute(f"UPDATE message SET {sets}, modseq=? WHERE id=?", (*flags.values(), modseq, message.id))
        after = find_message(db, "id=?", message.id)
        record(
            db, now, user, "FETCH", oids[message.mailbox], message.oid, message.uid, modseq,
            flags=[name for name in FLAGS if getattr(after, name)], seen_changed=message.seen != after.seen,
        )  # fmt: skip
        changed.append(after)
    return changed


def move(db: sqlite3.Connection, user: int, ids: Iterable[int], mailbox: int, now: int) -> list[MessageState]:
    """Move messages to another mailbox; one that is there already stays as it is."""
    target = find_mailbox(db, "id=? AND user=?", mailbox, user)
    oids = _mailbox_oids(db, user)
    moved = []
    for message in messages(db, user, ids):
        if message.mailbox == target.id:
            moved.append(message)
            continue
        gone = _next_modseq(db, message.mailbox)
        uid, modseq = next_uid(db, target.id)
        db.execute(
            "UPDATE message SET mailbox=?, uid=?, modseq=?, expires=? WHERE id=?",
            (target.id, uid, modseq, _expiry(target, now), message.id),
        )
        db.execute("UPDATE content SET scope=? WHERE message=?", (scope_of(user, target.special_use), message.id))
        record(db, now, user, "EXPUNGE", oids[message.mailbox], message.oid, message.uid, gone)
        record(
            db, now, user, "EXISTS", target.oid, message.oid, uid, modseq, email_id=message.email_id.hex(), moved=True
        )
        moved.append(find_message(db, "id=?", message.id))
    return moved


def remove(db: sqlite3.Connection, user: int, ids: Iterable[int], now: int) -> list[str]:
    """Remove messages with all that belongs to them; returns the files of fetched attachments."""
    oids = _mailbox_oids(db, user)
    files = []
    for message in messages(db, user, ids):
        modseq = _next_modseq(db, message.mailbox)
        files += [path for (path,) in db.execute("SELECT path FROM attachment WHERE message=?", (message.id,)) if path]
        for table in ("attachment", "piece", "content"):
            db.execute(f"DELETE FROM {table} WHERE message=?", (message.id,))
        db.execute("DELETE FROM message WHERE id=?", (message.id,))
        record(db, now, user, "EXPUNGE", oids[message.mailbox], message.oid, message.uid, modseq)
    return files


def replace_content(db: sqlite3.Connection, user: int, message: int, filing: Filing) -> MessageState:
    """Give a draft new content; it keeps its number, gets a new modseq and loses its raw form."""
    was = find_message(db, "id=? AND user=?", message, user)
    if not was.draft:
        raise NotFound("This message is not a draft")
    modseq = _next_modseq(db, was.mailbox)
    content = filing.content
    mailbox = find_mailbox(db, "id=?", was.mailbox)
    for table in ("content", "attachment", "piece"):
        db.execute(f"DELETE FROM {table} WHERE message=?", (message,))
    db.execute(
        "UPDATE message SET subject=?, preview=?, recipients=?, received_at=?, size=?, attachments=?, modseq=?"
        " WHERE id=?",
        (
            content.subject,
            content.text[:PREVIEW],
            filing.recipients,
            filing.received_at,
            filing.size,
            len(filing.attachments),
            modseq,
            message,
        ),
    )
    _insert_content(db, scope_of(user, mailbox.special_use), message, filing)
    record(db, filing.received_at, user, "FETCH", mailbox.oid, was.oid, was.uid, modseq)
    return find_message(db, "id=?", message)
