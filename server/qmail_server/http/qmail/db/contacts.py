"""Contacts: who the user writes to, by serial number."""

from __future__ import annotations

import time

import msgspec

from qmail_core.errors import NotFound, UsageError
from qmail_core.model import Address
from qmail_server.http.params import Params
from qmail_server.http.qmail.db import schema as db
from qmail_server.http.qmail.db.ids import MAX_OFFSET, limit
from qmail_server.http.respond import Call

MAX_SERIAL = 1 << 24
_MOST = 10_000
_TEXTS = ("first_name", "middle_name", "last_name", "description", "class_name", "user_notes", "custom_sn")


async def list_contacts(call: Call) -> db.ContactList:
    """All contacts, or those whose address or name contains `q`."""
    rows = limit(call.params, _MOST, _MOST)
    offset = (call.params.integer("page", 1, 1, MAX_OFFSET) - 1) * rows
    found = call.engine.people.listed(rows, call.params.integer("offset", offset, 0, MAX_OFFSET), call.params.text("q"))
    return db.ContactList(count=len(found), contacts=[db.contact(contact) for contact in found])


async def create_contact(call: Call) -> db.ContactAdded:
    """Add a contact, or change what is known of one."""
    serial = serial_of(call.params, "serial_number")
    people = call.engine.people
    address = Address(denomination_of(call.params, 1, -8, 11), serial)
    known = people.find(address)
    contact = known if known is not None else db.new_contact(address, call.params.text("auto_address").strip())
    changes = {name: call.params.text(name).strip() for name in _TEXTS if call.params.has(name)}
    if call.params.has("auto_address"):
        changes["text"] = call.params.text("auto_address").strip()
    trust = call.params.integer("trust_level", contact.trust_level, -1, 1)
    kept = await people.add(msgspec.structs.replace(contact, trust_level=trust, **changes))
    return db.ContactAdded(serial_number=serial, auto_address=kept.text)


async def delete_contact(call: Call) -> db.ContactDone:
    """Forget a contact."""
    serial = serial_of(call.params, "serial_number")
    await call.engine.people.remove(serial)
    return db.ContactDone(message="Contact deleted", serial_number=serial)


async def popular_contacts(call: Call) -> db.PopularContacts:
    """Favourites first, then those written to most."""
    rows = limit(call.params, 10, 100)
    now = int(time.time())
    found = [db.popular(contact, now) for contact in call.engine.people.popular(rows)]
    return db.PopularContacts(count=len(found), limit=rows, contacts=found)


async def favorite_contact(call: Call) -> db.FavoriteAnswer:
    """Mark a contact as a favourite, or not."""
    serial = serial_of(call.params, "sn", "serial_number")
    try:
        contact = await call.engine.people.favor(serial, call.params.flag("value", True))
    except NotFound as error:
        raise NotFound("Contact not found") from error
    return db.FavoriteAnswer(serial_number=serial, is_favorite=contact.favorite)


def denomination_of(params: Params, default: int, low: int, high: int) -> int:
    """A denomination code; never clamped, as the nearest one is somebody else's."""
    if not params.has("denomination"):
        return default
    found = params.integer("denomination", default, low - 1, high + 1)
    if not low <= found <= high:
        raise UsageError(f"Invalid denomination (must be {low} to {high})")
    return found


def serial_of(params: Params, *names: str) -> int:
    """A serial number of a coin."""
    text = params.text(*names).strip()
    if not text:
        raise UsageError(f"Missing required parameter: {names[0]}")
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 0 < int(text) <= MAX_SERIAL):
        raise UsageError(f"Invalid {names[0]} (must be a positive integer)")
    return int(text)
