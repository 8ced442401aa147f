"""Messages in their folders: filing what was sent and what arrived, and reading it back."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from qmail_core.codec import address
from qmail_core.engine.context import Context
from qmail_core.engine.jobs import Job
from qmail_core.model import Address, Folder, Message, Recipient
from qmail_core.store.base import Incoming


class Mailbox:
    """The folders of one engine."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx

    def name_of(self, who: Address) -> str:
        """How the user knows an address: the contact's text, else the canonical form."""
        contact = self._ctx.store.contacts.by_address(who)
        return contact.text if contact is not None else address.render(who)

    async def file_sent(self, job: Job) -> Message:
        """File a mail in Sent and count its recipients as contacts; a mail already filed is left alone."""
        now = self._ctx.now()
        message = await self._ctx.store.mail.deliver(
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
        """File a mail that came over the network in the inbox, unread."""
        return await self._ctx.store.mail.deliver(
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
            ),
            self._ctx.new_oid(),
        )
