"""Messages in their folders: filing what was sent and what arrived, and reading it back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from qmail_core.codec import address
from qmail_core.engine.context import Context
from qmail_core.engine.jobs import Job
from qmail_core.engine.mailboxes import remove_files
from qmail_core.model import Address, Folder, Message, MessagePage, Recipient
from qmail_core.store.base import Incoming

Filed = Callable[[Message], None]


class Wishes(Protocol):
    """What the user wants done with mail of the network, see `engine.post.network`."""

    def sort(self, mail: Incoming) -> tuple[Incoming, Filed]:
        """Where a mail goes, and what to call once it lies there."""
        ...

    async def returned(self, guid: bytes, failed: Mapping[str, str]) -> None:
        """A mail did not reach somebody, and will not; reasons by the recipient's text."""
        ...


class Mailbox:
    """The folders of one engine."""

    wishes: Wishes  # set once, before anything is received or sent

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._mail = ctx.store.mail

    def name_of(self, who: Address) -> str:
        """How the user knows an address: the contact's text, else the canonical form."""
        contact = self._ctx.store.contacts.by_address(who)
        return contact.text if contact is not None else address.render(who)

    # ---------------------------------------------------------------------------------------------- reading, moving

    def page(self, folder: Folder, limit: int, offset: int, sort: str) -> MessagePage:
        """One page of a folder; bodies are cut to a preview."""
        return self._mail.messages(folder, limit, offset, sort)

    async def get(self, message_id: bytes, *, mark_read: bool = True) -> Message:
        """A whole message; NotFound if there is none."""
        return await self.set_read(message_id, True) if mark_read else self.look(message_id)

    def look(self, message_id: bytes) -> Message:
        """A whole message, unmarked; NotFound if there is none."""
        return self._mail.message_of(message_id)

    def find(self, words: str, limit: int) -> Sequence[Message]:
        """Messages outside the trash that have all these words, newest first; bodies are cut to a preview."""
        return self._mail.find_mail(words, limit)

    def counts(self) -> Mapping[Folder, tuple[int, int]]:
        """(all, unread) of every folder."""
        return self._mail.folder_counts()

    async def set_read(self, message_id: bytes, is_read: bool) -> Message:
        """Mark a message read or unread."""
        return await self._mail.set_read(message_id, is_read, self._ctx.now())

    async def set_star(self, message_id: bytes, starred: bool) -> Message:
        """Star a message, or not."""
        return await self._mail.flag_mail(message_id, self._ctx.now(), flagged=starred)

    async def move(self, message_id: bytes, folder: Folder) -> Message:
        """Move a message; to STARRED is to set the star."""
        return await self._mail.move_mail(message_id, folder, self._ctx.now())

    async def delete(self, message_id: bytes) -> None:
        """Remove a message that lies in the trash, with its fetched attachments; UsageError elsewhere."""
        remove_files(await self._mail.delete_mail(message_id, self._ctx.now()))

    # ---------------------------------------------------------------------------------------------- filing

    async def file_sent(self, job: Job) -> Message:
        """File a mail in Sent and count its recipients as contacts; a mail already filed is left alone."""
        now = self._ctx.now()
        message = await self._mail.deliver(
            Incoming(
                guid=job.guid,
                outgoing=True,
                folder=Folder.SENT,
                subject=job.subject,
                body=job.body,
                sender=self._ctx.address,
                sender_text=address.render(self._ctx.address),
                recipients=msgspec.json.encode(job.recipients),
                received_at=now,
                sent_at=job.created_at,
                is_read=True,
                attachments=tuple((source.name, source.size) for source in job.sources),
            ),
            self._ctx.new_oid(),
        )
        await self._ctx.store.contacts.bump([(r.address, r.text) for r in job.recipients], now)
        return message

    async def file_received(
        self,
        guid: bytes,
        sender: Address,
        subject: str,
        body: str,
        recipients: Sequence[Recipient],
        sent_at: int,
        attachments: Sequence[tuple[str, int]],
    ) -> Message:
        """File a mail that came over the network: in the inbox and unread, unless the user's filters say otherwise."""
        mail, filed = self.wishes.sort(
            Incoming(
                guid=guid,
                outgoing=False,
                folder=Folder.INBOX,
                subject=subject,
                body=body,
                sender=sender,
                sender_text=self.name_of(sender),
                recipients=msgspec.json.encode(tuple(recipients)),
                received_at=self._ctx.now(),
                sent_at=sent_at,
                attachments=tuple(attachments),
            )
        )
        message = await self._mail.deliver(mail, self._ctx.new_oid())
        filed(message)
        return message

    async def returned(self, guid: bytes, failed: Mapping[str, str]) -> None:
        """Tell the user whom a mail did not reach, if it is one whose sender waits to hear of it."""
        await self.wishes.returned(guid, failed)
