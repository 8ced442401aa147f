"""Payments that came with mail, and what sent mails were paid with."""

from __future__ import annotations

from qmail_core.errors import NotFound
from qmail_server.http.qmail.db import schema as db
from qmail_server.http.qmail.db.ids import MAX_OFFSET, email_id, limit
from qmail_server.http.respond import Call

MISSING = "Missing 'email_id' parameter"
INVALID = "Invalid email_id format (expected 32 hex chars)"


async def get_payment(call: Call) -> db.PaymentAnswer | db.NoPayment:
    """The locker that came with a message."""
    message_id = email_id(call.params, MISSING, INVALID)
    try:
        return db.payment(call.engine.payments.get(message_id))
    except NotFound as error:
        raise NotFound("Email not found") from error


async def mark_refunded(call: Call) -> db.RefundAnswer:
    """Note that a payment went back to its sender."""
    message_id = email_id(call.params, MISSING, INVALID)
    try:
        payment, again = await call.engine.payments.refund(message_id)
    except NotFound as error:
        raise NotFound("Email not found") from error
    return db.refunded(payment, again)


async def sent_payments(call: Call) -> db.SentPayments:
    """What sent mails were paid with, newest first."""
    rows = limit(call.params)
    offset = call.params.integer("offset", 0, 0, MAX_OFFSET)
    found = [db.sent_payment(receipt, spent) for receipt, spent in call.engine.payments.sent(rows, offset)]
    return db.SentPayments(count=len(found), limit=rows, offset=offset, emails=found)
