"""Watching the beacons in the background: one parked ping at a time, mail fetched at once if the user wants that.

It runs from `start` to `stop` and is not remembered. Beacons that fail are asked again with growing pauses.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from msgspec import Struct

from qmail_core.engine.receive import Receiver
from qmail_core.errors import QMailError
from qmail_core.model import Downloaded, Notification, Polled

log = logging.getLogger("qmail.beacon")

_WAIT = 600.0  # seconds of one ping; beacons end it by themselves before long
_LEAST = 5.0  # seconds between two pings that brought nothing: some beacons do not wait
_PAUSES = (1, 300)  # seconds after a failure: first, doubled up to last


class BeaconState(Struct, frozen=True):
    """How the watch goes."""

    running: bool
    last_tell: int  # Unix time of the newest tell it has seen; 0: none
    backoff: int  # seconds it pauses now, because the beacons fail
    errors: int  # failures in a row


class Beacon:
    """The watch of one engine.

    download  fetches a mail
    auto      whether mails are fetched as they are announced
    """

    def __init__(self, receiver: Receiver, download: Callable[[bytes], Awaitable[Downloaded]], auto: bool) -> None:
        self._receiver = receiver
        self._download = download
        self._auto = auto
        self._task: asyncio.Task[None] | None = None
        self._news: dict[bytes, Notification] = {}  # mails it has heard of and not looked at, by GUID
        self._last = self._errors = self._backoff = 0

    @property
    def state(self) -> BeaconState:
        """How the watch goes."""
        running = self._task is not None and not self._task.done()
        return BeaconState(running, self._last, self._backoff, self._errors)

    def start(self) -> None:
        """Watch; nothing happens if it is done already."""
        if not self.state.running:
            self._receiver.polls.listeners.add(self._heard)
            self._task = asyncio.get_running_loop().create_task(self._watch(), name="qmail-beacon")

    async def stop(self) -> None:
        """Watch no more."""
        self._receiver.polls.listeners.discard(self._heard)
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._task, self._backoff, self._errors = None, 0, 0
        self._news.clear()

    def _heard(self, found: Polled) -> None:
        """What is new comes at any time: while a mail is fetched, and whoever else polls."""
        self._news |= {item.tell.guid: item for item in found.notifications}

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._receiver.polls.draining:
            try:
                await self._take()
                begun = loop.time()
                polled = await self._receiver.ping(_WAIT, 0)
                self._errors = self._backoff = 0
                self._heard(polled)
                if not self._news:
                    await asyncio.sleep(max(0.0, begun + _LEAST - loop.time()))
                continue
            except QMailError as error:
                log.warning("beacons: %s", error)
            except Exception:
                log.exception("watching the beacons failed")
            self._errors += 1
            self._backoff = min(_PAUSES[1], _PAUSES[0] * 2 ** min(self._errors - 1, 10))
            await asyncio.sleep(self._backoff)

    async def _take(self) -> None:
        while self._news:
            item = self._news.pop(next(iter(self._news)))
            self._last = max(self._last, item.tell.timestamp)
            if self._auto:
                try:
                    await self._download(item.tell.guid)
                except QMailError as error:
                    log.warning("mail %s cannot be fetched now: %s", item.tell.guid.hex(), error)
