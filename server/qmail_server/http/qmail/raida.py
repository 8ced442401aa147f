"""Endpoints that ask all servers: identity, payments, lockers, echo."""

from __future__ import annotations

from qmail_core.errors import Conflict, NotFound, QMailError, UsageError
from qmail_server.http.errors import Failed
from qmail_server.http.qmail.answers import money, process
from qmail_server.http.qmail.db.ids import email_id
from qmail_server.http.qmail.db.payments import INVALID, MISSING
from qmail_server.http.qmail.net import wallet_of
from qmail_server.http.respond import Call

_NO_KEYS = "No encryption keys available (no coins in wallet)"


async def heal_identity(call: Call) -> money.HealAnswer:
    """Mend the identity coin where servers refuse it."""
    try:
        return money.healed(await call.engine.identity.heal())
    except UsageError:
        raise
    except QMailError as error:
        raise _failed(error.message if error.message == _NO_KEYS else "Heal operation failed", error) from error


async def claim_payment(call: Call) -> money.ClaimAnswer:
    """Take the payment of a message into a wallet."""
    message_id = email_id(call.params, MISSING, INVALID)
    wallet = wallet_of(call)
    try:
        payment = call.engine.payments.get(message_id)
    except NotFound as error:
        raise NotFound("Email not found") from error
    if not payment.attached:
        raise UsageError("No payment attached to this email")
    try:
        return money.claimed(message_id, await call.engine.payments.claim(message_id, wallet))
    except Conflict:
        raise
    except QMailError as error:
        raise _failed("Payment claim failed - locker may be empty or network error", error) from error


async def import_credentials(call: Call) -> money.ImportAnswer:
    """Take an identity coin out of a locker."""
    code = call.params.text("locker_key", "locker_code").strip()
    if not code:
        raise UsageError("Missing required parameter: locker_key")
    path = _wallet(call)
    try:
        taken = await call.engine.identity.receive(code)
    except Conflict:
        raise
    except QMailError as error:
        raise _failed("Failed to download credentials from locker", error) from error
    return money.imported(taken, path, call.engine.render(taken.accepted[0]))


def _wallet(call: Call) -> str:
    text = call.params.text("wallet_path", default="Mail")
    try:
        call.engine.wallet_name(text, pays=False)
    except UsageError as error:
        raise UsageError("Invalid wallet path") from error
    return text


async def replenish(call: Call) -> money.Pool:
    """Fund lockers now."""
    wallet = wallet_of(call)
    try:
        return money.pool(await call.engine.fill_pool(wallet))
    except QMailError as error:
        raise _failed("Replenish failed", error) from error


async def echo(call: Call) -> process.EchoAnswer:
    """A sign of life of every server."""
    return process.echo(await call.engine.network.echo(), call.engine.config.striping.k)


def _failed(message: str, error: QMailError) -> Failed:
    return Failed(500, message, raida_success=False, detail=error.code, reason=error.message)
