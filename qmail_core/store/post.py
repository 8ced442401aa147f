"""What a mail store remembers of mail that leaves and of how mail is sorted: queue, limits, filters, webhooks.

The rules of `store.base` hold. Every method that takes a user touches only that user's rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from msgspec import Struct

from qmail_core.store.when import FOREVER


class Queued(Struct, frozen=True, kw_only=True):
    """A message on its way to the relay."""

    oid: bytes
    user: int
    sender: str  # of the envelope; empty: nobody wants to know if it fails
    recipients: tuple[str, ...]  # those that are left
    raw: bytes
    attempts: int = 0
    next_attempt: int
    created_at: int


class Usage(Struct, frozen=True):
    """How much of a daily allowance is used up."""

    used: int = 0
    until: int = 0  # when counting starts again; in the past: it has


class Filter(Struct, frozen=True, kw_only=True):
    """What is to be done with mail of some kind."""

    oid: bytes
    name: str = ""
    query: dict[str, Any] = {}  # from, to, subject, text, ha, size
    action: dict[str, Any] = {}  # seen, flag, delete, spam, mailbox, forward
    disabled: bool = False
    created_at: int = 0


class Autoreply(Struct, frozen=True, kw_only=True):
    """What somebody who is away answers."""

    status: bool = False
    name: str = ""
    subject: str = ""
    text: str = ""
    html: str = ""
    start: int | None = None
    end: int | None = None


class Webhook(Struct, frozen=True, kw_only=True):
    """Who is told of new mail. Prints without its key."""

    oid: bytes
    user: int | None  # None: of everybody's
    url: str
    sealed: bytes
    told: int  # number of the last journal entry it was told of
    attempts: int = 0
    next_attempt: int = 0
    created_at: int

    def __repr__(self) -> str:
        return f"Webhook({self.oid.hex()})"


class PostStore(Protocol):
    """The queue to the relay, allowances, filters, automatic answers, webhooks."""

    # ------------------------------------------------------------------ the queue
    async def enqueue(self, item: Queued) -> None: ...
    def due(self, now: int, limit: int, longest: int = FOREVER) -> list[Queued]:
        """What is to be tried now, longest due first.

        longest  seconds something waits at most, whatever clock put it off
        """
        ...

    def queued(self, user: int) -> list[Queued]:
        """What of a user's is under way, oldest first."""
        ...

    async def attempt(self, oid: bytes, next_attempt: int) -> None:
        """Another attempt is about to be made; unless something is settled, the next one is at that time."""
        ...

    async def release(self, oid: bytes, now: int) -> None:
        """What was queued for later is to be tried now."""
        ...

    async def settle(self, oid: bytes, recipients: Sequence[str]) -> None:
        """These recipients are left. Without any the message leaves the queue."""
        ...

    # ------------------------------------------------------------------ allowances
    async def take(self, user: int, kind: str, count: int, allowed: int, now: int, seconds: int) -> bool:
        """Use up some of an allowance, or nothing if that would be too much (False).

        The first use opens a span of so many seconds; after it counting starts again.
        """
        ...

    async def give_back(self, user: int, kind: str, count: int) -> None:
        """What was taken of an allowance has not been used."""
        ...

    def usage(self, user: int, kind: str) -> Usage: ...

    # ------------------------------------------------------------------ filters and automatic answers
    def filters(self, user: int) -> list[Filter]:
        """By object id."""
        ...

    async def put_filter(self, user: int, item: Filter) -> None:
        """Add a filter, or replace the user's own of this object id."""
        ...

    async def remove_filter(self, user: int, oid: bytes) -> bool: ...
    def autoreply(self, user: int) -> Autoreply | None: ...
    async def put_autoreply(self, user: int, item: Autoreply | None) -> None:
        """Set it or, with None, remove it; whoever had an answer is forgotten."""
        ...

    async def may_answer(self, user: int, address: str, now: int, seconds: int) -> bool:
        """Whether an address has had no answer within so many seconds; if so, from now on it had one."""
        ...

    # ------------------------------------------------------------------ webhooks
    def webhooks(self) -> list[Webhook]:
        """By object id."""
        ...

    async def add_webhook(self, item: Webhook) -> None: ...
    async def webhook_told(self, oid: bytes, told: int, attempts: int, next_attempt: int) -> None: ...
    async def remove_webhook(self, oid: bytes) -> bool: ...
