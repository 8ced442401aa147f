"""Received mail. Each owns a download, of the mail's id, for as long as the mail is there."""

from __future__ import annotations

import html
import re
from typing import Any

from qmail_core.engine.files.content import type_of
from qmail_core.engine.files.library import Person
from qmail_core.engine.files.tokens import Owner
from qmail_core.model import Address, MessageState
from qmail_server.http.respond import Call
from qmail_server.http.transfer import paging, schema
from qmail_server.http.transfer.given import path_id

SORTS = paging.same("subject", "created_by_email", "received_at")
INCLUDES = ("download", "download.files", "author")
_MARKUP = re.compile(r"\s*<[A-Za-z!][^>]*>.*>\s*", re.DOTALL)


def markup(text: str) -> str:
    """A text as HTML: markup that was sent as such stays, anything else becomes a paragraph."""
    if not text or _MARKUP.fullmatch(text):
        return text
    return f"<p>{html.escape(text, quote=False)}</p>".replace("\n", "<br>")


def shown(call: Call, row: MessageState, include: set[str]) -> dict[str, Any]:
    """A received mail as the API shows it."""
    letters = call.engine.transfer.mails
    content = letters.content(row)
    name = row.from_name or letters.name_of(Address(row.denomination, row.serial), row.from_address)
    sender = Person(name, row.from_address)
    answer: dict[str, Any] = {
        "id": schema.identity(row.email_id),
        "identifier": schema.identifier(row.email_id),
        "subject": row.subject,
        "body": content.html or markup(content.text),
        "sender": {"name": sender.name, "email": sender.email},
    }
    if "author" in include:
        answer["author"] = schema.person(sender)
    if "download" in include or "download.files" in include:
        answer["download"] = _download(call, row, sender, files="download.files" in include)
    return answer | {"received_at": schema.moment(row.received_at), "opened": row.seen}


def _download(call: Call, row: MessageState, sender: Person, *, files: bool) -> dict[str, Any]:
    answer: dict[str, Any] = {"id": schema.identity(row.email_id)}
    if files:
        answer["files"] = [
            schema.mail_file(row.email_id, one.position, one.name, type_of(one.name), one.size, sender, row.received_at)
            for one in call.engine.transfer.mails.attachments(row)
        ]
    return answer | {"created_at": schema.moment(row.received_at)}


async def list_inbox(call: Call, owner: Owner) -> dict[str, Any]:
    """Received mail, newest first."""
    include, asked = paging.included(call, *INCLUDES), paging.listing(call, SORTS)
    rows, total = await call.engine.transfer.mails.inbox(owner, asked)
    return paging.page(call, [shown(call, row, include) for row in rows], asked, total)


async def get_mail(call: Call, owner: Owner) -> dict[str, Any]:
    """One received mail, which is opened by that."""
    include = paging.included(call, *INCLUDES)
    return {"data": shown(call, await call.engine.transfer.mails.open(owner, path_id(call, "Mail")), include)}
