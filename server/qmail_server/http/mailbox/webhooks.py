"""Webhooks: who is told of new mail. They belong to whoever runs the server, not to single users."""

from __future__ import annotations

from typing import Any

from qmail_core.engine.post import RECEIVED, Webhook
from qmail_core.errors import UsageError
from qmail_server.http.mailbox import fields as f
from qmail_server.http.mailbox.given import given
from qmail_server.http.mailbox.messages import iso
from qmail_server.http.mailbox.who import for_all
from qmail_server.http.respond import Call

WEBHOOK = f.Field("webhook", f.hex_id, required=True)


async def list_webhooks(call: Call) -> dict[str, Any]:
    """All webhooks, without their keys."""
    for_all(call)
    await given(call)
    return {"success": True, "results": [_shown(call, hook) for hook in call.engine.post.webhooks.listed()]}


async def get_webhook(call: Call) -> dict[str, Any]:
    """One webhook, and how it does."""
    for_all(call)
    found = await given(call, WEBHOOK)
    return {"success": True, **_shown(call, call.engine.post.webhooks.get(found["webhook"]))}


async def add_webhook(call: Call) -> dict[str, Any]:
    """Tell a URL of mail from now on; the key of the signatures is shown this once."""
    for_all(call)
    found = await given(
        call,
        f.Field("url", f.text(2048, 1), required=True),
        f.Field("type", f.words("*", RECEIVED), default=["*"]),
        f.Field("user", f.hex_id),
        f.Field("secret", f.text(256, 16, trim=False)),
        f.IP,
        f.Field("sess", f.text(255)),
    )
    user = None if found["user"] is None else call.engine.mailboxes.user(found["user"])
    try:
        hook, secret = await call.engine.post.webhooks.add(found["url"], user, found["secret"] or "")
    except UsageError as error:
        raise f.invalid({"url": error.message}) from error
    return {"success": True, "id": hook.oid.hex(), "secret": secret}


async def delete_webhook(call: Call) -> dict[str, Any]:
    """Tell it no more."""
    for_all(call)
    found = await given(call, WEBHOOK, f.IP, f.Field("sess", f.text(255)))
    await call.engine.post.webhooks.remove(found["webhook"])
    return {"success": True}


def _shown(call: Call, hook: Webhook) -> dict[str, Any]:
    return {
        "id": hook.oid.hex(),
        "type": [RECEIVED],
        "user": None if hook.user is None else call.engine.mailboxes.user_id(hook.user).hex(),
        "url": hook.url,
        "created": iso(hook.created_at),
        "attempts": hook.attempts,
        "nextAttempt": iso(hook.next_attempt) if hook.attempts else False,
    }
