"""Mails being written. Recipients are kept as they were typed."""

from __future__ import annotations

from qmail_core.errors import NotFound, UsageError
from qmail_server.http.qmail.db import schema as db
from qmail_server.http.qmail.db.ids import MAX_OFFSET, email_id, limit
from qmail_server.http.respond import Call, Json

MAX_BODY = 1 << 20  # bytes
_PEOPLE = ("to", "cc", "bcc")
_FIELDS = ("subject", "body", "subsubject")


async def list_drafts(call: Call) -> db.DraftList:
    """Drafts, the newest first."""
    rows = limit(call.params)
    number = call.params.integer("page", 1, 1, MAX_OFFSET // rows)
    offset = call.params.integer("offset", (number - 1) * rows, 0, MAX_OFFSET)
    page = call.engine.drafts.page(rows, offset)
    drafts = [db.draft(message, call.engine.drafts.get(message.id)) for message in page.messages]
    pages = max(1, -(-page.total // rows))
    return db.DraftList(
        count=len(drafts),
        drafts=drafts,
        pagination=db.Pagination(page=offset // rows + 1, limit=rows, total=page.total, total_pages=pages),
    )


async def create_draft(call: Call) -> Json:
    """Keep a new draft."""
    saved = await call.engine.drafts.create(**_fields(call))
    return Json(db.DraftCreated(email_id=saved.id.hex(), id=saved.id.hex(), timestamp=saved.received_at), 201)


async def update_draft(call: Call) -> db.DraftUpdated:
    """Change a draft: a field that is present and empty is cleared, one that is absent stays."""
    names = ("email_id", "draft_id", "id")
    draft_id = email_id(call.params, "Missing required parameter: email_id", "Invalid email_id format", *names)
    try:
        saved = await call.engine.drafts.update(draft_id, **_fields(call))
    except NotFound as error:
        raise NotFound("Draft not found") from error
    name = saved.id.hex()
    changed = db.DraftChange(id=name, email_id=name, last_modified=saved.received_at)
    return db.DraftUpdated(email_id=name, id=name, timestamp=saved.received_at, draft=changed)


def _fields(call: Call) -> dict[str, str]:
    params, split = call.params, call.engine.split_list
    found = {name: params.last(name) for name in _FIELDS if params.given(name)}
    found |= {name: ", ".join(split(params.many(name))) for name in _PEOPLE if params.given(name)}
    if len(found.get("body", "").encode()) > MAX_BODY:
        raise UsageError("Draft body is too large (max 1 MB)", hint=413)
    return found
