"""Tells that wait for another attempt, and tells that came in."""

from __future__ import annotations

from qmail_core.errors import NotFound, UsageError
from qmail_server.http.qmail.db import schema as db
from qmail_server.http.qmail.db.ids import email_id, limit, number
from qmail_server.http.respond import Call

STATUSES = ("pending", "sent", "failed")
_MOST = 1000


async def list_pending_tells(call: Call) -> db.TellList:
    """The outgoing queue."""
    status = call.params.text("status").strip().lower()
    if status and status not in STATUSES:
        raise UsageError("Invalid status (pending, sent or failed)")
    rows = call.engine.queue.rows(status or None, limit(call.params, _MOST, _MOST))
    tells = [db.tell(row, call.engine.queue.recipient(row)) for row in rows]
    return db.TellList(count=len(tells), pending_tells=tells)


async def retry_tell(call: Call) -> db.TellDone:
    """Try a tell that was given up again."""
    tell_id = number(call.params, "tell_id", "Missing 'tell_id' parameter", "Invalid tell_id")
    await call.engine.queue.retry(tell_id)
    return db.TellDone(tell_id=tell_id)


async def clear_sent_tells(call: Call) -> db.TellsCleared:
    """Forget tells that were delivered in the end."""
    return db.TellsCleared(deleted_count=await call.engine.queue.clear_sent())


async def list_notifications(call: Call) -> db.NotificationList:
    """Tells the user has neither dismissed nor downloaded; with `include_downloaded` those too."""
    shown = call.engine.notifications(limit(call.params), downloaded=call.params.flag("include_downloaded"))
    rows = [db.notification(row, call.engine.people.find(row.tell.sender), call.engine.render) for row in shown]
    return db.NotificationList(count=len(rows), notifications=rows)


async def dismiss_notification(call: Call) -> db.NotificationDone:
    """Stop showing a tell."""
    if call.params.has("file_guid") and not call.params.has("id"):
        guid = email_id(call.params, "", "Invalid notification id", "file_guid")
        return db.NotificationDone(id=await _dismiss(call, guid=guid))
    wanted = number(call.params, "id", "Missing 'id' parameter", "Invalid notification id")
    return db.NotificationDone(id=await _dismiss(call, notification=wanted))


async def _dismiss(call: Call, *, notification: int | None = None, guid: bytes | None = None) -> int:
    try:
        return await call.engine.dismiss(notification=notification, guid=guid)
    except NotFound as error:
        raise NotFound("Notification not found") from error
