"""The older synchronous upload (/api/qmail/upload): one request, one answer when everything is done.

Its errors have a dialect of their own (http/errors.py, LEGACY_UPLOAD), its order of checks is that of its parameters.
"""

from __future__ import annotations

from qmail_core.errors import AddressError, PathRefused, PaymentError, UsageError
from qmail_core.model import Draft, Kind, SendResult
from qmail_server.http.qmail import schema
from qmail_server.http.qmail.net import MAX_WEEKS, attachments_of, document_of, recipients_of, wallet_of
from qmail_server.http.respond import Call

_WEEKS = 35  # "8 months"


async def upload(call: Call) -> schema.LegacyUpload:
    """Upload a ready document and its attachments, tell the recipients, then answer."""
    draft = _draft(call)
    return schema.legacy_upload(await _send(call, draft), draft.duration_weeks)


def _draft(call: Call) -> Draft:
    params = call.params
    for name in ("to", "email_file"):
        if not params.has(name):
            raise UsageError(f"Missing required parameter: {name}")
    recipients = recipients_of(call, _complain)
    document = document_of(call, PathRefused(f"Email file not found: {params.text('email_file')}"))
    attachments = attachments_of(call, "Attachment file not found: {}")
    return Draft(
        document=document,
        recipients=recipients,
        attachments=attachments,
        duration_weeks=params.integer("duration", _WEEKS, 1, MAX_WEEKS),
        wallet=wallet_of(call),
        durability=call.engine.config.durability,
    )


def _complain(kind: Kind, text: str, reason: str) -> UsageError:
    sentence = reason[:1].upper() + reason[1:]
    return AddressError(f"Invalid QMail address: {text}. {sentence}{'' if sentence.endswith('.') else '.'}")


async def _send(call: Call, draft: Draft) -> SendResult:
    try:
        return await call.engine.send(draft)
    except PaymentError as error:
        costs = call.engine.costs(1 + len(draft.attachments), len(draft.recipients))
        raise PaymentError(
            f"Insufficient balance: need {costs.total} CC ({costs.storage} storage + {costs.inbox} inbox), "
            f"wallet has {error.available} CC",
            needed=costs.total,
            available=error.available,
        ) from error
