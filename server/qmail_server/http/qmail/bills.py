"""Receipts of money: what a wallet has paid for, one text for each mail or object. No locker code stands in them."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from qmail_core.engine.payments import Spent
from qmail_core.errors import NotFound
from qmail_server.http.qmail.answers import money
from qmail_server.http.qmail.db.ids import MAX_OFFSET, limit
from qmail_server.http.qmail.net import wallet_of
from qmail_server.http.respond import Call

_FILE = re.compile(r"([0-9a-f]{32})\.json")
_MOST = 1000


async def bills(call: Call) -> money.BillList | money.BillAnswer:
    """What a wallet has paid for, newest first; with `filename`, one receipt."""
    wallet, filename = wallet_of(call, pays=False), call.params.text("filename").strip()
    if filename:
        return _one(call, wallet, filename)
    rows, offset = limit(call.params, 200, _MOST), call.params.integer("offset", 0, 0, MAX_OFFSET)
    found = call.engine.payments.paid(wallet, rows, offset)
    return money.BillList(files=[f"{guid.hex()}.json" for guid in found], count=len(found))


def _one(call: Call, wallet: str, filename: str) -> money.BillAnswer:
    named = _FILE.fullmatch(filename)
    spent = call.engine.payments.spent(bytes.fromhex(named[1]), wallet) if named else []
    if not spent or named is None:
        raise NotFound("Receipt not found")
    content = _text(named[1], _subject(call, bytes.fromhex(named[1])), wallet, spent)
    return money.BillAnswer(content=content, filename=filename, size=len(content.encode()))


def _subject(call: Call, guid: bytes) -> str:
    try:
        return call.engine.receipt(guid).upload.subject
    except NotFound:
        return ""  # an object, which has none


def _text(guid: str, subject: str, wallet: str, spent: Sequence[Spent]) -> str:
    bill = money.Bill(
        file_guid=guid,
        wallet_name=wallet,
        subject=subject,
        total_cc=sum(locker.value for locker in spent),
        payments=[
            money.BillRow(paid_for=locker.kind.name.lower(), amount_cc=locker.value, consumed_at=locker.consumed_at)
            for locker in spent
        ],
    )
    return msgspec.json.format(msgspec.json.encode(bill), indent=2).decode()
