"""What is answered about mails on their way: tasks, receipts, stripes, and a peek in its oldest words."""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType

from qmail_core.engine.network import Explained, Piece
from qmail_core.model import Receipt, TaskState
from qmail_server.http.qmail.answers.process import milliseconds
from qmail_server.http.qmail.schema import TASKS


class TaskItem(Struct, kw_only=True):
    id: str
    task_id: str
    status: str
    progress: int
    message: str
    started_at: float
    finished_at: float


class TaskList(Struct, kw_only=True):
    command: str = "task-list"
    success: bool = True
    status: str = "success"
    count: int
    total: int
    tasks: list[TaskItem]


class TaskCancelled(Struct, kw_only=True):
    command: str = "task-cancel"
    success: bool = True
    task_id: str
    id: str
    status: str
    message: str


class ReceiptItem(Struct, kw_only=True):
    file_guid: str
    status: str
    upload_status: str
    tell_status: str
    subject: str
    recipients: list[str]
    created_at: int
    updated_at: int
    survives_loss_of: int


class ReceiptList(Struct, kw_only=True):
    command: str = "receipts-list"
    success: bool = True
    status: str = "success"
    count: int
    total: int
    limit: int
    offset: int
    receipts: list[ReceiptItem]


class HoldCancelled(Struct, kw_only=True):
    command: str = "hold-cancel"
    success: bool = True
    status: str = "success"
    message: str = "Nobody is told of this mail; it stays stored"
    file_guid: str


class DownloadStarted(Struct, kw_only=True):
    success: bool = True
    status: str = "success"
    command: str = "qmail-download"
    request_id: str
    task_id: str
    url: str
    file_guid: str
    message: str = "Download started — new mail is told as an event, and /api/system/tasks has the outcome"


class StripePart(Struct, kw_only=True):
    stripe_index: int
    server_id: int
    stripe_type: str
    is_parity: bool
    status: str
    answers: bool
    latency_ms: float
    error: str | UnsetType = UNSET


class ExplainAnswer(Struct, kw_only=True):
    command: str = "qmail-explain"
    success: bool = True
    status: str = "success"
    file_guid: str
    sent_from_here: bool
    profile: str
    data_stripes: int
    parity_stripes: int
    files: int
    expires_at: int | None
    stored: int
    reachable: int
    survives_loss_of: int
    readable: bool
    message: str
    stripes: list[StripePart]


class OlderMessage(Struct, kw_only=True):
    id: str
    timestamp: int
    size: int


class OlderPing(Struct, kw_only=True):
    success: bool = True
    status: str = "ok"
    timestamp: int
    beacon_status: str
    has_mail: bool
    message_count: int
    messages: list[OlderMessage]


def task_item(state: TaskState) -> TaskItem:
    """One row of the tasks."""
    return TaskItem(
        id=state.id,
        task_id=state.id,
        status=state.status,
        progress=state.progress,
        message=state.message,
        started_at=state.started_at,
        finished_at=state.finished_at,
    )


def receipt_item(receipt: Receipt) -> ReceiptItem:
    """One row of the receipts."""
    up, tell = receipt.upload, receipt.tell
    return ReceiptItem(
        file_guid=receipt.file_guid,
        status=tell.status if up.status == "success" else up.status,
        upload_status=up.status,
        tell_status=tell.status,
        subject=up.subject,
        recipients=[row.address for row in tell.recipients],
        created_at=receipt.created_at,
        updated_at=receipt.updated_at,
        survives_loss_of=up.survives_loss_of,
    )


def download_started(guid: bytes, task_id: str, request_id: str) -> DownloadStarted:
    """A download nobody waits for."""
    return DownloadStarted(request_id=request_id, task_id=task_id, url=TASKS + task_id, file_guid=guid.hex())


def explained(found: Explained) -> ExplainAnswer:
    """Where a mail lies."""
    if found.survives >= 0:
        text = f"Readable; {found.survives} more of the servers that answer may be lost"
    else:
        text = f"Not readable now: {-found.survives} more servers are needed"
    return ExplainAnswer(
        file_guid=found.guid.hex(),
        sent_from_here=found.sent,
        profile=found.striping.profile.name.lower(),
        data_stripes=found.striping.k,
        parity_stripes=found.striping.m,
        files=found.files,
        expires_at=found.expires_at or None,
        stored=sum(piece.stored for piece in found.pieces),
        reachable=found.reachable,
        survives_loss_of=max(0, found.survives),
        readable=found.survives >= 0,
        message=text,
        stripes=list(map(_stripe, found.pieces)),
    )


def _stripe(piece: Piece) -> StripePart:
    return StripePart(
        stripe_index=piece.stripe,
        server_id=piece.server.index,
        stripe_type="parity" if piece.parity else "data",
        is_parity=piece.parity,
        status="ok" if piece.stored else "failed",
        answers=not piece.server.error,
        latency_ms=milliseconds(piece.server.seconds),
        error=piece.server.error or UNSET,
    )
