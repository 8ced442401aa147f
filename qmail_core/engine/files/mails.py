"""Mail as the file-transfer API sees it: what came in, what went out by recipient, and sending with files."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from qmail_core.engine import jobs
from qmail_core.engine.context import Context
from qmail_core.engine.files.library import Library
from qmail_core.engine.files.tokens import Owner
from qmail_core.engine.people import People
from qmail_core.engine.receive import Receiver
from qmail_core.engine.send import Sender
from qmail_core.errors import Forbidden, NotFound, QMailError
from qmail_core.model import (
    Address,
    Content,
    Draft,
    Kind,
    Listing,
    MessageState,
    Recipient,
    SentRow,
    StoredAttachment,
)
from qmail_core.store.mailbox import HOME

log = logging.getLogger("qmail.mails")

_FRESH = 5.0  # seconds after which a look at the inbox asks the beacons again


class Mails:
    """Received and sent mail."""

    def __init__(self, ctx: Context, library: Library, people: People, sender: Sender, receiver: Receiver) -> None:
        self._ctx = ctx
        self._store = ctx.store.files
        self._mail = ctx.store.mailboxes
        self._library = library
        self._people = people
        self._sender = sender
        self._receiver = receiver
        self._asked = -_FRESH
        self._asking = asyncio.Lock()

    # ---------------------------------------------------------------------------------------------- received

    async def inbox(self, owner: Owner, listing: Listing) -> tuple[Sequence[MessageState], int]:
        """A page of received mail and how much there is; mail that waits on the network is fetched first."""
        if owner.user == HOME:
            await self._fetch()
        return self._store.received(owner.user, listing)

    async def _fetch(self) -> None:
        loop = asyncio.get_running_loop()
        async with self._asking:
            if loop.time() - self._asked < _FRESH:
                return
            try:
                for waiting in (await self._receiver.peek(0)).notifications:
                    await self._fetch_one(waiting.tell.guid)
            except QMailError as error:
                # what is here is shown all the same
                log.warning("mail cannot be fetched now: %s", error)
            self._asked = loop.time()

    async def _fetch_one(self, guid: bytes) -> None:
        try:
            await self._receiver.download(guid, None)
        except QMailError as error:  # the others may well be there
            log.warning("mail %s cannot be fetched now: %s", guid.hex(), error)

    def received(self, owner: Owner, mail: bytes) -> MessageState:
        """One received mail; NotFound if the owner has none of this id."""
        row = self._mail.by_email_id(owner.user, mail)
        if row.outgoing or row.draft:
            raise NotFound("Mail not found.")
        return row

    async def open(self, owner: Owner, mail: bytes) -> MessageState:
        """One received mail for somebody to read: it counts as opened from now on. NotFound."""
        row = self.received(owner, mail)
        if not row.seen:
            await self._mail.flag(owner.user, [row.id], self._ctx.now(), seen=True)
            row = self.received(owner, mail)
        return row

    def content(self, row: MessageState) -> Content:
        """What a mail says."""
        return self._mail.content(row.id)

    def attachments(self, row: MessageState) -> Sequence[StoredAttachment]:
        """The files of a mail."""
        return self._ctx.store.mail.attachments(row.email_id) if row.user == HOME else []

    def name_of(self, address: Address, text: str) -> str:
        """The person behind an address as far as contacts know; else the address."""
        contact = self._people.find(address) if address.serial else None
        known = f"{contact.first_name} {contact.last_name}".strip() if contact is not None else ""
        return known or (contact.text if contact is not None else "") or text

    # ---------------------------------------------------------------------------------------------- sent

    async def sent(self, owner: Owner, listing: Listing) -> tuple[Sequence[SentRow], int]:
        """A page of sent mail, a row for each recipient, and how many there are; who has opened it is asked first."""
        if owner.user != HOME:
            return (), 0
        await self._fetch()
        return self._store.sent(listing)

    def sent_one(self, owner: Owner, mail: bytes) -> SentRow:
        """One recipient of a sent mail."""
        if owner.user != HOME:
            raise NotFound("Mail not found.")
        return self._store.sent_row(mail)

    def said(self, row: SentRow) -> tuple[str, Sequence[tuple[str, int]]]:
        """The body of a sent mail, and name and size of its files."""
        job = jobs.decode(self._ctx.store.sends.job(row.guid)[0])
        return job.body, [(source.name, source.size) for source in job.sources]

    async def send(
        self, owner: Owner, subject: str, body: str, to: Sequence[str], files: Sequence[bytes], pin_key: str
    ) -> tuple[Sequence[SentRow], str]:
        """Accept a mail with uploaded files; it is on its way when this returns. Also returns the id of its task.

        raises   Forbidden for anybody but the engine's own user, AddressError, InputInvalid, KeyRefused, NotFound
        """
        if owner.user != HOME:
            raise Forbidden("Only the owner of this service's identity can send.")
        recipients = tuple(Recipient(Kind.TO, text, self._people.resolve(text)) for text in to)
        jobs.check_subject(subject)
        guid = self._ctx.entropy(16)
        try:
            sources = await self._library.spool(owner, files, pin_key, guid)
            draft = Draft(subject=subject, body=body, recipients=recipients, attachments=tuple(sources), guid=guid)
            started = await self._sender.accept(draft, tell=True)
        except Exception:
            # not when cancelled: the acceptance may be on its way to the disk, and the next start sweeps what is not
            if not self._ctx.store.sends.has_receipt(guid):
                self._sender.drop_spool(guid)
            raise
        return self._store.sent_rows(guid), started.task_id
