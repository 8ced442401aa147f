"""Endpoints about this process: tasks, receipts, identity, wallets, locker pool."""

from __future__ import annotations

import time

from qmail_core.errors import NotFound, UsageError
from qmail_core.model import Receipt
from qmail_server.http.qmail import schema
from qmail_server.http.qmail.answers import money
from qmail_server.http.qmail.net import guid_of, wallet_of
from qmail_server.http.respond import Call


async def task(call: Call) -> schema.TaskAnswer:
    """How far a long story is."""
    task_id = call.params.text("id", "task_id").strip()
    if not task_id:
        raise UsageError("Missing required parameter: id")
    try:
        return schema.task(call.engine.task(task_id), time.time())
    except NotFound as error:
        raise NotFound("Task not found") from error


async def receipt(call: Call) -> Receipt:
    """The receipt of an upload, as it is stored."""
    guid = guid_of(call.params, "guid", "file_guid")
    try:
        return call.engine.receipt(guid)
    except NotFound as error:
        raise NotFound("Receipt not found for that file_guid") from error


async def identity(call: Call) -> schema.Identity:
    """Who this engine is."""
    return _identity(call, "identity")


async def whoami(call: Call) -> schema.Identity:
    """The same under its other name."""
    return _identity(call, "whoami")


def _identity(call: Call, command: str) -> schema.Identity:
    engine = call.engine
    return schema.identity(command, engine.address, engine.address_text, engine.config.beacons[0])


async def locker_pool(call: Call) -> money.Pool:
    """The funded lockers."""
    return money.pool(call.engine.pool_status(wallet_of(call)))


async def wallets(call: Call) -> schema.WalletList:
    """The wallets that exist. Mail is among them, as clients look for it, although it never pays."""
    found = [schema.WalletItem(wallet_path=name, wallet_name=name) for name in call.engine.wallets()]
    answer = schema.WalletList(count=len(found), wallets=found)
    if not found:
        answer.message = "No wallets configured"
    return answer
