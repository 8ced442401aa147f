"""What a mail store remembers of users, mailboxes and messages, and what it owes those who ask.

The rules of `store.base` hold: a coroutine that returned is durable and was one transaction; plain calls read. Every
method that takes a user touches only that user's rows. Ids that leave the process are 12-byte object ids (`oid`) or, in
the node API, 16-byte e-mail ids; integers stay inside. Times are Unix seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from msgspec import Struct
from typing_extensions import Buffer

from qmail_core.model import Content, Folder, JournalEntry, MailboxState, MessagePages, MessageState, Query

HOME = 1  # the user that is the engine's own identity
PREVIEW = 200  # characters of text kept beside a message for lists


class FiledAttachment(Struct, frozen=True):
    """An attachment of a message to be filed."""

    name: str
    size: int
    content_type: str = "application/octet-stream"
    mode: int = 2  # 0 a part of the raw message, 2 still on the network


class Filing(Struct, frozen=True, kw_only=True):
    """A message on its way into a mailbox; the store gives it uid, modseq and thread."""

    mailbox: int
    oid: bytes
    email_id: bytes
    content: Content
    guid: bytes | None = None
    outgoing: bool = False
    thread_keys: tuple[bytes, ...] = ()  # whoever shares one of them is of the same thread
    from_name: str = ""
    from_address: str = ""
    denomination: int = 0
    serial: int = 0
    recipients: bytes = b"[]"
    received_at: int
    filed_at: int = 0  # when it comes into the mailbox; 0: when it was received
    sent_at: int
    size: int
    seen: bool = False
    flagged: bool = False
    deleted: bool = False
    draft: bool = False
    inbox_fee: int = 0
    attachments: tuple[FiledAttachment, ...] = ()
    pieces: tuple[Buffer, ...] = ()  # the raw message, cut so that equal parts of many messages are equal pieces


class MailboxStore(Protocol):
    """Users' mailboxes. `changed` is called on the loop after every change that made journal entries."""

    changed: Callable[[], None]

    # ------------------------------------------------------------------ users
    def user_of(self, oid: bytes) -> int:
        """The user of an id; NotFound if there is none."""
        ...

    def oid_of(self, user: int) -> bytes:
        """The id of a user; NotFound if there is none."""
        ...

    # ------------------------------------------------------------------ mailboxes
    def mailboxes(self, user: int) -> list[MailboxState]:
        """All mailboxes of a user: the inbox first, then by path."""
        ...

    def mailbox(self, user: int, oid: bytes) -> MailboxState:
        """NotFound if the user has no such mailbox."""
        ...

    def mailbox_at(self, user: int, path: str) -> MailboxState | None: ...
    def mailbox_for(self, user: int, folder: Folder) -> MailboxState:
        """The mailbox that a folder of the node API files into."""
        ...

    async def add_mailbox(
        self,
        user: int,
        path: str,
        oid: bytes,
        now: int,
        *,
        special_use: str | None = None,
        retention: int | None = None,
    ) -> MailboxState:
        """Conflict if the path is taken; retention None is the user's own."""
        ...

    async def change_mailbox(
        self,
        user: int,
        oid: bytes,
        now: int,
        *,
        path: str | None = None,
        subscribed: bool | None = None,
        retention: int | None = None,
    ) -> MailboxState:
        """Rename (with all mailboxes below it), subscribe, set retention; Conflict if a path is taken."""
        ...

    async def drop_mailbox(self, user: int, oid: bytes, now: int) -> list[str]:
        """Remove a mailbox with its messages; returns files nobody needs any more."""
        ...

    # ------------------------------------------------------------------ messages
    async def file(self, user: int, filing: Filing, quota: int | None = None) -> MessageState:
        """File a message.

        A message with this guid and direction, if the user has one, is returned as it is. QuotaError if messages
        and files would take more bytes than the user's quota, or messages more than `quota` if there is none; None: no
        limit.
        """
        ...

    def message(self, user: int, oid: bytes) -> MessageState: ...
    def by_email_id(self, user: int, email_id: bytes) -> MessageState: ...
    def by_uid(self, user: int, mailbox: int, uid: int) -> MessageState: ...
    def uid_range(self, user: int, mailbox: int, first: int, last: int | None) -> list[MessageState]:
        """Messages from uid `first` to `last`, or to the end, by uid."""
        ...

    def content(self, message: int) -> Content: ...
    def raw(self, message: int) -> list[bytes | str]:
        """The pieces of the raw message in order, bytes or the path of a file; empty if it never had one."""
        ...

    def page(
        self,
        user: int,
        mailbox: int,
        limit: int,
        *,
        after: int | None = None,
        before: int | None = None,
        up: bool = False,
    ) -> MessagePages:
        """A page by uid: those behind uid `after`, or the last ones in front of `before`; `up` is oldest first."""
        ...

    def search(
        self, user: int, query: Query, limit: int, *, after: int | None = None, before: int | None = None
    ) -> MessagePages:
        """A page of what matches, newest first; cursors are message numbers."""
        ...

    async def flag(self, user: int, ids: Iterable[int], now: int, **flags: bool) -> list[MessageState]:
        """Set flags (seen, flagged, deleted, draft, answered, forwarded); returns the messages that changed."""
        ...

    async def set_expiry(self, user: int, ids: Iterable[int], expires: int | None) -> int: ...
    async def move(self, user: int, ids: Iterable[int], mailbox: int, now: int) -> list[MessageState]:
        """Move messages, in the order given; each gets a new uid, and the expiry of its new mailbox."""
        ...

    async def remove(self, user: int, ids: Iterable[int], now: int) -> list[str]:
        """Remove messages for good; returns files nobody needs any more."""
        ...

    async def expire(self, now: int, limit: int = 500) -> list[str]:
        """Remove messages whose time is over; returns files nobody needs any more."""
        ...

    async def collect(self, limit: int = 500) -> list[str]:
        """Forget pieces no message has; returns their files."""
        ...

    async def forget_threads(self, before: int, now: int, limit: int = 500) -> None:
        """Forget keys of threads without a message that were last used before a time; the others count as used now."""
        ...

    # ------------------------------------------------------------------ journal
    def journal(self, user: int | None, after: int, limit: int) -> list[JournalEntry]:
        """Entries behind number `after`, oldest first; user None is all users."""
        ...

    def last_entry(self) -> int:
        """Number of the newest journal entry, 0 if there is none."""
        ...

    async def trim_journal(self, before: int) -> int: ...
