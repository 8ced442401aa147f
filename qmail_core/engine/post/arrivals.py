"""Mail that arrives for a user, whoever brings it: sorted by the user's filters, forwarded, answered.

Filing is the promise; forwards and answers come after it, and what goes wrong with them is logged.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable

from qmail_core.codec import mime
from qmail_core.codec.mime import Parsed
from qmail_core.engine.accounts.defaults import FORWARDS
from qmail_core.engine.context import Context
from qmail_core.engine.letters import Letters
from qmail_core.engine.post.autoreply import Autoreplies, plain
from qmail_core.engine.post.filters import Filters, Searched, Verdict
from qmail_core.engine.post.outbox import Outbox
from qmail_core.engine.post.routes import Routes
from qmail_core.errors import NotFound, QMailError
from qmail_core.model import Folder, MailboxState, MessageState
from qmail_core.store.accounts import Account

log = logging.getLogger("qmail.arrivals")
DAY = 86_400
_SPAM = ("yes", "true")


class Arrivals:
    """Delivery to the users of one store."""

    def __init__(
        self,
        ctx: Context,
        letters: Letters,
        routes: Routes,
        filters: Filters,
        autoreplies: Autoreplies,
        outbox: Outbox,
    ) -> None:
        self._ctx = ctx
        self._letters = letters
        self._routes = routes
        self._filters = filters
        self._autoreplies = autoreplies
        self._outbox = outbox
        self._boxes = ctx.store.mailboxes

    async def deliver(self, user: int, raw: bytes, *, sender: str = "", address: str = "") -> MessageState | None:
        """File a message that came for a user; None if a filter of the user's throws such mail away.

        sender   of the envelope, empty if there is none
        address  the one the message was sent to; default: the user's main one
        raises   QuotaError, UsageError for an empty or too large message
        """
        account = self._routes.account(user)
        own = self._routes.own(account)
        marked = _marked(raw, address or account.address)
        parsed = await self._letters.read(marked)
        looped = _been_here(parsed, own)
        verdict = self._filters.judge(user, Searched(parsed, len(raw)))
        verdict.spam = verdict.spam or dict(parsed.headers).get("x-rspamd-spam", "").strip().lower() in _SPAM
        message = None
        if not verdict.delete:
            box = self.box(user, verdict)
            message = await self._letters.deliver(
                user, marked, box, seen=verdict.seen, flagged=verdict.flag, parsed=parsed
            )
        if not looped:
            await self._forward(account, marked, _targets(account, verdict))
            if message is not None and not verdict.spam:
                await self._answer(account, parsed, sender, own)
        return message

    def box(self, user: int, verdict: Verdict) -> MailboxState:
        """Where filters want a message."""
        if verdict.mailbox is not None:
            try:
                return self._boxes.mailbox(user, verdict.mailbox)
            except NotFound:
                pass  # dropped since: as if the filter said nothing of it
        if verdict.spam:
            junk = next((box for box in self._boxes.mailboxes(user) if box.special_use == "\\Junk"), None)
            if junk is not None:
                return junk
        return self._boxes.mailbox_for(user, Folder.INBOX)

    # ------------------------------------------------------------------ afterwards

    async def forward(self, user: int, verdict: Verdict, source: AsyncIterator[bytes]) -> None:
        """Pass on a message that lies in a user's mailbox already; its source is read only if somebody wants it."""
        account = self._routes.account(user)
        targets = _targets(account, verdict)
        if targets:
            raw = b"".join([chunk async for chunk in source])
            await self._forward(account, _marked(raw, account.address), targets)

    async def _forward(self, account: Account, raw: bytes, targets: Iterable[str]) -> None:
        for target in targets:
            try:
                if not await self._ctx.store.post.take(
                    account.id, "forwards", 1, account.forwards or FORWARDS, self._ctx.now(), DAY
                ):
                    log.warning("user %d has forwarded as much as may be in one day", account.id)
                    return
                # the forwarding user answers for it: the first sender's name is not ours to use elsewhere
                await self.pass_on(account.id, self._routes.writer(account).address, target, raw)
            except QMailError as error:
                log.warning("mail of user %d could not be forwarded: %s", account.id, error)

    async def pass_on(self, user: int, sender: str, target: str, raw: bytes) -> None:
        """Send a ready message to one address, here or elsewhere; not over the network, where it has no envelope."""
        route = self._routes.find(target)
        if isinstance(route, Account):
            await self.deliver(route.id, raw, sender=sender, address=plain(target))
        elif isinstance(route, str):
            await self._outbox.add(user, sender, [route], raw)
        else:
            log.info("mail of user %d is not forwarded over the network", user)

    async def _answer(self, account: Account, parsed: Parsed, sender: str, own: list[str]) -> None:
        try:
            writer = self._routes.writer(account)
            answer = await self._autoreplies.answer(account.id, parsed, sender, own, writer)
            if answer is not None:
                await self.pass_on(account.id, "", *answer)
        except QMailError as error:
            log.warning("no automatic answer of user %d: %s", account.id, error)


def _targets(account: Account, verdict: Verdict) -> list[str]:
    """Whom mail goes on to: all of it, then what filters chose."""
    return list(dict.fromkeys([*([account.forward] if account.forward else []), *verdict.forward]))


def _marked(raw: bytes, address: str) -> bytes:
    """A message with the line on top that says for whom it was delivered."""
    return b"Delivered-To: %s\r\n%s" % (_line(address), raw) if raw else raw


def _line(text: str) -> bytes:
    return " ".join(text.split()).encode()


def _been_here(parsed: Parsed, own: Iterable[str]) -> bool:
    """Whether a message was delivered to this user before, below the line that was just put on top of it."""
    lines = [value for name, value in parsed.headers if name == "delivered-to"][1:]
    return not {mime.normalise_address(line) for line in lines}.isdisjoint(own)
