"""The queue to the relay: tried at once, then ever more rarely, and given up with a letter to whoever sent it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from msgspec import Struct

from qmail_core.engine.context import Context
from qmail_core.engine.post.bounces import Bounces
from qmail_core.engine.post.worker import Worker
from qmail_core.errors import StoreUnavailable, TransportError, UsageError
from qmail_core.store.post import Queued
from qmail_core.transport.outside import MailRelay, Refusal

log = logging.getLogger("qmail.relay")

ATTEMPTS = 10
_FIRST, _LAST = 60, 3600  # seconds until the second attempt, and at most between two


class _Outcome(Struct):
    """What became of an attempt."""

    item: Queued
    failed: dict[str, Refusal]  # of whom the sender must be told
    left: list[str]


class Outbox:
    """Mail on its way to the relay; without one there is nowhere to go."""

    def __init__(self, ctx: Context, bounces: Bounces, relay: MailRelay | None) -> None:
        self._ctx = ctx
        self._store = ctx.store.post
        self._bounces = bounces
        self._relay = relay
        self._unsettled: dict[bytes, _Outcome] = {}  # what the store could not yet be told
        self.worker = Worker("qmail-relay", self._turn)

    def start(self) -> None:
        """Begin to work off the queue, if there is a relay."""
        if self._relay is not None:
            self.worker.start()

    def check(self) -> None:
        """UsageError if there is no relay."""
        if self._relay is None:
            raise UsageError("There is no relay for addresses elsewhere")

    async def add(self, user: int, sender: str, recipients: Sequence[str], raw: bytes, *, held: bool = False) -> bytes:
        """Queue a message; its queue id. `sender` empty: nobody is told if it cannot be delivered.

        held  it may yet be taken back, until it is released or a minute has passed
        """
        self.check()
        now = self._ctx.now()
        item = Queued(
            oid=self._ctx.new_oid(),
            user=user,
            sender=sender,
            recipients=tuple(dict.fromkeys(recipients)),
            raw=raw,
            next_attempt=now + (_FIRST if held else 0),
            created_at=now,
        )
        await self._store.enqueue(item)
        self.worker.wake()
        return item.oid

    async def release(self, oid: bytes) -> None:
        """A message that was held may go."""
        await self._store.release(oid, self._ctx.now())
        self.worker.wake()

    async def take_back(self, oid: bytes) -> None:
        """A message that is held is not to go."""
        await self._store.settle(oid, [])

    # ------------------------------------------------------------------ working it off

    async def _turn(self) -> None:
        for outcome in list(self._unsettled.values()):
            await self._settle(outcome)
        tried: set[bytes] = set()
        # one after the other: a message may be large
        while (items := self._store.due(self._ctx.now(), 1, _LAST)) and items[0].oid not in tried:
            tried.add(items[0].oid)
            await self._attempt(items[0])

    async def _attempt(self, item: Queued) -> None:
        assert self._relay is not None
        # written down first: what cannot be is not handed over either, or it would be again and again
        await self._store.attempt(item.oid, self._ctx.now() + min(_LAST, _FIRST << min(item.attempts, 10)))
        try:
            refused = await self._relay.submit(item.sender, item.recipients, item.raw)
        except TransportError as error:
            refused = dict.fromkeys(item.recipients, Refusal(451, error.message))
        last = item.attempts + 1 >= ATTEMPTS
        failed = {who: refusal for who, refusal in refused.items() if last or refusal.permanent}
        left = [who for who in item.recipients if who in refused and who not in failed]
        log.info("%s: %d taken, %d left, %d given up", item.oid.hex(), len(item.recipients) - len(refused), len(left),
                 len(failed))  # fmt: skip
        self._unsettled[item.oid] = outcome = _Outcome(item, failed if item.sender else {}, left)
        await self._settle(outcome)

    async def _settle(self, outcome: _Outcome) -> None:
        """Write down what became of an attempt; StoreUnavailable: it is kept, and tried again in the next turn."""
        item = outcome.item
        # the letter first: told twice after a crash is better than never
        failed, outcome.failed = outcome.failed, {}  # what nobody foresaw is not tried again: others wait
        try:
            if failed:
                await self._bounces.write(item.user, failed, item.raw)
        except StoreUnavailable:
            outcome.failed = failed
            raise
        await self._store.settle(item.oid, outcome.left)
        self._unsettled.pop(item.oid, None)
