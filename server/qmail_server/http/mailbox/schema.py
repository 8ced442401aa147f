"""The answers of the mailbox API as its document describes them; endpoints build dicts, and tests compare the two."""

from __future__ import annotations

from typing import Any

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


# ------------------------------------------------------------------------------------------------------------------
# Users


class Quota(Struct, kw_only=True):
    allowed: int
    used: int


class Counted(Quota, kw_only=True):
    ttl: bool


class UserItem(Struct, kw_only=True):
    id: str
    username: str
    name: str
    address: str
    quota: Quota
    enabled2fa: bool
    activated: bool
    disabled: bool


class Limits(Struct, kw_only=True):
    quota: Quota
    recipients: Counted
    forwards: Counted


class UserAnswer(Success, kw_only=True, rename="camel"):
    id: str
    username: str
    name: str
    address: str
    language: str
    retention: int | bool
    enabled2fa: bool
    limits: Limits
    forward: str
    target_url: str
    meta_data: dict[str, Any]
    has_password_set: bool
    activated: bool
    disabled: bool


class UserList(Paging, kw_only=True):
    query: str | UnsetType = UNSET
    results: list[UserItem]


class QuotaReset(Success, kw_only=True, rename="camel"):
    storage_used: int
    previous_storage_used: int


class Authenticated(Success, kw_only=True):
    id: str
    username: str
    scope: str
    require2fa: list[str] | bool
    address: str
    token: str | UnsetType = UNSET


class LogEntry(Struct, kw_only=True):
    """What happened; more members say how, each a text."""

    id: str
    action: str
    created: str
    ip: str | UnsetType = UNSET
    sess: str | UnsetType = UNSET
    username: str | UnsetType = UNSET
    protocol: str | UnsetType = UNSET
    scope: str | UnsetType = UNSET
    result: str | UnsetType = UNSET


class LogList(Paging, kw_only=True):
    action: str | UnsetType = UNSET
    results: list[LogEntry]


class TotpSeed(Success, kw_only=True):
    qrcode: str
    seed: str


class AspItem(Struct, kw_only=True, rename="camel"):
    id: str
    description: str
    scopes: list[str]
    created: str
    last_use: str | bool


class AspList(Success, kw_only=True):
    results: list[AspItem]


class AspMade(Created, kw_only=True):
    password: str


class AddressItem(Struct, kw_only=True):
    id: str
    address: str
    main: bool
    created: str


class AddressList(Success, kw_only=True):
    results: list[AddressItem]


class AddressAnswer(AddressItem, kw_only=True):
    success: bool = True


class AddressRow(Struct, kw_only=True):
    id: str
    address: str
    user: str


class AddressPage(Paging, kw_only=True):
    query: str | UnsetType = UNSET
    results: list[AddressRow]


# ------------------------------------------------------------------------------------------------------------------
# Sending, and what happens to mail that comes in


class Submitted(Struct, kw_only=True, rename="camel"):
    id: int
    name: str
    mailbox: str
    queue_id: str
    size: int


class SubmitAnswer(Success, kw_only=True):
    message: Submitted


class FilterItem(Struct, kw_only=True):
    id: str
    name: str
    created: str
    query: dict[str, Any]
    action: dict[str, Any]
    disabled: bool


class FilterList(Success, kw_only=True):
    results: list[FilterItem]


class FilterAnswer(FilterItem, kw_only=True):
    success: bool = True


class AutoreplyAnswer(Success, kw_only=True):
    status: bool
    name: str
    subject: str
    text: str
    html: str
    start: str | bool  # or false
    end: str | bool


class WebhookItem(Struct, kw_only=True, rename="camel"):
    id: str
    type: list[str]
    user: str | None
    url: str
    created: str
    attempts: int
    next_attempt: str | bool


class WebhookList(Success, kw_only=True):
    results: list[WebhookItem]


class WebhookAnswer(WebhookItem, kw_only=True):
    success: bool = True


class WebhookMade(Created, kw_only=True):
    secret: str
