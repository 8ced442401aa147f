"""The wire of the QMail node API: one Struct per answer, members in documented order.

Every success carries both `success` and `status` (clients test either); a task's `status` is that of the task.
Functions here turn engine values into these Structs and decide nothing.
"""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, Struct, UnsetType, field

from qmail_core.engine.payments import Payment
from qmail_core.model import (
    Address,
    Downloaded,
    Folder,
    Kind,
    Message,
    MessagePage,
    Notification,
    Polled,
    Repaired,
    SendResult,
    Started,
    StoredAttachment,
    TaskState,
)

CLASSES = ("bit", "byte", "kilo", "mega", "giga", "epic")  # by denomination code
DANGER = "This file can run as a program"
DANGEROUS = frozenset(["exe", "bat", "cmd", "scr", "vbs", "pif", "com", "js", "wsf", "msi", "dll", "ps1", "reg"])
TASKS = "/api/system/tasks?id="
STARTED = "{} — poll /api/system/tasks for status, or GET /api/qmail/receipts?guid=... for receipt detail"
_PREVIEW = 200
_WITH_RECIPIENTS = (Folder.SENT, Folder.DRAFTS)


class UploadStarted(Struct, kw_only=True):
    success: bool = True
    status: str = "success"
    command: str
    request_id: str
    task_id: str
    url: str
    file_guid: str
    duration: int
    message: str


class TellStarted(Struct, kw_only=True):
    success: bool = True
    status: str = "success"
    command: str = "qmail-tell"
    request_id: str
    task_id: str
    url: str
    file_guid: str
    recipient_count: int
    receipt_recipient_count: int
    message: str = STARTED.format("Tell started")


class TaskPayload(Struct, kw_only=True):
    id: str
    status: str
    progress: int
    message: str
    data: dict[str, Any] | None
    elapsed_ms: int


class TaskAnswer(Struct, kw_only=True):
    success: bool = True
    command: str = "task-status"
    status: str
    task_id: str
    id: str
    progress: int
    message: str
    data: dict[str, Any] | None
    payload: TaskPayload


class LegacyUpload(Struct, kw_only=True):
    success: bool = True
    status: str = "success"
    operation: str = "upload"
    message: str = "Upload completed successfully"
    file_guid: str
    files_uploaded: int
    total_cost_cc: int
    storage_cost_cc: int
    inbox_cost_cc: int
    upload_successes: int
    upload_failures: int
    tell_success: bool
    duration_weeks: int


class AttachmentItem(Struct, kw_only=True):
    attachment_id: int
    name: str
    extension: str
    storage_mode: int
    size_bytes: int
    dangerous: bool | UnsetType = UNSET
    warning: str | UnsetType = UNSET


class AttachmentInfo(Struct, kw_only=True):
    success: bool = True
    status: str = "success"
    attachment_id: int
    name: str
    extension: str
    size_bytes: int
    storage_mode: int
    dangerous: bool | UnsetType = UNSET
    warning: str | UnsetType = UNSET


class AttachmentList(Struct, kw_only=True):
    success: bool = True
    status: str = "success"
    email_id: str
    count: int
    attachments: list[AttachmentItem]


class DownloadAnswer(Struct, kw_only=True):
    success: bool = True
    status: str = "success"
    message: str = "Email downloaded and stored"
    email_id: str
    file_guid: str
    subject: str
    sender_sn: int
    sender_address: str
    stripes_downloaded: int
    stripes_recovered: int
    body: str
    body_length: int
    attachments: list[AttachmentItem]
    received_timestamp: int
    already_downloaded: bool
    liars: list[int]


class ManifestFile(Struct, kw_only=True):
    file_type: int
    flags: int
    size_bytes: int
    crc32: int


class NotificationItem(Struct, kw_only=True):
    id: int
    file_guid: str
    sender_sn: int
    sender_address: str
    sender_denomination_code: int
    timestamp: int
    tell_type: int
    total_file_size: int
    manifest_version: int = 1
    file_count: int
    manifest_flags: int  # bit 0 always, bit 1 when every file's CRC-32 is known
    files: list[ManifestFile]


class BeaconDebug(Struct, kw_only=True):
    """What was asked of which beacon. The documented `an_preview` is left out: a secret's prefix is no diagnosis."""

    beacon_raida: int
    serial_number: int
    denomination: int
    since_timestamp: int


class PeekAnswer(Struct, kw_only=True):
    debug: BeaconDebug
    success: bool = True
    status: str = "success"
    new_mail_count: int
    total_remaining: int
    notifications: list[NotificationItem]
    request_id: str


class PingAnswer(Struct, kw_only=True):
    debug: BeaconDebug
    success: bool = True
    status: str = "success"
    new_mail_count: int
    total_remaining: int
    notifications: list[NotificationItem]
    timed_out: bool
    status_code: int
    elapsed_ms: int
    request_id: str


class EmailItem(Struct, kw_only=True):
    email_id: str
    subject: str
    sender_sn: int
    sender_address: str
    sender_denomination: int
    sender_denomination_code: int
    received_timestamp: int
    sent_timestamp: int
    is_read: bool
    is_starred: bool
    folder: int
    inbox_fee: int
    body_preview: str
    attachment_count: int
    recipient_sn: int | UnsetType = UNSET
    recipient_address: str | UnsetType = UNSET
    recipient_denomination: int | UnsetType = UNSET
    recipient_denomination_code: int | UnsetType = UNSET
    recipient_count: int | UnsetType = UNSET


class EmailList(Struct, kw_only=True):
    success: bool = True
    status: str = "success"
    count: int
    folder: int
    limit: int
    offset: int
    total_in_folder: int
    unread_count: int
    emails: list[EmailItem]


class EmailAnswer(Struct, kw_only=True):
    success: bool = True
    status: str = "success"
    email_id: str
    subject: str
    sender_sn: int
    sender_address: str
    sender_denomination: int
    sender_denomination_code: int
    received_timestamp: int
    sent_timestamp: int
    is_read: bool
    is_starred: bool
    folder: int
    body: str
    body_length: int
    to: str
    cc: str
    bcc: str
    subsubject: str
    inbox_fee: int
    payment_status: int | UnsetType = UNSET
    payment_status_text: str | UnsetType = UNSET
    attachment_count: int


class Identity(Struct, kw_only=True):
    command: str
    success: bool = True
    status: str = "success"
    registered: bool = True
    address: str
    email: str
    serial_number: int
    sn: int
    denomination: int
    display_name: str
    first_name: str = ""
    last_name: str = ""
    description: str = ""
    class_name: str
    class_: str = field(name="class")
    beacon_raida: int


class WalletItem(Struct, kw_only=True):
    wallet_path: str
    wallet_name: str
    online: bool = True


class WalletList(Struct, kw_only=True):
    command: str = "wallet-list"
    success: bool = True
    status: str = "success"
    count: int
    wallets: list[WalletItem]
    message: str | UnsetType = UNSET


class RepairAnswer(Struct, kw_only=True):
    command: str = "qmail-repair"
    success: bool = True
    status: str = "success"
    file_guid: str
    checked: int
    missing: int
    rebuilt: int
    unreachable: list[int]
    survives_loss_of: int
    request_id: str


# ------------------------------------------------------------------------------------------------------------------
# Engine values to Structs


def upload_started(command: str, what: str, started: Started, request_id: str) -> UploadStarted:
    """The immediate answer of an upload."""
    return UploadStarted(
        command=command,
        request_id=request_id,
        task_id=started.task_id,
        url=TASKS + started.task_id,
        file_guid=started.guid.hex(),
        duration=started.duration_weeks,
        message=STARTED.format(what),
    )


def tell_started(started: Started, request_id: str) -> TellStarted:
    """The immediate answer of a tell."""
    return TellStarted(
        request_id=request_id,
        task_id=started.task_id,
        url=TASKS + started.task_id,
        file_guid=started.guid.hex(),
        recipient_count=started.recipients,
        receipt_recipient_count=started.receipt_recipients,
    )


def task(state: TaskState, now: float) -> TaskAnswer:
    """A task in both documented shapes at once."""
    elapsed = max(0, round(((state.finished_at or now) - state.started_at) * 1000))
    return TaskAnswer(
        status=state.status,
        task_id=state.id,
        id=state.id,
        progress=state.progress,
        message=state.message,
        data=state.data,
        payload=TaskPayload(
            id=state.id,
            status=state.status,
            progress=state.progress,
            message=state.message,
            data=state.data,
            elapsed_ms=elapsed,
        ),
    )


def legacy_upload(result: SendResult, duration: int) -> LegacyUpload:
    """The answer of the synchronous upload."""
    return LegacyUpload(
        file_guid=result.receipt.file_guid,
        files_uploaded=result.files,
        total_cost_cc=result.storage_cost + result.inbox_cost,
        storage_cost_cc=result.storage_cost,
        inbox_cost_cc=result.inbox_cost,
        upload_successes=result.stripe_successes,
        upload_failures=result.stripe_failures,
        tell_success=result.receipt.tell.status == "success",
        duration_weeks=duration,
    )


def downloaded(result: Downloaded) -> DownloadAnswer:
    """A mail that was just stored."""
    message = result.message
    return DownloadAnswer(
        email_id=message.id.hex(),
        file_guid=message.guid.hex(),
        subject=message.subject,
        sender_sn=message.sender.serial,
        sender_address=message.sender_text,
        stripes_downloaded=result.stripes_downloaded,
        stripes_recovered=result.stripes_recovered,
        body=message.body,
        body_length=len(message.body.encode()),
        attachments=[attachment_item(row) for row in result.attachments],
        received_timestamp=message.received_at,
        already_downloaded=result.already_downloaded,
        liars=list(result.liars),
    )


def notification(row: Notification, sender: str) -> NotificationItem:
    """A mail that waits."""
    tell = row.tell
    return NotificationItem(
        id=row.id,
        file_guid=tell.guid.hex(),
        sender_sn=tell.sender.serial,
        sender_address=sender,
        sender_denomination_code=tell.sender.denomination,
        timestamp=tell.timestamp,
        tell_type=tell.tell_type,
        total_file_size=tell.total_size,
        file_count=len(tell.files),
        manifest_flags=3 if all(f.crc32 is not None for f in tell.files) else 1,
        files=[
            ManifestFile(file_type=f.file_type, flags=f.flags, size_bytes=f.size, crc32=f.crc32 or 0)
            for f in tell.files
        ],
    )


def peek(items: list[NotificationItem], debug: BeaconDebug, request_id: str) -> PeekAnswer:
    """What waits, at once."""
    return PeekAnswer(
        debug=debug, new_mail_count=len(items), total_remaining=len(items), notifications=items, request_id=request_id
    )


def ping(items: list[NotificationItem], polled: Polled, debug: BeaconDebug) -> PingAnswer:
    """What came while waiting, for nobody in particular; a quiet end is a success with nothing in it."""
    return PingAnswer(
        debug=debug,
        new_mail_count=len(items),
        total_remaining=len(items),
        notifications=items,
        timed_out=polled.timed_out,
        status_code=polled.status,
        elapsed_ms=0,
        request_id="",
    )


def email_item(message: Message) -> EmailItem:
    """One row of a folder; for a message we wrote, with its first recipient."""
    item = EmailItem(
        email_id=message.id.hex(),
        subject=message.subject,
        sender_sn=message.sender.serial,
        sender_address=message.sender_text,
        sender_denomination=value_of(message.sender),
        sender_denomination_code=message.sender.denomination,
        received_timestamp=message.received_at,
        sent_timestamp=message.sent_at,
        is_read=message.is_read,
        is_starred=message.is_starred,
        folder=int(message.folder),
        inbox_fee=message.inbox_fee,
        body_preview=message.body[:_PREVIEW],
        attachment_count=message.attachments,
    )
    if message.folder in _WITH_RECIPIENTS and message.recipients:
        first = message.recipients[0].address
        item.recipient_sn = first.serial
        item.recipient_address = message.recipients[0].text
        item.recipient_denomination = value_of(first)
        item.recipient_denomination_code = first.denomination
        item.recipient_count = len(message.recipients)
    return item


def email_list(page: MessagePage, items: list[EmailItem], folder: Folder, limit: int, offset: int) -> EmailList:
    """One page of a folder."""
    return EmailList(
        count=len(items),
        folder=int(folder),
        limit=limit,
        offset=offset,
        total_in_folder=page.total,
        unread_count=page.unread,
        emails=items,
    )


def email(message: Message, payment: Payment, subsubject: str) -> EmailAnswer:
    """One message as a whole."""
    return EmailAnswer(
        email_id=message.id.hex(),
        subject=message.subject,
        sender_sn=message.sender.serial,
        sender_address=message.sender_text,
        sender_denomination=value_of(message.sender),
        sender_denomination_code=message.sender.denomination,
        received_timestamp=message.received_at,
        sent_timestamp=message.sent_at,
        is_read=message.is_read,
        is_starred=message.is_starred,
        folder=int(message.folder),
        body=message.body,
        body_length=len(message.body.encode()),
        to=_recipients(message, Kind.TO),
        cc=_recipients(message, Kind.CC),
        bcc=_recipients(message, Kind.BCC),
        subsubject=subsubject,
        inbox_fee=message.inbox_fee,
        payment_status=int(payment.status) if payment.attached else UNSET,
        payment_status_text=payment.status.name.lower() if payment.attached else UNSET,
        attachment_count=message.attachments,
    )


def attachment_item(row: StoredAttachment) -> AttachmentItem:
    """One attachment in a list."""
    extension = extension_of(row.name)
    return AttachmentItem(
        attachment_id=row.id,
        name=row.name,
        extension=extension,
        storage_mode=row.mode,
        size_bytes=row.size,
        dangerous=True if extension in DANGEROUS else UNSET,
        warning=DANGER if extension in DANGEROUS else UNSET,
    )


def attachment_info(row: StoredAttachment) -> AttachmentInfo:
    """One attachment by itself."""
    extension = extension_of(row.name)
    return AttachmentInfo(
        attachment_id=row.id,
        name=row.name,
        extension=extension,
        size_bytes=row.size,
        storage_mode=row.mode,
        dangerous=True if extension in DANGEROUS else UNSET,
        warning=DANGER if extension in DANGEROUS else UNSET,
    )


def identity(command: str, address: Address, text: str, beacon: int) -> Identity:
    """Who this engine is."""
    name = class_of(address)
    return Identity(
        command=command,
        address=text,
        email=text,
        serial_number=address.serial,
        sn=address.serial,
        denomination=address.denomination,
        display_name=f"SN#{address.serial}",
        class_name=name,
        class_=name,
        beacon_raida=beacon,
    )


def repaired(result: Repaired, request_id: str) -> RepairAnswer:
    """What looking after a mail's stripes did."""
    return RepairAnswer(
        file_guid=result.guid.hex(),
        checked=result.checked,
        missing=result.missing,
        rebuilt=result.rebuilt,
        unreachable=list(result.unreachable),
        survives_loss_of=result.survives_loss_of,
        request_id=request_id,
    )


def extension_of(name: str) -> str:
    """What stands behind the last dot, in lower case."""
    return name.rpartition(".")[2].lower() if "." in name else ""


def class_of(address: Address) -> str:
    """The word for an address's denomination."""
    return CLASSES[address.denomination] if 0 <= address.denomination < len(CLASSES) else "unknown"


def value_of(address: Address) -> int:
    """The worth of an address's denomination in whole CloudCoins; fractions count as none."""
    return int(10**address.denomination)


def _recipients(message: Message, kind: Kind) -> str:
    return ", ".join(recipient.text for recipient in message.recipients if recipient.kind == kind)
