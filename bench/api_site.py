"""Servers of the API benches, each a process of its own: `python -m bench.api_site WHAT PORT FOLDER`.

qmail        the whole surface of one engine, security layers and access line on, over a store on disk; its nodes are
             in memory, and requests to them take NODE_DELAY seconds, so that no background work is measured
told         the same with nodes that answer at once; SIGUSR1 makes a second engine tell the first of a mail
raw          raw ASGI that answers every path with the headers and bytes of the answer in FOLDER/<path with _ for />;
             with `?parse` it also has the standard library take a form apart
starlette    80 Starlette routes; the last one answers `JSONResponse`, and reads `form()` on POST
All run under the same uvicorn (httptools, uvloop, no access log of its own) on core SERVER_CORE.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import uvicorn
import uvloop
from qmail_server import logs, wiring
from qmail_server.http.app import build_app
from qmail_server.http.guard import GuardSettings, hosts_for
from qmail_server.memory import collect_seldom, keep_freed
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from qmail_core.config import EngineConfig
from qmail_core.engine.engine import Engine
from qmail_core.model import Address
from qmail_core.raida.cluster import Cluster
from qmail_core.store.mailbox import HOME
from qmail_core.store.sqlite import SqliteStore
from qmail_core.transport.loopback import LoopbackHost, LoopbackTransport

SERVER_CORE = 0
NODE_DELAY = 3600.0
TOKEN = "t" * 43
ROUTES = 80


class Opened:
    """An engine over a store on disk and nodes in memory."""

    def __init__(self, folder: Path, *, delay: float = NODE_DELAY) -> None:
        raida = Cluster.in_memory(25, entropy=os.urandom)
        coin, *purse = raida.mint([Address(1, 4242), *(Address(0, 1_000_000 + i) for i in range(2000))], os.urandom)
        raida.commit()
        self.raida = raida
        self.host = LoopbackHost(raida.nodes, time.time)
        if delay:
            self.host.delay.update(dict.fromkeys(range(25), delay))
        self.store = SqliteStore(str(folder / "store.sqlite"))
        config = EngineConfig(data=str(folder), pool_upload=0, pool_inbox=0)
        self.engine = Engine(config, coin, LoopbackTransport(self.host), self.store)
        self.purse = purse


def fill(folder: Path, count: int) -> None:
    """Put messages into the inbox of a store, each with 50 words of its own and common ones."""
    store = SqliteStore(str(folder / "store.sqlite"))
    box = store.mailboxes.mailbox_for(HOME, 0)  # type: ignore[arg-type]
    rows = (
        f"INSERT INTO message (oid, email_id, user, mailbox, uid, modseq, thread, subject, preview, from_name,"
        f" from_address, denomination, serial, recipients, received_at, sent_at, size, seen)"
        f" SELECT randomblob(12), randomblob(16), {HOME}, {box.id}, n, n, randomblob(12), 'Subject ' || n,"
        f" 'A preview of message ' || n || ', as long as first words are', 'Bob', '17.0.0@byte',"
        f" 1, 1114112, '[]', 1700000000 + n, 1700000000 + n, 4096, n % 10 > 0 FROM number"
    )
    words = (
        "INSERT INTO content (message, scope, subject, sender, recipients, text)"
        f" SELECT m.id, 'u{HOME}', m.subject, 'Bob 17.0.0@byte', 'alice', 'common words of all mails, word' ||"
        " (m.uid % 1000) || ' term' || (m.uid % 7) || ' unique' || m.uid FROM message m"
    )

    def change(db: Any) -> None:
        db.execute(
            f"CREATE TEMP TABLE number AS WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM n"
            f" LIMIT {count}) SELECT n FROM n"
        )
        db.execute(rows)
        db.execute(words)
        db.execute("UPDATE mailbox SET uidnext=?, modseq=? WHERE id=?", (count + 1, count, box.id))

    async def run() -> None:
        await store._database.write(change)
        await store.close()

    asyncio.run(run())


async def _qmail(port: int, folder: Path, *, told: bool = False) -> None:
    keep_freed()  # as `qmail serve` does
    begun = time.perf_counter()
    opened = Opened(folder, delay=0.0 if told else NODE_DELAY)
    engine = opened.engine
    logs.configure("INFO", stream=open(folder / "log", "w", encoding="utf-8"))  # noqa: SIM115, ASYNC230
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)

    async def tell() -> None:
        """SIGUSR1: a mail comes in, as far as every listener is concerned."""
        box = engine.mailboxes.at(HOME, "INBOX")
        assert box is not None
        await engine.letters.deliver(HOME, b"Subject: now\r\nFrom: bob@example.com\r\n\r\nhello\r\n", box)

    await engine.start()
    async with contextlib.AsyncExitStack() as closing:
        closing.push_async_callback(engine.close)
        if told:
            engine.beacon.start()
            tell = await _sender(opened, folder, closing)
        tasks: set[asyncio.Task[None]] = set()
        loop.add_signal_handler(signal.SIGUSR1, lambda: tasks.add(loop.create_task(tell())))
        await engine.deposit(opened.purse)
        server = wiring.HttpServer(build_app(engine, GuardSettings(hosts=hosts_for(port), token=TOKEN)), [port])
        await server.start()
        collect_seldom()
        print(
            json.dumps({"user": engine.mailboxes.user_id(HOME).hex(), "start": time.perf_counter() - begun}), flush=True
        )
        await stop.wait()
        engine.drain()
        await server.stop()


async def _sender(
    opened: Opened, folder: Path, closing: contextlib.AsyncExitStack
) -> Callable[[], Coroutine[Any, Any, None]]:
    """Another engine, with a mail that lies at the nodes; what it returns tells of it."""
    coin, *purse = opened.raida.mint([Address(1, 4243), *(Address(0, 2_000_000 + i) for i in range(2000))], os.urandom)
    opened.raida.commit()
    data = folder / "sender"
    data.mkdir(exist_ok=True)
    store = SqliteStore(None)
    config = EngineConfig(data=str(data), pool_upload=0, pool_inbox=0)
    engine = Engine(config, coin, LoopbackTransport(opened.host), store)
    await engine.start()
    closing.push_async_callback(engine.close)
    await engine.deposit(purse)
    mail = engine.draft([opened.engine.address_text], "now", "hello")
    started = await engine.start_upload(mail, tell=False)
    await engine.wait(started.task_id)

    async def tell() -> None:
        await engine.start_tell(started.guid)

    return tell


class Raw:
    """The same answer for every request, headers and bytes; the body of a request is read if there is one."""

    def __init__(self, folder: Path) -> None:
        self._answers = {f"/{path.name.replace('_', '/')}": self._read(path) for path in folder.iterdir()}

    @staticmethod
    def _read(path: Path) -> tuple[list[tuple[bytes, bytes]], bytes]:
        head, _, body = path.read_bytes().partition(b"\r\n\r\n")
        headers = [tuple(line.split(b": ", 1)) for line in head.split(b"\r\n")]
        return headers, body  # type: ignore[return-value]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "POST":
            parts = []
            more = True
            while more:
                message = await receive()
                parts.append(message.get("body", b""))
                more = message.get("more_body", False)
            body = b"".join(parts)
            if scope["query_string"] == b"parse":
                parse_qsl(body, keep_blank_values=True)
        headers, body = self._answers[scope["path"]]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _starlette() -> Starlette:
    async def answer(request: Request) -> JSONResponse:
        if request.method == "POST":
            form = await request.form()
            return JSONResponse({"success": True, "fields": len(form)})
        return JSONResponse({"success": True, "status": "success", "count": 0, "limit": 50, "tasks": []})

    return Starlette(routes=[Route(f"/api/path{i}", answer, methods=["GET", "POST"]) for i in range(ROUTES)])


async def _anchor(app: Any, port: int) -> None:
    config = uvicorn.Config(
        app, port=port, http="httptools", loop="none", lifespan="off", log_config=None, access_log=False,
        server_header=False,
    )  # fmt: skip
    server = uvicorn.Server(config)
    print("{}", flush=True)
    await server.serve()


def main() -> None:
    what, port, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    os.sched_setaffinity(0, {SERVER_CORE})
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if what in ("qmail", "told"):
            runner.run(_qmail(port, folder, told=what == "told"))
        else:
            runner.run(_anchor(Raw(folder) if what == "raw" else _starlette(), port))


if __name__ == "__main__":
    main()
