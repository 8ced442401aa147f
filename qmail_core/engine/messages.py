"""Messages of any user, whoever shows them: pages, search, flags, moving, deleting.

One change is one transaction of the store; what it leaves behind on disk is removed after it.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Iterable, Sequence

import msgspec

from qmail_core.engine.context import Context
from qmail_core.engine.mailboxes import remove_files
from qmail_core.errors import NotFound
from qmail_core.model import Content, MailboxState, MessagePages, MessageState, PartState, Query

_JOURNAL_LIFE = 86_400  # seconds
_THREAD_LIFE = 90 * 86_400  # seconds after which it is looked whether anything is left of a thread
_PARTS = msgspec.json.Decoder(list[PartState])


class Messages:
    """The messages of the users of one store."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._store = ctx.store.mailboxes

    # ------------------------------------------------------------------ reading

    def page(
        self,
        user: int,
        mailbox: MailboxState,
        limit: int,
        *,
        after: int | None = None,
        before: int | None = None,
        up: bool = False,
    ) -> MessagePages:
        """A page of a mailbox by uid, newest first unless `up`."""
        return self._store.page(user, mailbox.id, limit, after=after, before=before, up=up)

    def search(
        self, user: int, query: Query, limit: int, *, after: bytes | None = None, before: bytes | None = None
    ) -> MessagePages:
        """A page of what matches, newest first; cursors are the ids of messages."""
        return self._store.search(
            user, query, limit, after=self._number(user, after), before=self._number(user, before)
        )

    def _number(self, user: int, oid: bytes | None) -> int | None:
        return None if oid is None else self._store.message(user, oid).id

    def get(self, user: int, mailbox: MailboxState, uid: int, oid: bytes | None = None) -> MessageState:
        """The message of a uid; NotFound if there is none, or it has another id than `oid`."""
        found = self._store.by_uid(user, mailbox.id, uid)
        if oid is not None and found.oid != oid:
            raise NotFound("This message does not exist")
        return found

    def uids(self, user: int, mailbox: MailboxState, first: int, last: int | None) -> Sequence[MessageState]:
        """All messages whose uid lies in a range; `last` None has no end."""
        return self._store.uid_range(user, mailbox.id, first, last)

    def content(self, message: MessageState) -> Content:
        """What a message says."""
        return self._store.content(message.id)

    def attachments(self, message: MessageState) -> Sequence[PartState]:
        """What hangs on a message, in order."""
        parts = _PARTS.decode(self.content(message).structure)
        if parts:
            return parts
        rows = self._ctx.store.mail.attachments(message.email_id) if message.attachments else []
        return [
            PartState(
                id=f"ATT{row.position + 1:05}",
                filename=row.name,
                content_type=mimetypes.guess_type(row.name)[0] or "application/octet-stream",
                size=row.size,
                row=row.id,
            )
            for row in rows
        ]

    def attachment(self, message: MessageState, name: str) -> PartState:
        """One of them; NotFound if there is none of this name."""
        found = next((part for part in self.attachments(message) if part.id == name.upper()), None)
        if found is None:
            raise NotFound("This attachment does not exist")
        return found

    # ------------------------------------------------------------------ changing

    async def flag(self, user: int, messages: Iterable[MessageState], **flags: bool) -> Sequence[MessageState]:
        """Set flags; returns the messages that changed."""
        return await self._store.flag(user, [message.id for message in messages], self._ctx.now(), **flags)

    async def expire_at(self, user: int, messages: Iterable[MessageState], moment: int | None) -> None:
        """Have messages deleted some time after a moment, or never."""
        await self._store.set_expiry(user, [message.id for message in messages], moment)

    async def move(self, user: int, messages: Iterable[MessageState], mailbox: MailboxState) -> Sequence[MessageState]:
        """Move messages; each gets a new uid."""
        return await self._store.move(user, [message.id for message in messages], mailbox.id, self._ctx.now())

    async def delete(self, user: int, messages: Iterable[MessageState]) -> int:
        """Remove messages for good; returns how many were given."""
        ids = [message.id for message in messages]
        remove_files(await self._store.remove(user, ids, self._ctx.now()))
        return len(ids)

    async def sweep(self) -> None:
        """Remove messages whose time is over, pieces nobody has, threads nothing is left of, and journal entries of
        yesterday.
        """
        now = self._ctx.now()
        remove_files(await self._store.expire(now))
        remove_files(await self._store.collect())
        await self._store.forget_threads(now - _THREAD_LIFE, now)
        await self._store.trim_journal(now - _JOURNAL_LIFE)
