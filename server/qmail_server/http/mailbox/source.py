"""The raw source of messages, their attachments, and messages stored by clients."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from qmail_core.engine.letters import MAX_MESSAGE
from qmail_server.http.errors import Failed
from qmail_server.http.mailbox import fields as f
from qmail_server.http.mailbox.given import MAX_BODY, content_type, given, query_of
from qmail_server.http.mailbox.messages import MESSAGE, name_of, one
from qmail_server.http.mailbox.who import speaker, user_of
from qmail_server.http.params import whole
from qmail_server.http.respond import Call, disposition

_SAFE = [
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"sandbox; default-src 'none'"),
    (b"cache-control", b"no-store"),
]
_FLAGS = ("unseen", "flagged", "draft")


class Streamed:
    """A body that is sent as it is read; its length is not known before."""

    def __init__(self, body: AsyncIterator[bytes], kind: str, name: str = "") -> None:
        self._body = body
        self._headers = [(b"content-type", kind.encode("latin-1", "replace")), *_SAFE]
        if name:
            self._headers.append((b"content-disposition", disposition(name).encode()))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # the first piece decides whether there is an answer at all: what fails later can only cut it
        first = await anext(self._body, b"")
        await send({"type": "http.response.start", "status": 200, "headers": self._headers})
        if scope["method"] != "HEAD":
            await send({"type": "http.response.body", "body": first, "more_body": True})
            async for chunk in self._body:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def get_source(call: Call) -> ASGIApp:
    """A message as it came."""
    found = await given(call, f.USER, f.MAILBOX, MESSAGE)
    _, _, message = one(call, found)
    return Streamed(call.engine.letters.source(message), "message/rfc822")


async def get_attachment(call: Call) -> ASGIApp:
    """An attachment, decoded."""
    named = f.Field("attachment", f.text(32, 1), required=True)
    found = await given(call, f.USER, f.MAILBOX, MESSAGE, named)
    _, _, message = one(call, found)
    part = call.engine.messages_of.attachment(message, found["attachment"])
    return Streamed(call.engine.letters.part(message, part), part.content_type, part.filename or part.id)


async def add_message(call: Call) -> dict[str, Any]:
    """Store a message: the raw bytes as body, or as `raw` (base64) in JSON."""
    speaker(call)  # before a body is read
    if content_type(call) in ("message/rfc822", "application/octet-stream", "text/plain", ""):
        raw = await whole(call.receive, MAX_MESSAGE)
        fields = (f.USER, f.MAILBOX, *(f.Field(name, f.flag, default=False) for name in _FLAGS))
        found = f.read(query_of(call) | call.path, fields, strict=False)
    else:
        fields = (
            f.USER,
            f.MAILBOX,
            f.Field("raw", f.text(1 << 27), required=True),
            *(f.Field(name, f.flag, default=False) for name in _FLAGS),
            f.Field("date", f.when),
        )
        found = await given(call, *fields, most=MAX_BODY)
        raw = _decoded(found["raw"])
    user = user_of(call, found["user"])
    box = call.engine.mailboxes.get(user, found["mailbox"])
    if not raw:
        raise Failed(400, "Empty message", code="EmptyMessage")
    message = await call.engine.letters.deliver(
        user,
        raw,
        box,
        received_at=found.get("date") or None,
        seen=not found["unseen"],
        flagged=found["flagged"],
        draft=found["draft"],
    )
    return {
        "success": True,
        "message": {"id": message.uid, "name": name_of(message), "mailbox": box.oid.hex(), "size": message.size},
    }


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise f.invalid({"raw": "must be a valid base64 string"}) from None
