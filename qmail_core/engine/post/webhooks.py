"""Webhooks: whoever asked for it is told of new mail, in batches that are signed.

The journal is the queue: a webhook remembers the last entry it was told of. So nothing is stored for it, nothing grows
while it does not answer, and what it misses for a day it has missed.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from qmail_core.engine.accounts.keys import Keys
from qmail_core.engine.context import Context
from qmail_core.engine.post.worker import Worker
from qmail_core.errors import Forbidden, InputInvalid, NotFound, QMailError, WebhookNotFound
from qmail_core.model import JournalEntry
from qmail_core.store.post import Webhook
from qmail_core.transport.outside import Poster

log = logging.getLogger("qmail.webhooks")

RECEIVED = "message.received"
MAX_WEBHOOKS = 100
BATCH = 100  # events
_PAGE = 500  # journal entries
_FIRST, _LAST = 15, 3600  # seconds until the second attempt, and at most between two
_AT_ONCE = 8
_OUTGOING = ("\\Sent", "\\Drafts")
UNKNOWN = "This webhook does not exist"


class Webhooks:
    """The webhooks of one store; without a poster nobody is told anything."""

    def __init__(self, ctx: Context, poster: Poster | None) -> None:
        self._ctx = ctx
        self._store = ctx.store.post
        self._boxes = ctx.store.mailboxes
        self._keys = Keys(ctx.config.data, ctx.entropy)
        self._poster = poster
        self._looked: dict[bytes, int] = {}  # entries without news need no write
        self.worker = Worker("qmail-webhooks", self._turn)

    def start(self) -> None:
        """Begin to tell, if it is allowed at all."""
        if self._poster is not None:
            self.worker.start()

    def listed(self) -> Sequence[Webhook]:
        """By id."""
        return self._store.webhooks()

    def get(self, oid: bytes) -> Webhook:
        """WebhookNotFound if there is none of this id."""
        found = next((hook for hook in self._store.webhooks() if hook.oid == oid), None)
        if found is None:
            raise WebhookNotFound(UNKNOWN)
        return found

    async def add(self, url: str, user: int | None = None, secret: str = "") -> tuple[Webhook, str]:
        """Tell a URL of mail from now on; the webhook, and the key of its signatures, which is shown this once.

        raises  Forbidden if webhooks are switched off, UsageError for what is no URL, InputInvalid
        """
        if self._poster is None:
            raise Forbidden("Webhooks are switched off")
        self._poster.check(url)
        if len(self._store.webhooks()) >= MAX_WEBHOOKS:
            raise InputInvalid({"url": f'"url" there are {MAX_WEBHOOKS} webhooks already'})
        oid, secret = self._ctx.new_oid(), secret or self._ctx.entropy(32).hex()
        hook = Webhook(
            oid=oid,
            user=user,
            url=url,
            sealed=self._keys.seal(secret.encode(), oid),
            told=self._boxes.last_entry(),
            created_at=self._ctx.now(),
        )
        await self._store.add_webhook(hook)
        return hook, secret

    async def remove(self, oid: bytes) -> None:
        """WebhookNotFound if there is none of this id."""
        if not await self._store.remove_webhook(oid):
            raise WebhookNotFound(UNKNOWN)

    # ------------------------------------------------------------------ telling

    async def _turn(self) -> None:
        hooks = self._store.webhooks()
        alive = {hook.oid for hook in hooks}
        self._looked = {oid: at for oid, at in self._looked.items() if oid in alive}
        now, gate = self._ctx.now(), asyncio.Semaphore(_AT_ONCE)

        async def tell(hook: Webhook) -> None:
            async with gate:
                await self._tell(hook)

        due = [hook for hook in hooks if not 0 < hook.next_attempt - now <= _LAST]
        # all of them, whatever goes wrong with one: what went on beside the next turn would be told twice
        for problem in await asyncio.gather(*map(tell, due), return_exceptions=True):
            if problem is not None:
                raise problem

    async def _tell(self, hook: Webhook) -> None:
        told = max(hook.told, self._looked.get(hook.oid, 0))
        while entries := self._boxes.journal(hook.user, told, _PAGE):
            events: list[dict[str, Any]] = []
            for entry in entries:
                event = self._event(entry)
                if event is not None:
                    events.append(event)
                told = entry.id
                if len(events) == BATCH:
                    break
            if events:
                if not await self._post(hook, events):
                    return
                await self._store.webhook_told(hook.oid, told, 0, 0)
                hook = msgspec.structs.replace(hook, told=told, attempts=0)
            self._looked[hook.oid] = told

    async def _post(self, hook: Webhook, events: list[dict[str, Any]]) -> bool:
        assert self._poster is not None
        now = self._ctx.now()
        body = msgspec.json.encode({"id": self._ctx.new_oid().hex(), "webhook": hook.oid.hex(), "events": events})
        try:
            headers = sign(self._keys.open(hook.sealed, hook.oid), now, body)
            status = await self._poster.post(hook.url, body, headers)
            problem = "" if 200 <= status < 300 else f"status {status}"
        except QMailError as error:
            problem = error.message
        if problem:
            wait = min(_LAST, _FIRST << min(hook.attempts, 10))
            await self._store.webhook_told(hook.oid, hook.told, hook.attempts + 1, now + wait)
            log.info("webhook %s, attempt %d: %s", hook.oid.hex(), hook.attempts + 1, problem)
        return not problem

    def _event(self, entry: JournalEntry) -> dict[str, Any] | None:
        """What is told of a journal entry: nothing unless a message came in, and is still here."""
        if entry.command != "EXISTS" or entry.message is None or entry.mailbox is None:
            return None
        if msgspec.json.decode(entry.detail).get("moved"):
            return None
        try:
            message = self._boxes.message(entry.user, entry.message)
            box = self._boxes.mailbox(entry.user, entry.mailbox)
            user = self._boxes.oid_of(entry.user)
        except NotFound:
            return None
        if message.draft or message.outgoing or box.special_use in _OUTGOING:
            return None
        return {
            "type": RECEIVED,
            "time": datetime.fromtimestamp(entry.at, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z"),
            "user": user.hex(),
            "mailbox": box.oid.hex(),
            "path": box.path,
            "id": f"{message.oid.hex()}:{entry.uid}",
            "from": {"address": message.from_address, "name": message.from_name},
            "subject": message.subject,
            "size": message.size,
        }


def sign(key: bytes, now: int, body: bytes) -> dict[str, str]:
    """The headers of a batch: when, and HMAC-SHA256 over that, a dot and the body."""
    signature = hmac.new(key, b"%d.%s" % (now, body), hashlib.sha256).hexdigest()
    return {
        "Content-Type": "application/json",
        "User-Agent": "qmail-webhook",
        "X-QMail-Timestamp": str(now),
        "X-QMail-Signature": f"sha256={signature}",
    }
