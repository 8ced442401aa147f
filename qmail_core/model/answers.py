"""What engine methods answer with."""

from __future__ import annotations

from msgspec import Struct

from qmail_core.model.mail import Message, StoredAttachment, Tell
from qmail_core.model.receipts import Receipt


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
