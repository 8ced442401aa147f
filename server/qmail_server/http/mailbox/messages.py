"""Messages of a mailbox: pages, search, detail, flags, moving, deleting.

A message is named `<id>:<uid>`, both of which must be right; a plain uid, a list and a range are understood where
several messages can be meant.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from qmail_core.errors import NotFound
from qmail_core.model import MailboxState, MessagePages, MessageState, PartState, Query
from qmail_server.http.errors import Failed
from qmail_server.http.mailbox import fields as f
from qmail_server.http.mailbox.given import given
from qmail_server.http.mailbox.paging import Asked, cursor_of
from qmail_server.http.mailbox.who import user_of
from qmail_server.http.respond import Call

_NAMED = re.compile(r"(?:([0-9a-f]{24}):)?([0-9]{1,10})")
_PART = re.compile(r"([0-9]{1,10})(?::([0-9]{1,10}|\*))?")
_NO_MESSAGE = "This message does not exist"
_FLAGS = ("seen", "deleted", "flagged", "draft")
_INTRO = 128
MESSAGE = f.Field("message", f.text(100_000, 1), required=True)
_LIST = (f.LIMIT, f.PAGE, *f.CURSORS)


async def list_messages(call: Call) -> dict[str, Any]:
    """A page of a mailbox, newest first unless `order` is `asc`."""
    found = await given(call, f.USER, f.MAILBOX, f.Field("order", f.text_any, default="desc"), *_LIST)
    user = user_of(call, found["user"])
    box = call.engine.mailboxes.get(user, found["mailbox"])
    asked = Asked(found)
    page = call.engine.messages_of.page(
        user, box, asked.limit, after=_uid(asked.after), before=_uid(asked.before), up=found["order"] == "asc"
    )
    first, last = _ends(page, by_uid=True)
    path = f"/users/{found['user'].hex()}/mailboxes/{box.oid.hex()}/messages"
    order = "asc" if found["order"] == "asc" else "desc"
    paging = asked.answer(path, page.total, first, last, earlier=page.earlier, more=page.more, order=order)
    rows = [row(message, box) for message in page.messages]
    return {"success": True, **paging, "specialUse": box.special_use, "results": rows}


async def search_messages(call: Call) -> dict[str, Any]:
    """A page of what matches anywhere but in trash and junk, newest first."""
    found = await given(
        call,
        f.USER,
        f.Field("query", f.text(255)),
        f.Field("q", f.text(255)),
        f.Field("mailbox", f.hex_id),
        f.Field("thread", f.hex_id),
        *(f.Field(name, f.text(255)) for name in ("from", "to", "subject")),
        *(f.Field(name, f.when) for name in ("datestart", "dateend")),
        *(f.Field(name, f.number()) for name in ("minSize", "maxSize")),
        *(f.Field(name, f.flag) for name in ("attachments", "flagged", "unseen", "searchable")),
        *_LIST,
    )
    user = user_of(call, found["user"])
    words = found["query"] or found["q"] or ""
    query = _query(call, user, words, found)
    if query == Query():
        raise f.invalid({"query": "is required"})
    asked = Asked(found)
    page = call.engine.messages_of.search(
        user, query, asked.limit, after=asked.after and asked.after[0], before=asked.before and asked.before[0]
    )
    boxes = {box.id: box for box in call.engine.mailboxes.listed(user)}
    first, last = _ends(page, by_uid=False)
    path = f"/users/{found['user'].hex()}/search"
    paging = asked.answer(path, page.total, first, last, earlier=page.earlier, more=page.more, query=words)
    rows = [row(message, boxes[message.mailbox]) for message in page.messages]
    return {"success": True, "query": words, **paging, "results": rows}


def _query(call: Call, user: int, words: str, found: dict[str, Any]) -> Query:
    mailbox = None
    if found["mailbox"] is not None:
        mailbox = call.engine.mailboxes.get(user, found["mailbox"]).id
    end = found["dateend"]
    return Query(
        words=words,
        sender=found["from"] or "",
        recipients=found["to"] or "",
        subject=found["subject"] or "",
        mailbox=mailbox,
        thread=found["thread"],
        since=found["datestart"] or None,
        before=end + 1 if end else None,
        least_size=found["minSize"],
        most_size=found["maxSize"],
        flagged=True if found["flagged"] else None,
        seen=False if found["unseen"] else None,
        attachments=True if found["attachments"] else None,
    )


async def get_message(call: Call) -> dict[str, Any]:
    """One message with its text and the list of its attachments."""
    flags = (f.Field("replaceCidLinks", f.flag, default=False), f.Field("markAsSeen", f.flag, default=False))
    found = await given(call, f.USER, f.MAILBOX, MESSAGE, *flags)
    user, box, message = one(call, found)
    if found["markAsSeen"] and not message.seen:
        (message,) = await call.engine.messages_of.flag(user, [message], seen=True)
    return {"success": True, **detail(call, box, message, found)}


async def change_message(call: Call) -> dict[str, Any]:
    """Flags, expiry, or another mailbox, of one message or several."""
    changes = (
        *(f.Field(name, f.flag) for name in _FLAGS),
        f.Field("expires", f.when),
        f.Field("newMailbox", f.hex_id),
        f.Field("moveTo", f.hex_id),
    )
    found = await given(call, f.USER, f.MAILBOX, MESSAGE, *changes)
    if all(found[change.name] is None for change in changes):
        raise Failed(400, "Nothing was changed", code="InputValidationError")
    user = user_of(call, found["user"])
    box = call.engine.mailboxes.get(user, found["mailbox"])
    chosen = several(call, user, box, found["message"])
    target = _target(call, user, found)
    flags = {name: found[name] for name in _FLAGS if found[name] is not None}
    stories = call.engine.messages_of
    if flags:
        await stories.flag(user, chosen, **flags)
    moved = chosen if target is None else await stories.move(user, chosen, target)
    if found["expires"] is not None:  # after the move, which sets it as the mailbox has it
        await stories.expire_at(user, moved, found["expires"] or None)
    if target is None:
        return {"success": True, "updated": len(chosen)}
    if not moved:  # deleted by somebody else meanwhile
        raise Failed(404, "Could not move message, check if message exists", code="MessageNotFound")
    before = {message.id: message.uid for message in chosen}
    pairs = [[before[message.id], message.uid] for message in moved]
    single = name_of(moved[0]) if len(moved) == 1 else pairs
    return {"success": True, "mailbox": target.oid.hex(), "id": single, "updated": len(moved)}


def _target(call: Call, user: int, found: dict[str, Any]) -> MailboxState | None:
    wanted = found["moveTo"] or found["newMailbox"]
    if wanted is None:
        return None
    try:
        return call.engine.mailboxes.get(user, wanted)
    except NotFound as error:
        raise Failed(404, "Mailbox is missing", code="NoSuchMailbox") from error


async def delete_message(call: Call) -> dict[str, Any]:
    """Remove a message, or several, for good."""
    found = await given(call, f.USER, f.MAILBOX, MESSAGE)
    user = user_of(call, found["user"])
    box = call.engine.mailboxes.get(user, found["mailbox"])
    await call.engine.messages_of.delete(user, several(call, user, box, found["message"]))
    return {"success": True}


async def empty_mailbox(call: Call) -> dict[str, Any]:
    """Remove every message of a mailbox for good."""
    found = await given(call, f.USER, f.MAILBOX, f.Field("async", f.flag), f.Field("skipArchive", f.flag))
    user = user_of(call, found["user"])
    box = call.engine.mailboxes.get(user, found["mailbox"])
    chosen = call.engine.messages_of.uids(user, box, 1, None)
    return {"success": True, "deleted": await call.engine.messages_of.delete(user, chosen), "errors": 0}


# ------------------------------------------------------------------------------------------------------------------
# Names of messages


def one(call: Call, found: dict[str, Any]) -> tuple[int, MailboxState, MessageState]:
    """The user, mailbox and message of a path; NotFound for what does not fit together."""
    user = user_of(call, found["user"])
    box = call.engine.mailboxes.get(user, found["mailbox"])
    named = _NAMED.fullmatch(found["message"].lower())
    if named is None:
        raise f.invalid({"message": "is not the id of a message"})
    oid = bytes.fromhex(named[1]) if named[1] else None
    return user, box, call.engine.messages_of.get(user, box, int(named[2]), oid)


def uid_of(text: str) -> int | None:
    """The uid in the name of one message; None if it is none."""
    named = _NAMED.fullmatch(text.lower())
    return None if named is None else int(named[2])


def several(call: Call, user: int, box: MailboxState, text: str) -> Sequence[MessageState]:
    """The messages a text means: one name, or uids and ranges with commas; NotFound if there is none."""
    named = _NAMED.fullmatch(text.lower())
    if named is not None and named[1]:
        return [call.engine.messages_of.get(user, box, int(named[2]), bytes.fromhex(named[1]))]
    chosen: dict[int, MessageState] = {}
    for part in text.split(","):
        match = _PART.fullmatch(part.strip())
        if match is None:
            raise f.invalid({"message": "is not the id of a message"})
        first = int(match[1])
        last = first if match[2] is None else None if match[2] == "*" else int(match[2])
        chosen |= {message.id: message for message in call.engine.messages_of.uids(user, box, first, last)}
    if not chosen:
        raise Failed(404, "Message was not found", code="MessageNotFound")
    return list(chosen.values())


def name_of(message: MessageState) -> str:
    """`<id>:<uid>`."""
    return f"{message.oid.hex()}:{message.uid}"


def _uid(cursor: tuple[bytes, int | None] | None) -> int | None:
    if cursor is None:
        return None
    if cursor[1] is None:
        raise f.invalid({"next": "is not a cursor of this list"})
    return cursor[1]


def _ends(page: MessagePages, *, by_uid: bool) -> tuple[str | None, str | None]:
    ends = [page.messages[0], page.messages[-1]] if page.messages else []
    cursors = [cursor_of(message.oid, message.uid if by_uid else None) for message in ends]
    return (cursors[0], cursors[1]) if cursors else (None, None)


# ------------------------------------------------------------------------------------------------------------------
# Messages as the API shows them


def row(message: MessageState, box: MailboxState) -> dict[str, Any]:
    """A message in a list."""
    return {
        "id": name_of(message),
        "uid": message.uid,
        "mailbox": box.oid.hex(),
        "thread": message.thread.hex(),
        "from": {"address": message.from_address, "name": message.from_name},
        "subject": message.subject,
        "date": iso(message.sent_at),
        "idate": iso(message.received_at),
        "intro": intro(message.preview),
        "size": message.size,
        "attachments": message.attachments > 0,
        "seen": message.seen,
        "deleted": message.deleted,
        "flagged": message.flagged,
        "draft": message.draft,
        "answered": message.answered,
        "forwarded": message.forwarded,
    }


def detail(call: Call, box: MailboxState, message: MessageState, found: dict[str, Any]) -> dict[str, Any]:
    """A message as a whole."""
    content = call.engine.messages_of.content(message)
    headers = call.engine.letters.headers(message, content)
    base = f"attachment:{name_of(message)}/"
    if found["replaceCidLinks"]:
        base = f"/users/{found['user'].hex()}/mailboxes/{box.oid.hex()}/messages/{name_of(message)}/attachments/"
    pages: list[str] = headers.pop("html", None) or ([content.html] if content.html else [])
    pages = call.engine.letters.link(pages, headers.pop("cids", {}), lambda name: base + name)
    shown: dict[str, Any] = {
        "id": name_of(message),
        "uid": message.uid,
        "user": found["user"].hex(),
        "mailbox": box.oid.hex(),
        "thread": message.thread.hex(),
        "from": {"address": message.from_address, "name": message.from_name},
        **headers,
        "subject": message.subject,
        "date": iso(message.sent_at),
        "idate": iso(message.received_at),
        "size": message.size,
        "seen": message.seen,
        "deleted": message.deleted,
        "flagged": message.flagged,
        "draft": message.draft,
        "answered": message.answered,
        "forwarded": message.forwarded,
        "html": pages,
        "text": content.text,
        "attachments": [part(state) for state in call.engine.messages_of.attachments(message)],
    }
    if message.expires is not None:
        shown["expires"] = iso(message.expires)
    return shown


def part(state: PartState) -> dict[str, Any]:
    """An attachment in a message's detail."""
    return {
        "id": state.id,
        "fileName": state.filename,
        "filename": state.filename,
        "contentType": state.content_type,
        "disposition": state.disposition,
        "transferEncoding": state.transfer_encoding,
        "related": state.related,
        "sizeKb": -(-state.size // 1024),
    }


def intro(preview: str) -> str:
    """The first words of a text, in one line."""
    folded = " ".join(preview.split())
    if len(folded) <= _INTRO:
        return folded
    cut = folded[: _INTRO - 1]
    return (cut[: cut.rindex(" ")] if " " in cut else cut) + "…"


def iso(seconds: int) -> str:
    """A time as the API writes it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
