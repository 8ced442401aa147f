"""Frozen values that cross layers. No behaviour beyond what follows from the fields; no I/O, no clock.

Sizes are bytes, times are Unix seconds unless a name says otherwise. `ans` is the concatenation of one coin's
authenticity numbers, 16 bytes per node in node order: the secret that proves ownership. Values that hold secrets
print without them.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any

from msgspec import Struct, field

AN_SIZE = 16


class Address(Struct, frozen=True, order=True):
    """A mailbox: the denomination and serial number of the coin that is its identity."""

    denomination: int  # signed code: 0 bit, 1 byte, 2 kilo, 3 mega, 4 giga, 5 epic
    serial: int  # u32, never 0


class Coin(Struct, frozen=True):
    """One coin with its authenticity numbers on every node."""

    address: Address
    ans: bytes  # 16 bytes per node

    def an(self, node: int) -> bytes:
        """The authenticity number this coin shares with one node."""
        return self.ans[node * AN_SIZE : (node + 1) * AN_SIZE]

    @property
    def value(self) -> int:
        """Worth in whole CloudCoins; fractional denominations are not used here."""
        return int(10**self.address.denomination)

    def __repr__(self) -> str:
        return f"Coin({self.address.denomination}:{self.address.serial})"

    __str__ = __repr__


class NodeId(Struct, frozen=True):
    """Where one storage node listens."""

    index: int  # position in the network, 0-based; equals the RAIDA index on the wire
    host: str
    port: int


class Profile(enum.IntEnum):
    """How an object is cut into stripes (docs/erasure.md)."""

    INTEROP = 0
    RS = 1
    SEALED = 2


class Striping(Struct, frozen=True):
    """One striping: profile and how many data and parity stripes."""

    profile: Profile
    k: int
    m: int

    @property
    def n(self) -> int:
        """Stripes, and so nodes, in all."""
        return self.k + self.m


class Durability(enum.Enum):
    """When an upload answers: at how many nodes every file is stored by then.

    With too few nodes alive, a mail that can be read at all (k nodes) is not refused: it is sent a second after it
    became readable, its receipt says what it survives, and the missing stripes are stored when nodes return.
    """

    FAST = "fast"
    SAFE = "safe"
    FULL = "full"

    def level(self, striping: Striping) -> int:
        """Nodes needed for this level: k + 1, k + half the parity (rounded up), or all."""
        extra = {Durability.FAST: 1, Durability.SAFE: (striping.m + 1) // 2, Durability.FULL: striping.m}[self]
        return min(striping.k + extra, striping.n)


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


class StripeLocation(Struct, frozen=True):
    """Which node holds which stripe."""

    stripe: int
    parity: bool
    raida: int
    host: str = "127.0.0.1"
    port: int = 0


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


class TaskState(Struct, kw_only=True):
    """Progress of one long story, as pollers see it."""

    id: str
    status: str = "running"  # running, then exactly one of success, failed, cancelled
    progress: int = 0  # 0..100, never falls
    message: str = ""
    data: dict[str, Any] | None = None
    started_at: float = 0.0
    finished_at: float = 0.0


# ------------------------------------------------------------------------------------------------------------------
# The receipt: one JSON document per upload. Field names are the interface (QMail node API, "Receipt"), so they are
# the wire names; a receipt never carries authenticity numbers or keys.


class ReceiptSender(Struct, kw_only=True):
    serial_number: int
    denomination: int
    email: str


class ReceiptStripe(Struct, kw_only=True):
    stripe_index: int
    server_id: int
    stripe_size: int
    stripe_type: str  # "data" or "parity"
    is_parity: bool
    operation_id: str = ""
    task_id: str = ""
    locker_code: str = ""
    expires_at: int = 0
    status: str = "pending"  # ok, failed, pending
    error: str = ""


class ReceiptFile(Struct, kw_only=True):
    role: str  # meta, body, attachment
    file_type: int
    source: str
    name: str
    size_bytes: int
    stripes: list[ReceiptStripe] = field(default_factory=list)
    stripes_uploaded: int = 0
    stripes_failed: int = 0
    status: str = "pending"  # success, failed, pending


class ReceiptManifestFile(Struct, kw_only=True):
    file_type: int
    flags: int
    size_bytes: int
    crc32: int


class ReceiptManifest(Struct, kw_only=True):
    version: int = 1
    file_count: int = 0
    entry_size: int = 16
    manifest_len: int = 0
    flags: int = 0
    files: list[ReceiptManifestFile] = field(default_factory=list)


class ReceiptServers(Struct, kw_only=True):
    total: int = 0
    ok: int = 0
    fail: int = 0


class ReceiptUpload(Struct, kw_only=True):
    status: str = "in_progress"  # in_progress, success, failed
    started_at: int = 0
    finished_at: int = 0
    subject: str = ""
    body_preview: str = ""
    files: list[ReceiptFile] = field(default_factory=list)
    servers: ReceiptServers = field(default_factory=ReceiptServers)
    total_group_size: int = 0
    manifest: ReceiptManifest = field(default_factory=ReceiptManifest)
    inbox_fee_acquired: bool = False
    inbox_fee_locker: str = ""
    profile: str = "sealed"
    data_stripes: int = 0
    parity_stripes: int = 0
    durability: str = "safe"  # what was asked for
    survives_loss_of: int = 0  # any so many of the listed servers may vanish or lie and the mail opens
    error: str = ""


class ReceiptRecipient(Struct, kw_only=True):
    address: str
    kind: str
    serial_number: int
    denomination: int
    beacon_raida: int
    status: str = "queued"  # queued, sending, sent, failed, retry_queued
    attempts: int = 0
    last_error: str = ""
    tell_command_code: int = 71
    started_at: int = 0
    finished_at: int = 0


class ReceiptSummary(Struct, kw_only=True):
    total: int = 0
    queued: int = 0
    sending: int = 0
    sent: int = 0
    failed: int = 0
    retry_queued: int = 0


class ReceiptTell(Struct, kw_only=True):
    status: str = "not_started"  # not_started, in_progress, success, partial, failed
    started_at: int = 0
    finished_at: int = 0
    recipients: list[ReceiptRecipient] = field(default_factory=list)
    summary: ReceiptSummary = field(default_factory=ReceiptSummary)

    def roll_up(self) -> None:
        """Recount the summary and derive the status from the rows (QMail node API, "Receipt": roll-up)."""
        words = [row.status for row in self.recipients]
        self.summary = ReceiptSummary(
            total=len(words),
            **{word: words.count(word) for word in ReceiptSummary.__struct_fields__ if word != "total"},
        )
        if words and all(word == "sent" for word in words):
            self.status = "success"
        elif words and all(word == "failed" for word in words):
            self.status = "failed"
        elif any(word in ("sent", "failed", "retry_queued") for word in words):
            self.status = "partial"
        elif any(word == "sending" for word in words):
            self.status = "in_progress"


class Receipt(Struct, kw_only=True):
    version: int = 1
    file_guid: str
    request_id: str
    created_at: int
    updated_at: int
    wallet_path: str
    sender: ReceiptSender
    upload: ReceiptUpload = field(default_factory=ReceiptUpload)
    tell: ReceiptTell = field(default_factory=ReceiptTell)


def nodes_of(hosts: Sequence[tuple[str, int]]) -> tuple[NodeId, ...]:
    """Number a list of (host, port) pairs in order."""
    return tuple(NodeId(index, host, port) for index, (host, port) in enumerate(hosts))


# ------------------------------------------------------------------------------------------------------------------
# What became of coins


class Powned(Struct, frozen=True):
    """What became of coins that were to be taken over."""

    accepted: tuple[Address, ...]  # more than half of the nodes hold our numbers
    rejected: tuple[Address, ...]  # the nodes hold numbers nobody named: forged, or taken over by somebody else
    unclear: tuple[Address, ...]  # too few nodes answered; they are asked again in the background


class CoinHealth(Struct, frozen=True):
    """One coin at all nodes: p passed, f failed, u unknown; before and after healing."""

    address: Address
    before: str
    after: str


class Healed(Struct, frozen=True):
    """What a look at all coins of a wallet found, and what of it was mended."""

    checked: int
    coins: tuple[CoinHealth, ...]  # those that did not pass everywhere

    @property
    def fixed(self) -> int:
        """How many of them no node refuses any more."""
        return sum("f" not in coin.after and "f" in coin.before for coin in self.coins)


# ------------------------------------------------------------------------------------------------------------------
# What engine methods answer with


class Started(Struct, frozen=True):
    """An accepted send: its intent is committed, a task works on it."""

    task_id: str
    guid: bytes
    request_id: str
    duration_weeks: int = 0
    recipients: int = 0  # rows this task will tell
    receipt_recipients: int = 0  # all rows of the receipt


class Notification(Struct, frozen=True, kw_only=True):
    """A received tell."""

    id: int
    tell: Tell
    received_at: int
    downloaded: bool = False
    payment: int = 0  # of the locker it came with: 0 unclaimed, 1 claimed, 2 failed, 3 refunded


class Polled(Struct, frozen=True):
    """The outcome of asking the beacons."""

    notifications: tuple[Notification, ...]
    timed_out: bool = False  # a beacon ended the long poll itself (status 245)
    status: int = 0
    elapsed_ms: int = 0
    request_id: str = ""


class Downloaded(Struct, frozen=True):
    """A mail that is now in the store."""

    message: Message
    attachments: tuple[StoredAttachment, ...]
    stripes_downloaded: int  # servers whose stripes were fetched and good
    stripes_recovered: int  # servers that were asked in vain: dead, slow or lying; the mail was rebuilt without them
    already_downloaded: bool = False
    liars: tuple[int, ...] = ()  # servers that gave wrong bytes


class MessagePage(Struct, frozen=True):
    """One page of a folder."""

    messages: tuple[Message, ...]
    total: int  # in this folder
    unread: int  # over all folders


class SendResult(Struct, frozen=True):
    """The outcome of a whole synchronous send."""

    receipt: Receipt
    files: int  # the mail itself and its attachments
    storage_cost: int
    inbox_cost: int
    stripe_successes: int  # summed over files
    stripe_failures: int


class Repaired(Struct, frozen=True):
    """The outcome of looking after one mail's stripes."""

    guid: bytes
    checked: int  # stripes looked at
    missing: int  # stripes absent or wrong
    rebuilt: int  # stripes rebuilt and stored again
    unreachable: tuple[int, ...] = ()  # servers that could not be asked
    survives_loss_of: int = 0


class Costs(Struct, frozen=True):
    """What a send costs, in whole CloudCoins."""

    storage: int
    inbox: int

    @property
    def total(self) -> int:
        """Both together."""
        return self.storage + self.inbox


class PoolStatus(Struct, frozen=True):
    """The funded lockers and the wallet behind them; values in whole CloudCoins."""

    upload_available: int
    inbox_fee_available: int
    wallet_balance: int
    low_balance: bool
    available_value: int = 0  # in lockers that are ready
    reserved_value: int = 0  # in lockers of sends that are not over
    limbo_value: int = 0  # in lockers whose fate is being found out
    upload_value: int = 0  # of all these, in upload lockers
    inbox_fee_value: int = 0

    @property
    def locked_value(self) -> int:
        """All that lies in lockers."""
        return self.available_value + self.reserved_value + self.limbo_value

    @property
    def spendable(self) -> int:
        """What can be paid with now."""
        return self.wallet_balance + self.available_value


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


class UserProfile(Struct, frozen=True, kw_only=True):
    """What the owner of a mailbox publishes in the directory."""

    fee: int = 0  # inbox fee, 1e-8 CC
    symbol1: int = 0  # avatar, 0..255
    symbol2: int = 0
    class_rejection: int = 0  # signed denomination; 0 accepts every sender
    first_name: str = ""  # at most 63 bytes of UTF-8
    last_name: str = ""


class UserRecord(Struct, frozen=True):
    """A published profile as a node keeps it."""

    address: Address
    profile: UserProfile
    created_at: int  # by the clock of the node; kept across updates
    updated_at: int


class ListKind(enum.IntEnum):
    """The lists of senders a mailbox keeps."""

    WHITE = 0  # delivered free, whatever the fee
    BLACK = 1  # never delivered


class ListEntry(Struct, frozen=True):
    """One listed sender."""

    address: Address
    kind: int  # a ListKind; other values are for the node to refuse


class Published(Struct, frozen=True):
    """How far a change of the directory came."""

    accepted: tuple[int, ...]  # nodes that have it now
    behind: tuple[int, ...]  # nodes that are told again in the background


class Transfer(Struct, frozen=True, kw_only=True):
    """One transfer of an object to a node as it was begun, and how far it came (QMail wire C.9)."""

    id: bytes
    owner: bytes  # selector of the coin
    object_id: bytes
    file_type: int
    fingerprint: bytes  # digest of the request that began it: the same id with other fields is another transfer
    operation: int
    chunk: int  # accepted
    total_size: int
    expected_generation: int
    target_generation: int
    object_hash: bytes
    retention: int  # accepted, seconds
    storage_class: int
    expires_at: int
    state: int  # codec/objects.py: OPEN, COMMITTED, ABORTED, EXPIRED
    held: bool  # its bytes count: it is open, or it is what a live object is read from
    due: float  # when it is to be looked at again


class StoredObject(Struct, frozen=True, kw_only=True):
    """The current generation of an object, or the tombstone of its last one."""

    id: bytes
    file_type: int
    owner: bytes
    state: int  # codec/objects.py: LIVE, DELETED
    generation: int
    transfer: bytes  # whose bytes these are
    total_size: int
    object_hash: bytes
    storage_class: int
    expires_at: int


class StripeObject(Struct, frozen=True):
    """One stripe of an object, stored at a node as an object of its own."""

    stripe: int
    node: int
    sha256: bytes


class ObjectManifest(Struct, frozen=True, kw_only=True):
    """All that is needed to get a striped object back."""

    object_id: bytes
    file_type: int
    generation: int
    size: int
    sha256: bytes
    striping: Striping
    stripe_size: int
    root: bytes  # digest root of `rs` and `sealed` stripes; empty for `interop`
    stripes: tuple[StripeObject, ...]  # those that were stored
    failed: tuple[int, ...] = ()  # nodes that hold nothing


# ------------------------------------------------------------------------------------------------------------------
# Mailboxes and messages of any user


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


# ------------------------------------------------------------------------------------------------------------------
# Files of the file-transfer API


class StoredFile(Struct, frozen=True, kw_only=True):
    """One uploaded file; its bytes lie sealed in the engine's folder."""

    id: bytes
    user: int
    filename: str  # without extension
    extension: str
    type: str
    size: int
    stored: int  # bytes on disk
    sha256: bytes
    crc32: int
    sealed: bytes  # its key, to the user's public key
    created_at: int
    trashed: bool = False

    @property
    def full_filename(self) -> str:
        """Name and extension."""
        return f"{self.filename}.{self.extension}" if self.extension else self.filename


class Token(Struct, frozen=True, kw_only=True):
    """A bearer token, without its text."""

    id: int
    user: int
    name: str
    created_at: int


class DownloadRow(Struct, frozen=True, kw_only=True):
    """A download somebody made."""

    id: bytes
    user: int
    files: tuple[bytes, ...]
    created_at: int
    expires_at: int
    ended: str = ""  # why it is over


class SentRow(Struct, frozen=True, kw_only=True):
    """One recipient of a sent mail."""

    id: bytes
    guid: bytes
    position: int
    subject: str
    recipient: str
    denomination: int
    serial: int
    created_at: int
    sent_at: int
    status: str
    opened_at: int = 0


class Listing(Struct, frozen=True, kw_only=True):
    """Which rows of a list, in which order."""

    keyword: str = ""
    sort: str = ""  # a name the list knows; empty is newest first
    descending: bool = False
    limit: int = 50
    offset: int = 0
    trashed: bool = False  # of files: the trash instead
