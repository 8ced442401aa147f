"""Sent mail, a row for each recipient; and sending."""

from __future__ import annotations

from typing import Any

from qmail_core.engine.files.content import type_of
from qmail_core.engine.files.downloads import KeyRefused
from qmail_core.engine.files.library import Person
from qmail_core.engine.files.tokens import Owner
from qmail_core.errors import AddressError, InputInvalid
from qmail_core.model import Address, SentRow
from qmail_server.http.respond import Call, Json
from qmail_server.http.transfer import paging, schema
from qmail_server.http.transfer.downloads import file_ids, own_files
from qmail_server.http.transfer.given import body, invalid, path_id, text, wrong
from qmail_server.http.transfer.inbox import INCLUDES, markup

SORTS = paging.same("subject", "recipient_email", "created_at", "sent_at")
_MOST_RECIPIENTS = 100


def shown(call: Call, owner: Owner, row: SentRow, include: set[str]) -> dict[str, Any]:
    """One recipient of a sent mail as the API shows it."""
    letters, author = call.engine.transfer.mails, call.engine.transfer.library.person(owner.user)
    said, files = letters.said(row)
    name = letters.name_of(Address(row.denomination, row.serial), row.recipient)
    answer: dict[str, Any] = {
        "id": schema.identity(row.id),
        "identifier": schema.identifier(row.id),
        "subject": row.subject,
        "body": markup(said),
        "sender": {"name": author.name, "email": author.email},
        "recipient": schema.person(Person(name, row.recipient)),
        "recipient_email": row.recipient,
    }
    if "author" in include:
        answer["author"] = schema.person(author)
    if "download" in include or "download.files" in include:
        answer["download"] = {"id": schema.identity(row.guid), "created_at": schema.moment(row.created_at)}
    if "download.files" in include:
        answer["download"]["files"] = [
            schema.mail_file(row.guid, position, name, type_of(name), size, author, row.created_at)
            for position, (name, size) in enumerate(files)
        ]
    times = {"created_at": schema.moment(row.created_at), "sent_at": schema.moment(row.sent_at)}
    return answer | times | {"status": row.status, "opened_at": schema.moment(row.opened_at)}


async def list_mails(call: Call, owner: Owner) -> dict[str, Any]:
    """Sent mail, newest first."""
    include, asked = paging.included(call, *INCLUDES), paging.listing(call, SORTS)
    rows, total = await call.engine.transfer.mails.sent(owner, asked)
    return paging.page(call, [shown(call, owner, row, include) for row in rows], asked, total)


async def get_mail(call: Call, owner: Owner) -> dict[str, Any]:
    """One recipient of a sent mail."""
    include = paging.included(call, *INCLUDES)
    row = call.engine.transfer.mails.sent_one(owner, path_id(call, "Mail"))
    return {"data": shown(call, owner, row, include)}


async def send(call: Call, owner: Owner) -> Json:
    """Send a mail; an object for one recipient given as `recipient_email`, else a list. A header names the task."""
    found = await body(call)
    subject, said = text(found, "subject", required=True), text(found, "body")
    to = _recipients(call, found)
    ids = file_ids(found.get("files"), required=False)
    own_files(call, owner, ids)
    pin_key = text(found, "pinKey", required=bool(ids))
    try:
        rows, task = await call.engine.transfer.mails.send(owner, subject, said, to, ids, pin_key)
    except KeyRefused as error:
        raise invalid(pinKey=error.message) from None
    except InputInvalid as error:
        raise wrong(error.details) from None
    answer = [shown(call, owner, row, set()) for row in rows]
    data = {"data": answer if "recipients" in found else answer[0]}
    return Json(data, headers=((b"x-qmail-operation-id", task.encode()),))


def _recipients(call: Call, found: dict[str, Any]) -> list[str]:
    """The recipients, each known to mean somebody."""
    if "recipients" not in found:
        given = {"recipient_email": text(found, "recipient_email", required=True)}
    elif not isinstance(found["recipients"], list) or not found["recipients"]:
        raise invalid(recipients="The recipients field is required.")
    else:
        given = {f"recipients.{at}": one for at, one in enumerate(found["recipients"])}
    if len(given) > _MOST_RECIPIENTS:
        raise invalid(recipients=f"The recipients may not have more than {_MOST_RECIPIENTS} items.")
    bad = {}
    for field, one in given.items():
        try:
            call.engine.resolve(one if isinstance(one, str) else "")
        except AddressError as error:
            bad[field] = error.message
    if bad:
        raise wrong(bad)
    return list(dict.fromkeys(given.values()))
