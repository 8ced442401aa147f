"""What is answered about Object Transfer with one server. Numbers of 64 bits are texts: JavaScript has none."""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType

from qmail_core.model import Offer, Operation
from qmail_core.model.operations import COMPLETED, FAILED, PAUSED
from qmail_server.http.qmail.schema import TASKS


class TransferPart(Struct, kw_only=True):
    operation_id: str
    task_id: str
    direction: str
    state: str
    raida_id: int
    transfer_id: str
    object_id: str
    file_type: int
    requested_storage_class: int
    storage_class: int
    generation: str
    target_generation: str
    total_bytes: str
    completed_bytes: str
    progress: int
    chunk_bytes: int
    max_parallel: int
    expires_at: str
    object_hash: str
    cancel_requested: bool
    last_result: str
    last_status: int
    error: str | UnsetType = UNSET
    source_path: str | UnsetType = UNSET
    destination_path: str | UnsetType = UNSET
    temporary_path: str | UnsetType = UNSET
    created_at: int
    updated_at: int


class TransferAnswer(Struct, kw_only=True):
    """The members of the transfer once beside the others and once in a part of their own; clients read either."""

    success: bool = True
    status: str = "success"
    command: str
    message: str
    url: str | UnsetType = UNSET
    transfer: TransferPart
    operation_id: str
    task_id: str
    direction: str
    state: str
    progress: int
    object_id: str
    raida_id: int


class StorageClassPart(Struct, kw_only=True):
    id: int
    media_type: int
    flags: int
    max_object_bytes: str
    capacity_bytes: str
    available_bytes: str
    max_retention_seconds: str
    price_schedule_id: int


class CapabilitiesAnswer(Struct, kw_only=True):
    success: bool = True
    status: str = "success"
    command: str = "object-capabilities"
    raida_id: int
    enabled: bool
    protocol_min: int
    protocol_max: int
    preferred_chunk_bytes: int
    max_chunk_bytes: int
    max_download_range_bytes: int
    max_active_transfers: int
    max_parallel: int
    max_object_bytes: str
    payment_required: bool
    storage_classes: list[StorageClassPart]


def transfer(operation: Operation) -> TransferPart:
    """An operation in the words of the interface."""
    upload, download = operation.direction == "upload", operation.direction == "download"
    return TransferPart(
        operation_id=operation.id.hex(),
        task_id=operation.task_id,
        direction=operation.direction,
        state=operation.state,
        raida_id=operation.node,
        transfer_id=operation.transfer_id.hex(),
        object_id=operation.object_id.hex(),
        file_type=operation.file_type,
        requested_storage_class=operation.wanted_class,
        storage_class=operation.storage_class,
        generation=str(operation.generation),
        target_generation=str(operation.target_generation),
        total_bytes=str(operation.total),
        completed_bytes=str(operation.completed),
        progress=_percent(operation),
        chunk_bytes=operation.chunk,
        max_parallel=operation.max_parallel,
        expires_at=str(operation.expires_at),
        object_hash=operation.object_hash.hex(),
        cancel_requested=operation.cancel_requested,
        last_result=operation.last_result,
        last_status=operation.last_status,
        error=operation.last_result if operation.state in (FAILED, PAUSED) else UNSET,
        source_path=operation.path if upload else UNSET,
        destination_path=operation.path if download else UNSET,
        temporary_path=operation.part or UNSET,
        created_at=operation.created_at,
        updated_at=operation.updated_at,
    )


def _percent(operation: Operation) -> int:
    if operation.state == COMPLETED:
        return 100
    return min(99, operation.completed * 100 // operation.total) if operation.total else 0


def shown(command: str, message: str, operation: Operation, *, accepted: bool = False) -> TransferAnswer:
    """The answer of every route about one transfer."""
    part = transfer(operation)
    return TransferAnswer(
        command=command,
        message=message,
        url=TASKS + operation.task_id if accepted else UNSET,
        transfer=part,
        operation_id=part.operation_id,
        task_id=part.task_id,
        direction=part.direction,
        state=part.state,
        progress=part.progress,
        object_id=part.object_id,
        raida_id=part.raida_id,
    )


def capabilities(offer: Offer) -> CapabilitiesAnswer:
    """What a server offers."""
    return CapabilitiesAnswer(
        raida_id=offer.node,
        enabled=offer.enabled,
        protocol_min=offer.protocol_min,
        protocol_max=offer.protocol_max,
        preferred_chunk_bytes=offer.preferred_chunk,
        max_chunk_bytes=offer.max_chunk,
        max_download_range_bytes=offer.max_download_range,
        max_active_transfers=offer.max_active_transfers,
        max_parallel=offer.max_parallel,
        max_object_bytes=str(offer.max_object),
        payment_required=offer.paid,
        storage_classes=[
            StorageClassPart(
                id=one.id,
                media_type=one.media_type,
                flags=one.flags,
                max_object_bytes=str(one.max_object),
                capacity_bytes=str(one.capacity),
                available_bytes=str(one.available),
                max_retention_seconds=str(one.max_retention),
                price_schedule_id=one.price_schedule_id,
            )
            for one in offer.classes
        ],
    )
