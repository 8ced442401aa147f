"""Telling listeners what changed, as the journal has it.

The hub reads new journal entries once, however many listen, and hands each to the subscriptions of its user. A
subscription holds a bounded number of entries; one that falls behind reads the journal again from where it stopped, so
a slow listener costs no memory and misses nothing that the journal still has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from qmail_core.engine.context import Context
from qmail_core.model import JournalEntry

_HELD = 256  # entries per subscription
_PAGE = 1000


class Subscription:
    """One listener. `wake` is called, on the loop, when there is something to take."""

    __slots__ = ("_behind", "_held", "_hub", "_wake", "after", "user")

    def __init__(self, hub: Events, user: int, after: int, wake: Callable[[], None]) -> None:
        self._hub = hub
        self.user = user
        self.after = after  # number of the last entry taken or held
        self._wake = wake
        self._held: list[JournalEntry] = []
        self._behind = True  # entries between `after` and now must be read from the journal

    def take(self) -> list[JournalEntry]:
        """What is new since the last call, oldest first; call again while it is not empty."""
        if self._behind:
            found = self._hub.read(self.user, self.after)
            self._behind = len(found) == _PAGE
            self.after = found[-1].id if found else self.after
            return found
        found, self._held = self._held, []
        return found

    def offer(self, entry: JournalEntry) -> None:
        """Take note of an entry; the hub calls this."""
        if entry.id <= self.after:
            return  # read from the journal before the hub came to it
        if not self._behind and len(self._held) >= _HELD:
            self.after = self._held[0].id - 1
            self._held.clear()
            self._behind = True
        if not self._behind:
            self._held.append(entry)
            self.after = entry.id
        self._wake()

    def close(self) -> None:
        """Listen no more."""
        self._hub.forget(self)


class Events:
    """The hub of one engine's store."""

    def __init__(self, ctx: Context) -> None:
        self._store = ctx.store.mailboxes
        self._store.changed = self._changed
        self._subscriptions: dict[int, set[Subscription]] = {}
        self._last = self._store.last_entry()
        self._due = self._closed = False

    def subscribe(self, user: int, wake: Callable[[], None], after: int | None = None) -> Subscription:
        """Listen to a user's changes: those behind entry `after`, or only new ones."""
        self._pump()  # so that "new" means from now on
        if after is not None and after > self._last:
            after = None  # the number of another journal: waiting for this one to reach it would be silence
        subscription = Subscription(self, user, self._last if after is None else after, wake)
        if after is None:
            subscription._behind = False
        self._subscriptions.setdefault(user, set()).add(subscription)
        return subscription

    def forget(self, subscription: Subscription) -> None:
        """The subscription has closed."""
        kept = self._subscriptions.get(subscription.user, set())
        kept.discard(subscription)
        if not kept:
            self._subscriptions.pop(subscription.user, None)

    def read(self, user: int, after: int) -> list[JournalEntry]:
        """A page of a user's journal."""
        return self._store.journal(user, after, _PAGE)

    def _changed(self) -> None:
        # changes of one turn of the loop are looked at together
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._pump)

    def close(self) -> None:
        """Look at no more changes: the store is about to close."""
        self._closed = True

    def _pump(self) -> None:
        self._due = False
        if self._closed:
            return
        while True:
            entries = self._store.journal(None, self._last, _PAGE)
            for entry in entries:
                for subscription in tuple(self._subscriptions.get(entry.user, ())):
                    subscription.offer(entry)
            if entries:
                self._last = entries[-1].id
            if len(entries) < _PAGE:
                return
