"""Messages in their folders: list, read, search, mark, move, delete."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from qmail_core.errors import NotFound, UsageError
from qmail_core.model import Folder
from qmail_server.http.params import Params
from qmail_server.http.qmail import schema
from qmail_server.http.qmail.db import schema as db
from qmail_server.http.qmail.db.ids import MAX_OFFSET, email_id, limit
from qmail_server.http.respond import Call

SORTS = ("newest", "unread", "fee", "starred")  # also by number

T = TypeVar("T")


async def list_messages(call: Call) -> schema.EmailList:
    """One page of a folder."""
    folder, sort = _folder(call.params, "0"), _sort(call.params)
    rows = limit(call.params)
    offset = call.params.integer("offset", 0, 0, MAX_OFFSET)
    page = call.engine.messages(folder, rows, offset, sort)
    items = [schema.email_item(message) for message in page.messages]
    return schema.email_list(page, items, folder, rows, offset)


async def get_message(call: Call) -> schema.EmailAnswer:
    """One message; read from then on unless `peek` is set."""
    message_id = email_id(call.params)
    message = await _found(call.engine.message(message_id, mark_read=not call.params.flag("peek")))
    subsubject = call.engine.drafts.get(message.id).subsubject if message.folder == Folder.DRAFTS else ""
    return schema.email(message, call.engine.payments.of(message), subsubject)


async def search_messages(call: Call) -> db.SearchAnswer:
    """Messages that have all words of `query` in subject, people or text; newest first."""
    query = call.params.text("query", "q").strip()
    if not query:
        raise UsageError("Missing required parameter: query")
    rows = limit(call.params)
    found = call.engine.mailbox.find(query, rows)
    return db.SearchAnswer(
        query=query, count=len(found), limit=rows, results=[schema.email_item(message) for message in found]
    )


async def trash_message(call: Call) -> db.EmailDone:
    """Move a message to the trash."""
    message_id = email_id(call.params)
    await _found(call.engine.mailbox.move(message_id, Folder.TRASH))
    return db.EmailDone(message="Email moved to trash", email_id=message_id.hex())


async def delete_message(call: Call) -> db.EmailDone:
    """Remove a message that lies in the trash, with its attachments."""
    message_id = email_id(call.params)
    await _found(call.engine.mailbox.delete(message_id))
    return db.EmailDone(message="Email permanently deleted", email_id=message_id.hex())


async def move_message(call: Call) -> db.EmailMoved:
    """Move a message to another folder."""
    message_id, folder = email_id(call.params), _folder(call.params, "")
    moved = await _found(call.engine.mailbox.move(message_id, folder))
    return db.EmailMoved(email_id=moved.id.hex(), folder=int(folder))


async def set_star(call: Call) -> db.StarAnswer:
    """Star a message, or take the star away."""
    message_id, starred = email_id(call.params), call.params.flag("starred", True)
    message = await _found(call.engine.mailbox.set_star(message_id, starred))
    return db.StarAnswer(email_id=message.id.hex(), is_starred=message.is_starred)


async def set_read(call: Call) -> db.ReadAnswer:
    """Mark a message read or unread."""
    message_id, is_read = email_id(call.params), call.params.flag("is_read", True)
    message = await _found(call.engine.mailbox.set_read(message_id, is_read))
    return db.ReadAnswer(email_id=message.id.hex(), is_read=message.is_read)


async def list_folders(call: Call) -> db.FolderList:
    """The fixed folders."""
    return db.FolderList(folders=[db.FolderItem(id=int(folder), name=folder.name.lower()) for folder in Folder])


async def count_folders(call: Call) -> db.FolderCounts:
    """How much lies in each folder. What is in the trash counts nowhere else."""
    counts = call.engine.mailbox.counts()
    return db.FolderCounts(
        folders={folder.name.lower(): db.FolderCount(total=all_, unread=new) for folder, (all_, new) in counts.items()}
    )


async def _found(work: Awaitable[T]) -> T:
    try:
        return await work
    except NotFound as error:
        raise NotFound("Email not found") from error


def _folder(params: Params, default: str) -> Folder:
    text = params.text("folder", default=default).strip()
    if not text:
        raise UsageError("Missing required parameter: folder")
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
