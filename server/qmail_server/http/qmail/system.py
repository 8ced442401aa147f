"""Endpoints around mail: the version, tasks, receipts, wallets."""

from __future__ import annotations

import time

from qmail_core import __version__
from qmail_core.errors import QMailError, UsageError
from qmail_server.http.errors import Failed
from qmail_server.http.qmail import answers
from qmail_server.http.qmail.db.ids import MAX_OFFSET, limit
from qmail_server.http.qmail.net import wallet_of
from qmail_server.http.respond import Call

RECEIPT_STATUSES = ("in_progress", "not_started", "success", "partial", "failed")
_MOST_TASKS = 1000


async def version(call: Call) -> answers.VersionAnswer:
    """Which version this is. No other is looked for."""
    return answers.VersionAnswer(current_version=__version__, latest_version=__version__)


async def sync(call: Call) -> answers.SyncAnswer:
    """What is known locally is what there is: contacts come with mail, servers from the settings."""
    servers = len(call.engine.network.servers())
    return answers.SyncAnswer(users_synced=call.engine.people.count(), servers_synced=servers, timestamp=_now())


async def tasks(call: Call) -> answers.TaskList:
    """Tasks that run or have ended not long ago, newest first."""
    rows = limit(call.params, 50, _MOST_TASKS)
    word = call.params.text("status").strip().lower()
    found = [answers.task_item(state) for state in call.engine.tasks() if word in ("", state.status)]
    return answers.TaskList(count=min(rows, len(found)), total=len(found), tasks=found[:rows])


async def cancel_task(call: Call) -> answers.TaskCancelled:
    """Take a send back while nobody was told of it."""
    task_id = call.params.text("id", "task_id").strip()
    if not task_id:
        raise UsageError("Missing required parameter: id")
    state = await call.engine.cancel(task_id)
    return answers.TaskCancelled(task_id=state.id, id=state.id, status=state.status, message=state.message)


async def receipts(call: Call) -> answers.ReceiptList:
    """Receipts, newest first."""
    word = call.params.text("status").strip().lower()
    if word and word not in RECEIPT_STATUSES:
        raise UsageError(f"Invalid status ({', '.join(RECEIPT_STATUSES)})")
    rows, offset = limit(call.params), call.params.integer("offset", 0, 0, MAX_OFFSET)
    found, total = call.engine.receipts(word or None, rows, offset)
    items = [answers.receipt_item(receipt) for receipt in found]
    return answers.ReceiptList(count=len(items), total=total, limit=rows, offset=offset, receipts=items)


async def balance(call: Call) -> answers.BalanceAnswer:
    """What a wallet holds."""
    wallet = wallet_of(call)
    return answers.balance(call.params.text("wallet_path") or wallet, wallet, call.engine.balances.of(wallet))


async def prepare_change(call: Call) -> answers.ChangeAnswer:
    """Break coins so that the next mails can be paid exactly."""
    wallet = wallet_of(call)
    try:
        broken = await call.engine.balances.prepare_change(wallet)
    except QMailError as error:
        raise Failed(500, "Change could not be prepared", detail=error.code, reason=error.message) from error
    held = call.engine.balances.of(wallet)
    return answers.ChangeAnswer(
        wallet_path=call.params.text("wallet_path") or wallet,
        wallet_name=wallet,
        coins_broken=broken,
        total_value=held.value,
        denominations=answers.denominations(held.notes),
        message="Change prepared" if broken else "Nothing to break",
    )


def _now() -> int:
    return int(time.time())
