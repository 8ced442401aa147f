"""What opens a user's account beside the password: the second factor, and passwords of single applications."""

from __future__ import annotations

from typing import Any

from qmail_core.engine.accounts import Asp
from qmail_server.http.mailbox import fields as f
from qmail_server.http.mailbox.given import given
from qmail_server.http.mailbox.messages import iso
from qmail_server.http.mailbox.who import origin, user_of
from qmail_server.http.respond import Call

_SESS = f.Field("sess", f.text(255))
_TOKEN = f.Field("token", f.text(6), required=True)


async def set_up_totp(call: Call) -> dict[str, Any]:
    """Draw a seed and show it as a picture; it counts once a code of it came back."""
    found = await given(call, f.USER, f.Field("issuer", f.text(255)), f.IP, _SESS)
    user_of(call, found["user"])
    setup = await call.engine.accounts.totp.setup(found["user"], found["issuer"] or "", origin(found))
    return {"success": True, "qrcode": setup.qrcode, "seed": setup.seed}


async def enable_totp(call: Call) -> dict[str, Any]:
    """Switch the second factor on with a first code."""
    found = await given(call, f.USER, _TOKEN, f.IP, _SESS)
    user_of(call, found["user"])
    await call.engine.accounts.totp.enable(found["user"], found["token"], origin(found))
    return {"success": True}


async def check_totp(call: Call) -> dict[str, Any]:
    """Accept a code, once."""
    found = await given(call, f.USER, _TOKEN, f.IP, _SESS)
    user_of(call, found["user"])
    await call.engine.accounts.totp.check(found["user"], found["token"], origin(found))
    return {"success": True}


async def disable_totp(call: Call) -> dict[str, Any]:
    """Switch the second factor off."""
    found = await given(call, f.USER, f.IP, _SESS)
    user_of(call, found["user"])
    await call.engine.accounts.totp.disable(found["user"], origin(found))
    return {"success": True}


async def list_asps(call: Call) -> dict[str, Any]:
    """A user's application passwords, without the passwords."""
    found = await given(call, f.USER)
    user_of(call, found["user"])
    return {"success": True, "results": [_shown(asp) for asp in call.engine.accounts.asps.listed(found["user"])]}


def _shown(asp: Asp) -> dict[str, Any]:
    return {
        "id": asp.oid.hex(),
        "description": asp.description,
        "scopes": list(asp.scopes),
        "created": iso(asp.created_at),
        "lastUse": iso(asp.used_at) if asp.used_at else False,
    }


async def add_asp(call: Call) -> dict[str, Any]:
    """Make an application password; it is shown this once."""
    found = await given(
        call,
        f.USER,
        f.Field("description", f.text(255, 1), required=True),
        f.Field("scopes", f.words("imap", "pop3", "smtp", "*"), default=["*"]),
        f.IP,
        _SESS,
    )
    user_of(call, found["user"])
    made = await call.engine.accounts.asps.create(found["user"], found["description"], found["scopes"], origin(found))
    return {"success": True, "id": made.oid.hex(), "password": made.password}


async def delete_asp(call: Call) -> dict[str, Any]:
    """Take an application password back."""
    found = await given(call, f.USER, f.Field("asp", f.hex_id, required=True), f.IP, _SESS)
    user_of(call, found["user"])
    await call.engine.accounts.asps.delete(found["user"], found["asp"], origin(found))
    return {"success": True}
