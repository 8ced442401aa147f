"""Object Transfer with one node as its user sees it."""

from __future__ import annotations

from msgspec import Struct

WAITING, RUNNING, PAUSED = "queued", "running", "paused"
COMPLETED, CANCELLED, FAILED = "completed", "cancelled", "failed"
ENDED = frozenset({COMPLETED, CANCELLED, FAILED})


class Operation(Struct, frozen=True, kw_only=True):
    """One upload, download or deletion of an object, from its acceptance to its end."""

    id: bytes  # 16
    task_id: str
    direction: str  # upload, download, delete
    state: str
    node: int
    object_id: bytes
    file_type: int
    path: str = ""  # of the source or the destination
    part: str = ""  # where a download grows
    transfer_id: bytes = b""
    replaces: bool = False
    wanted_class: int = 0  # 0: what the node likes
    storage_class: int = 0
    expected_generation: int = 0
    target_generation: int = 0
    generation: int = 0  # of the object that was read or written
    retention: int = 0  # seconds, 0: what the node likes
    wanted_chunk: int = 0
    chunk: int = 0  # bytes of a range
    max_parallel: int = 0
    total: int = 0  # bytes
    completed: int = 0  # bytes
    expires_at: int = 0  # until then an upload can be resumed, or the object is kept
    object_hash: bytes = b""  # SHA-256, once known
    wallet: str = ""  # that pays
    locker: str = ""  # code the user pays with instead
    shown: bool = False  # the node may have seen the locker
    mtime_ns: int = 0  # of the source
    cancel_requested: bool = False
    last_result: str = ""  # of the newest attempt, in words
    last_status: int = 0  # the node's, 0: it said none
    created_at: int
    updated_at: int

    def __repr__(self) -> str:
        return f"Operation({self.id.hex()}, {self.direction}, {self.state})"


class OfferedClass(Struct, frozen=True, kw_only=True):
    """One storage class of a node."""

    id: int
    media_type: int
    flags: int
    max_object: int  # bytes
    capacity: int  # bytes
    available: int  # bytes
    max_retention: int  # seconds
    price_schedule_id: int


class Offer(Struct, frozen=True, kw_only=True):
    """What a node offers those who store objects."""

    node: int
    enabled: bool
    protocol_min: int
    protocol_max: int
    preferred_chunk: int  # bytes of a range
    max_chunk: int
    max_download_range: int
    max_active_transfers: int
    max_parallel: int
    max_object: int  # bytes
    paid: bool
    classes: tuple[OfferedClass, ...]
