"""Mailboxes of a user."""

from __future__ import annotations

from typing import Any

from qmail_core.errors import Conflict, UsageError
from qmail_core.model import MailboxState
from qmail_server.http.errors import Failed
from qmail_server.http.mailbox import fields as f
from qmail_server.http.mailbox.given import given
from qmail_server.http.mailbox.who import user_of
from qmail_server.http.respond import Call

PATH = f.text(2048, 1)


async def list_mailboxes(call: Call) -> dict[str, Any]:
    """All mailboxes; with `counters` how much is in them (it costs nothing here, so clients may always ask)."""
    found = await given(call, f.USER, f.Field("counters", f.flag, default=False))
    user = user_of(call, found["user"])
    rows = [shown(box, counters=found["counters"]) for box in call.engine.mailboxes.listed(user)]
    answer: dict[str, Any] = {"success": True, "results": rows}
    if found["counters"]:
        answer["mailboxes"] = rows  # the documents show both names
    return answer


async def get_mailbox(call: Call) -> dict[str, Any]:
    """One mailbox with its counters."""
    found = await given(call, f.USER, f.MAILBOX)
    box = call.engine.mailboxes.get(user_of(call, found["user"]), found["mailbox"])
    return {"success": True, **shown(box, counters=True)}


async def add_mailbox(call: Call) -> dict[str, Any]:
    """A new mailbox; those above it need not exist."""
    found = await given(call, f.USER, f.Field("path", PATH, required=True), f.Field("retention", f.number()))
    user = user_of(call, found["user"])
    try:
        box = await call.engine.mailboxes.add(user, found["path"], retention=found["retention"])
    except Conflict as error:
        raise Failed(
            400, "Mailbox creation failed with code MailboxAlreadyExists", code="MailboxExistsError"
        ) from error
    except UsageError as error:
        raise f.invalid({"path": error.message}) from error
    return {"success": True, "id": box.oid.hex()}


async def change_mailbox(call: Call) -> dict[str, Any]:
    """Rename (mailboxes below go along), subscribe, set the retention of new messages."""
    changes = (f.Field("path", PATH), f.Field("retention", f.number()), f.Field("subscribed", f.flag))
    found = await given(call, f.USER, f.MAILBOX, *changes)
    user = user_of(call, found["user"])
    wanted = {field.name: found[field.name] for field in changes if found[field.name] is not None}
    if not wanted:
        raise Failed(400, "Nothing was changed", code="InputValidationError")
    call.engine.mailboxes.get(user, found["mailbox"])
    try:
        await call.engine.mailboxes.change(user, found["mailbox"], **wanted)
    except Conflict as error:
        raise _taken("update") from error
    except UsageError as error:
        raise _not_allowed("update") from error
    return {"success": True}


async def delete_mailbox(call: Call) -> dict[str, Any]:
    """Remove a mailbox a user made, with its messages."""
    found = await given(call, f.USER, f.MAILBOX)
    user = user_of(call, found["user"])
    try:
        await call.engine.mailboxes.remove(user, found["mailbox"])
    except UsageError as error:
        raise _not_allowed("deletion") from error
    return {"success": True}


def _taken(what: str) -> Failed:
    return Failed(400, f"Mailbox {what} failed with code MailboxAlreadyExists", code="MailboxExistsError")


def _not_allowed(what: str) -> Failed:
    return Failed(400, f"Mailbox {what} failed with code DisallowedMailboxMethod", code="DisallowedMailboxMethod")


def shown(box: MailboxState, *, counters: bool) -> dict[str, Any]:
    """A mailbox as the API shows it."""
    row: dict[str, Any] = {
        "id": box.oid.hex(),
        "name": box.path.rpartition("/")[2],
        "path": box.path,
        "specialUse": box.special_use,
        "modifyIndex": box.modseq,
        "subscribed": box.subscribed,
        "retention": box.retention or False,
    }
    if counters:
        row |= {"total": box.total, "unseen": box.unseen}
    return row
