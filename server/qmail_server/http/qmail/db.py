"""Endpoints over the local store: messages and attachments."""

from __future__ import annotations

from starlette.types import ASGIApp

from qmail_core.errors import NotFound, QMailError, UsageError
from qmail_core.model import Folder, Message
from qmail_server.http.errors import network_failure
from qmail_server.http.params import Params
from qmail_server.http.qmail import schema
from qmail_server.http.qmail.net import guid_of
from qmail_server.http.respond import Call, attachment

SORTS = ("newest", "unread", "fee", "starred")  # also by number
_MAX_PAGE = 200
_MAX_OFFSET = (1 << 31) - 1


async def list_messages(call: Call) -> schema.EmailList:
    """One page of a folder."""
    folder, sort = _folder(call.params), _sort(call.params)
    limit = call.params.integer("limit", 50, 1, _MAX_PAGE)
    offset = call.params.integer("offset", 0, 0, _MAX_OFFSET)
    page = call.engine.messages(folder, limit, offset, sort)
    items = [schema.email_item(message, _first_recipient(message)) for message in page.messages]
    return schema.email_list(page, items, folder, limit, offset)


async def get_message(call: Call) -> schema.EmailAnswer:
    """One message; read from then on unless `peek` is set."""
    message_id = _email_id(call.params, "Missing required parameter: email_id", "Invalid email_id format")
    mark_read = not call.params.flag("peek")
    try:
        return schema.email(await call.engine.message(message_id, mark_read=mark_read))
    except NotFound as error:
        raise NotFound("Email not found") from error


async def list_attachments(call: Call) -> schema.AttachmentList:
    """What hangs on one message."""
    complaint = "Missing or invalid 'email_id' parameter (32 hex chars)"
    message_id = _email_id(call.params, complaint, complaint)
    try:
        rows = call.engine.attachments(message_id)
    except NotFound as error:
        raise NotFound("Email not found") from error
    items = [schema.attachment_item(row) for row in rows]
    return schema.AttachmentList(email_id=message_id.hex(), count=len(items), attachments=items)


async def get_attachment(call: Call) -> schema.AttachmentInfo | ASGIApp:
    """The bytes of an attachment, fetched if they are still on the network; with `info`, only what is known of it."""
    complaint = "Missing or invalid 'email_id' parameter (32 hex chars)"
    message_id = _email_id(call.params, complaint, complaint)
    attachment_id, info = _attachment_id(call.params), call.params.flag("info")
    try:
        row = await call.engine.attachment(message_id, attachment_id, fetch=not info)
    except NotFound as error:
        raise NotFound("Attachment not found") from error
    except QMailError as error:
        raise network_failure("Download failed", error) from error
    return schema.attachment_info(row) if info else attachment(row.path, row.name)


def _email_id(params: Params, missing: str, invalid: str) -> bytes:
    if not params.has("email_id"):
        raise UsageError(missing)
    try:
        return guid_of(params, "email_id")
    except UsageError:
        raise UsageError(invalid) from None


def _attachment_id(params: Params) -> int:
    text = params.text("attachment_id").strip()
    if not text:
        raise UsageError("Missing required parameter: attachment_id")
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise UsageError("Invalid attachment_id (must be a non-negative integer)")
    return int(text)


def _folder(params: Params) -> Folder:
    text = params.text("folder", default="0").strip()
    found = next((folder for folder in Folder if text.upper() == folder.name or text == str(int(folder))), None)
    if found is None:
        raise UsageError("Invalid folder (0-5 or inbox, sent, drafts, trash, starred, archive)")
    return found


def _sort(params: Params) -> str:
    text = params.text("sort", default=SORTS[0]).strip().lower()
    found = next((word for number, word in enumerate(SORTS) if text in (word, str(number))), None)
    if found is None:
        raise UsageError(f"Invalid sort ({', '.join(SORTS)})")
    return found


def _first_recipient(message: Message) -> str:
    return message.recipients[0].text if message.recipients else ""
