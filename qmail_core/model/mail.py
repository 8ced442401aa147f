"""A mail on its way: what is sent, told, received and kept of it."""

from __future__ import annotations

import enum

from msgspec import Struct

from qmail_core.model.network import Address
from qmail_core.model.striping import Durability, StripeLocation, Striping


class Kind(enum.Enum):
    """How a recipient is addressed; the value is the word used in receipts."""

    TO = "to"
    CC = "cc"
    BCC = "bcc"


class Recipient(Struct, frozen=True):
    """One addressee of a draft."""

    kind: Kind
    text: str  # as the sender wrote it
    address: Address


class Source(Struct, frozen=True):
    """Where the bytes of an attachment come from: a file, or the bytes themselves."""

    name: str
    path: str = ""  # resolved path; empty when `data` is set
    data: bytes | None = None
    spooled: bool = False  # the file is the engine's own copy and is removed after the send


class RequestKey(Struct, frozen=True):
    """What a client names a request by, so that repeating it does nothing twice."""

    key: str
    digest: bytes  # of everything the request says


class Draft(Struct, frozen=True, kw_only=True):
    """What a user wants sent. Exactly one of `body` and `document` is set."""

    subject: str = ""
    body: str | None = None
    document: bytes | None = None  # a ready CBDF document, sent as it is
    recipients: tuple[Recipient, ...] = ()
    attachments: tuple[Source, ...] = ()
    duration_weeks: int = 4
    guid: bytes | None = None  # None: the engine draws one
    wallet: str = "Default"
    durability: Durability = Durability.SAFE
    hold_seconds: int = 0  # how long the tell waits, from acceptance; it can be taken back until then
    key: RequestKey | None = None


class FileEntry(Struct, frozen=True):
    """One stored object of a mail, as the Tell's manifest lists it."""

    file_type: int
    flags: int
    size: int
    crc32: int | None


class Tell(Struct, frozen=True, kw_only=True):
    """The announcement of a mail: what a beacon stores and hands to the recipient."""

    guid: bytes
    sender: Address
    timestamp: int
    tell_type: int = 0  # 0 new mail, 1 read receipt, 2 deleted
    locker_code: bytes = bytes(16)
    total_size: int = 0  # size of the body object
    striping: Striping
    files: tuple[FileEntry, ...] = ()
    servers: tuple[StripeLocation, ...] = ()

    def __repr__(self) -> str:
        return f"Tell({self.guid.hex()}, from {self.sender})"


class Folder(enum.IntEnum):
    """The fixed folders of the node API."""

    INBOX = 0
    SENT = 1
    DRAFTS = 2
    TRASH = 3
    STARRED = 4
    ARCHIVE = 5


class Message(Struct, frozen=True, kw_only=True):
    """One stored message. `uid` and `modseq` count per mailbox, as IMAP needs them."""

    id: bytes  # 16 bytes; the guid, except for the second copy of a mail sent to oneself
    guid: bytes  # of the upload
    outgoing: bool  # sent by this engine
    folder: Folder
    uid: int
    modseq: int
    subject: str
    body: str
    sender: Address
    sender_text: str
    recipients: tuple[Recipient, ...]
    received_at: int
    sent_at: int
    is_read: bool
    is_starred: bool
    attachments: int = 0  # how many
    inbox_fee: int = 0


class StoredAttachment(Struct, frozen=True, kw_only=True):
    """One attachment of a stored message."""

    id: int
    message_id: bytes
    position: int  # 0-based; its object has file type 10 + position
    name: str
    size: int
    mode: int  # 1 a file on disk, 2 still on the network
    path: str = ""


class OutgoingTell(Struct, frozen=True, kw_only=True):
    """A tell that waits for another attempt."""

    id: int
    guid: bytes
    position: int
    beacon: int
    status: str
    retry_count: int
    last_error: str
    created_at: int
    last_attempt: int
    next_attempt: int


class DraftCopy(Struct, frozen=True, kw_only=True):
    """A mail being written, with its recipients as they were typed."""

    id: bytes
    subject: str = ""
    body: str = ""
    to: str = ""
    cc: str = ""
    bcc: str = ""
    subsubject: str = ""
    recipients: bytes = b"[]"  # JSON of those texts that mean somebody


class Contact(Struct, frozen=True, kw_only=True):
    """Somebody mail was or can be sent to, and what the user wrote down of them."""

    address: Address
    text: str
    beacon: int = 11
    second: int = 14
    inbox_fee: int = 10
    custom_sn: str = ""
    first_name: str = ""
    middle_name: str = ""
    last_name: str = ""
    description: str = ""
    class_name: str = ""
    favorite: bool = False
    trust_level: int = 0  # -1 blocked, 0 unknown, 1 trusted
    user_notes: str = ""
    send_count: int = 0
    last_sent_at: int = 0
    created_at: int = 0


class JournalEntry(Struct, frozen=True, kw_only=True):
    """One change as listeners are told of it."""

    id: int
    at: int
    user: int
    command: str  # EXISTS, EXPUNGE, FETCH, CREATE, RENAME, DROP, TELL
    mailbox: bytes | None = None
    message: bytes | None = None
    uid: int | None = None
    modseq: int | None = None
    detail: bytes = b"{}"  # JSON
