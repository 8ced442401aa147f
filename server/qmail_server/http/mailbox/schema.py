"""The answers of the mailbox API as its document describes them; endpoints build dicts, and tests compare the two."""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType, field


class Success(Struct, kw_only=True):
    success: bool = True


class Created(Success, kw_only=True):
    id: str


class MailboxItem(Struct, kw_only=True, rename="camel"):
    id: str
    name: str
    path: str
    special_use: str | None
    modify_index: int
    subscribed: bool
    retention: int | bool  # milliseconds, or false
    total: int | UnsetType = UNSET
    unseen: int | UnsetType = UNSET


class MailboxList(Success, kw_only=True):
    results: list[MailboxItem]
    mailboxes: list[MailboxItem] | UnsetType = UNSET


class MailboxAnswer(MailboxItem, kw_only=True):
    success: bool = True


class Person(Struct, kw_only=True):
    address: str
    name: str


class MessageItem(Struct, kw_only=True, rename="camel"):
    id: str
    uid: int
    mailbox: str
    thread: str
    from_: Person = field(name="from")
    subject: str
    date: str
    idate: str
    intro: str
    size: int
    attachments: bool
    seen: bool
    deleted: bool
    flagged: bool
    draft: bool
    answered: bool
    forwarded: bool


class Paging(Success, kw_only=True, rename="camel"):
    total: int
    page: int
    prev: str | bool  # a link, or false
    next: str | bool
    previous_cursor: str | bool
    next_cursor: str | bool


class MessageList(Paging, kw_only=True, rename="camel"):
    special_use: str | None
    results: list[MessageItem]


class SearchList(Paging, kw_only=True):
    query: str
    results: list[MessageItem]


class PartItem(Struct, kw_only=True, rename="camel"):
    id: str
    file_name: str
    filename: str
    content_type: str
    disposition: str
    transfer_encoding: str
    related: bool
    size_kb: int


class ListHeader(Struct, kw_only=True):
    id: str
    unsubscribe: str


class MessageAnswer(Success, kw_only=True, rename="camel"):
    id: str
    uid: int
    user: str
    mailbox: str
    thread: str
    from_: Person = field(name="from")
    to: list[Person] | str | UnsetType = UNSET  # as it was typed, of a draft
    cc: list[Person] | str | UnsetType = UNSET
    bcc: list[Person] | str | UnsetType = UNSET
    reply_to: list[Person] | UnsetType = UNSET
    message_id: str | UnsetType = UNSET
    in_reply_to: str | UnsetType = UNSET
    references: list[str] | UnsetType = UNSET
    list_: ListHeader | UnsetType = field(name="list", default=UNSET)
    cids: dict[str, str] | UnsetType = UNSET
    subsubject: str | UnsetType = UNSET
    subject: str
    date: str
    idate: str
    size: int
    seen: bool
    deleted: bool
    flagged: bool
    draft: bool
    answered: bool
    forwarded: bool
    html: list[str]
    text: str
    attachments: list[PartItem]
    expires: str | UnsetType = UNSET


class MessageChanged(Success, kw_only=True):
    updated: int
    mailbox: str | UnsetType = UNSET
    id: str | list[tuple[int, int]] | UnsetType = UNSET  # of one moved message its name, of several old and new uids


class MailboxEmptied(Success, kw_only=True):
    deleted: int
    errors: int


class StoredMessage(Struct, kw_only=True):
    id: int
    name: str
    mailbox: str
    size: int


class MessageStored(Success, kw_only=True):
    message: StoredMessage
