"""Submission: a message from its parts, filed, and sent to everybody it is for by the way that leads there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import msgspec
from msgspec import Struct

from qmail_core.codec import mime
from qmail_core.codec.cbdf import cut_text
from qmail_core.codec.mime import Attachment, Compose, Person
from qmail_core.codec.mime.encode import address_field
from qmail_core.engine.accounts.defaults import RECIPIENTS
from qmail_core.engine.context import INLINE_BYTES, Context
from qmail_core.engine.jobs import check_subject
from qmail_core.engine.letters import Letters, routable
from qmail_core.engine.messages import Messages
from qmail_core.engine.post.arrivals import DAY, Arrivals
from qmail_core.engine.post.autoreply import plain
from qmail_core.engine.post.bounces import Bounces
from qmail_core.engine.post.outbox import Outbox
from qmail_core.engine.post.routes import Routes
from qmail_core.errors import AddressError, InputInvalid, QMailError, QuotaError, SendingLimit
from qmail_core.model import Address, Draft, Folder, Kind, MailboxState, MessageState, Recipient, Source, Started
from qmail_core.store.accounts import Account
from qmail_core.store.mailbox import HOME
from qmail_core.transport.outside import Refusal

log = logging.getLogger("qmail.submit")
_REFERENCES = 20  # ids of earlier messages that are named


class Attached(Struct, frozen=True):
    """A file to send along."""

    name: str
    data: bytes
    content_type: str = "application/octet-stream"
    cid: str = ""


class Reference(Struct, frozen=True, kw_only=True):
    """The message this one answers or passes on."""

    mailbox: bytes  # object id
    uid: int
    action: str = "reply"  # or replyAll, forward
    attachments: bool | tuple[str, ...] = False  # of a forward: all, or those of these ids


class Submission(Struct, frozen=True, kw_only=True):
    """What a user wants sent, filed or kept as a draft."""

    from_: Person = Person("", "")  # empty: the user's main address
    reply_to: Person | None = None
    to: tuple[Person, ...] = ()
    cc: tuple[Person, ...] = ()
    bcc: tuple[Person, ...] = ()
    subject: str | None = None
    text: str = ""
    html: str = ""
    attachments: tuple[Attached, ...] = ()
    reference: Reference | None = None
    draft: bool = False  # keep it in Drafts, send nothing
    upload_only: bool = False  # file it as if it were sent
    mailbox: bytes | None = None  # object id of where to file it


class Submitted(Struct, frozen=True, kw_only=True):
    """What became of a submission."""

    message: MessageState
    mailbox: bytes
    queue_id: str


class _Parcel(Struct):
    """Who a message is for, by the way that leads there."""

    here: dict[int, str] = {}  # user -> address
    network: list[Recipient] = []
    outside: list[str] = []

    def count(self) -> int:
        return len(self.here) + len(self.network) + len(self.outside)


Upload = Callable[[Draft], Awaitable[Started]]


class Submitter:
    """Submissions of one engine's users."""

    def __init__(
        self,
        ctx: Context,
        messages: Messages,
        letters: Letters,
        routes: Routes,
        arrivals: Arrivals,
        outbox: Outbox,
        bounces: Bounces,
        upload: Upload,
    ) -> None:
        self._ctx = ctx
        self._messages = messages
        self._letters = letters
        self._routes = routes
        self._arrivals = arrivals
        self._outbox = outbox
        self._bounces = bounces
        self._upload = upload  # accepts a mail of the engine's own user for the network

    async def submit(self, user: int, wanted: Submission) -> Submitted:
        """Compose, file and send; when this returns everything that is to leave is on disk.

        raises  InputInvalid for recipients nobody can reach, SendingLimit, QuotaError, NotFound for what a reference
                names, UsageError for parts a message cannot have
        """
        account = self._routes.account(user)
        box = self._box(user, wanted)
        referred = self._referred(user, wanted.reference)
        wanted = self._completed(account, wanted, referred)
        sends = not (wanted.draft or wanted.upload_only)
        parcel = self._sort(user, wanted) if sends else _Parcel()
        if parcel.network:
            check_subject(wanted.subject or "")
        draft = await self._compose(account, wanted, referred)
        raw = await self._write(draft)
        if sends:
            await self._count(account, parcel.count())
        guid = self._ctx.entropy(16) if parcel.network else None
        kept = address_field("Bcc", draft.bcc).encode("ascii") + raw
        try:
            message = await self._letters.deliver(
                user, kept, box, seen=True, draft=wanted.draft, sent_as=guid, recipients=parcel.network
            )
            queue_id = await self._send(user, message, draft, parcel, guid, raw)
        except QMailError:  # nothing has left
            await _quietly(self._ctx.store.post.give_back(user, "recipients", parcel.count()))
            raise
        if referred is not None and wanted.reference is not None and sends:
            name = "forwarded" if wanted.reference.action == "forward" else "answered"
            await _quietly(self._messages.flag(user, [referred], **{name: True}))
        return Submitted(message=message, mailbox=box.oid, queue_id=queue_id)

    async def send_plain(self, draft: Draft) -> None:
        """Send a mail of the engine's own user over the network, counted like any other; SendingLimit."""
        await self._count(self._routes.account(HOME), len(draft.recipients))
        try:
            await self._upload(draft)
        except QMailError:
            await _quietly(self._ctx.store.post.give_back(HOME, "recipients", len(draft.recipients)))
            raise

    def _box(self, user: int, wanted: Submission) -> MailboxState:
        boxes = self._ctx.store.mailboxes
        if wanted.mailbox is not None:
            return boxes.mailbox(user, wanted.mailbox)
        return boxes.mailbox_for(user, Folder.DRAFTS if wanted.draft else Folder.SENT)

    # ------------------------------------------------------------------ who it is for

    def _sort(self, user: int, wanted: Submission) -> _Parcel:
        parcel, problems = _Parcel(), {}
        groups = (("to", Kind.TO, wanted.to), ("cc", Kind.CC, wanted.cc), ("bcc", Kind.BCC, wanted.bcc))
        for name, kind, people in groups:
            for person in people:
                try:
                    self._add(user, parcel, kind, person.address)
                except QMailError as error:
                    problems[name] = f'"{name}" {person.address}: {error.message}'
        if not problems and not parcel.count():
            problems["to"] = '"to" at least one recipient is required'
        if problems:
            raise InputInvalid(problems)
        return parcel

    def _add(self, user: int, parcel: _Parcel, kind: Kind, text: str) -> None:
        route = self._routes.find(text)
        if isinstance(route, Account):
            parcel.here.setdefault(route.id, plain(mime.normalise_address(text)))
        elif isinstance(route, str):
            self._outbox.check()
            if route not in parcel.outside:
                parcel.outside.append(route)
        elif user != HOME:
            raise AddressError("only the user whose identity this is can write over the network")
        elif all(known.address != route for known in parcel.network):
            parcel.network.append(Recipient(kind, text, route))

    async def _count(self, account: Account, count: int) -> None:
        post, now = self._ctx.store.post, self._ctx.now()
        if not await post.take(account.id, "recipients", count, account.recipients or RECIPIENTS, now, DAY):
            raise SendingLimit(max(1, post.usage(account.id, "recipients").until - now))

    # ------------------------------------------------------------------ what it says

    def _referred(self, user: int, reference: Reference | None) -> MessageState | None:
        if reference is None:
            return None
        box = self._ctx.store.mailboxes.mailbox(user, reference.mailbox)
        return self._messages.get(user, box, reference.uid)

    def _completed(self, account: Account, wanted: Submission, referred: MessageState | None) -> Submission:
        """With the recipients and the subject a reply has by itself."""
        if referred is None or wanted.reference is None:
            return wanted
        action = wanted.reference.action
        changes: dict[str, object] = {}
        if wanted.subject is None:
            plain_subject = mime.normal_subject(referred.subject)
            changes["subject"] = cut_text(f"{'Fwd' if action == 'forward' else 'Re'}: {plain_subject}")
        if action != "forward" and not (wanted.to or wanted.cc or wanted.bcc):
            headers = self._headers(referred)
            writer = (Person(referred.from_name, referred.from_address),)
            changes["to"] = to = _people(headers, "replyTo") or writer
            if action == "replyAll":
                known = {*self._routes.own(account), *(mime.normalise_address(person.address) for person in to)}
                others = (*_people(headers, "to"), *_people(headers, "cc"))
                changes["cc"] = tuple(
                    one
                    for one in others
                    if mime.normalise_address(one.address) not in known and not self._is_self(account, one.address)
                )
        return msgspec.structs.replace(wanted, **changes)

    def _is_self(self, account: Account, text: str) -> bool:
        """Whether an address is this user's by another name."""
        try:
            route = self._routes.find(text)
        except AddressError:
            return False
        return account.id == HOME and route == self._ctx.address

    def _headers(self, message: MessageState) -> dict[str, object]:
        return self._letters.headers(message, self._messages.content(message))

    async def _compose(self, account: Account, wanted: Submission, referred: MessageState | None) -> Compose:
        oid = self._ctx.new_oid()
        earlier, answered = self._ids(referred)
        files = [Attachment(file.name, file.data, file.content_type, file.cid) for file in wanted.attachments]
        if referred is not None and wanted.reference is not None and wanted.reference.action == "forward":
            files += await self._forwarded(referred, wanted.reference.attachments)
            answered = ()
        return Compose(
            seed=self._ctx.entropy(32),
            date=self._ctx.now(),
            message_id=f"<{oid.hex()}@{self._ctx.config.domain}>",
            from_=(self._routes.writer(account, wanted.from_.address, wanted.from_.name),),
            reply_to=() if wanted.reply_to is None else (self._in_header(wanted.reply_to),),
            to=tuple(map(self._in_header, wanted.to)),
            cc=tuple(map(self._in_header, wanted.cc)),
            bcc=tuple(map(self._in_header, wanted.bcc)),
            subject=wanted.subject or "",
            text=wanted.text,
            html=wanted.html,
            attachments=tuple(files),
            in_reply_to=answered,
            references=earlier,
        )

    def _in_header(self, person: Person) -> Person:
        try:
            route = self._routes.find(person.address)
        except AddressError:  # of a draft
            route = None
        return Person(person.name, routable(person.address, route if isinstance(route, Address) else None))

    def _ids(self, referred: MessageState | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """References and In-Reply-To of a message about another."""
        if referred is None:
            return (), ()
        headers = self._headers(referred)
        # a message need not have one; this is the id it would be served with
        own = str(headers.get("messageId") or self._letters.message_id(referred))
        known = headers.get("references")
        earlier = [str(one) for one in known] if isinstance(known, list) else []
        return mime.writable_ids((*earlier[-_REFERENCES:], own)), mime.writable_ids((own,))

    async def _forwarded(self, message: MessageState, chosen: bool | tuple[str, ...]) -> list[Attachment]:
        files = []
        for part in self._messages.attachments(message) if chosen else ():
            if chosen is True or (isinstance(chosen, tuple) and part.id in chosen):
                data = b"".join([chunk async for chunk in self._letters.part(message, part)])
                files.append(mime.passed_on(part.filename or part.id, data, part.content_type, part.cid))
        return files

    async def _write(self, draft: Compose) -> bytes:
        if sum(len(file.data) for file in draft.attachments) <= INLINE_BYTES:
            return mime.compose(draft)
        return await asyncio.get_running_loop().run_in_executor(None, mime.compose, draft)

    # ------------------------------------------------------------------ sending

    async def _send(
        self, user: int, message: MessageState, draft: Compose, parcel: _Parcel, guid: bytes | None, raw: bytes
    ) -> str:
        """Start every delivery; returns the queue's word for it.

        raises  what keeps it from being sent at all; once something has left, the rest is told by letter, because
                whoever hears of an error sends it once more
        """
        sender = draft.from_[0].address
        queued = None
        try:
            if parcel.outside:  # held, because it can be taken back and the network's part cannot
                queued = await self._outbox.add(user, sender, parcel.outside, raw, held=guid is not None)
            if guid is not None:
                await self._upload(_for_network(draft, parcel.network, guid))
        except QMailError:
            if queued is not None:
                await _quietly(self._outbox.take_back(queued))
            await _quietly(self._messages.delete(user, [message]))
            raise
        if queued is not None and guid is not None:
            await _quietly(self._outbox.release(queued))
        failed = {}
        for other, address in parcel.here.items():
            try:
                await self._arrivals.deliver(other, raw, sender=sender, address=address)
            except QMailError as error:
                failed[address] = Refusal(552 if isinstance(error, QuotaError) else 554, error.message)
        if failed:
            await self._bounces.tell(user, failed, raw)
        return (queued or guid or self._ctx.new_oid()).hex()


async def _quietly(step: Awaitable[object]) -> None:
    """Do what must not hide the outcome of a submission."""
    try:
        await step
    except QMailError as error:
        log.warning("after a submission: %s", error)


def _for_network(draft: Compose, recipients: list[Recipient], guid: bytes) -> Draft:
    return Draft(
        subject=draft.subject,
        body=draft.text or mime.html_to_text(draft.html),
        recipients=tuple(recipients),
        attachments=tuple(Source(name=file.name, data=file.data) for file in draft.attachments),
        guid=guid,
    )


def _people(headers: dict[str, object], name: str) -> tuple[Person, ...]:
    found = headers.get(name)
    return tuple(msgspec.convert(found, list[Person])) if isinstance(found, list) else ()
