"""Mailboxes of the mail API: lists, search, delivery and waiting, in a mailbox of MESSAGES messages.

What is measured: requests handed to the application in this process (no socket) over a store on disk with fsync, with
every layer on; delivery is letters.deliver, SENDERS at a time, as an LMTP server would; listeners are streams of
`/users/ID/updates` whose client never leaves. Memory is resident growth of this process, the stub client included.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvloop
from qmail_server.http.app import App, build_app
from qmail_server.http.guard import GuardSettings, hosts_for

from bench.api_site import TOKEN, Opened, fill
from bench.measure import Row, resident, row, want
from qmail_core.engine.engine import Engine
from qmail_core.store.mailbox import HOME

MESSAGES = 100_000
ASKED = 300
DELIVERED, SENDERS = 2000, 64
LISTENERS = 5000
_HEADERS = [(b"host", b"127.0.0.1:8080"), (b"authorization", b"Bearer " + TOKEN.encode())]


class Listener:
    """A request whose client stays; `heard` is set by the first frame that has `call` in it."""

    def __init__(self, app: App, path: str) -> None:
        self.heard = 0.0
        self.ready = asyncio.Event()
        self._app, self._path = app, path

    def scope(self) -> dict[str, Any]:
        path, _, query = self._path.partition("?")
        return {
            "type": "http", "method": "GET", "path": path, "query_string": query.encode(), "headers": _HEADERS,
            "scheme": "http", "http_version": "1.1",
        }  # fmt: skip

    async def receive(self) -> dict[str, Any]:
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    async def send(self, message: Any) -> None:
        if b"EXISTS" in message.get("body", b""):
            self.heard = self.heard or time.perf_counter()
        self.ready.set()

    def start(self) -> asyncio.Task[None]:
        return asyncio.ensure_future(self._app(self.scope(), self.receive, self.send))


async def _times(app: App, paths: list[str]) -> list[float]:
    """Sorted seconds of each request."""
    times = []
    for path in paths:
        one = Listener(app, path)
        begun = time.perf_counter()
        await one.start()
        times.append(time.perf_counter() - begun)
    return sorted(times)


def _slow(what: str, times: list[float], goal: str) -> Row:
    line = row(f"{what}, p99", times[len(times) * 99 // 100] * 1000, "ms", 0.0)
    return want(line, goal) | {"median": round(statistics.median(times) * 1000, 3)}


def letter(number: int) -> bytes:
    """A message of 4 KiB."""
    head = (
        f"From: Bob <bob@example.com>\r\nTo: alice@example.com\r\nSubject: letter {number}\r\n"
        f"Message-ID: <{number}@example.com>\r\nDate: Fri, 21 Nov 2025 10:00:00 +0000\r\n\r\n"
    )
    line = f"line {number} with ten words that say nothing in particular\r\n"
    return (head + line * (4096 // len(line)))[:4096].encode()


async def _deliver(engine: Engine, letters: list[bytes]) -> float:
    """Messages per second."""
    box = engine.mailboxes.at(HOME, "INBOX")
    assert box is not None
    waiting = iter(letters)

    async def sender() -> None:
        for raw in waiting:
            await engine.letters.deliver(HOME, raw, box)

    begun = time.perf_counter()
    await asyncio.gather(*(sender() for _ in range(SENDERS)))
    return len(letters) / (time.perf_counter() - begun)


async def _listeners(engine: Engine, app: App, user: str) -> list[Row]:
    one = Listener(app, f"/users/{user}/updates")
    task = one.start()
    await one.ready.wait()
    seen = []
    for number in range(20):
        one.heard = 0.0
        begun = time.perf_counter()
        await _deliver(engine, [letter(number)])
        while not one.heard:  # noqa: ASYNC110 - the shortest way to see it
            await asyncio.sleep(0)
        seen.append(one.heard - begun)
    task.cancel()
    before = resident()
    crowd = [Listener(app, f"/users/{user}/updates") for _ in range(LISTENERS)]
    tasks = [listener.start() for listener in crowd]
    for listener in crowd:
        await listener.ready.wait()
    memory = (resident() - before) * 1024 / LISTENERS
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    delay = row("one listener, delivery until it is told", statistics.median(seen) * 1000, "ms", 0.0)
    return [want(delay, "<= 20 ms"), want(row("5 000 listeners, memory of each", memory, "KiB", 0.0), "<= 10 KiB")]


async def _all(folder: Path) -> list[Row]:
    opened = Opened(folder)
    engine = opened.engine
    await engine.start()
    app = build_app(engine, GuardSettings(hosts=hosts_for(8080), token=TOKEN))
    user = engine.mailboxes.user_id(HOME).hex()
    box = engine.mailboxes.at(HOME, "INBOX")
    assert box is not None
    listed = f"/users/{user}/mailboxes/{box.oid.hex()}/messages?limit=20"
    search = f"/users/{user}/search?limit=20&query="
    rare = [f"{search}word{i}" for i in range(100, 400)]
    found = [
        _slow("list of 20 from 100 000", await _times(app, [listed] * ASKED), "<= 3 ms"),
        _slow("search, a word of 100 mails", await _times(app, rare), "<= 30 ms"),
        _slow("search, a word of all mails", await _times(app, [f"{search}common"] * 50), "<= 30 ms"),
    ]
    found += await _listeners(engine, app, user)
    rate = await _deliver(engine, [letter(number) for number in range(1000, 1000 + DELIVERED)])
    found.append(want(row("deliveries of 4 KiB, 64 at a time", rate, "1/s", 0.0), ">= 1000 1/s"))
    await engine.close()
    return found


def rows() -> Iterator[Row]:
    with tempfile.TemporaryDirectory(prefix="qmail-bench-") as name:
        folder = Path(name)
        fill(folder, MESSAGES)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            yield from runner.run(_all(folder))
