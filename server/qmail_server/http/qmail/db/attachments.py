"""What hangs on messages: names and sizes at once, bytes when they are asked for."""

from __future__ import annotations

from starlette.types import ASGIApp

from qmail_core.errors import NotFound, QMailError
from qmail_server.http.errors import network_failure
from qmail_server.http.qmail import schema
from qmail_server.http.qmail.db.ids import email_id, number
from qmail_server.http.ranges import Attachment
from qmail_server.http.respond import Call

_EMAIL_ID = "Missing or invalid 'email_id' parameter (32 hex chars)"


async def list_attachments(call: Call) -> schema.AttachmentList:
    """What hangs on one message."""
    message_id = email_id(call.params, _EMAIL_ID, _EMAIL_ID)
    try:
        rows = call.engine.attachments(message_id)
    except NotFound as error:
        raise NotFound("Email not found") from error
    items = [schema.attachment_item(row) for row in rows]
    return schema.AttachmentList(email_id=message_id.hex(), count=len(items), attachments=items)


async def get_attachment(call: Call) -> schema.AttachmentInfo | ASGIApp:
    """The bytes of an attachment, fetched if they are still on the network; with `info`, only what is known of it."""
    message_id = email_id(call.params, _EMAIL_ID, _EMAIL_ID)
    attachment_id = number(
        call.params,
        "attachment_id",
        "Missing required parameter: attachment_id",
        "Invalid attachment_id (must be a non-negative integer)",
    )
    info = call.params.flag("info")
    try:
        row = await call.engine.attachment(message_id, attachment_id, fetch=not info)
    except NotFound as error:
        raise NotFound("Attachment not found") from error
    except QMailError as error:
        raise network_failure("Download failed", error) from error
    return schema.attachment_info(row) if info else Attachment(row.path, row.name, call.request_id)
