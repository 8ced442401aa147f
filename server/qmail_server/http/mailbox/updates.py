"""A user's changes as a stream of events, in the words mail clients of this API listen for.

Each change is one frame; behind a batch follows one `COUNTERS` for every mailbox it touched. `id` is 24 hexadecimal
digits: the time and the journal's number, so `Last-Event-ID` finds its place again.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct
from starlette.types import ASGIApp

from qmail_core.errors import NotFound
from qmail_core.model import JournalEntry
from qmail_server.http.events import EventStream
from qmail_server.http.mailbox import fields as f
from qmail_server.http.mailbox.given import given
from qmail_server.http.mailbox.who import user_of
from qmail_server.http.respond import Call

_COUNTED = ("EXISTS", "EXPUNGE", "FETCH")
_SHOWN = ("EXISTS", "EXPUNGE", "FETCH", "CREATE", "RENAME", "DROP")


async def updates(call: Call) -> ASGIApp:
    """Listen to a user's changes."""
    found = await given(call, f.USER)
    user = user_of(call, found["user"])
    return EventStream(call.engine, user, Frames(call.engine, user), call.streams, last_id=number_of)


class Frames(Struct, frozen=True):
    """Turns batches of journal entries of one user into frames."""

    engine: Any
    user: int

    def __call__(self, entries: list[JournalEntry]) -> bytes:
        frames = [_frame(entry, _payload(entry)) for entry in entries if entry.command in _SHOWN]
        touched = {entry.mailbox: entry for entry in entries if entry.command in _COUNTED and entry.mailbox}
        for oid, last in touched.items():
            try:
                box = self.engine.mailboxes.get(self.user, oid)
            except NotFound:
                continue  # dropped meanwhile
            counters = {"command": "COUNTERS", "mailbox": oid.hex(), "total": box.total, "unseen": box.unseen}
            frames.append(_frame(last, counters))
        return b"".join(frames)


def _payload(entry: JournalEntry) -> dict[str, Any]:
    detail: dict[str, Any] = msgspec.json.decode(entry.detail)
    shown: dict[str, Any] = {"command": entry.command}
    if entry.message is not None:
        shown["message"] = entry.message.hex()
    if entry.mailbox is not None:
        shown["mailbox"] = entry.mailbox.hex()
    if entry.uid is not None:
        shown |= {"uid": entry.uid, "modseq": entry.modseq}
    if "path" in detail:
        shown |= {"path": detail["path"], "name": detail["path"].rpartition("/")[2]}
    if entry.command == "FETCH" and "flags" in detail:
        shown["flags"] = [f"\\{name.capitalize()}" for name in detail["flags"] if name in _IMAP]
    if entry.command == "EXISTS":
        shown["unseen"] = bool(detail.get("unseen", False))
    return shown


_IMAP = ("seen", "flagged", "deleted", "draft", "answered")


def _frame(entry: JournalEntry, payload: dict[str, Any]) -> bytes:
    return b"data: %s\nid: %s\n\n" % (msgspec.json.encode(payload), event_id(entry).encode())


def event_id(entry: JournalEntry) -> str:
    """The id of an entry's frame."""
    return f"{entry.at & 0xFFFFFFFF:08x}{entry.id:016x}"


def number_of(text: bytes) -> int | None:
    """The journal's number in an id; None if it is not one."""
    try:
        return int(text[8:], 16) if len(text) == 24 else None
    except ValueError:
        return None
