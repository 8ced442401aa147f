"""Endpoints around mail: the version, tasks, receipts, wallets."""

from __future__ import annotations

import time

from qmail_core import __version__
from qmail_core.errors import QMailError, UsageError
from qmail_server.http.errors import Failed
from qmail_server.http.qmail.answers import money, process, sends
from qmail_server.http.qmail.db.ids import MAX_OFFSET, limit
from qmail_server.http.qmail.net import wallet_of
from qmail_server.http.respond import Call

RECEIPT_STATUSES = ("in_progress", "not_started", "success", "partial", "failed")
_MOST_TASKS = 1000


async def version(call: Call) -> process.VersionAnswer:
    """Which version this is. No other is looked for."""
    return process.VersionAnswer(current_version=__version__, latest_version=__version__)


async def sync(call: Call) -> process.SyncAnswer:
    """What is known locally is what there is: contacts come with mail, servers from the settings."""
    servers = len(call.engine.network.servers())
    return process.SyncAnswer(users_synced=call.engine.people.count(), servers_synced=servers, timestamp=_now())


async def tasks(call: Call) -> sends.TaskList:
    """Tasks that run or have ended not long ago, newest first."""
    rows = limit(call.params, 50, _MOST_TASKS)
    word = call.params.text("status").strip().lower()
    found = [sends.task_item(state) for state in call.engine.tasks() if word in ("", state.status)]
    return sends.TaskList(count=min(rows, len(found)), total=len(found), tasks=found[:rows])


async def cancel_task(call: Call) -> sends.TaskCancelled:
    """Take a send back while nobody was told of it."""
    task_id = call.params.text("id", "task_id").strip()
    if not task_id:
        raise UsageError("Missing required parameter: id")
    state = await call.engine.cancel(task_id)
    return sends.TaskCancelled(task_id=state.id, id=state.id, status=state.status, message=state.message)


async def receipts(call: Call) -> sends.ReceiptList:
    """Receipts, newest first."""
    word = call.params.text("status").strip().lower()
    if word and word not in RECEIPT_STATUSES:
        raise UsageError(f"Invalid status ({', '.join(RECEIPT_STATUSES)})")
    rows, offset = limit(call.params), call.params.integer("offset", 0, 0, MAX_OFFSET)
    found, total = call.engine.receipts(word or None, rows, offset)
    items = [sends.receipt_item(receipt) for receipt in found]
    return sends.ReceiptList(count=len(items), total=total, limit=rows, offset=offset, receipts=items)


async def balance(call: Call) -> money.BalanceAnswer:
    """What a wallet holds."""
    wallet = wallet_of(call, pays=False)
    return money.balance(call.params.text("wallet_path") or wallet, wallet, call.engine.balances.of(wallet))


async def prepare_change(call: Call) -> money.ChangeAnswer:
    """Break coins so that the next mails can be paid exactly."""
    wallet = wallet_of(call)
    try:
        broken = await call.engine.balances.prepare_change(wallet)
    except QMailError as error:
        raise Failed(500, "Change could not be prepared", detail=error.code, reason=error.message) from error
    held = call.engine.balances.of(wallet)
    return money.ChangeAnswer(
        wallet_path=call.params.text("wallet_path") or wallet,
        wallet_name=wallet,
        coins_broken=broken,
        total_value=held.value,
        denominations=money.denominations(held.notes),
        message="Change prepared" if broken else "Nothing to break",
    )


def _now() -> int:
    return int(time.time())
