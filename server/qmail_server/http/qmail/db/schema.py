"""The wire of the `db` bucket, beyond messages and attachments (see `qmail/schema.py` for the rules)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import UNSET, Struct, UnsetType

from qmail_core.engine.payments import Payment, Spent
from qmail_core.model import (
    Address,
    Contact,
    DraftCopy,
    Message,
    Notification,
    OutgoingTell,
    PaymentStatus,
    Receipt,
    ReceiptRecipient,
)
from qmail_server.http.qmail.schema import EmailItem, class_of

_PREVIEW = 200
TELL_TYPES = ("new_email", "read_receipt", "deleted")


class SearchAnswer(Struct, kw_only=True):
    success: bool = True
    status: str = "success"
    query: str
    count: int
    limit: int
    results: list[EmailItem]


class EmailDone(Struct, kw_only=True):
    success: bool = True
    status: str = "success"
    message: str
    email_id: str


class EmailMoved(Struct, kw_only=True):
    success: bool = True
    status: str = "success"
    message: str = "Email moved"
    email_id: str
    folder: int


class StarAnswer(Struct, kw_only=True):
    success: bool = True
    status: str = "success"
    message: str = "Star updated"
    email_id: str
    is_starred: bool


class ReadAnswer(Struct, kw_only=True):
    success: bool = True
    status: str = "success"
    email_id: str
    is_read: bool


class FolderItem(Struct, kw_only=True):
    id: int
    name: str


class FolderList(Struct, kw_only=True):
    success: bool = True
    status: str = "success"
    folders: list[FolderItem]


class FolderCount(Struct, kw_only=True):
    total: int
    unread: int


class FolderCounts(Struct, kw_only=True):
    success: bool = True
    status: str = "success"
    folders: dict[str, FolderCount]


class ContactItem(Struct, kw_only=True):
    serial_number: int
    denomination: int
    first_name: str
    middle_name: str
    last_name: str
    auto_address: str
    description: str
    class_name: str
    is_favorite: bool
    trust_level: int
    user_notes: str
    inbox_fee: int
    created_at: int


class ContactList(Struct, kw_only=True):
    success: bool = True
    status: str = "success"
    count: int
    contacts: list[ContactItem]


class ContactAdded(Struct, kw_only=True):
    success: bool = True
    status: str = "success"
    message: str = "Contact added"
    serial_number: int
    auto_address: str


class ContactDone(Struct, kw_only=True):
    success: bool = True
    status: str = "success"
    message: str
    serial_number: int


class PopularContact(Struct, kw_only=True):
    serial_number: int
    denomination: int
    user_id: str
    first_name: str
    middle_name: str
    last_name: str
    auto_address: str
    description: str
    trust_level: int
    user_notes: str
    contact_count: int
    popularity: int
    days_since_last_contact: int | None
    is_favorite: bool


class PopularContacts(Struct, kw_only=True):
    command: str = "contacts-popular"
    success: bool = True
    status: str = "success"
    count: int
    limit: int
    contacts: list[PopularContact]


class FavoriteAnswer(Struct, kw_only=True):
    success: bool = True
    status: str = "success"
    message: str = "Favorite updated"
    serial_number: int
    is_favorite: bool


class DraftItem(Struct, kw_only=True):
    """Documented members first, then those clients show."""

    email_id: str
    id: str
    subject: str
    body_preview: str
    last_modified: int
    recipient_count: int
    is_starred: bool
    body: str
    preview: str
    timestamp: int
    created_at: int
    to: str
    cc: str
    bcc: str
    subsubject: str


class Pagination(Struct, kw_only=True):
    page: int
    limit: int
    total: int
    total_pages: int


class DraftList(Struct, kw_only=True):
    command: str = "drafts-list"
    success: bool = True
    status: str = "success"
    count: int
    drafts: list[DraftItem]
    pagination: Pagination


class DraftCreated(Struct, kw_only=True):
    command: str = "drafts-create"
    success: bool = True
    status: str = "success"
    message: str = "Draft created successfully"
    email_id: str
    id: str
    timestamp: int


class DraftChange(Struct, kw_only=True):
    id: str
    email_id: str
    last_modified: int


class DraftUpdated(Struct, kw_only=True):
    success: bool = True
    status: str = "success"
    message: str = "Draft updated"
    email_id: str
    id: str
    timestamp: int
    draft: DraftChange


class TellItem(Struct, kw_only=True):
    tell_id: int
    file_guid: str
    recipient_sn: int
    recipient_denomination: int
    recipient_address: str
    beacon_raida: int
    status: str
    retry_count: int
    last_error: str | UnsetType = UNSET
    created_at: int
    last_attempt: int
    next_attempt: int


class TellList(Struct, kw_only=True):
    command: str = "tells-list-pending"
    success: bool = True
    status: str = "success"
    count: int
    pending_tells: list[TellItem]


class TellDone(Struct, kw_only=True):
    success: bool = True
    status: str = "success"
    message: str = "Tell reset to pending for retry"
    tell_id: int


class TellsCleared(Struct, kw_only=True):
    success: bool = True
    status: str = "success"
    message: str = "Sent tells cleared"
    deleted_count: int


class NotificationRow(Struct, kw_only=True):
    id: int
    notification_id: int
    file_guid: str
    sender_sn: int
    sender_name: str
    sender_address: str
    sender_denomination_code: int
    tell_type: str
    tell_type_code: int
    total_file_size: int
    timestamp: int
    downloaded: bool


class NotificationList(Struct, kw_only=True):
    command: str = "notifications-list"
    success: bool = True
    status: str = "success"
    count: int
    notifications: list[NotificationRow]


class NotificationDone(Struct, kw_only=True):
    success: bool = True
    status: str = "success"
    message: str = "Notification dismissed"
    id: int


class NoPayment(Struct, kw_only=True):
    command: str = "payments-get"
    success: bool = True
    status: str = "success"
    email_id: str
    has_payment: bool = False
    message: str = "No recipient payment attached to this email"


class PaymentAnswer(Struct, kw_only=True):
    command: str = "payments-get"
    success: bool = True
    status: str = "success"
    email_id: str
    has_payment: bool = True
    locker_code: str
    locker_code_hex: str
    payment_status: int
    payment_status_text: str
    can_retry: bool


class RefundAnswer(Struct, kw_only=True):
    command: str = "payments-mark-refunded"
    success: bool = True
    email_id: str
    status: str = "refunded"
    payment_status: int
    payment_status_text: str
    already_refunded: bool
    locker_code: str
    message: str


class SpentLocker(Struct, kw_only=True):
    locker_key: str
    pool_type: int
    funded_amount: int
    consumed_at: int


class SentPayment(Struct, kw_only=True):
    file_guid: str
    subject: str
    recipients: list[str]
    body_preview: str
    timestamp: int
    total: int
    lockers: list[SpentLocker]


class SentPayments(Struct, kw_only=True):
    command: str = "sent-payments"
    success: bool = True
    status: str = "success"
    count: int
    limit: int
    offset: int
    emails: list[SentPayment]


# ------------------------------------------------------------------------------------------------------------------
# Engine values to Structs


def new_contact(address: Address, text: str) -> Contact:
    """Somebody not written down before."""
    return Contact(address=address, text=text)


def contact(row: Contact) -> ContactItem:
    """One contact."""
    return ContactItem(
        serial_number=row.address.serial,
        denomination=row.address.denomination,
        first_name=row.first_name,
        middle_name=row.middle_name,
        last_name=row.last_name,
        auto_address=row.text,
        description=row.description,
        class_name=row.class_name or class_of(row.address),
        is_favorite=row.favorite,
        trust_level=row.trust_level,
        user_notes=row.user_notes,
        inbox_fee=row.inbox_fee,
        created_at=row.created_at,
    )


def popular(row: Contact, now: int) -> PopularContact:
    """One contact with how often and how long ago it was written to."""
    return PopularContact(
        serial_number=row.address.serial,
        denomination=row.address.denomination,
        user_id=row.text,
        first_name=row.first_name,
        middle_name=row.middle_name,
        last_name=row.last_name,
        auto_address=row.text,
        description=row.description,
        trust_level=row.trust_level,
        user_notes=row.user_notes,
        contact_count=row.send_count,
        popularity=row.send_count,
        days_since_last_contact=max(0, now - row.last_sent_at) // 86_400 if row.last_sent_at else None,
        is_favorite=row.favorite,
    )


def draft(message: Message, copy: DraftCopy) -> DraftItem:
    """One draft."""
    people = [text for field in (copy.to, copy.cc, copy.bcc) for text in field.split(", ") if text]
    name, preview = message.id.hex(), copy.body[:_PREVIEW]
    return DraftItem(
        email_id=name,
        id=name,
        subject=copy.subject or "(No Subject)",
        body_preview=preview,
        last_modified=message.received_at,
        recipient_count=len(people),
        is_starred=message.is_starred,
        body=copy.body,
        preview=preview,
        timestamp=message.received_at,
        created_at=message.sent_at,
        to=copy.to,
        cc=copy.cc,
        bcc=copy.bcc,
        subsubject=copy.subsubject,
    )


def tell(row: OutgoingTell, who: ReceiptRecipient) -> TellItem:
    """One row of the outgoing queue."""
    return TellItem(
        tell_id=row.id,
        file_guid=row.guid.hex(),
        recipient_sn=who.serial_number,
        recipient_denomination=who.denomination,
        recipient_address=who.address,
        beacon_raida=row.beacon,
        status=row.status,
        retry_count=row.retry_count,
        last_error=row.last_error or UNSET,
        created_at=row.created_at,
        last_attempt=row.last_attempt,
        next_attempt=row.next_attempt,
    )


def notification(row: Notification, sender: Contact | None, render: Callable[[Address], str]) -> NotificationRow:
    """One tell that came in."""
    announced = row.tell
    names = f"{sender.first_name} {sender.last_name}".strip() if sender is not None else ""
    kind = announced.tell_type
    return NotificationRow(
        id=row.id,
        notification_id=row.id,
        file_guid=announced.guid.hex(),
        sender_sn=announced.sender.serial,
        sender_name=names or f"SN#{announced.sender.serial}",
        sender_address=sender.text if sender is not None else render(announced.sender),
        sender_denomination_code=announced.sender.denomination,
        tell_type=TELL_TYPES[kind] if kind < len(TELL_TYPES) else "unknown",
        tell_type_code=kind,
        total_file_size=announced.total_size,
        timestamp=announced.timestamp,
        downloaded=row.downloaded,
    )


def payment(row: Payment) -> PaymentAnswer | NoPayment:
    """The payment of a message. The code's bytes are shown as the 32 of older documents."""
    if not row.attached:
        return NoPayment(email_id=row.email_id.hex())
    return PaymentAnswer(
        email_id=row.email_id.hex(),
        locker_code=row.text,
        locker_code_hex=row.code.ljust(32, b"\0").hex(),
        payment_status=row.status,
        payment_status_text=row.status.name.lower(),
        can_retry=row.status in (PaymentStatus.UNCLAIMED, PaymentStatus.FAILED),
    )


def refunded(row: Payment, again: bool) -> RefundAnswer:
    """A payment that went back."""
    return RefundAnswer(
        email_id=row.email_id.hex(),
        payment_status=row.status,
        payment_status_text=row.status.name.lower(),
        already_refunded=again,
        locker_code=row.text,
        message="Payment was marked as refunded before" if again else "Payment marked as refunded",
    )


def sent_payment(receipt: Receipt, spent: Sequence[Spent]) -> SentPayment:
    """What one mail was paid with."""
    return SentPayment(
        file_guid=receipt.file_guid,
        subject=receipt.upload.subject,
        recipients=[row.address for row in receipt.tell.recipients],
        body_preview=receipt.upload.body_preview,
        timestamp=receipt.created_at,
        total=sum(locker.value for locker in spent),
        lockers=[
            SpentLocker(
                locker_key=locker.code,
                pool_type=locker.kind,
                funded_amount=locker.value,
                consumed_at=locker.consumed_at,
            )
            for locker in spent
        ],
    )
