"""Handlers of the older mail commands 60 to 64, for a node whose policy asks for them. Mirrors codec/legacy.py.

They may come in the clear (encryption type 0), so an authenticity number may be read on the way: whoever turns them on
accepts that for clients that know nothing else. Storage, payment, gate and tells are those of 70 to 74. Only the old
statuses differ: 17 for "no mail", 165 for a wrong authenticity number, 166 for a payment that lacks. QMail wire C.10.
"""

from __future__ import annotations

from collections.abc import Callable

from qmail_core.codec import consts as c
from qmail_core.codec import legacy as codec
from qmail_core.codec import mail as newer
from qmail_core.codec.packet import Refused, Request
from qmail_core.raida import mail
from qmail_core.raida.context import Answer, Command, Context

_OLD = {
    c.STATUS_INVALID_AN: c.STATUS_OLD_AUTH_FAILED,
    c.STATUS_PAYMENT_REQUIRED: c.STATUS_OLD_PAYMENT,
    c.STATUS_PAYMENT_INSUFFICIENT: c.STATUS_OLD_PAYMENT,
    c.STATUS_POLL_TIMEOUT: c.STATUS_OLD_NO_MAIL,
}
Run = Callable[[Context, Request, float], Answer]


def old_status(status: int) -> int:
    """What an older client expects instead of a status."""
    return _OLD.get(status, status)


def _speaking_old(run: Run) -> Run:
    def translated(context: Context, request: Request, now: float) -> Answer:
        try:
            answer = run(context, request, now)
        except Refused as refused:
            raise Refused(old_status(refused.status)) from None
        return Answer(old_status(answer.status), answer.payload, answer.woken, answer.park)

    return translated


def upload(context: Context, request: Request, now: float) -> Answer:
    """Command 60: as 70."""
    sender = mail.authenticate(context, request)
    return mail.store(context, sender, codec.parse_upload(request.payload), now)


def tell(context: Context, request: Request, now: float) -> Answer:
    """Command 61: as 71; the sender is who the preamble proves."""
    sender = mail.authenticate(context, request)
    wanted = codec.parse_tell(request.payload)
    return mail.deliver_all(
        context, sender, newer.TellRequest(wanted.tell, wanted.recipients, wanted.fee_locker, wanted.record), now
    )


def ping(context: Context, request: Request, now: float) -> Answer:
    """Command 62: as 72."""
    mailbox = mail.authenticate(context, request)
    newer.parse_poll(request.payload, exact=False)
    return poll(context, mailbox, now)


def poll(context: Context, mailbox: bytes, now: float) -> Answer:
    """What an older client's ping gets at this moment."""
    answer = _tells(context, mailbox, 0, now)
    return answer if answer is not None else Answer(c.STATUS_OLD_NO_MAIL, park=mailbox)


def peek(context: Context, request: Request, now: float) -> Answer:
    """Command 63: as 73; an empty list if there is nothing."""
    mailbox = mail.authenticate(context, request)
    since = newer.parse_poll(request.payload, exact=True)
    return _tells(context, mailbox, since, now) or Answer(c.STATUS_SUCCESS, codec.build_tells([], 0))


def _tells(context: Context, mailbox: bytes, since: int, now: float) -> Answer | None:
    waiting = context.state.pending_tells(mailbox)
    records = mail.serve(context, mailbox, since, now)
    if not records:
        return None
    return Answer(c.STATUS_SUCCESS, codec.build_tells(records, waiting - len(records)))


def download(context: Context, request: Request, now: float) -> Answer:
    """Command 64: as 74, in smaller pages. In the clear nothing but the preamble proves anything, so it must."""
    mail.authenticate(context, request)
    wanted = codec.parse_download(request.payload)
    page, offset = divmod(wanted.page * wanted.page_bytes, c.PAGE_SIZE)
    stored = mail.stored_page(context, wanted.guid, wanted.file_type, page, now)
    if stored is None or (offset >= len(stored) and wanted.page):
        raise Refused(c.STATUS_FILE_NOT_EXIST)
    data = stored[offset : offset + wanted.page_bytes]
    if context.tamper is not None:
        data = context.tamper(data)
    return Answer(c.STATUS_SUCCESS, codec.build_page(wanted, data))


LEGACY = {
    command: Command(_speaking_old(run))
    for command, run in (
        (c.CMD_OLD_UPLOAD, upload),
        (c.CMD_OLD_TELL, tell),
        (c.CMD_OLD_PING, ping),
        (c.CMD_OLD_PEEK, peek),
        (c.CMD_OLD_DOWNLOAD, download),
    )
}
