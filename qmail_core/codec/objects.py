"""Bodies of Object Transfer v1, commands 76 to 84 of group 6. Bytes and values only.

PROVISIONAL: the official layouts were not obtainable. Command 76 follows the derived order of QMail wire C.9.3; 77 to
84 are this project's own choice along the columns of C.9.2 (C.9.5, `docs/protocol.md`). Every layout stands here once.

A request is identity 32, common head 16, fields; an answer that means success is common head 16, fields. Fields are
packed without padding. What cannot be read ends a request as `Refused` with 219 (another schema) or 198 (a reserved
byte or an unknown flag, operation or algorithm), or as RemoteProtocolError (a wrong length).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

from msgspec import Struct
from msgspec.structs import astuple

from qmail_core.codec import consts as c
from qmail_core.codec.packet import Refused
from qmail_core.errors import LocalProtocolError, RemoteProtocolError

SCHEMA = 1
SHA256 = 1  # hash_alg; the value is assumed (C.6.7)
CREATE, REPLACE = 0, 1  # operation
MISSING = 0  # range_mode
OPEN, COMMITTED, ABORTED, EXPIRED = 1, 2, 3, 4  # state of a transfer; 1 is our choice, the others C.9.2
LIVE, DELETED = 1, 2  # object_state
MORE = 1  # response_flags bit 0
OVER_TCP = 1  # transport_flags bit 0
ENABLED = 1  # server_flags bit 0
PAY_NOTHING, PAY_LOCKER = 0, 1  # payment_mode, our choice
DEFAULT_CLASS = 1  # the only storage class there is; 0 asks for it too
MAX_RANGES = 256  # of one answer to 78

HEAD_SIZE = 16
BODY_HEAD = c.IDENTITY_SIZE + HEAD_SIZE

F = TypeVar("F", bound="Fields")


class Fields(Struct, frozen=True):
    """Fields of one body in wire order."""

    layout: ClassVar[struct.Struct]

    def pack(self) -> bytes:
        """The fields as they travel; LocalProtocolError if one does not fit."""
        try:
            return self.layout.pack(*astuple(self))
        except struct.error as error:
            raise LocalProtocolError(f"{type(self).__name__}: {error}") from None


def _read(kind: type[F], view: memoryview, start: int, *, exact: bool = True) -> F:
    """The fields that stand at `start`; RemoteProtocolError on a wrong length."""
    end = start + kind.layout.size
    if len(view) < end or (exact and len(view) != end):
        raise RemoteProtocolError(f"{kind.__name__} has a wrong length")
    return kind(*kind.layout.unpack(view[start:end]))


# ------------------------------------------------------------------------------------------------------------------
# The common head


def build_head(request_id: int) -> bytes:
    """Schema 1, flags 0, six reserved zeros, request_id u64. Source C.9.5."""
    if not 0 < request_id < 1 << 64:
        raise LocalProtocolError("a request id has 64 bits and is not 0")
    return struct.pack(">BB6xQ", SCHEMA, 0, request_id)


def parse_head(payload: memoryview) -> int:
    """The request id behind the identity; Refused with 219 or 198, RemoteProtocolError if there is none."""
    if len(payload) < BODY_HEAD:
        raise RemoteProtocolError("object request without head")
    schema, rest, request_id = struct.unpack(">B7sQ", payload[c.IDENTITY_SIZE : BODY_HEAD])
    if schema != SCHEMA:
        raise Refused(c.STATUS_PROTOCOL_UNSUPPORTED)
    _require(not any(rest) and request_id)
    return int(request_id)


def _answer(view: memoryview, request_id: int) -> memoryview:
    """What follows the head of an answer; RemoteProtocolError if it answers something else."""
    if bytes(view[:HEAD_SIZE]) != build_head(request_id):
        raise RemoteProtocolError("object answer belongs to another request")
    return view[HEAD_SIZE:]


def _require(fact: object) -> None:
    if not fact:
        raise Refused(c.STATUS_INVALID_PARAMETER)


# ------------------------------------------------------------------------------------------------------------------
# 76 OBJECT_BEGIN


class Begin(Fields, frozen=True):
    """What an upload is going to be. Source C.9.3: 144 bytes with the head."""

    transfer_id: bytes  # 16, the idempotency key; not zero
    object_id: bytes  # 16
    locker: bytes  # 16, ASCII
    file_type: int
    retention: int  # seconds, 0: the node's default
    hash_alg: int
    operation: int
    storage_class: int
    reserved: bytes
    chunk: int  # preferred
    total_size: int
    expected_generation: int
    target_generation: int
    object_hash: bytes  # 32

    layout = struct.Struct(">16s16s16sBQBBH7sIQQQ32s")

    def __repr__(self) -> str:
        return f"Begin({self.object_id.hex()}, type {self.file_type}, {self.total_size} bytes)"


class Begun(Fields, frozen=True):
    """Answer to 76, 58 bytes."""

    transfer_id: bytes
    chunk: int  # accepted: no range may be larger
    max_parallel: int
    hash_alg: int
    operation: int
    storage_class: int
    base_generation: int
    target_generation: int
    expires_at: int  # Unix seconds: until then the transfer is open
    retention: int  # accepted, seconds

    layout = struct.Struct(">16sIHBBHQQQQ")


def parse_begin(payload: memoryview) -> Begin:
    """Read a command 76 payload, identity included."""
    found = _read(Begin, payload, BODY_HEAD)
    _require(any(found.transfer_id) and not any(found.reserved))
    _require(found.hash_alg == SHA256 and found.operation in (CREATE, REPLACE))
    _require(found.chunk and found.storage_class in (0, DEFAULT_CLASS))
    return found


# ------------------------------------------------------------------------------------------------------------------
# 77 OBJECT_PUT_RANGE


class PutRange(Fields, frozen=True):
    """What stands before the data of a range, 61 bytes."""

    transfer_id: bytes
    offset: int
    size: int
    hash_alg: int
    range_hash: bytes

    layout = struct.Struct(">16sQIB32s")


class RangePut(Fields, frozen=True):
    """Answer to 77, 28 bytes."""

    transfer_id: bytes
    offset: int
    size: int

    layout = struct.Struct(">16sQI")


def parse_put_range(payload: memoryview) -> tuple[PutRange, memoryview]:
    """Read a command 77 payload: the fields and a view of the data."""
    found = _read(PutRange, payload, BODY_HEAD, exact=False)
    data = payload[BODY_HEAD + PutRange.layout.size :]
    if len(data) != found.size:
        raise RemoteProtocolError("range length does not match its data")
    _require(found.hash_alg == SHA256)
    return found, data


# ------------------------------------------------------------------------------------------------------------------
# 78 OBJECT_TRANSFER_STATUS


class Inquiry(Fields, frozen=True):
    """What is asked about a transfer, 27 bytes."""

    transfer_id: bytes
    cursor: int  # only ranges from this offset on
    range_mode: int
    max_ranges: int

    layout = struct.Struct(">16sQBH")


class Progress(Fields, frozen=True):
    """Answer to 78, 44 bytes, then 16 for each range: offset u64, length u64."""

    transfer_id: bytes
    total_size: int
    target_generation: int
    state: int
    count: int
    flags: int
    next_cursor: int

    layout = struct.Struct(">16sQQBHBQ")


_RANGE = struct.Struct(">QQ")


def parse_inquiry(payload: memoryview) -> Inquiry:
    """Read a command 78 payload."""
    found = _read(Inquiry, payload, BODY_HEAD)
    _require(found.range_mode == MISSING and found.max_ranges)
    return found


def build_ranges(ranges: Sequence[tuple[int, int]]) -> bytes:
    """(offset, length) pairs."""
    return b"".join([_RANGE.pack(*each) for each in ranges])


def parse_progress(view: memoryview, request_id: int) -> tuple[Progress, list[tuple[int, int]]]:
    """Read an answer to 78: the fields and the missing (offset, length) pairs."""
    view = _answer(view, request_id)
    found = _read(Progress, view, 0, exact=False)
    rest = view[Progress.layout.size :]
    if len(rest) != found.count * _RANGE.size:
        raise RemoteProtocolError("transfer status does not match its range count")
    return found, list(_RANGE.iter_unpack(rest))


# ------------------------------------------------------------------------------------------------------------------
# 79 OBJECT_COMMIT, 80 OBJECT_ABORT


class Commit(Fields, frozen=True):
    """What must have arrived for a transfer to become an object, 57 bytes."""

    transfer_id: bytes
    total_size: int
    hash_alg: int
    object_hash: bytes

    layout = struct.Struct(">16sQB32s")


class Committed(Fields, frozen=True):
    """Answer to 79, 69 bytes."""

    object_id: bytes
    file_type: int
    object_state: int
    storage_class: int
    hash_alg: int
    generation: int
    total_size: int
    object_hash: bytes

    layout = struct.Struct(">16sBBHBQQ32s")


class Abort(Fields, frozen=True):
    """The transfer to give up, 16 bytes; the answer is a head alone."""

    transfer_id: bytes

    layout = struct.Struct(">16s")


def parse_commit(payload: memoryview) -> Commit:
    """Read a command 79 payload."""
    found = _read(Commit, payload, BODY_HEAD)
    _require(found.hash_alg == SHA256)
    return found


def parse_abort(payload: memoryview) -> Abort:
    """Read a command 80 payload."""
    return _read(Abort, payload, BODY_HEAD)


# ------------------------------------------------------------------------------------------------------------------
# 81 OBJECT_INFO, 82 OBJECT_GET_RANGE


class Info(Fields, frozen=True):
    """Which object is meant, 25 bytes; generation 0 is the current one."""

    object_id: bytes
    file_type: int
    generation: int

    layout = struct.Struct(">16sBQ")


class Described(Fields, frozen=True):
    """Answer to 81, 81 bytes: as to 79, and two fields more."""

    object_id: bytes
    file_type: int
    object_state: int
    storage_class: int
    hash_alg: int
    generation: int
    total_size: int
    object_hash: bytes
    recommended_length: int  # of the ranges to read
    expires_at: int

    layout = struct.Struct(">16sBBHBQQ32sIQ")


class GetRange(Fields, frozen=True):
    """Which bytes of which object, 37 bytes."""

    object_id: bytes
    file_type: int
    generation: int
    offset: int
    size: int

    layout = struct.Struct(">16sBQQI")


class RangeGot(Fields, frozen=True):
    """What stands before the data in an answer to 82, 78 bytes."""

    object_id: bytes
    file_type: int
    hash_alg: int
    generation: int
    offset: int
    size: int
    total_size: int
    object_hash: bytes

    layout = struct.Struct(">16sBBQQIQ32s")


def parse_info(payload: memoryview) -> Info:
    """Read a command 81 payload."""
    return _read(Info, payload, BODY_HEAD)


def parse_get_range(payload: memoryview) -> GetRange:
    """Read a command 82 payload."""
    return _read(GetRange, payload, BODY_HEAD)


def parse_range_got(view: memoryview, request_id: int) -> tuple[RangeGot, memoryview]:
    """Read an answer to 82: the fields and a view of the data."""
    view = _answer(view, request_id)
    found = _read(RangeGot, view, 0, exact=False)
    data = view[RangeGot.layout.size :]
    if len(data) != found.size or found.offset + found.size > found.total_size:
        raise RemoteProtocolError("range answer does not match its data")
    return found, data


# ------------------------------------------------------------------------------------------------------------------
# 83 OBJECT_CAPABILITIES, 84 OBJECT_DELETE


class Capabilities(Fields, frozen=True):
    """Answer to 83, 54 bytes, then 40 for each storage class. The request has no fields."""

    schema: int
    protocol_min: int
    protocol_max: int
    transport_flags: int
    server_flags: int
    preferred_chunk: int
    max_chunk: int
    max_download_range: int
    max_active_transfers: int
    max_parallel: int
    max_object: int
    generated_at: int
    expires_at: int
    payment_mode: int
    class_count: int

    layout = struct.Struct(">HBBBIIIIIHQQQBH")


class StorageClass(Fields, frozen=True):
    """One storage class a node offers."""

    id: int
    media_type: int
    flags: int
    max_object: int
    capacity: int
    available: int
    max_retention: int
    price_schedule_id: int

    layout = struct.Struct(">HBBQQQQI")


class Delete(Fields, frozen=True):
    """Which generation to replace by a tombstone of which generation, 33 bytes."""

    object_id: bytes
    file_type: int
    expected_generation: int
    target_generation: int

    layout = struct.Struct(">16sBQQ")


class Tombstone(Fields, frozen=True):
    """Answer to 84, 9 bytes."""

    object_state: int
    generation: int

    layout = struct.Struct(">BQ")


def parse_capabilities_request(payload: memoryview) -> None:
    """Check that a command 83 payload is a head and nothing else."""
    if len(payload) != BODY_HEAD:
        raise RemoteProtocolError("capabilities request has a wrong length")


def parse_capabilities(view: memoryview, request_id: int) -> tuple[Capabilities, list[StorageClass]]:
    """Read an answer to 83."""
    view = _answer(view, request_id)
    found = _read(Capabilities, view, 0, exact=False)
    start, step = Capabilities.layout.size, StorageClass.layout.size
    if len(view) != start + found.class_count * step:
        raise RemoteProtocolError("capabilities do not match their class count")
    places = range(start, len(view), step)
    return found, [_read(StorageClass, view, place, exact=False) for place in places]


def parse_delete(payload: memoryview) -> Delete:
    """Read a command 84 payload."""
    return _read(Delete, payload, BODY_HEAD)


# ------------------------------------------------------------------------------------------------------------------
# Both directions


def build_request(request_id: int, fields: Fields | None = None) -> bytes:
    """What follows the identity in a request, up to the data of 77."""
    return build_head(request_id) + (fields.pack() if fields is not None else b"")


def build_answer(request_id: int, *parts: Any) -> bytes:
    """The payload of a success: `Fields` and bytes in order."""
    return b"".join([build_head(request_id), *(part.pack() if isinstance(part, Fields) else part for part in parts)])


def parse_answer(kind: type[F], view: memoryview, request_id: int) -> F:
    """Read an answer that has fields and nothing behind them (76, 77, 79, 81, 84)."""
    return _read(kind, _answer(view, request_id), 0)


def parse_empty(view: memoryview, request_id: int) -> None:
    """Check an answer that is a head alone (80)."""
    if len(_answer(view, request_id)):
        raise RemoteProtocolError("answer has a wrong length")
