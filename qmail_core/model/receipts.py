"""The receipt of a send and the state of its task, as they are stored and answered."""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field


class TaskState(Struct, kw_only=True):
    """Progress of one long story, as pollers see it."""

    id: str
    status: str = "running"  # running, then exactly one of success, failed, cancelled
    progress: int = 0  # 0..100, never falls
    message: str = ""
    data: dict[str, Any] | None = None
    started_at: float = 0.0
    finished_at: float = 0.0


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
