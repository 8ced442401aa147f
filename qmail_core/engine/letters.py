"""Messages as they travel in the ordinary mail world: delivered whole, kept as they came, served byte for byte.

A delivered message is read once; what lists, search and detail need is kept beside it, its raw bytes in pieces that
equal attachments share. A mail that came over RAIDA never had such a form: one is composed when it is asked for.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any

import msgspec

from qmail_core.codec import mime
from qmail_core.codec.address import render, split_list
from qmail_core.codec.mime import Parsed, Person
from qmail_core.codec.mime.encode import address_text
from qmail_core.engine.accounts.defaults import QUOTA
from qmail_core.engine.context import INLINE_BYTES, Context
from qmail_core.engine.messages import Messages
from qmail_core.engine.receive import Receiver, create, finish
from qmail_core.errors import AddressError, UsageError
from qmail_core.model import Address, Content, Kind, MailboxState, MessageState, PartState, Recipient, StoredAttachment
from qmail_core.store.mailbox import HOME, FiledAttachment, Filing

MAX_MESSAGE = 64 << 20  # bytes
_CHUNK = 256 * 1024
# stands for the network in mail headers, which need a domain: `.invalid` is nobody's and never will be (RFC 2606)
NETWORK_DOMAIN = "qmail.invalid"
_RECIPIENTS = msgspec.json.Decoder(tuple[Recipient, ...])


class Letters:
    """Delivery, source and attachments of one engine's users."""

    def __init__(self, ctx: Context, messages: Messages, receiver: Receiver) -> None:
        self._ctx = ctx
        self._messages = messages
        self._receiver = receiver
        self._store = ctx.store.mailboxes

    # ------------------------------------------------------------------ delivery

    async def deliver(
        self,
        user: int,
        raw: bytes,
        mailbox: MailboxState,
        *,
        received_at: int | None = None,
        seen: bool = False,
        flagged: bool = False,
        draft: bool = False,
        parsed: Parsed | None = None,
        sent_as: bytes | None = None,
        recipients: Sequence[Recipient] = (),
    ) -> MessageState:
        """File a message; when this returns it is on disk, indexed and announced.

        parsed      what `read` made of it, if the caller has that already
        sent_as     the GUID of the same mail on the network, which is filed only once then; `recipients` are its own
        raises  UsageError for an empty or too large message, QuotaError
        """
        if not raw or len(raw) > MAX_MESSAGE:
            raise UsageError(f"a message has between 1 and {MAX_MESSAGE} bytes", hint=413 if raw else 400)
        parsed = parsed or await self.read(raw)
        filing = self._filing(user, raw, parsed, mailbox, received_at or self._ctx.now())
        marked = msgspec.structs.replace(filing, seen=seen, flagged=flagged, draft=draft)
        if sent_as is not None:
            who = self._ctx.address
            marked = msgspec.structs.replace(
                marked,
                guid=sent_as,
                email_id=sent_as,
                outgoing=True,
                denomination=who.denomination,
                serial=who.serial,
                recipients=msgspec.json.encode(recipients),
            )
        return await self._store.file(user, marked, QUOTA)

    async def read(self, raw: bytes) -> Parsed:
        """What a raw message says; a large one is read on another thread."""
        if len(raw) <= INLINE_BYTES:
            return mime.scan(raw)
        return await asyncio.get_running_loop().run_in_executor(None, mime.scan, raw)

    def _filing(self, user: int, raw: bytes, parsed: Parsed, mailbox: MailboxState, received_at: int) -> Filing:
        oid = self._ctx.new_oid()
        author = next(iter(parsed.from_ or parsed.sender), Person("", ""))
        text = parsed.text or "\n".join(map(mime.html_to_text, parsed.html))
        people = [*parsed.to, *parsed.cc]
        view = memoryview(raw)
        edges = [0, *parsed.cuts, len(raw)]
        return Filing(
            mailbox=mailbox.id,
            oid=oid,
            email_id=hashlib.sha256(b"message" + oid).digest()[:16],
            content=Content(
                subject=parsed.subject,
                sender=_words([author]),
                recipients=_words(people),
                text=text,
                html="\n".join(parsed.html),
                headers=msgspec.json.encode(headers_of(parsed)),
                structure=msgspec.json.encode(_parts(parsed)),
            ),
            thread_keys=mime.thread_keys(parsed, user.to_bytes(8, "big")),
            from_name=author.name,
            from_address=author.address,
            received_at=received_at,
            filed_at=self._ctx.now(),
            sent_at=parsed.date if parsed.date is not None else received_at,
            size=len(raw),
            attachments=tuple(
                FiledAttachment(p.filename or p.id, _size(p), p.content_type, 0) for p in parsed.attachments
            ),
            pieces=tuple(view[start:end] for start, end in itertools.pairwise(edges) if end > start),
        )

    # ------------------------------------------------------------------ reading back

    async def source(self, message: MessageState) -> AsyncIterator[bytes]:
        """The raw message: as it came, or composed for a mail of the network."""
        pieces = self._store.raw(message.id)
        if not pieces:
            yield await self._composed(message)
        for piece in pieces:
            if isinstance(piece, bytes):
                yield piece
            else:
                async for chunk in _file(piece):
                    yield chunk

    async def part(self, message: MessageState, part: PartState) -> AsyncIterator[bytes]:
        """The decoded bytes of an attachment; fetched first if they are still on the network."""
        if part.offset < 0:
            stored = await self._receiver.attachment(message.email_id, part.row, fetch=True)
            async for chunk in _file(stored.path):
                yield chunk
            return
        decoder = mime.decoder(part.transfer_encoding)
        async for chunk in _span(self.source(message), part.offset, part.length):
            decoded = decoder.feed(chunk)
            if decoded:
                yield decoded
        yield decoder.finish()

    async def save(self, stored: StoredAttachment) -> StoredAttachment:
        """An attachment of a raw message as a file of its own, for those who want a path."""
        mail = self._ctx.store.mailboxes.by_email_id(HOME, stored.message_id)
        part = self._messages.attachments(mail)[stored.position]
        path = os.path.join(self._ctx.config.data, "Attachments", stored.message_id.hex(), str(stored.position))
        async with self._receiver.turns.take(stored.message_id):
            known = self._ctx.store.mail.attachment(stored.id)
            if known.mode:  # whoever was here before has saved it
                return known
            with create(f"{path}.part") as file:
                async for chunk in self.part(mail, part):
                    file.write(chunk)
                finish(file, path)
            return await self._ctx.store.mail.attachment_fetched(stored.id, path)

    def link(self, pages: Iterable[str], cids: dict[str, str], url: Callable[[str], str]) -> list[str]:
        """HTML whose inline images point to attachments; `url` makes a link of an attachment's id."""
        return [mime.link_cids(page, cids, url).html for page in pages]

    def headers(self, message: MessageState, content: Content) -> dict[str, Any]:
        """What a reader is shown of a message's header: people are objects, whatever the message came by."""
        shown: dict[str, Any] = msgspec.json.decode(content.headers)
        if isinstance(shown.get("to"), list):
            return shown
        people = _RECIPIENTS.decode(message.recipients)
        named = {kind: [person.text for person in people if person.kind == kind] for kind in Kind}
        if "to" in shown:  # a draft of the node API, in which nobody need be known yet
            named = {kind: split_list([shown[kind.value]]) for kind in Kind}
        listed = {
            kind.value: [{"address": text, "name": ""} for text in texts]
            for kind, texts in named.items()
            if texts or kind == Kind.TO
        }
        return listed | {"messageId": self.message_id(message)}

    def message_id(self, message: MessageState) -> str:
        """The Message-ID a mail of the network is served with."""
        return f"<{message.email_id.hex()}@{NETWORK_DOMAIN}>"

    async def _composed(self, message: MessageState) -> bytes:
        content = self._messages.content(message)
        mail = self._ctx.store.mail.message_of(message.email_id)
        people = {
            kind: [Person("", routable(r.text, r.address)) for r in mail.recipients if r.kind == kind] for kind in Kind
        }
        writer = Address(message.denomination, message.serial)
        files = []
        for part in self._messages.attachments(message):
            data = b"".join([chunk async for chunk in self.part(message, part)])
            files.append(mime.passed_on(part.filename, data, part.content_type))
        return mime.compose(
            mime.Compose(
                seed=hashlib.sha256(message.email_id).digest(),
                date=message.sent_at,
                message_id=self.message_id(message),
                from_=(Person(message.from_address, routable(message.from_address, writer)),),
                to=tuple(people[Kind.TO]),
                cc=tuple(people[Kind.CC]),
                subject=message.subject,
                text=content.text,
                attachments=tuple(files),
            )
        )


def routable(text: str, address: Address | None = None) -> str:
    """An address of the network in the form mail headers have; the sign in front is a domain's, so it stands there.

    address  the mailbox it means: written by number where the text is a name that no header can carry
    """
    found = text if "@" in text.strip("@") else f"{text.strip('@').replace(' ', '.')}@{NETWORK_DOMAIN}"
    try:
        address_text(found)
    except AddressError:
        return found if address is None else routable(render(address))
    return found


def headers_of(parsed: Parsed) -> dict[str, Any]:
    """What a reader is shown of a header, in the names of the mailbox API."""
    shown: dict[str, Any] = {}
    for name, people in (("replyTo", parsed.reply_to), ("to", parsed.to), ("cc", parsed.cc), ("bcc", parsed.bcc)):
        if people or name == "to":
            shown[name] = [{"address": person.address, "name": person.name} for person in people]
    if parsed.message_id:
        shown["messageId"] = parsed.message_id
    if parsed.in_reply_to:
        shown["inReplyTo"] = parsed.in_reply_to[0]
    if parsed.references:
        shown["references"] = list(parsed.references)
    if parsed.list_id or parsed.list_unsubscribe:
        shown["list"] = {"id": parsed.list_id, "unsubscribe": parsed.list_unsubscribe}
    if len(parsed.html) > 1:
        shown["html"] = list(parsed.html)
    if parsed.cids:
        shown["cids"] = parsed.cids
    return shown


def _parts(parsed: Parsed) -> list[PartState]:
    return [
        PartState(
            id=part.id,
            filename=part.filename,
            content_type=part.content_type,
            disposition=part.disposition,
            transfer_encoding=part.transfer_encoding,
            related=part.related,
            cid=part.cid,
            size=_size(part),
            offset=part.offset,
            length=part.length,
        )
        for part in parsed.attachments
    ]


def _size(part: mime.Part) -> int:
    return part.size_kb * 1024 if part.transfer_encoding != "7bit" else part.length


def _words(people: Iterable[Person]) -> str:
    return ", ".join(f"{person.name} <{person.address}>".strip() for person in people)


async def _file(path: str) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    with open(path, "rb") as file:  # noqa: ASYNC230 - opening is quick, reading is done beside the loop
        while chunk := await loop.run_in_executor(None, file.read, _CHUNK):
            yield chunk


async def _span(chunks: AsyncIterator[bytes], offset: int, length: int) -> AsyncIterator[bytes]:
    """Bytes offset to offset + length of a stream."""
    at = 0
    async for chunk in chunks:
        start, end = max(offset - at, 0), min(offset + length - at, len(chunk))
        if end > start:
            yield chunk[start:end]
        at += len(chunk)
        if at >= offset + length:
            return
