"""Addresses of users."""

from __future__ import annotations

from typing import Any

from qmail_core.engine.accounts import AddressState
from qmail_server.http.mailbox import fields as f
from qmail_server.http.mailbox.given import given
from qmail_server.http.mailbox.messages import iso
from qmail_server.http.mailbox.paging import Asked, cursor_of
from qmail_server.http.mailbox.who import for_all, user_of
from qmail_server.http.respond import Call

ADDRESS = f.Field("address", f.hex_id, required=True)


async def search_addresses(call: Call) -> dict[str, Any]:
    """Everybody's addresses; with `query`, those that contain it."""
    for_all(call)
    found = await given(call, f.Field("query", f.text(255)), f.LIMIT, f.PAGE, *f.CURSORS)
    asked = Asked(found)
    page = call.engine.accounts.addresses.page(
        asked.limit,
        query=found["query"] or "",
        after=asked.after and asked.after[0],
        before=asked.before and asked.before[0],
    )
    ends = [cursor_of(page.rows[at].oid) for at in (0, -1)] if page.rows else [None, None]
    paging = asked.answer(
        "/addresses", page.total, *ends, earlier=page.earlier, more=page.more, query=found["query"] or ""
    )
    rows = [{"id": row.oid.hex(), "address": row.address, "user": row.user.hex()} for row in page.rows]
    named = {"query": found["query"]} if found["query"] else {}
    return {"success": True, **named, **paging, "results": rows}


async def list_addresses(call: Call) -> dict[str, Any]:
    """A user's addresses."""
    found = await given(call, f.USER)
    user_of(call, found["user"])
    rows = call.engine.accounts.addresses.listed(found["user"])
    return {"success": True, "results": [shown(row) for row in rows]}


async def get_address(call: Call) -> dict[str, Any]:
    """One address."""
    found = await given(call, f.USER, ADDRESS)
    user_of(call, found["user"])
    return {"success": True, **shown(call.engine.accounts.addresses.get(found["user"], found["address"]))}


async def add_address(call: Call) -> dict[str, Any]:
    """One more address of a user; mail to it is taken from now on."""
    wanted = f.Field("address", f.text(320), required=True)
    found = await given(call, f.USER, wanted, f.Field("main", f.flag, default=False))
    user_of(call, found["user"])
    oid = await call.engine.accounts.addresses.add(found["user"], found["address"], main=found["main"])
    return {"success": True, "id": oid.hex()}


async def change_address(call: Call) -> dict[str, Any]:
    """Make an address the main one."""
    found = await given(call, f.USER, ADDRESS, f.Field("main", f.flag, required=True))
    user_of(call, found["user"])
    await call.engine.accounts.addresses.set_main(found["user"], found["address"], main=found["main"])
    return {"success": True}


async def delete_address(call: Call) -> dict[str, Any]:
    """Take an address from a user; not the main one."""
    found = await given(call, f.USER, ADDRESS)
    user_of(call, found["user"])
    await call.engine.accounts.addresses.delete(found["user"], found["address"])
    return {"success": True}


def shown(row: AddressState) -> dict[str, Any]:
    """An address of a user."""
    return {"id": row.oid.hex(), "address": row.address, "main": row.main, "created": iso(row.created_at)}
