"""The mail store as mailboxes, messages and their parts."""

from __future__ import annotations

from msgspec import Struct


class MailboxState(Struct, frozen=True, kw_only=True):
    """One mailbox and its counters."""

    id: int
    oid: bytes
    user: int
    path: str  # parts separated by "/"; the inbox is "INBOX"
    special_use: str | None  # "\\Sent" and so on
    folder: int  # as the node API shows it
    uidvalidity: int
    uidnext: int
    modseq: int
    subscribed: bool
    retention: int  # ms; 0: for ever
    total: int
    unseen: int
    size: int


class MessageState(Struct, frozen=True, kw_only=True):
    """One message without its content."""

    id: int
    oid: bytes
    email_id: bytes
    user: int
    mailbox: int
    uid: int
    modseq: int
    guid: bytes | None
    outgoing: bool
    thread: bytes
    subject: str
    preview: str
    from_name: str
    from_address: str
    denomination: int
    serial: int
    recipients: bytes  # JSON
    received_at: int
    sent_at: int
    size: int
    seen: bool
    flagged: bool
    deleted: bool
    draft: bool
    answered: bool
    forwarded: bool
    attachments: int
    inbox_fee: int
    expires: int | None


class Content(Struct, frozen=True, kw_only=True):
    """What a message says, ready to be shown and searched."""

    subject: str = ""
    sender: str = ""
    recipients: str = ""
    text: str = ""
    html: str = ""
    headers: bytes = b"{}"  # JSON
    structure: bytes = b"[]"  # JSON


class Query(Struct, frozen=True, kw_only=True):
    """What to look for; every condition that is given must hold."""

    words: str = ""  # in subject, sender, recipients and text
    sender: str = ""
    recipients: str = ""
    subject: str = ""
    mailbox: int | None = None
    thread: bytes | None = None
    since: int | None = None
    before: int | None = None
    least_size: int | None = None
    most_size: int | None = None
    flagged: bool | None = None
    seen: bool | None = None
    attachments: bool | None = None
    everywhere: bool = False  # trash and junk too


class MessagePages(Struct, frozen=True):
    """One page of messages in list order."""

    messages: tuple[MessageState, ...]
    total: int
    more: bool  # rows behind this page
    earlier: bool  # rows in front of it


class PartState(Struct, frozen=True, kw_only=True):
    """An attachment of a stored message."""

    id: str  # ATT00001 and so on
    filename: str
    content_type: str
    disposition: str = "attachment"
    transfer_encoding: str = "base64"
    related: bool = False  # shown inside the HTML
    cid: str = ""
    size: int = 0  # bytes, decoded as far as that is known without decoding
    offset: int = -1  # of the encoded bytes in the raw message; -1: it came over the network by itself
    length: int = 0
    row: int = 0  # of the attachment table
