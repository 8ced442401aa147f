"""Server-sent events: what changed in the store, as it changes.

A stream is one request that never ends by itself: it waits for its subscription, its client's leaving, the end of the
server, or 15 quiet seconds, after which a comment keeps proxies from closing it. `id` is the journal's number, so a
client that comes back with `Last-Event-ID` misses nothing the journal still has. A browser's EventSource cannot send a
token; it asks for a ticket first, which opens one stream within a minute.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct
from starlette.types import Message, Receive, Scope, Send

from qmail_core.errors import NotFound
from qmail_core.model import Folder, JournalEntry
from qmail_server.http.leaving import Leaving

if TYPE_CHECKING:
    from qmail_core.engine.engine import Engine
    from qmail_core.engine.events import Subscription

Render = Callable[[list[JournalEntry]], bytes]  # a batch of changes as frames, empty if none is to be told
LastId = Callable[[bytes], int | None]

QUIET = 15.0  # seconds between comments
TICKET_LIFE = 60.0
_TICKETS = 1000  # at most so many are out
_MADE = 16  # batches of changes that are kept as frames
_HEAD: Message = {
    "type": "http.response.start",
    "status": 200,
    "headers": [
        (b"content-type", b"text/event-stream; charset=utf-8"),
        (b"cache-control", b"no-store"),
        (b"x-accel-buffering", b"no"),
        (b"x-content-type-options", b"nosniff"),
    ],
}


class TicketAnswer(Struct, kw_only=True):
    success: bool = True
    status: str = "success"
    ticket: str
    expires_in: int


class Tickets:
    """Leave to open one stream each, for those who cannot send a token with it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._out: dict[bytes, float] = {}  # digest -> end

    def issue(self) -> str:
        """A fresh ticket."""
        now = self._clock()
        self._out = {digest: end for digest, end in self._out.items() if end > now}
        while len(self._out) >= _TICKETS:
            self._out.pop(next(iter(self._out)))
        ticket = secrets.token_urlsafe(24)
        self._out[_digest(ticket.encode())] = now + TICKET_LIFE
        return ticket

    def redeem(self, ticket: bytes) -> bool:
        """Whether a ticket was good; it is not from now on."""
        return self._out.pop(_digest(ticket), 0.0) > self._clock()


def _digest(ticket: bytes) -> bytes:
    return hashlib.sha256(ticket).digest()


class Wake:
    """An event for one task: thousands wait, so it is as small as can be."""

    __slots__ = ("_is_set", "_waiter")

    def __init__(self) -> None:
        self._is_set = False
        self._waiter: asyncio.Future[None] | None = None

    def set(self) -> None:
        """Let the task go on, now or at once when it waits."""
        self._is_set = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self) -> None:
        """Wait until it is set, and unset it."""
        if not self._is_set:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
            self._waiter = None
        self._is_set = False


class Streams:
    """The open streams of one application, so that they can be ended together and told the same at the cost of one."""

    def __init__(self) -> None:
        self._open: set[Wake] = set()
        self._made: dict[object, bytes] = {}
        self.ended = False

    def add(self, wake: Wake) -> None:
        """One more stream; it is woken when the streams end."""
        self._open.add(wake)

    def remove(self, wake: Wake) -> None:
        """The stream is over."""
        self._open.discard(wake)

    def end(self) -> None:
        """End all of them, and every later one at once."""
        self.ended = True
        for wake in self._open:
            wake.set()

    def render(self, render: Render, entries: list[JournalEntry], revision: int) -> bytes:
        """A batch of changes as frames; made once for all streams of a kind that are told it at the same revision."""
        key = (render, revision, entries[0].id, entries[-1].id, len(entries))
        made = self._made.get(key)
        if made is None:
            if len(self._made) >= _MADE:
                self._made.pop(next(iter(self._made)))
            made = self._made[key] = render(entries)
        return made


class EventStream:
    """The response of one listener. Renders that are equal make the same of the same changes."""

    __slots__ = ("_engine", "_last_id", "_render", "_streams", "_user")

    def __init__(
        self, engine: Engine, user: int, render: Render, streams: Streams, *, last_id: LastId | None = None
    ) -> None:
        self._last_id = last_id or _number
        self._engine = engine
        self._user = user
        self._render = render
        self._streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":
            await send(_HEAD)
            await send({"type": "http.response.body", "body": b""})
            return
        wake = Wake()
        seen = next((value for name, value in scope["headers"] if name == b"last-event-id"), b"").strip()
        listener = _Listener(wake, self._engine.events.subscribe(self._user, wake.set, self._last_id(seen)))
        self._streams.add(wake)
        leaving = Leaving(receive, listener.leave)
        try:
            await send(_HEAD)
            await self._follow(listener, send)
        finally:
            leaving.close()
            listener.close()
            self._streams.remove(wake)
        if self._streams.ended:
            await send({"type": "http.response.body", "body": b": the server stops\n\n"})

    async def _follow(self, listener: _Listener, send: Send) -> None:
        chunk = b": listening\n\n"
        while True:
            while found := listener.subscription.take():
                chunk += self._streams.render(self._render, found, self._engine.revision)
            if self._streams.ended or listener.gone:
                return
            if chunk or listener.quiet:
                await send({"type": "http.response.body", "body": chunk or b": still here\n\n", "more_body": True})
                listener.spoken()
            chunk = b""
            await listener.wake.wait()


class _Listener:
    """What wakes one stream: changes, its client's leaving, the end of all streams, a quiet time."""

    __slots__ = ("_ends", "_loop", "_timer", "gone", "quiet", "subscription", "wake")

    def __init__(self, wake: Wake, subscription: Subscription) -> None:
        self.wake = wake
        self.subscription = subscription
        self.gone = False
        self._loop = asyncio.get_running_loop()
        self.spoken()
        self._timer = self._loop.call_at(self._ends, self._tick)

    def leave(self) -> None:
        """The client has left."""
        self.gone = True
        self.wake.set()

    def spoken(self) -> None:
        """Something was sent."""
        self.quiet = False
        self._ends = self._loop.time() + QUIET

    def _tick(self) -> None:
        # the timer runs on when something is sent: moving it each time costs more than looking now and then
        if self._loop.time() >= self._ends:
            self.quiet = True
            self._ends = self._loop.time() + QUIET
            self.wake.set()
        self._timer = self._loop.call_at(self._ends, self._tick)

    def close(self) -> None:
        """The stream is over."""
        self._timer.cancel()
        self.subscription.close()


def _number(text: bytes) -> int | None:
    """The number the client has seen last, if it says so."""
    return int(text) if text.isdigit() and len(text) < 19 else None


class MailEvents:
    """Journal entries as the node API's `new-mail`; the newest are kept, as every listener wants the same."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._made: dict[int, bytes] = {}

    def __call__(self, entries: list[JournalEntry]) -> bytes:
        return b"".join(self._frame(entry) for entry in entries)

    def _frame(self, entry: JournalEntry) -> bytes:
        if entry.id not in self._made:
            if len(self._made) >= 64:
                self._made.pop(next(iter(self._made)))
            payload = self._payload(entry)
            made = (
                b"event: new-mail\ndata: %s\nid: %d\n\n" % (msgspec.json.encode(payload), entry.id) if payload else b""
            )
            self._made[entry.id] = made
        return self._made[entry.id]

    def _payload(self, entry: JournalEntry) -> dict[str, Any] | None:
        detail = msgspec.json.decode(entry.detail)
        try:
            if entry.command == "TELL":
                return self._told(bytes.fromhex(detail["guid"]))
            if entry.command == "EXISTS" and not detail.get("moved"):
                return self._filed(bytes.fromhex(detail["email_id"]))
        except NotFound:
            return None  # gone again before anybody was told
        return None

    def _told(self, guid: bytes) -> dict[str, Any]:
        tell = self._engine.notification(guid).tell
        known = self._engine.people.find(tell.sender)
        return {
            "file_guid": guid.hex(),
            "email_id": "",
            "sender_sn": tell.sender.serial,
            "sender_address": known.text if known is not None else self._engine.render(tell.sender),
            "subject": "",
            "timestamp": tell.timestamp,
            "downloaded": False,
        }

    def _filed(self, email_id: bytes) -> dict[str, Any] | None:
        message = self._engine.mailbox.look(email_id)
        if message.folder != Folder.INBOX:
            return None
        return {
            "file_guid": message.guid.hex(),
            "email_id": email_id.hex(),
            "sender_sn": message.sender.serial,
            "sender_address": message.sender_text,
            "subject": message.subject,
            "timestamp": message.received_at,
            "downloaded": True,
        }
