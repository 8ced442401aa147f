"""The node API's view: fixed folders of one user, e-mail ids of 16 bytes, tells."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from qmail_core.errors import NotFound, UsageError
from qmail_core.model import (
    Address,
    Content,
    DraftCopy,
    Folder,
    Message,
    MessagePage,
    PaymentStatus,
    Query,
    Recipient,
    StoredAttachment,
)
from qmail_core.store.base import Incoming, ReceivedTell
from qmail_core.store.mail import filing as changes
from qmail_core.store.mail.journal import record
from qmail_core.store.mail.mailboxes import MailboxPart, home_of
from qmail_core.store.mail.messages import MessagePart
from qmail_core.store.mail.rows import Row, marks
from qmail_core.store.mail.search import words_alone
from qmail_core.store.mailbox import HOME, FiledAttachment, Filing

# the columns of a Message, in its order; `{text}` is the whole text or, in lists, the preview
_COLUMNS = (
    "m.email_id, coalesce(m.guid, m.email_id), m.outgoing, b.folder, m.uid, m.modseq, m.subject, {text},"
    " m.denomination, m.serial, m.from_address, m.recipients, m.received_at, m.sent_at,"
    " m.seen, m.flagged, m.attachments, m.inbox_fee"
)
_LIST = f"SELECT {_COLUMNS.format(text='m.preview')} FROM message m JOIN mailbox b ON b.id=m.mailbox"
_ONE = (
    f"SELECT {_COLUMNS.format(text='c.text')} FROM message m JOIN mailbox b ON b.id=m.mailbox"
    f" JOIN content c ON c.message=m.id WHERE m.user={HOME}"
)
_SORTS = {
    "newest": "m.received_at DESC, m.uid DESC",
    "unread": "m.seen, m.received_at DESC, m.uid DESC",
    "fee": "m.inbox_fee DESC, m.received_at DESC, m.uid DESC",
    "starred": "m.flagged DESC, m.received_at DESC, m.uid DESC",
}
_ATTACHMENT = (
    "SELECT a.id, m.email_id, a.position, a.name, a.size, a.mode, a.path"
    " FROM attachment a JOIN message m ON m.id=a.message"
)
_RECIPIENTS = msgspec.json.Decoder(tuple[Recipient, ...])


_TELL = "SELECT id, guid, record, received_at, downloaded, payment FROM tell"
_MOST_TELLS = 1000


def _received(row: Row) -> ReceivedTell:
    return ReceivedTell(row[0], row[1], row[2], row[3], bool(row[4]), PaymentStatus(row[5]))


def set_payment(db: sqlite3.Connection, guid: bytes, payment: PaymentStatus) -> None:
    """Note what became of a payment; a failure is no news of one that was claimed, and nothing is of one refunded."""
    stays = {PaymentStatus.REFUNDED} | ({PaymentStatus.CLAIMED} if payment == PaymentStatus.FAILED else set())
    sql = f"UPDATE tell SET payment=? WHERE guid=? AND payment NOT IN ({marks(stays)})"
    db.execute(sql, (payment, guid, *stays))


def _message(row: Row) -> Message:
    return Message(
        id=row[0],
        guid=row[1],
        outgoing=bool(row[2]),
        folder=Folder(row[3]),
        uid=row[4],
        modseq=row[5],
        subject=row[6],
        body=row[7],
        sender=Address(row[8], row[9]),
        sender_text=row[10],
        recipients=_RECIPIENTS.decode(row[11]),
        received_at=row[12],
        sent_at=row[13],
        is_read=bool(row[14]),
        is_starred=bool(row[15]),
        attachments=row[16],
        inbox_fee=row[17],
    )


def _attachment(row: Row) -> StoredAttachment:
    return StoredAttachment(
        id=row[0], message_id=row[1], position=row[2], name=row[3], size=row[4], mode=row[5], path=row[6]
    )


def _find(db: sqlite3.Connection, email_id: bytes) -> Message:
    row = db.execute(f"{_ONE} AND m.email_id=?", (email_id,)).fetchone()
    if row is None:
        raise NotFound("Email not found")
    return _message(row)


def _number(db: sqlite3.Connection, email_id: bytes) -> int:
    row = db.execute(f"SELECT id FROM message WHERE user={HOME} AND email_id=?", (email_id,)).fetchone()
    if row is None:
        raise NotFound("Email not found")
    return int(row[0])


class NodePart(MailboxPart, MessagePart):
    """MessageStore."""

    # ------------------------------------------------------------------ tells
    async def add_tells(self, tells: Sequence[tuple[bytes, bytes]], now: int) -> list[bytes]:
        def change(db: sqlite3.Connection) -> list[bytes]:
            new = []
            for guid, kept in tells:
                row = "INSERT OR IGNORE INTO tell (guid, record, received_at) VALUES (?,?,?)"
                if db.execute(row, (guid, kept, now)).rowcount:
                    new.append(guid)
                    record(db, now, HOME, "TELL", guid=guid.hex())
            return new

        return await self._change(change) if tells else []

    def tell(self, guid: bytes) -> ReceivedTell:
        with self._db.read() as db:
            row = db.execute(f"{_TELL} WHERE guid=?", (guid,)).fetchone()
        if row is None:
            raise NotFound("No pending tell found for this file_guid. Pass sender_sn to download directly.")
        return _received(row)

    def pending_tells(self, since: int) -> list[ReceivedTell]:
        with self._db.read() as db:
            rows = db.execute(
                f"{_TELL} WHERE NOT downloaded AND received_at>? ORDER BY id LIMIT {_MOST_TELLS}", (since,)
            )
            return list(map(_received, rows))

    def shown_tells(self, limit: int, *, downloaded: bool) -> list[ReceivedTell]:
        with self._db.read() as db:
            rows = db.execute(
                f"{_TELL} WHERE NOT dismissed AND (? OR NOT downloaded) ORDER BY id DESC LIMIT ?", (downloaded, limit)
            )
            return list(map(_received, rows))

    async def dismiss_tell(self, *, tell_id: int | None = None, guid: bytes | None = None) -> int:
        def change(db: sqlite3.Connection) -> int:
            row = db.execute("SELECT id FROM tell WHERE (id=? OR guid=?) AND NOT dismissed", (tell_id, guid)).fetchone()
            if row is None:
                raise NotFound("Notification not found")
            db.execute("UPDATE tell SET dismissed=1 WHERE id=?", row)
            return int(row[0])

        return await self._db.write(change)

    async def set_payment(self, guid: bytes, payment: PaymentStatus) -> None:
        await self._db.write(lambda db: set_payment(db, guid, payment))

    # ------------------------------------------------------------------ messages
    async def set_home(self, address: Address) -> None:
        row = (address.denomination, address.serial, HOME)
        await self._db.write(lambda db: db.execute("UPDATE user SET denomination=?, serial=? WHERE id=?", row))

    async def deliver(self, message: Incoming, oid: bytes) -> Message:
        def change(db: sqlite3.Connection) -> Message:
            if not message.outgoing:
                db.execute("UPDATE tell SET downloaded=1 WHERE guid=?", (message.guid,))
            filing = _filing(db, message, oid)
            filed, _ = changes.insert(db, HOME, filing, (), None)
            return _find(db, filed.email_id)

        return await self._change(change)

    def message_of(self, email_id: bytes) -> Message:
        with self._db.read() as db:
            return _find(db, email_id)

    def received(self, guid: bytes) -> Message | None:
        with self._db.read() as db:
            row = db.execute(f"{_ONE} AND m.guid=? AND NOT m.outgoing", (guid,)).fetchone()
        return None if row is None else _message(row)

    def messages(self, folder: Folder, limit: int, offset: int, sort: str) -> MessagePage:
        order = _SORTS.get(sort, _SORTS["newest"])
        with self._db.read() as db:
            boxes = db.execute("SELECT id, folder, total, unseen FROM mailbox WHERE user=?", (HOME,)).fetchall()
            shown = [number for number, shown_as, _, _ in boxes if shown_as == folder]
            where = f"m.mailbox IN ({marks(shown)})"
            total = sum(count for _, shown_as, count, _ in boxes if shown_as == folder)
            if folder == Folder.STARRED:
                shown = [number for number, shown_as, _, _ in boxes if shown_as != Folder.TRASH]
                where = f"m.user={HOME} AND m.flagged AND m.mailbox IN ({marks(shown)})"
                (total,) = db.execute(f"SELECT count(*) FROM message m WHERE {where}", shown).fetchone()
            rows = db.execute(f"{_LIST} WHERE {where} ORDER BY {order} LIMIT ? OFFSET ?", (*shown, limit, offset))
            return MessagePage(tuple(map(_message, rows)), total, sum(unseen for *_, unseen in boxes))

    async def set_read(self, email_id: bytes, is_read: bool, now: int) -> Message:
        def change(db: sqlite3.Connection) -> Message:
            changes.flag(db, HOME, [_number(db, email_id)], now, {"seen": is_read})
            return _find(db, email_id)

        return await self._change(change)

    async def flag_mail(self, email_id: bytes, now: int, **flags: bool) -> Message:
        def change(db: sqlite3.Connection) -> Message:
            changes.flag(db, HOME, [_number(db, email_id)], now, flags)
            return _find(db, email_id)

        return await self._change(change)

    async def move_mail(self, email_id: bytes, folder: Folder, now: int) -> Message:
        def change(db: sqlite3.Connection) -> Message:
            number = _number(db, email_id)
            if folder == Folder.STARRED:  # a view, not a place
                changes.flag(db, HOME, [number], now, {"flagged": True})
            elif _find(db, email_id).folder != folder:
                changes.move(db, HOME, [number], home_of(db, HOME, folder).id, now)
            return _find(db, email_id)

        return await self._change(change)

    async def delete_mail(self, email_id: bytes, now: int) -> list[str]:
        def change(db: sqlite3.Connection) -> list[str]:
            if _find(db, email_id).folder != Folder.TRASH:
                raise UsageError("Email must be in trash before permanent deletion. Use DELETE ... first.")
            return changes.remove(db, HOME, [_number(db, email_id)], now)

        return await self._change(change)

    def find_mail(self, words: str, limit: int) -> list[Message]:
        query = Query(words=words)
        if not words_alone(HOME, query):
            return []
        with self._db.read() as db:
            found, _, _ = self._matches(db, HOME, query, limit, None, None)
            numbers = [message.id for message in found]
            rows = db.execute(f"{_LIST} WHERE m.id IN ({marks(numbers)}) ORDER BY m.id DESC", numbers)
            return list(map(_message, rows))

    def folder_counts(self) -> dict[Folder, tuple[int, int]]:
        counts = dict.fromkeys(Folder, (0, 0))
        with self._db.read() as db:
            for folder, total, unseen in db.execute(
                "SELECT folder, sum(total), sum(unseen) FROM mailbox WHERE user=? GROUP BY folder", (HOME,)
            ):
                counts[Folder(folder)] = (total, unseen)
            counts[Folder.STARRED] = db.execute(
                f"SELECT count(*), coalesce(sum(NOT m.seen), 0) FROM message m JOIN mailbox b ON b.id=m.mailbox"
                f" WHERE m.user={HOME} AND m.flagged AND b.folder<>{int(Folder.TRASH)}"
            ).fetchone()
        return counts

    # ------------------------------------------------------------------ drafts
    async def save_draft(self, draft: DraftCopy, oid: bytes, now: int) -> Message:
        def change(db: sqlite3.Connection) -> Message:
            filing = _draft(draft, home_of(db, HOME, Folder.DRAFTS).id, oid, now)
            row = db.execute(f"SELECT id FROM message WHERE user={HOME} AND email_id=?", (draft.id,)).fetchone()
            if row is None:
                changes.insert(db, HOME, filing, (), None)
            else:
                changes.replace_content(db, HOME, row[0], filing)
            return _find(db, draft.id)

        return await self._change(change)

    def draft(self, email_id: bytes) -> DraftCopy:
        with self._db.read() as db:
            row = db.execute(
                "SELECT c.subject, c.text, c.headers FROM message m JOIN content c ON c.message=m.id"
                " JOIN mailbox b ON b.id=m.mailbox"
                f" WHERE m.user={HOME} AND (m.draft OR b.folder={int(Folder.DRAFTS)}) AND m.email_id=?",
                (email_id,),
            ).fetchone()
        if row is None:
            raise NotFound("Draft not found")
        return DraftCopy(id=email_id, subject=row[0], body=row[1], **_typed(msgspec.json.decode(row[2])))

    # ------------------------------------------------------------------ attachments
    def attachments(self, email_id: bytes) -> list[StoredAttachment]:
        with self._db.read() as db:
            number = _number(db, email_id)
            rows = db.execute(f"{_ATTACHMENT} WHERE a.message=? ORDER BY a.position", (number,))
            return list(map(_attachment, rows))

    def attachment(self, attachment_id: int) -> StoredAttachment:
        with self._db.read() as db:
            return _find_attachment(db, attachment_id)

    async def attachment_fetched(self, attachment_id: int, path: str) -> StoredAttachment:
        def change(db: sqlite3.Connection) -> StoredAttachment:
            db.execute("UPDATE attachment SET mode=1, path=? WHERE id=?", (path, attachment_id))
            return _find_attachment(db, attachment_id)

        return await self._db.write(change)


def _find_attachment(db: sqlite3.Connection, attachment_id: int) -> StoredAttachment:
    row = db.execute(f"{_ATTACHMENT} WHERE a.id=? AND m.user={HOME}", (attachment_id,)).fetchone()
    if row is None:
        raise NotFound("Attachment not found")
    return _attachment(row)


def _draft(draft: DraftCopy, mailbox: int, oid: bytes, now: int) -> Filing:
    headers = {name: getattr(draft, name) for name in ("to", "cc", "bcc", "subsubject")}
    people = ", ".join(text for text in (draft.to, draft.cc, draft.bcc) if text)
    return Filing(
        mailbox=mailbox,
        oid=oid,
        email_id=draft.id,
        content=Content(
            subject=draft.subject, recipients=people, text=draft.body, headers=msgspec.json.encode(headers)
        ),
        recipients=draft.recipients,
        received_at=now,
        sent_at=now,
        size=len(draft.body.encode()),
        seen=True,
        draft=True,
    )


def _typed(headers: dict[str, Any]) -> dict[str, Any]:
    """The fields of a draft; those of one that came through the mailbox API are lists of people."""
    found = {name: headers.get(name, "") for name in ("to", "cc", "bcc", "subsubject")}
    return {
        name: value if isinstance(value, str) else ", ".join(person["address"] for person in value)
        for name, value in found.items()
    }


def _filing(db: sqlite3.Connection, message: Incoming, oid: bytes) -> Filing:
    """A mail of the network as something to file; the second copy of a mail sent to oneself gets an id of its own."""
    email_id = message.guid
    if db.execute("SELECT 1 FROM message WHERE email_id=? AND outgoing<>?", (email_id, message.outgoing)).fetchone():
        email_id = hashlib.sha256(message.guid + bytes((message.outgoing,))).digest()[:16]
    people = ", ".join(recipient.text for recipient in _RECIPIENTS.decode(message.recipients))
    content = Content(subject=message.subject, sender=message.sender_text, recipients=people, text=message.body)
    return Filing(
        mailbox=home_of(db, HOME, message.folder).id if message.mailbox is None else message.mailbox,
        oid=oid,
        email_id=email_id,
        content=content,
        guid=message.guid,
        outgoing=message.outgoing,
        from_address=message.sender_text,
        denomination=message.sender.denomination,
        serial=message.sender.serial,
        recipients=message.recipients,
        received_at=message.received_at,
        sent_at=message.sent_at,
        size=len(message.body.encode()) + sum(size for _, size in message.attachments),
        seen=message.is_read,
        flagged=message.is_starred,
        inbox_fee=message.inbox_fee,
        attachments=tuple(FiledAttachment(name, size) for name, size in message.attachments),
    )
