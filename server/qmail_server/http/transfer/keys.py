"""Tokens, PINs and the temporary keys a PIN gives."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from qmail_core.engine.files.pins import PinRefused, TooManyGuesses
from qmail_core.engine.files.tokens import Owner
from qmail_core.errors import Conflict, NotFound, UsageError
from qmail_server.http.errors import Failed
from qmail_server.http.respond import Call
from qmail_server.http.transfer import schema
from qmail_server.http.transfer.given import body, invalid, text


async def list_tokens(call: Call) -> dict[str, Any]:
    """All tokens, without their texts."""
    return {"data": [schema.token(row) for row in call.engine.transfer.tokens.listed()]}


async def add_token(call: Call) -> dict[str, Any]:
    """A new token; the only answer that shows it."""
    found = await body(call)
    tokens, user = call.engine.transfer.tokens, text(found, "user")
    name = text(found, "name", required=True, most=100)
    try:
        oid = bytes.fromhex(user)
    except ValueError:
        raise invalid(user="The selected user is invalid.") from None
    number = {"user": call.engine.mailboxes.user(oid)} if user else {}
    row, token = await tokens.create(name, **number)
    return {"data": {**schema.token(row), "token": token}}


async def delete_token(call: Call) -> Response:
    """End a token."""
    number = call.path["id"]
    if not (number.isascii() and number.isdigit() and len(number) < 18):
        raise NotFound("Token not found.")
    await call.engine.transfer.tokens.revoke(int(number))
    return Response(status_code=204)


async def get_pin(call: Call, owner: Owner) -> dict[str, Any]:
    """Whether there is a PIN."""
    return {"data": {"set": call.engine.transfer.pins.is_set(owner.user)}}


async def set_pin(call: Call, owner: Owner) -> Response:
    """Set the first PIN, or change it with the current one."""
    found = await body(call)
    pin, current = text(found, "pin", required=True), text(found, "current_pin")
    try:
        await call.engine.transfer.pins.set(owner.user, pin, current)
    except PinRefused:
        raise invalid(current_pin="Invalid PIN.") from None
    except TooManyGuesses as error:
        raise _patience(error) from None
    except UsageError as error:
        raise invalid(pin=error.message) from None
    return Response(status_code=204)


async def add_key(call: Call, owner: Owner) -> dict[str, Any]:
    """A temporary key for the PIN, for one hour."""
    pin = text(await body(call), "pin", required=True)
    try:
        found = await call.engine.transfer.pins.unlock(owner, pin)
    except (PinRefused, Conflict) as error:
        raise invalid(pin=error.message) from None
    except TooManyGuesses as error:
        raise _patience(error) from None
    return {"data": {"key": found.key, "expires_at": schema.moment(found.expires_at)}}


async def delete_key(call: Call, owner: Owner) -> Response:
    """End a temporary key."""
    await call.engine.transfer.pins.revoke(owner, call.path["key"])
    return Response(status_code=204)


def _patience(error: TooManyGuesses) -> Failed:
    return Failed(429, error.message, headers={"Retry-After": str(error.wait)})
