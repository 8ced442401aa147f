"""Handlers of group 6: upload, download, tell, ping and peek. Mirrors codec/mail.py; QMail wire part C.

Rules: the preamble proves who speaks before anything else is looked at (download excepted, C.1); payment is taken in
the same transaction as what it pays for; repeating a request that was answered 250 changes nothing and costs nothing.
"""

from __future__ import annotations

import enum
import hmac
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

from msgspec import Struct

from qmail_core.codec import consts as c
from qmail_core.codec import mail as codec
from qmail_core.codec.directory import UNITS_PER_COIN, accepts, parse_user_record
from qmail_core.codec.mail import build_selector
from qmail_core.codec.objects import LIVE
from qmail_core.codec.packet import Refused, Request
from qmail_core.errors import StoreUnavailable
from qmail_core.model import ListKind, Tell, UserProfile
from qmail_core.raida.context import Answer, Command, Context
from qmail_core.raida.lockers import Locker, consume, open_locker

DAY = 86_400.0
DURATIONS: dict[int, float | None] = {  # QMail wire C.2
    0: DAY,
    1: 7 * DAY,
    2: 30 * DAY,
    3: 91 * DAY,
    4: 182 * DAY,
    5: 365 * DAY,
    255: None,
}
UNIT_MAIL = 0  # what file types 0..9 are paid as; an attachment is paid under its own file type
MAX_TELLS = 255  # C.7: the count is one byte
MAX_TELL_BYTES = 200 * 1024

T = TypeVar("T")


def authenticate(context: Context, request: Request) -> bytes:
    """The mailbox whose authenticity number the preamble proves; Refused otherwise. QMail wire C.1."""
    identity = codec.parse_identity(request.payload)
    if not any(identity.an):
        raise Refused(c.STATUS_INVALID_ENCRYPTION)
    selector = build_selector(identity.address)
    known = context.state.an(selector)
    if known is None:
        raise Refused(c.STATUS_SN_NOT_HELD)
    if not hmac.compare_digest(known, identity.an):
        raise Refused(c.STATUS_INVALID_AN)
    return selector


# ------------------------------------------------------------------------------------------------------------------
# 70 upload, 75 upload page, 74 download


def upload(context: Context, request: Request, now: float) -> Answer:
    """Command 70: store one stripe. QMail wire C.3."""
    sender = authenticate(context, request)
    return store(context, sender, codec.parse_upload(request.payload, paged=False), now)


def upload_page(context: Context, request: Request, now: float) -> Answer:
    """Command 75: store one page of a stripe; header and body must name the same page. QMail wire C.4."""
    sender = authenticate(context, request)
    wanted = codec.parse_upload(request.payload, paged=True)
    if wanted.page != request.header.page:
        raise Refused(c.STATUS_INVALID_PARAMETER)
    return store(context, sender, wanted, now)


def store(context: Context, sender: bytes, wanted: codec.Upload, now: float) -> Answer:
    """Keep one page, paid for with the first of its unit."""
    if wanted.duration not in DURATIONS:
        raise Refused(c.STATUS_INVALID_PARAMETER)
    state = context.state
    owner = state.owner(wanted.guid)
    if (owner or sender) != sender:
        raise Refused(c.STATUS_FILE_EXISTS)
    unit = unit_of(wanted.file_type)
    locker = storage_payment(context, wanted.guid, wanted.locker, unit)
    lifetime = DURATIONS[wanted.duration]
    expires = None if lifetime is None else now + lifetime
    state.put_page(wanted.guid, wanted.file_type, wanted.page, wanted.data, now, expires)
    if owner is None:
        state.claim(wanted.guid, sender)
    if locker is not None:
        consume(context, locker)
        state.record_payment(wanted.guid, unit, locker.key, locker.value)
    return Answer(c.STATUS_SUCCESS)


def unit_of(file_type: int) -> int:
    """What a file type is paid as."""
    return UNIT_MAIL if file_type < c.FILE_ATTACHMENT else file_type


def storage_payment(context: Context, guid: bytes, code: bytes, unit: int) -> Locker | None:
    """The locker to consume; None if the unit is free or was paid before."""
    fee = context.policy.storage_fee
    if fee <= 0 or context.state.paid(guid, unit) is not None:
        return None
    locker = open_locker(context, code)
    if locker is None:
        raise Refused(c.STATUS_PAYMENT_REQUIRED)
    if locker.value < fee:
        raise Refused(c.STATUS_PAYMENT_INSUFFICIENT)
    return locker


def download(context: Context, request: Request, now: float) -> Answer:
    """Command 74: one page. Whoever can encrypt the request and knows the GUID may read (C.1, C.5)."""
    wanted = codec.parse_download(request.payload)
    data = stored_page(context, wanted.guid, wanted.file_type, wanted.page, now)
    if data is None:
        raise Refused(c.STATUS_FILE_NOT_EXIST)
    if context.tamper is not None:
        data = context.tamper(data)
    return Answer(c.STATUS_SUCCESS, codec.build_page(wanted.file_type, wanted.page, data))


def stored_page(context: Context, guid: bytes, file_type: int, page: int, now: float) -> bytes | None:
    """One page of what was stored with 70 or 75, or else of an object that 76 to 79 brought (C.9.4 "Mail use")."""
    state = context.state
    data = state.page(guid, file_type, page, now)
    if data is not None:
        return data
    found = state.stored_object(guid, file_type)
    offset = page * c.PAGE_SIZE
    if found is None or found.state != LIVE or found.expires_at <= now or (offset >= found.total_size and page):
        return None
    return state.read_span(found.transfer, offset, min(c.PAGE_SIZE, found.total_size - offset))


# ------------------------------------------------------------------------------------------------------------------
# The gate: may this sender's tell enter this mailbox? QMail wire E.3


class Lookup(enum.Enum):
    """Stands for a value that could not be looked up just now."""

    FAILED = enum.auto()


Failed = Literal[Lookup.FAILED]


class Decision(Struct, frozen=True):
    """Outcome of the gate for one recipient."""

    status: int
    consume: bool = False  # deliver, and take the locker


def gate(
    profile: UserProfile | Failed | None,
    listed: int | Failed | None,
    sender_denomination: int,
    default_fee: int,
    locker_value: int | Failed | None,
) -> Decision:
    """Decide for one recipient, in the documented order.

    profile              what the recipient has published; None if nothing
    listed               the ListKind the recipient has the sender on; None if on neither
    sender_denomination  signed, of the coin the preamble proved
    default_fee          whole CC, for a recipient without record
    locker_value         whole CC in the locker offered; None if there is no locker or it is empty
    source               QMail wire E.3
    """
    if listed == ListKind.BLACK:
        return Decision(c.STATUS_BLACKLISTED)
    if listed == ListKind.WHITE:
        return Decision(c.STATUS_SUCCESS)
    if listed is Lookup.FAILED or profile is Lookup.FAILED:
        return Decision(c.STATUS_PAYMENT_PROCESSING)
    if profile is None:
        return _charge(default_fee * UNITS_PER_COIN, locker_value)
    if not accepts(profile.class_rejection, sender_denomination):
        return Decision(c.STATUS_CLASS_REJECTED)
    return _charge(profile.fee, locker_value)


def _charge(fee: int, locker_value: int | Failed | None) -> Decision:
    if fee <= 0:
        return Decision(c.STATUS_SUCCESS)
    if locker_value is Lookup.FAILED:
        return Decision(c.STATUS_PAYMENT_PROCESSING)
    if locker_value is None:
        return Decision(c.STATUS_PAYMENT_REQUIRED)
    if locker_value * UNITS_PER_COIN < fee:
        return Decision(c.STATUS_PAYMENT_INSUFFICIENT)
    return Decision(c.STATUS_SUCCESS, consume=True)


# C.6.9, E.3; 167 and 160 are not in the documented order: they stand behind it because they only ask to try again
_PRECEDENCE = (
    c.STATUS_BLACKLISTED,
    c.STATUS_CLASS_REJECTED,
    c.STATUS_PAYMENT_INSUFFICIENT,
    c.STATUS_PAYMENT_REQUIRED,
    c.STATUS_PAYMENT_PROCESSING,
    c.STATUS_RATE_EXCEEDED,
)


def tell_status(statuses: Sequence[int]) -> int:
    """The one status of a tell from those of its recipients. QMail wire C.6.9."""
    if c.STATUS_SUCCESS in statuses:
        return c.STATUS_SUCCESS
    if statuses and all(status == c.STATUS_SN_NOT_HELD for status in statuses):
        return c.STATUS_SN_NOT_HELD
    return next((status for status in _PRECEDENCE if status in statuses), c.STATUS_WRONG_RAIDA)


# ------------------------------------------------------------------------------------------------------------------
# 71 tell

_RECEIPT_SHARE = 4  # of the places of a mailbox, one in so many for what pays nothing, so that mail finds the rest
_UNPAID = (c.STATUS_PAYMENT_REQUIRED, c.STATUS_PAYMENT_INSUFFICIENT)


def tell(context: Context, request: Request, now: float) -> Answer:
    """Command 71: deliver a record to every recipient that lets it in. QMail wire C.6."""
    sender = authenticate(context, request)
    wanted = codec.parse_tell(request.payload)
    if build_selector(wanted.tell.sender) != sender:
        raise Refused(c.STATUS_INVALID_PARAMETER)
    return deliver_all(context, sender, wanted, now)


def deliver_all(context: Context, sender: bytes, wanted: codec.TellRequest, now: float) -> Answer:
    """Deliver to every recipient that lets it in; one status for all."""
    statuses, woken = [], []
    for recipient in wanted.recipients:
        status = _deliver(context, sender, wanted, recipient, now)
        statuses.append(status)
        if status == c.STATUS_SUCCESS:
            woken.append(build_selector(recipient.address))
    return Answer(tell_status(statuses), woken=tuple(woken))


def _deliver(
    context: Context, sender: bytes, wanted: codec.TellRequest, recipient: codec.TellRecipient, now: float
) -> int:
    """Deliver to one recipient, or say why not."""
    state, mailbox = context.state, build_selector(recipient.address)
    # the sender is part of the key: nobody who learns a GUID can block the mail of its owner
    key = b"".join((wanted.tell.guid, sender, bytes((wanted.tell.tell_type,))))
    if state.an(mailbox) is None:
        return c.STATUS_SN_NOT_HELD
    if state.has_tell(mailbox, key):
        return c.STATUS_SUCCESS
    free = context.policy.free_receipts and _is_receipt(wanted.tell)
    if state.pending_tells(mailbox) >= context.policy.max_pending_tells // (_RECEIPT_SHARE if free else 1):
        return c.STATUS_RATE_EXCEEDED
    code = recipient.locker if any(recipient.locker) else wanted.fee_locker
    decision, locker = _admit(context, sender, mailbox, code)
    if free and decision.status in _UNPAID:
        decision = Decision(c.STATUS_SUCCESS)
    if decision.status == c.STATUS_SUCCESS:
        if decision.consume and locker is not None:
            consume(context, locker)
        state.add_tell(mailbox, key, wanted.record, now)
    return decision.status


def _is_receipt(tell: Tell) -> bool:
    """Whether a tell says that a mail was opened, and nothing else that somebody ought to pay for."""
    small = len(tell.files) == 1 and not tell.files[0].size and not tell.total_size
    return tell.tell_type == c.TELL_READ_RECEIPT and small


def _admit(context: Context, sender: bytes, mailbox: bytes, code: bytes) -> tuple[Decision, Locker | None]:
    """Run the gate on what is known here."""
    if sender == mailbox:
        return Decision(c.STATUS_SUCCESS), None
    locker = _look_up(lambda: open_locker(context, code))
    value = locker.value if isinstance(locker, Locker) else locker
    profile = _look_up(lambda: _profile(context, mailbox))
    listed = _look_up(lambda: context.state.listed(mailbox, sender))
    denomination = int.from_bytes(sender[:1], "big", signed=True)
    decision = gate(profile, listed, denomination, context.policy.inbox_fee, value)
    return decision, locker if isinstance(locker, Locker) else None


def _profile(context: Context, mailbox: bytes) -> UserProfile | None:
    record = context.state.user(mailbox)
    return parse_user_record(record).profile if record is not None else None


def _look_up(read: Callable[[], T]) -> T | Failed:
    try:
        return read()
    except StoreUnavailable:
        return Lookup.FAILED


# ------------------------------------------------------------------------------------------------------------------
# 72 ping, 73 peek


def ping(context: Context, request: Request, now: float) -> Answer:
    """Command 72: tells if there are any, else wait. Its `since` is ignored. QMail wire C.7."""
    mailbox = authenticate(context, request)
    codec.parse_poll(request.payload, exact=False)
    return poll(context, mailbox, now)


def peek(context: Context, request: Request, now: float) -> Answer:
    """Command 73: tells that arrived after `since`, possibly none. QMail wire C.7."""
    mailbox = authenticate(context, request)
    since = codec.parse_poll(request.payload, exact=True)
    return Answer(c.STATUS_SUCCESS, codec.build_tells(serve(context, mailbox, since, now)))


def poll(context: Context, mailbox: bytes, now: float) -> Answer:
    """What a ping of this mailbox gets at this moment."""
    records = serve(context, mailbox, 0, now)
    if not records:
        return Answer(c.STATUS_POLL_TIMEOUT, park=mailbox)
    return Answer(c.STATUS_SUCCESS, codec.build_tells(records))


def serve(context: Context, mailbox: bytes, since: int, now: float) -> list[bytes]:
    """Take what is due. A record stays for a while after it was served: the answer may never arrive."""
    policy, state = context.policy, context.state
    due = _fitting(state.tells(mailbox, since, now - policy.redeliver_after, MAX_TELLS))
    state.tells_served((tell_id for tell_id, _, _ in due), now)
    state.forget_tells(tell_id for tell_id, _, served in due if served + 1 >= policy.redeliver_times)
    return [record for _, record, _ in due]


def _fitting(due: Sequence[tuple[int, bytes, int]]) -> Sequence[tuple[int, bytes, int]]:
    """As many as one answer should carry, at least one."""
    total = 0
    for position, (_, record, _) in enumerate(due):
        total += len(record)
        if total > MAX_TELL_BYTES and position:
            return due[:position]
    return due


MAIL = {
    c.CMD_UPLOAD: Command(upload),
    c.CMD_TELL: Command(tell),
    c.CMD_PING: Command(ping),
    c.CMD_PEEK: Command(peek),
    c.CMD_DOWNLOAD: Command(download),
    c.CMD_UPLOAD_PAGE: Command(upload_page),
}
