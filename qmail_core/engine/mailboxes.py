"""Mailboxes of any user: the tree of folders under the rules of the mailbox API."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Sequence

from qmail_core.engine.context import Context
from qmail_core.errors import UsageError
from qmail_core.model import MailboxState

MAX_MAILBOXES = 1500
MAX_DEPTH = 128
MAX_PART = 512  # characters between two slashes
_BAD = re.compile(r"/{2,}|/$|[\0-\x1f\x7f]")


class Mailboxes:
    """The mailboxes of the users of one store."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._store = ctx.store.mailboxes

    def user(self, oid: bytes) -> int:
        """The user of an id; NotFound if there is none."""
        return self._store.user_of(oid)

    def user_id(self, user: int) -> bytes:
        """The id of a user; NotFound if there is none."""
        return self._store.oid_of(user)

    def listed(self, user: int) -> Sequence[MailboxState]:
        """All mailboxes: the inbox first, then subscribed before others, by path."""
        return self._store.mailboxes(user)

    def get(self, user: int, oid: bytes) -> MailboxState:
        """NotFound if the user has no such mailbox."""
        return self._store.mailbox(user, oid)

    def at(self, user: int, path: str) -> MailboxState | None:
        """The mailbox of a path."""
        return self._store.mailbox_at(user, clean(path))

    async def add(self, user: int, path: str, *, retention: int | None = None) -> MailboxState:
        """Add a mailbox; UsageError if the path is none, Conflict if it is taken."""
        if len(self._store.mailboxes(user)) >= MAX_MAILBOXES:
            raise UsageError(f"there are {MAX_MAILBOXES} mailboxes already")
        oid, now = self._ctx.new_oid(), self._ctx.now()
        return await self._store.add_mailbox(user, clean(path), oid, now, retention=retention)

    async def change(
        self,
        user: int,
        oid: bytes,
        *,
        path: str | None = None,
        subscribed: bool | None = None,
        retention: int | None = None,
    ) -> MailboxState:
        """Rename with all below, subscribe, set retention; UsageError, Conflict."""
        wanted = None if path is None else clean(path)
        return await self._store.change_mailbox(
            user, oid, self._ctx.now(), path=wanted, subscribed=subscribed, retention=retention
        )

    async def remove(self, user: int, oid: bytes) -> None:
        """Remove a mailbox a user made, with its messages; UsageError for the inbox and the special ones."""
        remove_files(await self._store.drop_mailbox(user, oid, self._ctx.now()))


def clean(path: str) -> str:
    """A path as it is stored: without a leading slash, the inbox in capitals; UsageError if it is none."""
    found = path.strip().removeprefix("/")
    if not found or _BAD.search(found):
        raise UsageError("is not a mailbox path")
    parts = found.split("/")
    if len(parts) > MAX_DEPTH or any(len(part) > MAX_PART for part in parts):
        raise UsageError(f"has more than {MAX_DEPTH} parts, or one of more than {MAX_PART} characters")
    if parts[0].upper() == "INBOX":
        parts[0] = "INBOX"
    return "/".join(parts)


def remove_files(paths: Iterable[str]) -> None:
    """Remove files nobody needs any more; one that is gone already is no trouble."""
    for path in paths:
        with contextlib.suppress(OSError):
            os.remove(path)
