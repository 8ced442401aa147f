"""The node API over HTTP: requests per second, durable writes, parked connections, stopping.

What is measured: one engine with everything on (all routes, security layers, access line, a store on disk with
MESSAGES messages) on core 0, wrk or a crowd of parked connections on the last core, loopback only. Peers run in the
same run under the same uvicorn, taking turns: raw ASGI that answers the same headers and bytes, Starlette with 80
routes. Rates are medians of ROUNDS turns, in answers per second of the server's processor time: what it would give on a
core of its own, whatever else runs here. Rows whose tool (wrk, aiosqlite) is missing are left out.

Every accepted upload makes a file. Where many files were deleted in the five minutes before, ext4 looks at each of
their inodes first, which doubles the cost of an upload: run this before what deletes, not behind it.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import sqlite3
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import uvloop

from bench.api_clients import CLIENT_CORE, Crowd, Load, Server, has_wrk, serving, wrk
from bench.api_site import ROUTES, TOKEN, fill
from bench.measure import Row, row, want
from qmail_core.store.database import Database

MESSAGES = 100_000
ROUNDS = 3
PORTS = (18180, 18181, 18182, 18183, 18184)  # no port the system picks for a connection
PARKED, STOPPED = 5000, 1000
WRITERS, WRITES = 16, 250
RAW, STARLETTE = "raw ASGI", f"Starlette, {ROUTES} routes"
LAST = f"/api/path{ROUTES - 1}"
FORM = "limit=20&to=17.0.0%40byte&subject=Hello+world&body=some%20text%20and%20more+of+it"
SMALL = {
    "tasks": "/api/system/tasks/list",
    "receipts": "/api/qmail/receipts/list",
    "status": "/api/qmail/local/status",
}
ADDED = ("date", "connection")  # by the server itself
LIST = "/api/qmail/db/messages/list"


def get(port: int, path: str) -> bytes:
    """One answer: headers in lower case as an application gives them, an empty line, the body."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Authorization": f"Bearer {TOKEN}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        lines = [f"{name.lower()}: {value}" for name, value in answer.headers.items() if name not in ADDED]
        body: bytes = answer.read()
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def seconds_of(call: Callable[[], object], rounds: int) -> list[float]:
    """Sorted times of single calls."""
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return sorted(times)


def turns(*calls: Callable[[], Load]) -> list[list[Load]]:
    """Each call's loads, the calls taking turns."""
    rounds = [[call() for call in calls] for _ in range(ROUNDS)]
    return [list(column) for column in zip(*rounds, strict=True)]


def rate(loads: list[Load]) -> float:
    return statistics.median(load.rate for load in loads)


def _spread(loads: list[Load]) -> float:
    rates = [load.rate for load in loads]
    return (max(rates) - min(rates)) / 2 / statistics.median(rates)


def compared(
    what: str, server: Server, raw: Server, starlette: Server, path: str, goals: tuple[str, str], form: str = ""
) -> Iterator[Row]:
    """One request against both peers."""
    ours, theirs, frame = turns(
        lambda: wrk(server, path, form=form),
        lambda: wrk(raw, path, form=form),
        lambda: wrk(starlette, LAST, form=form),
    )
    for peer, loads, goal in ((RAW, theirs, goals[0]), (STARLETTE, frame, goals[1])):
        line = row(what, rate(ours), "1/s", _spread(ours), (peer, rate(ours) / rate(loads)))
        yield want(line, goal) if goal else line
    if form:
        parsed = rate([wrk(raw, f"{path}?parse", form=form) for _ in range(ROUNDS)])
        yield row(what, rate(ours), "1/s", _spread(ours), (f"{RAW}, parse_qsl", rate(ours) / parsed))
    # a busy machine stretches both; the ratio says whether it is us
    worst, raws = (statistics.median(load.p99 / load.median for load in loads) for loads in (ours, theirs))
    yield want(row(f"{what} p99 by median", worst, "times", 0.0, (RAW, raws / worst)), "<= 3 times")


def requests(server: Server, folder: Path) -> Iterator[Row]:
    """Rates against the anchors."""
    answers = folder / "answers"
    answers.mkdir()
    for path in (*SMALL.values(), LIST):
        (answers / path.lstrip("/").replace("/", "_")).write_bytes(get(server.port, path))
    with serving("raw", PORTS[1], answers) as raw, serving("starlette", PORTS[2], folder) as frame:
        three = (server, raw, frame)
        for name, path in SMALL.items():
            yield from compared(f"GET, {name}", *three, path, (">= 0.8 x", ">= 3 x"))
        yield from compared("POST, form of 4 fields", *three, SMALL["tasks"], (">= 1 x", ">= 2.5 x"), FORM)
        yield from compared("GET, 50 of 100 000 messages", *three, LIST, (">= 0.4 x", ""))
    upload = "body=hello+there&subject=a+mail"
    path = "/api/qmail/net/messages/upload"
    alone = [wrk(server, path, 1, upload).median for _ in range(ROUNDS)]
    yield want(row("upload kick-off, alone", statistics.median(alone), "ms", 0.0), "<= 3 ms")
    many = [wrk(server, path, 32, upload).rate for _ in range(ROUNDS)]
    yield want(row("upload kick-off, 32 connections", statistics.median(many), "1/s", 0.0), ">= 1500 1/s")


def reading(server: Server) -> Iterator[Row]:
    """What looks at all messages."""
    for what, path in (
        ("search, one word of 100 mails", "/api/qmail/db/messages/search?query=word123"),
        ("search, a word of all mails", "/api/qmail/db/messages/search?query=common"),
        ("counts", "/api/qmail/db/folders/counts"),
    ):
        times = seconds_of(lambda path=path: get(server.port, path), 20)  # type: ignore[misc]
        yield want(row(f"100 000 messages, {what}", times[10] * 1000, "ms", 0.0), "<= 20 ms")
    yield want(row("start with 100 000 messages, until it listens", server.facts["start"], "s", 0.0), "<= 1 s")


# ------------------------------------------------------------------------------------------------------------------
# Durable writes


async def _ours(path: Path) -> float:
    database = Database(str(path))
    await database.write(lambda db: db.execute("CREATE TABLE bench (id INTEGER PRIMARY KEY, data BLOB)"))

    async def one() -> None:
        for _ in range(WRITES):
            await database.write(lambda db: db.execute("INSERT INTO bench (data) VALUES (?)", (bytes(200),)))

    begun = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(WRITERS)))
    spent = time.perf_counter() - begun
    await database.close()
    return WRITERS * WRITES / spent


async def _aiosqlite(path: Path) -> float:
    import aiosqlite

    with sqlite3.connect(path) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE bench (id INTEGER PRIMARY KEY, data BLOB)")
    async with aiosqlite.connect(path, isolation_level=None) as theirs:
        await theirs.execute("PRAGMA synchronous=FULL")

        async def one() -> None:
            for _ in range(WRITES // 5):
                await theirs.execute("INSERT INTO bench (data) VALUES (?)", (bytes(200),))

        begun = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(WRITERS)))
        return WRITERS * (WRITES // 5) / (time.perf_counter() - begun)


def writes(folder: Path) -> Iterator[Row]:
    """Group commit against one commit each."""
    ours, theirs = [], []
    for number in range(ROUNDS):
        ours.append(asyncio.run(_ours(folder / f"ours{number}")))
        if importlib.util.find_spec("aiosqlite"):
            theirs.append(asyncio.run(_aiosqlite(folder / f"theirs{number}")))
    middle = statistics.median(ours)
    line = row("durable writes, 16 writers", middle, "1/s", (max(ours) - min(ours)) / 2 / middle)
    if theirs:
        line |= {"peer": "aiosqlite, FULL", "ratio": round(middle / statistics.median(theirs), 2)}
        yield want(line, ">= 5 x")


# ------------------------------------------------------------------------------------------------------------------
# Parked connections


async def _parked(server: Server, path: str, greeting: bytes, call: bytes) -> tuple[float, float, float]:
    """KiB of the server's memory each, seconds until all were woken, and those the server worked for it."""
    crowd = Crowd(server.port, path, greeting, call)
    before = server.memory()
    await crowd.gather(PARKED)
    memory = (server.memory() - before) / PARKED / 1024
    begun = server.spent()
    spent = await crowd.wake(lambda: server.process.send_signal(signal.SIGUSR1))
    worked = server.spent() - begun
    crowd.leave()
    await asyncio.sleep(0.5)
    return memory, spent, worked


PING = "/api/qmail/net/beacon/ping?timeout=600"


def parked(folder: Path) -> Iterator[Row]:
    """Memory and waking of those who wait; then a stop while a thousand do."""
    cases = (
        ("event streams", "/api/events", b"listening", b"new-mail", PORTS[3]),
        ("pings", PING, b"", b"200 OK", PORTS[4]),
    )
    for what, path, greeting, call, port in cases:
        own = folder / what
        own.mkdir(exist_ok=True)
        with serving("told", port, own) as server, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            memory, spent, worked = runner.run(_parked(server, path, greeting, call))
        yield want(row(f"5 000 {what}, memory of each", memory, "KiB", 0.0), "<= 12 KiB")
        yield want(row(f"5 000 {what}, until all are woken", spent * 1000, "ms", 0.0), "<= 300 ms")
        yield row(f"5 000 {what}, processor time to wake them", worked * 1000, "ms", 0.0)


async def _stopped(server: Server) -> tuple[float, int, float]:
    crowd = Crowd(server.port, PING, b"", b"\r\n\r\n")
    await crowd.gather(STOPPED)
    begun = time.perf_counter()
    answered = asyncio.ensure_future(crowd.wake(lambda: server.process.send_signal(signal.SIGTERM)))
    while server.process.poll() is None:  # noqa: ASYNC110 - a process has no event
        await asyncio.sleep(0.002)
    spent = time.perf_counter() - begun
    await answered
    assert server.process.returncode == 0
    good = sum(one.seen.startswith(b"HTTP/1.1 200 ") for one in crowd.members)
    return spent, good, begun


def stopping(folder: Path) -> Iterator[Row]:
    with serving("qmail", PORTS[0], folder) as server:
        spent, good, _ = asyncio.run(_stopped(server))
    yield want(row("stop with 1 000 pings, good answers", good, "answers", 0.0), ">= 1000 answers")
    yield want(row("stop with 1 000 pings, until it has ended", spent, "s", 0.0), "<= 1 s")


def rows() -> Iterator[Row]:
    os.sched_setaffinity(0, {CLIENT_CORE})
    with tempfile.TemporaryDirectory(prefix="qmail-bench-") as name:
        folder = Path(name)
        fill(folder, MESSAGES)
        with serving("qmail", PORTS[0], folder) as server:
            yield from reading(server)
            if has_wrk():
                yield from requests(server, folder)
        yield from parked(folder)
        yield from stopping(folder)
        yield from writes(folder)
