"""Handlers of Object Transfer v1, commands 76 to 84. Mirrors codec/objects.py; QMail wire C.9.

Rules: the identity proves who speaks before anything else is looked at; only the owner writes, whoever knows an
object's id reads (C.9.4 "Mail use"); a range counts once its answer is sent; an object changes at its commit and at
no other moment. Repeating a request that was answered 250 changes nothing and costs nothing. Of an object only the
current generation is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from msgspec.structs import replace

from qmail_core.codec import consts as c
from qmail_core.codec import objects as codec
from qmail_core.codec.packet import Refused, Request
from qmail_core.errors import StoreUnavailable
from qmail_core.model import StoredObject, Transfer
from qmail_core.raida.context import Answer, Command, Context
from qmail_core.raida.lockers import Locker, consume
from qmail_core.raida.mail import authenticate, storage_payment, unit_of

SWEPT_AT_ONCE = 16  # overdue transfers a request may have to clear away
CAPABILITIES_LIFETIME = 3600


def _answer(payload: memoryview, *parts: object) -> Answer:
    return Answer(c.STATUS_SUCCESS, codec.build_answer(codec.parse_head(payload), *parts))


def _owned(context: Context, transfer_id: bytes, sender: bytes) -> Transfer:
    found = context.state.transfer(transfer_id)
    if found is None:
        raise Refused(c.STATUS_TRANSFER_NOT_FOUND)
    if found.owner != sender:
        raise Refused(c.STATUS_NOT_OWNER)
    return found


def _state(transfer: Transfer, now: float) -> int:
    """The state of a transfer at this moment, swept or not."""
    return codec.EXPIRED if transfer.state == codec.OPEN and transfer.expires_at <= now else transfer.state


def _refuse_ended(state: int) -> None:
    if state == codec.EXPIRED:
        raise Refused(c.STATUS_TRANSFER_EXPIRED)
    if state != codec.OPEN:
        raise Refused(c.STATUS_OBJECT_STATE)


# ------------------------------------------------------------------------------------------------------------------
# 76 begin


def begin(context: Context, request: Request, now: float) -> Answer:
    """Command 76: open a transfer, and pay for what it will store. QMail wire C.9.3, C.9.4."""
    sender = authenticate(context, request)
    codec.parse_head(request.payload)
    wanted = codec.parse_begin(request.payload)
    digest = hashlib.sha256(request.payload[codec.BODY_HEAD :]).digest()
    known = context.state.transfer(wanted.transfer_id)
    if known is not None:
        return _answer(request.payload, _begun(context, _repeated(known, sender, digest, now)))
    sweep(context, now)
    _check_wish(context, wanted, sender)
    _check_generation(context, wanted.object_id, wanted.file_type, wanted.expected_generation, wanted.target_generation)
    _check_room(context, wanted.total_size, sender)
    locker = _payment(context, wanted)
    row = _opened(context, wanted, sender, digest, now)
    context.state.put_transfer(row)
    context.state.claim(wanted.object_id, sender)
    if locker is not None:
        consume(context, locker)
        context.state.record_payment(wanted.object_id, unit_of(wanted.file_type), locker.key, locker.value)
    return _answer(request.payload, _begun(context, row))


def _repeated(known: Transfer, sender: bytes, digest: bytes, now: float) -> Transfer:
    if known.owner != sender:
        raise Refused(c.STATUS_NOT_OWNER)
    if known.fingerprint != digest:
        raise Refused(c.STATUS_TRANSFER_CONFLICT)
    if _state(known, now) != codec.COMMITTED:
        _refuse_ended(_state(known, now))
    return known


def _check_wish(context: Context, wanted: codec.Begin, sender: bytes) -> None:
    policy = context.policy
    creates = wanted.operation == codec.CREATE
    if creates != (wanted.expected_generation == 0) or wanted.target_generation <= wanted.expected_generation:
        raise Refused(c.STATUS_INVALID_PARAMETER)
    if wanted.retention > policy.max_retention:
        raise Refused(c.STATUS_RETENTION_UNAVAILABLE)
    if wanted.total_size > policy.max_object:
        raise Refused(c.STATUS_OBJECT_TOO_LARGE)
    if (context.state.owner(wanted.object_id) or sender) != sender:
        raise Refused(c.STATUS_NOT_OWNER)


def _check_generation(context: Context, object_id: bytes, file_type: int, expected: int, target: int) -> None:
    """Compare and swap: what is there now must be what the sender believes, and numbers never go back."""
    found = context.state.stored_object(object_id, file_type)
    last = found.generation if found is not None else 0
    live = last if found is not None and found.state == codec.LIVE else 0
    if expected != live or target <= last:
        raise Refused(c.STATUS_GENERATION_CONFLICT)


def _check_room(context: Context, size: int, sender: bytes) -> None:
    policy = context.policy
    opened, _, mine = context.state.objects_held(sender)
    if opened >= policy.max_transfers or mine + size > policy.object_quota:
        raise Refused(c.STATUS_QUOTA)
    if context.state.objects_held(None)[2] + size > policy.object_capacity:
        raise Refused(c.STATUS_STORAGE_FULL)


def _payment(context: Context, wanted: codec.Begin) -> Locker | None:
    try:
        return storage_payment(context, wanted.object_id, wanted.locker, unit_of(wanted.file_type))
    except StoreUnavailable:
        raise Refused(c.STATUS_PAYMENT_PROCESSING) from None


def _opened(context: Context, wanted: codec.Begin, sender: bytes, digest: bytes, now: float) -> Transfer:
    policy = context.policy
    expires = int(now) + policy.transfer_lifetime
    return Transfer(
        id=wanted.transfer_id,
        owner=sender,
        object_id=wanted.object_id,
        file_type=wanted.file_type,
        fingerprint=digest,
        operation=wanted.operation,
        chunk=min(wanted.chunk, policy.object_chunk),
        total_size=wanted.total_size,
        expected_generation=wanted.expected_generation,
        target_generation=wanted.target_generation,
        object_hash=wanted.object_hash,
        retention=wanted.retention or policy.object_retention,
        storage_class=codec.DEFAULT_CLASS,
        expires_at=expires,
        state=codec.OPEN,
        held=True,
        due=expires,
    )


def _begun(context: Context, row: Transfer) -> codec.Begun:
    return codec.Begun(
        transfer_id=row.id,
        chunk=row.chunk,
        max_parallel=context.policy.max_parallel,
        hash_alg=codec.SHA256,
        operation=row.operation,
        storage_class=row.storage_class,
        base_generation=row.expected_generation,
        target_generation=row.target_generation,
        expires_at=row.expires_at,
        retention=row.retention,
    )


# ------------------------------------------------------------------------------------------------------------------
# 77 put range, 78 status


def put_range(context: Context, request: Request, now: float) -> Answer:
    """Command 77: keep one range. What of it has arrived before must be the same bytes. QMail wire C.9.4 "Ranges"."""
    sender = authenticate(context, request)
    codec.parse_head(request.payload)
    wanted, data = codec.parse_put_range(request.payload)
    transfer = _owned(context, wanted.transfer_id, sender)
    _refuse_ended(_state(transfer, now))
    if wanted.size > transfer.chunk:
        raise Refused(c.STATUS_RANGE_TOO_LARGE)
    if not wanted.size or wanted.offset + wanted.size > transfer.total_size:
        raise Refused(c.STATUS_RANGE_INVALID)
    if hashlib.sha256(data).digest() != wanted.range_hash:
        raise Refused(c.STATUS_HASH_MISMATCH)
    _keep(context, transfer.id, wanted.offset, data)
    return _answer(request.payload, codec.RangePut(transfer.id, wanted.offset, wanted.size))


def _keep(context: Context, transfer_id: bytes, offset: int, data: memoryview) -> None:
    state, end = context.state, offset + len(data)
    there = state.spans(transfer_id, offset, end)
    for low, high in there:
        if state.read_span(transfer_id, low, high - low) != data[low - offset : high - offset]:
            raise Refused(c.STATUS_RANGE_CONFLICT)
    for low, high in _gaps(there, offset, end):
        state.write_span(transfer_id, low, data[low - offset : high - offset])


def _gaps(spans: list[tuple[int, int]], start: int, end: int) -> Iterator[tuple[int, int]]:
    """What of [start, end) the spans leave open."""
    for low, high in spans:
        if low > start:
            yield start, low
        start = high
    if start < end:
        yield start, end


def status(context: Context, request: Request, now: float) -> Answer:
    """Command 78: the state of a transfer, and what is missing page by page. QMail wire C.9.4 "Resume"."""
    sender = authenticate(context, request)
    codec.parse_head(request.payload)
    wanted = codec.parse_inquiry(request.payload)
    transfer = _owned(context, wanted.transfer_id, sender)
    state, count, total = _state(transfer, now), min(wanted.max_ranges, codec.MAX_RANGES), transfer.total_size
    missing: list[tuple[int, int]] = []
    if state == codec.OPEN and wanted.cursor < total:
        # one span more than ranges wanted: the gap behind the last one may be open still
        spans = context.state.spans(transfer.id, wanted.cursor, total, count + 1)
        known_to = total if len(spans) <= count else spans[-1][1]
        missing = list(_gaps(spans, wanted.cursor, known_to))[:count]
    cursor = missing[-1][1] if missing else total
    more = bool(missing) and bool(list(_gaps(context.state.spans(transfer.id, cursor, total, 1), cursor, total)))
    progress = codec.Progress(
        transfer_id=transfer.id,
        total_size=total,
        target_generation=transfer.target_generation,
        state=state,
        count=len(missing),
        flags=codec.MORE if more else 0,
        next_cursor=cursor if more else 0,
    )
    return _answer(request.payload, progress, codec.build_ranges([(low, high - low) for low, high in missing]))


# ------------------------------------------------------------------------------------------------------------------
# 79 commit, 80 abort


def commit(context: Context, request: Request, now: float) -> Answer:
    """Command 79: make a whole transfer the object's current generation. QMail wire C.9.4 "Commit"."""
    sender = authenticate(context, request)
    codec.parse_head(request.payload)
    wanted = codec.parse_commit(request.payload)
    transfer = _owned(context, wanted.transfer_id, sender)
    if _state(transfer, now) != codec.COMMITTED:
        _refuse_ended(_state(transfer, now))
    if wanted.total_size != transfer.total_size:
        raise Refused(c.STATUS_TRANSFER_CONFLICT)
    if wanted.object_hash != transfer.object_hash:
        raise Refused(c.STATUS_HASH_MISMATCH)
    if transfer.state == codec.OPEN:
        _complete(context, transfer)
        _exchange(context, transfer, now)
    done = codec.Committed(
        object_id=transfer.object_id,
        file_type=transfer.file_type,
        object_state=codec.LIVE,
        storage_class=transfer.storage_class,
        hash_alg=codec.SHA256,
        generation=transfer.target_generation,
        total_size=transfer.total_size,
        object_hash=transfer.object_hash,
    )
    return _answer(request.payload, done)


def _complete(context: Context, transfer: Transfer) -> None:
    """All bytes are there and are the right ones; read piece by piece, whatever the size."""
    state, total = context.state, transfer.total_size
    if state.spans(transfer.id, 0, total, 2) != [(0, total)] * (total > 0):
        raise Refused(c.STATUS_TRANSFER_INCOMPLETE)
    digest = hashlib.sha256()
    for offset in range(0, total, c.MAX_RANGE):
        digest.update(state.read_span(transfer.id, offset, min(c.MAX_RANGE, total - offset)))
    if digest.digest() != transfer.object_hash:
        raise Refused(c.STATUS_HASH_MISMATCH)


def _exchange(context: Context, transfer: Transfer, now: float) -> None:
    """Put the new generation in the place of the old one."""
    state = context.state
    key = transfer.object_id, transfer.file_type
    _check_generation(context, *key, transfer.expected_generation, transfer.target_generation)
    old = state.stored_object(*key)
    if old is not None and old.state == codec.LIVE:
        _let_go(context, old.transfer, now)
    expires = int(now) + transfer.retention
    state.put_stored_object(
        StoredObject(
            id=transfer.object_id,
            file_type=transfer.file_type,
            owner=transfer.owner,
            state=codec.LIVE,
            generation=transfer.target_generation,
            transfer=transfer.id,
            total_size=transfer.total_size,
            object_hash=transfer.object_hash,
            storage_class=transfer.storage_class,
            expires_at=expires,
        )
    )
    state.put_transfer(replace(transfer, state=codec.COMMITTED, due=expires))


def _let_go(context: Context, transfer_id: bytes, now: float, state: int = 0) -> None:
    """Drop the bytes of a transfer; its id is remembered for a while."""
    found = context.state.transfer(transfer_id)
    assert found is not None  # held transfers are never forgotten
    context.state.drop_spans(transfer_id)
    due = now + context.policy.keep_transfers
    context.state.put_transfer(replace(found, state=state or found.state, held=False, due=due))


def abort(context: Context, request: Request, now: float) -> Answer:
    """Command 80: give up a transfer and its bytes. What was paid stays paid, for the next try."""
    sender = authenticate(context, request)
    codec.parse_head(request.payload)
    transfer = _owned(context, codec.parse_abort(request.payload).transfer_id, sender)
    if transfer.state != codec.ABORTED:
        _refuse_ended(_state(transfer, now))
        _let_go(context, transfer.id, now, codec.ABORTED)
    return _answer(request.payload)


# ------------------------------------------------------------------------------------------------------------------
# 81 info, 82 get range, 84 delete


def _readable(context: Context, wanted: codec.Info | codec.GetRange, now: float) -> StoredObject:
    """The object that is asked for, if it can be read now."""
    found = context.state.stored_object(wanted.object_id, wanted.file_type)
    if found is None or found.state != codec.LIVE or found.expires_at <= now:
        waits = context.state.opened_for(wanted.object_id, wanted.file_type, now)
        raise Refused(c.STATUS_NOT_COMMITTED if waits else c.STATUS_FILE_NOT_EXIST)
    if wanted.generation not in (0, found.generation):
        raise Refused(c.STATUS_GENERATION_CONFLICT)
    return found


def info(context: Context, request: Request, now: float) -> Answer:
    """Command 81: what there is to read."""
    authenticate(context, request)
    codec.parse_head(request.payload)
    found = _readable(context, codec.parse_info(request.payload), now)
    described = codec.Described(
        object_id=found.id,
        file_type=found.file_type,
        object_state=found.state,
        storage_class=found.storage_class,
        hash_alg=codec.SHA256,
        generation=found.generation,
        total_size=found.total_size,
        object_hash=found.object_hash,
        recommended_length=context.policy.object_chunk,
        expires_at=found.expires_at,
    )
    return _answer(request.payload, described)


def get_range(context: Context, request: Request, now: float) -> Answer:
    """Command 82: bytes of an object, fewer than asked for at its end."""
    authenticate(context, request)
    codec.parse_head(request.payload)
    wanted = codec.parse_get_range(request.payload)
    found = _readable(context, wanted, now)
    if wanted.size > context.policy.object_chunk:
        raise Refused(c.STATUS_RANGE_TOO_LARGE)
    size = min(wanted.size, found.total_size - wanted.offset)
    if size <= 0 and (wanted.offset or found.total_size):
        raise Refused(c.STATUS_RANGE_INVALID)
    data = context.state.read_span(found.transfer, wanted.offset, size)
    if context.tamper is not None:
        data = context.tamper(data)
    got = codec.RangeGot(
        object_id=found.id,
        file_type=found.file_type,
        hash_alg=codec.SHA256,
        generation=found.generation,
        offset=wanted.offset,
        size=len(data),
        total_size=found.total_size,
        object_hash=found.object_hash,
    )
    return _answer(request.payload, got, data)


def delete(context: Context, request: Request, now: float) -> Answer:
    """Command 84: leave a tombstone, whose generation later ones must exceed."""
    sender = authenticate(context, request)
    codec.parse_head(request.payload)
    wanted = codec.parse_delete(request.payload)
    found = context.state.stored_object(wanted.object_id, wanted.file_type)
    if found is None:
        raise Refused(c.STATUS_FILE_NOT_EXIST)
    if found.owner != sender:
        raise Refused(c.STATUS_NOT_OWNER)
    if (found.state, found.generation) != (codec.DELETED, wanted.target_generation):
        if not wanted.expected_generation:
            raise Refused(c.STATUS_INVALID_PARAMETER)
        _check_generation(
            context, wanted.object_id, wanted.file_type, wanted.expected_generation, wanted.target_generation
        )
        _let_go(context, found.transfer, now)
        _bury(context, found, wanted.target_generation)
    return _answer(request.payload, codec.Tombstone(codec.DELETED, wanted.target_generation))


def _bury(context: Context, found: StoredObject, generation: int) -> None:
    context.state.put_stored_object(replace(found, state=codec.DELETED, generation=generation))


# ------------------------------------------------------------------------------------------------------------------
# 83 capabilities


def capabilities(context: Context, request: Request, now: float) -> Answer:
    """Command 83: what this node offers, for an hour."""
    authenticate(context, request)
    codec.parse_head(request.payload)
    codec.parse_capabilities_request(request.payload)
    policy = context.policy
    used = context.state.objects_held(None)[2]
    only = codec.StorageClass(
        id=codec.DEFAULT_CLASS,
        media_type=0,
        flags=0,
        max_object=policy.max_object,
        capacity=policy.object_capacity,
        available=max(0, policy.object_capacity - used),
        max_retention=policy.max_retention,
        price_schedule_id=0,
    )
    offer = codec.Capabilities(
        schema=codec.SCHEMA,
        protocol_min=1,
        protocol_max=1,
        transport_flags=codec.OVER_TCP,
        server_flags=codec.ENABLED,
        preferred_chunk=policy.object_chunk,
        max_chunk=policy.object_chunk,
        max_download_range=policy.object_chunk,
        max_active_transfers=policy.max_transfers,
        max_parallel=policy.max_parallel,
        max_object=policy.max_object,
        generated_at=int(now),
        expires_at=int(now) + CAPABILITIES_LIFETIME,
        payment_mode=codec.PAY_LOCKER if policy.storage_fee > 0 else codec.PAY_NOTHING,
        class_count=1,
    )
    return _answer(request.payload, offer, only)


# ------------------------------------------------------------------------------------------------------------------
# What time ends


def sweep(context: Context, now: float, limit: int = SWEPT_AT_ONCE) -> int:
    """Clear away what is overdue: unfinished transfers, objects past their retention, ids of ended ones, tombstones.

    A tombstone is remembered as long as the object would have been, and the ids of its transfers: whoever still comes
    with an older generation cannot put it back.

    returns  how many; if it is `limit`, there may be more
    """
    due = context.state.due_transfers(now, limit)
    for transfer in due:
        if not transfer.held:
            context.state.forget_transfer(transfer.id)
        elif transfer.state == codec.OPEN:
            _let_go(context, transfer.id, now, codec.EXPIRED)
        else:
            _let_go(context, transfer.id, now)
            found = context.state.stored_object(transfer.object_id, transfer.file_type)
            if found is not None and found.transfer == transfer.id:
                _bury(context, found, found.generation)
    return len(due) + context.state.sweep_tombstones(now - context.policy.keep_transfers, limit)


OBJECTS = {
    c.CMD_OBJECT_BEGIN: Command(begin),
    c.CMD_OBJECT_PUT_RANGE: Command(put_range),
    c.CMD_OBJECT_STATUS: Command(status),
    c.CMD_OBJECT_COMMIT: Command(commit),
    c.CMD_OBJECT_ABORT: Command(abort),
    c.CMD_OBJECT_INFO: Command(info),
    c.CMD_OBJECT_GET_RANGE: Command(get_range),
    c.CMD_OBJECT_CAPABILITIES: Command(capabilities),
    c.CMD_OBJECT_DELETE: Command(delete),
}
