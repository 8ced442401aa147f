"""What the engine asks of a store. Every method states what it owes; `tests/store/suite.py` holds each store to it.

Methods that change something are coroutines: when one returns, its change is durable, and one call is one transaction,
whole or not at all. Methods that read are plain calls that see every change whose coroutine has returned; they are
point look-ups or bounded pages, cheap enough for the event loop.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from qmail_core.model import (
    Address,
    Coin,
    Contact,
    DraftCopy,
    Folder,
    Message,
    MessagePage,
    Operation,
    OutgoingTell,
    PaymentStatus,
    Receipt,
    RequestKey,
    StoredAttachment,
)
from qmail_core.store.accounts import AccountStore
from qmail_core.store.files import FileStore
from qmail_core.store.mailbox import MailboxStore
from qmail_core.store.post import PostStore
from qmail_core.store.when import FOREVER


class LockerKind(enum.IntEnum):
    """What a locker is meant to pay."""

    UPLOAD = 0
    INBOX = 1


class LockerState(enum.IntEnum):
    """Where a locker stands. LIMBO and FUNDING are looked into, against the network, before the value is used again.

    A locker in LIMBO that is reserved for something may have been taken by a node; one that is not was filled at too
    few nodes. Only those, and FUNDING ones, may be emptied again.
    """

    AVAILABLE = 0
    RESERVED = 1
    CONSUMED = 2
    LIMBO = 3
    FUNDING = 4


class Locker(Struct, frozen=True, kw_only=True):
    """Coins set aside under a code. Prints without its code."""

    code: str
    kind: LockerKind
    value: int
    state: LockerState
    wallet: str
    funded: frozenset[int] = frozenset()  # nodes that confirmed it
    guid: bytes | None = None
    unit: int | None = None
    node: int | None = None
    created_at: int = 0
    consumed_at: int = 0

    def __repr__(self) -> str:
        return f"Locker({self.kind.name}, {self.value} CC, {self.state.name})"


class Claim(Struct, frozen=True):
    """What a locker is reserved for."""

    unit: int
    node: int | None = None  # upload: the server it pays; None: an inbox fee


class SendRow(Struct):
    """One send as it is kept."""

    receipt: Receipt
    job: bytes
    stage: str


class WorkKind(enum.IntEnum):
    """How coins are exchanged."""

    POWN = 0
    BREAK = 1
    JOIN = 2


class Work(Struct, frozen=True, kw_only=True):
    """Coins on their way from one form to another, both sides with their authenticity numbers."""

    id: bytes
    kind: WorkKind
    wallet: str
    given: tuple[Coin, ...]
    taken: tuple[Coin, ...]
    session: int = 0
    created_at: int = 0
    payment: bytes = b""  # guid of the mail whose payment is taken; empty: no mail's


class ReceivedTell(Struct, frozen=True):
    """A tell a beacon handed out."""

    id: int
    guid: bytes
    record: bytes
    received_at: int
    downloaded: bool
    payment: PaymentStatus = PaymentStatus.UNCLAIMED


class Incoming(Struct, frozen=True, kw_only=True):
    """A message on its way into a folder; the store gives it id, uid and modseq."""

    guid: bytes
    outgoing: bool
    folder: Folder
    subject: str
    body: str
    sender: Address
    sender_text: str
    recipients: bytes  # JSON of tuple[Recipient, ...]
    received_at: int
    sent_at: int
    is_read: bool = False
    is_starred: bool = False
    mailbox: int | None = None  # a mailbox of the user's instead of the folder
    inbox_fee: int = 0
    attachments: tuple[tuple[str, int], ...] = ()  # name and size, in order


class WalletStore(Protocol):
    """Coins and lockers. A coin is in exactly one place: a wallet, one locker that is not spent, or one work."""

    def coins(self, wallet: str, limit: int = 100_000) -> list[Coin]: ...
    def balance(self, wallet: str) -> int:
        """Whole CloudCoins free in a wallet."""
        ...

    def wallets(self) -> list[str]: ...
    async def add_coins(self, wallet: str, coins: Iterable[Coin]) -> None:
        """Put coins into a wallet; a coin already known MUST be replaced, never doubled.

        A coin that lies in a locker that is not spent, or in a work, MUST stay there as it is.
        """
        ...

    async def renew(self, changes: Iterable[tuple[Coin, Coin]]) -> None:
        """Give coins of wallets new authenticity numbers, each only if it still has the old ones."""
        ...

    async def begin_work(self, works: Iterable[Work], now: int) -> None:
        """Record works; what break and join give leaves its wallet, Conflict if it is not there.

        Conflict also if a coin that a pown gives is known already, wherever it is.
        """
        ...

    async def end_work(
        self, ends: Mapping[bytes, tuple[str, Sequence[Coin]]], payments: Mapping[bytes, PaymentStatus] | None = None
    ) -> None:
        """Forget works, by id, and put coins into a wallet for each. One that has ended MUST be left as it is.

        What becomes of payments, by guid, MUST be noted by the same change, as `set_payment` does.
        """
        ...

    def works(self) -> list[Work]:
        """Works that have not ended, oldest first."""
        ...

    async def begin_funding(self, lockers: Mapping[str, tuple[Locker, Sequence[Coin]]], now: int) -> None:
        """Move coins out of their wallet into new FUNDING lockers; Conflict if one of them is not in a wallet.

        The coins of CONSUMED lockers MUST be forgotten by then, so that they do not pile up.
        """
        ...

    async def end_funding(
        self, funded: Mapping[str, frozenset[int]], returned: Iterable[str], state: LockerState
    ) -> None:
        """Record which nodes confirmed each locker and its new state; give the coins of `returned` ones back.

        A locker that is not FUNDING any more MUST be left as it is, unless it is in LIMBO and was never reserved.
        """
        ...

    async def dissolve(self, code: str, wallets: Mapping[str, Sequence[Coin]]) -> None:
        """Forget such a locker and put coins into wallets for it, with the numbers they have now."""
        ...

    def locker_coins(self, code: str) -> list[Coin]:
        """The coins in a locker, as they were before; maybe none once it is CONSUMED."""
        ...

    def lockers(self, *, state: LockerState | None = None, guid: bytes | None = None) -> list[Locker]: ...
    def paid(self, wallet: str, limit: int, offset: int) -> list[bytes]:
        """What lockers of a wallet were consumed for, mails and objects, by its id; the latest first."""
        ...

    def available(self, wallet: str, kind: LockerKind, value: int) -> int:
        """How many lockers of a kind and value are ready."""
        ...

    async def reserve(self, guid: bytes, wallet: str, claims: Sequence[tuple[LockerKind, Claim, int]]) -> list[Locker]:
        """Reserve one AVAILABLE locker for every claim that has none yet, all or nothing.

        Claims are matched first with what this guid already holds, so repeating the call after a crash returns the
        same lockers, whatever they are worth; one in LIMBO is RESERVED again. A new one MUST be worth what its claim
        says. An upload claim MUST get a locker its node confirmed. NotFound if too few are available.
        """
        ...

    async def settle(self, changes: Mapping[str, LockerState], now: int, *, expected: LockerState) -> None:
        """Set states; AVAILABLE also forgets what the locker was reserved for; CONSUMED is for good.

        A locker whose state is not the expected one any more MUST be left as it is.
        """
        ...

    async def add_funded(self, code: str, node: int) -> None:
        """One more node confirmed a locker."""
        ...


class SendStore(Protocol):
    """Sends under way, receipts, queues."""

    async def accept(
        self, receipt: Receipt, job: bytes, objects: Mapping[int, bytes], stage: str, key: RequestKey | None = None
    ) -> None:
        """Commit the intent of a send; Conflict if a receipt with this guid exists. The change is all or nothing.

        key  what the request is known by for a day; Conflict if it is known already
        """
        ...

    def send_of(self, key: RequestKey, now: int) -> bytes | None:
        """The guid of the send a request has started; Conflict if its key stands for another request."""
        ...

    def receipts(self, status: str | None, limit: int, offset: int) -> list[Receipt]:
        """Receipts, newest first; `status` is that of the tell once the upload has succeeded, of the upload before."""
        ...

    def count_receipts(self, status: str | None) -> int: ...

    async def change(self, guid: bytes, edit: Callable[[SendRow], None]) -> SendRow:
        """Change a send as it is by then, and return it; NotFound if there is none.

        edit  changes what it is given; what it raises is raised here, and nothing is changed. It is called between two
              changes and maybe on another thread, so it MUST NOT wait, nor touch what others may be changing.
        """
        ...

    def receipt(self, guid: bytes) -> Receipt: ...
    def has_receipt(self, guid: bytes) -> bool: ...
    def job(self, guid: bytes) -> tuple[bytes, str]:
        """(job, stage); NotFound if there is none."""
        ...

    def object(self, guid: bytes, file_type: int) -> bytes:
        """An object of a send; NotFound if there is none, or its stage is not `upload` any more."""
        ...

    def open_sends(self) -> list[bytes]:
        """GUIDs whose stage is `upload` or `tell`, oldest first."""
        ...

    async def queue_tell(self, guid: bytes, position: int, beacon: int, error: str, now: int, due: int) -> None:
        """Insert or refresh the queue row of one recipient; the retry count is kept and grows by one."""
        ...

    async def finish_tell(self, guid: bytes, position: int, status: str, error: str, now: int) -> None:
        """Mark a queue row sent or failed, if there is one."""
        ...

    def due_tells(self, now: int, longest: int = FOREVER) -> list[OutgoingTell]:
        """Queue rows whose time has come.

        longest  seconds a row waits at most; one that should wait longer was put off by a clock that has been set back
                 since, and is due
        """
        ...

    def outgoing_tells(self, status: str | None, limit: int) -> list[OutgoingTell]:
        """Queue rows, newest first."""
        ...

    async def retry_tell(self, tell_id: int, now: int) -> None:
        """Make a failed row pending again, due now and with a fresh count; NotFound if it is not a failed one."""
        ...

    async def clear_sent_tells(self) -> int:
        """Remove rows that were sent; returns how many."""
        ...

    async def schedule_repair(self, guid: bytes, due: int) -> None: ...
    async def drop_repair(self, guid: bytes) -> None: ...
    def due_repairs(self, now: int, longest: int = FOREVER) -> list[tuple[bytes, int]]:
        """(guid, tries so far) of repairs that are due; `longest` as for tells."""
        ...


class MessageStore(Protocol):
    """The node API's view of the engine's own user: tells received, and messages in fixed folders."""

    async def add_tells(self, tells: Sequence[tuple[bytes, bytes]], now: int) -> list[bytes]:
        """Keep (guid, record) pairs; a guid that is known is left as it is. Returns the new guids."""
        ...

    def tell(self, guid: bytes) -> ReceivedTell: ...
    def pending_tells(self, since: int) -> list[ReceivedTell]:
        """Tells not downloaded and received after `since`, oldest first."""
        ...

    def shown_tells(self, limit: int, *, downloaded: bool) -> list[ReceivedTell]:
        """Tells the user has not dismissed, newest first; with `downloaded` also those whose mail is here."""
        ...

    async def dismiss_tell(self, *, tell_id: int | None = None, guid: bytes | None = None) -> int:
        """Stop showing a tell; returns its number. NotFound if it is not shown."""
        ...

    async def set_payment(self, guid: bytes, payment: PaymentStatus) -> None:
        """Note what became of a payment. A refund stays noted, and what was claimed MUST NOT become FAILED."""
        ...

    async def set_home(self, address: Address) -> None:
        """Say whose engine this is."""
        ...

    async def deliver(self, message: Incoming, oid: bytes) -> Message:
        """File a message with its attachment rows; one with this guid and direction is returned as it is.

        A received message's tell MUST be marked downloaded by the same change.
        """
        ...

    def message_of(self, email_id: bytes) -> Message: ...
    def received(self, guid: bytes) -> Message | None:
        """The received message of a guid, if it has been filed."""
        ...

    def messages(self, folder: Folder, limit: int, offset: int, sort: str) -> MessagePage: ...
    async def set_read(self, email_id: bytes, is_read: bool, now: int) -> Message: ...
    async def flag_mail(self, email_id: bytes, now: int, **flags: bool) -> Message: ...
    async def move_mail(self, email_id: bytes, folder: Folder, now: int) -> Message:
        """Move to a folder; STARRED is a view, so moving there sets the star and leaves the message where it is."""
        ...

    async def delete_mail(self, email_id: bytes, now: int) -> list[str]:
        """Remove a message that lies in the trash (UsageError elsewhere); returns files nobody needs any more."""
        ...

    def find_mail(self, words: str, limit: int) -> list[Message]:
        """Messages outside the trash that have all these words, newest first; none without a word."""
        ...

    def folder_counts(self) -> dict[Folder, tuple[int, int]]:
        """(all, unread) of every folder."""
        ...

    async def save_draft(self, draft: DraftCopy, oid: bytes, now: int) -> Message:
        """Add a draft, or replace the one of this id."""
        ...

    def draft(self, email_id: bytes) -> DraftCopy: ...
    def attachments(self, email_id: bytes) -> list[StoredAttachment]: ...
    def attachment(self, attachment_id: int) -> StoredAttachment: ...
    async def attachment_fetched(self, attachment_id: int, path: str) -> StoredAttachment: ...


class ContactStore(Protocol):
    """Who an address text means."""

    def find(self, text: str) -> Contact | None:
        """By the text a user writes, without regard to case."""
        ...

    def by_serial(self, serial: int) -> Contact | None: ...
    def by_address(self, address: Address) -> Contact | None: ...
    def listed(self, limit: int, offset: int = 0, words: str = "") -> list[Contact]:
        """Contacts by text; with `words`, those whose text or names contain them."""
        ...

    def popular(self, limit: int) -> list[Contact]:
        """Favourites first, then those written to most, then most recently."""
        ...

    def count(self) -> int: ...
    async def add(self, contact: Contact, now: int) -> None:
        """Add or change a contact; Conflict if its text already means another address. Counts of sends stay."""
        ...

    async def favor(self, serial: int, favorite: bool, now: int) -> Contact:
        """NotFound if nobody has that serial number."""
        ...

    async def remove(self, serial: int) -> None:
        """NotFound if nobody has that serial number."""
        ...

    async def bump(self, addresses: Sequence[tuple[Address, str]], now: int) -> None:
        """Count a send; an unknown recipient becomes a contact, unless the text already means somebody else."""
        ...


class OperationStore(Protocol):
    """Object Transfer with single nodes; of what has ended, the newest thousand."""

    async def save(self, operation: Operation) -> None:
        """Add an operation, or replace the one of this id."""
        ...

    def get(self, operation_id: bytes) -> Operation:
        """NotFound if there is none."""
        ...

    def unfinished(self) -> list[Operation]:
        """Oldest first."""
        ...

    def of_object(self, object_id: bytes) -> list[Operation]:
        """Newest first."""
        ...


class MailStore(Protocol):
    """The whole store of one engine."""

    @property
    def wallet(self) -> WalletStore: ...
    @property
    def sends(self) -> SendStore: ...
    @property
    def mail(self) -> MessageStore: ...
    @property
    def mailboxes(self) -> MailboxStore: ...
    @property
    def accounts(self) -> AccountStore: ...
    @property
    def post(self) -> PostStore: ...
    @property
    def contacts(self) -> ContactStore: ...
    @property
    def files(self) -> FileStore: ...
    @property
    def operations(self) -> OperationStore: ...
    @property
    def revision(self) -> int:
        """A number that MUST have grown by the time anybody learns of a change, and that what it belongs to MUST show.

        So what was read after the number holds for as long as the number stays.
        """
        ...

    async def close(self) -> None: ...
