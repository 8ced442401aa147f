"""Mail of the network as the user of the engine's identity wants it: filtered, forwarded, answered, and come back.

Filing is the promise. Forwards and answers are made afterwards, one mail after the other, and a stop forgets those that
are left: a mail has no envelope on the network that could wait in a queue.
"""

from __future__ import annotations

import functools
import logging
from collections import deque
from collections.abc import Mapping

import msgspec

from qmail_core.codec.address import render
from qmail_core.codec.mime import Parsed, Person
from qmail_core.engine.context import Context
from qmail_core.engine.letters import Letters
from qmail_core.engine.mailbox import Filed
from qmail_core.engine.post.arrivals import Arrivals
from qmail_core.engine.post.autoreply import Autoreplies
from qmail_core.engine.post.bounces import NETWORK, Bounces
from qmail_core.engine.post.filters import Filters, Searched, Verdict
from qmail_core.engine.post.submit import Submitter
from qmail_core.engine.post.worker import Worker
from qmail_core.errors import NotFound, QMailError
from qmail_core.model import Draft, Folder, Kind, Message, MessageState, Recipient
from qmail_core.store.base import Incoming
from qmail_core.store.mailbox import HOME
from qmail_core.transport.outside import Refusal

log = logging.getLogger("qmail.arrivals")
_HEADER = 1 << 16  # bytes of a message that came back, at most
_RECIPIENTS = msgspec.json.Decoder(tuple[Recipient, ...])


class NetworkMail:
    """See `engine.mailbox.Wishes`."""

    def __init__(
        self,
        ctx: Context,
        letters: Letters,
        arrivals: Arrivals,
        filters: Filters,
        autoreplies: Autoreplies,
        bounces: Bounces,
        submitter: Submitter,
    ) -> None:
        self._ctx = ctx
        self._boxes = ctx.store.mailboxes
        self._letters = letters
        self._arrivals = arrivals
        self._filters = filters
        self._autoreplies = autoreplies
        self._bounces = bounces
        self._submitter = submitter
        self._due: deque[tuple[Verdict, Message]] = deque()
        self.worker = Worker("qmail-arrivals", self._turn)

    # ------------------------------------------------------------------ what arrives

    def sort(self, mail: Incoming) -> tuple[Incoming, Filed]:
        """See Wishes."""
        size = len(mail.body.encode()) + sum(size for _, size in mail.attachments)
        verdict = self._filters.judge(HOME, Searched(_parsed(mail), size, attached=bool(mail.attachments)))
        # what was paid for and asked for is not thrown away at once
        box = self._boxes.mailbox_for(HOME, Folder.TRASH) if verdict.delete else self._arrivals.box(HOME, verdict)
        placed = msgspec.structs.replace(mail, mailbox=box.id, is_read=verdict.seen, is_starred=verdict.flag)
        return placed, functools.partial(self._filed, verdict)

    def _filed(self, verdict: Verdict, message: Message) -> None:
        self._due.append((verdict, message))
        self.worker.wake()

    async def _turn(self) -> None:
        while self._due:
            verdict, message = self._due.popleft()
            try:
                source = self._letters.source(self._boxes.by_email_id(HOME, message.id))
                await self._arrivals.forward(HOME, verdict, source)
                if not (verdict.spam or verdict.delete):
                    await self._answer(message)
            except QMailError as error:
                log.warning("after the arrival of %s: %s", message.id.hex(), error)

    async def _answer(self, message: Message) -> None:
        me, sender = self._ctx.address, message.sender
        named = any(who.address == me and who.kind != Kind.BCC for who in message.recipients)
        if not named or sender == me:
            return
        answer = await self._autoreplies.answer_plain(HOME, render(sender), message.subject)
        if answer is not None:
            subject, text = answer
            to = Recipient(Kind.TO, message.sender_text, sender)
            await self._submitter.send_plain(Draft(subject=subject, body=text, recipients=(to,)))

    # ------------------------------------------------------------------ what comes back

    async def returned(self, guid: bytes, failed: Mapping[str, str]) -> None:
        """See Wishes; only who submitted a message hears of it by letter, others follow a task or a receipt."""
        try:
            message = self._boxes.by_email_id(HOME, guid)
            if not (message.outgoing and self._boxes.raw(message.id)):
                return
            header = await self._header(message)
        except NotFound:
            return
        except (QMailError, OSError) as error:  # the send goes on being over
            log.warning("nobody can be told of %s, which was not delivered: %s", guid.hex(), error)
            return
        await self._bounces.tell(HOME, {who: Refusal(NETWORK, reason) for who, reason in failed.items()}, header)

    async def _header(self, message: MessageState) -> bytes:
        raw = b""
        async for chunk in self._letters.source(message):
            raw += chunk
            if len(raw) > _HEADER or b"\r\n\r\n" in raw:
                break
        return raw


def _parsed(mail: Incoming) -> Parsed:
    """A mail as filters look at it: people by the name the user knows, and by address."""
    people = _RECIPIENTS.decode(mail.recipients)
    named = {kind: tuple(Person(who.text, render(who.address)) for who in people if who.kind == kind) for kind in Kind}
    return Parsed(
        headers=(),
        from_=(Person(mail.sender_text, render(mail.sender)),),
        to=named[Kind.TO],
        cc=named[Kind.CC],
        subject=mail.subject,
        text=mail.body,
    )
