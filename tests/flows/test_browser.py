"""A page of another origin in a real browser: whatever it tries on every route, nothing happens and it sees nothing.

The mailbox asks for no token here, so only what the browser says of itself stands in the way. The attacker has names
of its own, all of which lead to this machine; one of them is rebound, after its page was loaded, to the mailbox's port.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import shutil
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlencode, urlsplit

import pytest
import uvicorn
from qmail_server.http.app import build_app
from qmail_server.http.guard import GuardSettings, hosts_for
from qmail_server.http.transfer.routes import LINKS
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.server.scenes import World, new_world, operations

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PAGE = Path(__file__).parent / "attack.html"
SECRET = "Minutes"  # the subject of the mail in the inbox
PAGES = ("/", "/docs", "/openapi.json")
NAME, REBOUND = "attacker.example", "rebound.example"


class Watched:
    """Notes what reaches the mailbox's port, and how it was answered."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.asked: list[tuple[str, str, str, int]] = []  # method, path, kind of request, status

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                kind = dict(scope["headers"]).get(b"sec-fetch-dest", b"unsaid").decode()
                self.asked.append((scope["method"], scope["path"], kind, message["status"]))
            await send(message)

        await self._app(scope, receive, watched)


class Attacker:
    """The attacker's server: its pages, redirects, and where its pages tell what they have seen."""

    def __init__(self, pages: dict[str, str]) -> None:
        self.pages = pages
        self.told: dict[str, list[Any]] = {}
        self.done = {mode: asyncio.Event() for mode in ("foreign", "rebound")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        status, headers, body = 200, [(b"content-type", b"text/html")], b""
        query = scope["query_string"].decode()
        if scope["path"] == "/away":
            status, headers = 302, [(b"location", unquote(query).encode())]
        elif scope["path"] == "/done":
            self.told[query] = json.loads(await whole(receive))
            self.done[query].set()
        else:
            body = self.pages.get(scope["path"], "").encode()
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def whole(receive: Receive) -> bytes:
    parts = []
    more = True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


@asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[int]:
    """A server on a free port of loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off", ws="none"))
        server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        task = asyncio.create_task(server._serve([listening]))
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = server.force_exit = True
            await task


@asynccontextmanager
async def browsing(folder: Path, url: str) -> AsyncIterator[None]:
    """Chromium with this page; every other name leads to this machine."""
    assert CHROMIUM is not None
    options = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage")
    rules = "--host-resolver-rules=MAP *.example 127.0.0.1, EXCLUDE 127.0.0.1"
    command = (CHROMIUM, *options, f"--user-data-dir={folder}", rules, "--no-proxy-server", url)
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*command, stdout=quiet, stderr=quiet)
    try:
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def targets(world: World, document: dict[str, Any], base: str) -> list[dict[str, Any]]:
    """Every path as a request that would do something, with ids the attacker cannot know."""
    found: dict[str, dict[str, Any]] = {}
    for shown in operations(document):
        asked = shown.request(world.values)
        query = f"?{urlencode(asked['params'], doseq=True)}" if asked["params"] else ""
        target = found.setdefault(shown.path, {"url": base + asked["url"] + query, "body": {}})
        body = {name: value[0] if isinstance(value, list) else value for name, value in asked.get("json", {}).items()}
        target["body"] |= body
    return list(found.values())


def page(mode: str, home: str, aims: list[dict[str, Any]]) -> str:
    text = PAGE.read_text(encoding="utf-8")
    for name, value in (("TARGETS*/[]", json.dumps(aims)), ("MODE*/", mode), ("HOME*/", home)):
        text = text.replace(f"/*{name}", value)
    return text


def state(world: World) -> dict[str, Any]:
    """All the mailbox remembers: tables, files, tasks, settings, coins, what it listens to."""
    folder = Path(world.bob.config.data)
    files = {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}
    return {
        "tables": rows(world),
        "files": files,
        "tasks": sorted(task.id for task in world.bob.tasks()),
        "settings": repr(world.bob.config),
        "balance": world.bob.balance(),
        "watching": world.bob.beacon.state.running,
    }


def rows(world: World) -> list[str]:
    """The store as text."""
    database = world.bob._store._database  # type: ignore[attr-defined]
    with database.read() as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")]
        return [f"{name} {row}" for name in sorted(names) for row in connection.execute(f"SELECT * FROM {name}")]


async def rebinding(victim: int, document: str) -> asyncio.Server:
    """A port that answers with the attacker's page once and leads to the mailbox from then on."""
    loaded = False

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal loaded
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            writer.close()  # a browser opens connections ahead and may find that it needs none
            return
        if not loaded:
            loaded = True
            assert head.startswith(b"GET / ")
            body = document.encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n")
            writer.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
            await writer.drain()
            writer.close()
            return
        there, back = await asyncio.open_connection("127.0.0.1", victim)
        back.write(head)
        await asyncio.gather(carry(reader, back), carry(there, writer))

    return await asyncio.start_server(serve, "127.0.0.1", 0)


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Bytes from here to there, until there are no more."""
    with contextlib.suppress(OSError):
        while chunk := await reader.read(1 << 16):
            writer.write(chunk)
            await writer.drain()
    writer.close()


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.timeout(400)
def test_a_page_of_another_origin_does_nothing_and_sees_nothing(tmp_path: Path) -> None:
    asyncio.run(attack(tmp_path))


async def attack(folder: Path) -> None:
    attacker = Attacker({})
    async with new_world() as world, serving(attacker) as own:
        home = f"http://{NAME}:{own}"
        hosts: set[str] = set()
        watched = Watched(late(lambda: build_app(world.bob, GuardSettings(hosts=frozenset(hosts), compat_open=True))))
        async with serving(watched) as port:
            hosts |= hosts_for(port)
            document = (await world.http.get("/openapi.json")).json()
            aims = targets(world, document, f"http://127.0.0.1:{port}")
            attacker.pages["/"] = page("foreign", home, aims)
            rebound = await rebinding(port, page("rebound", home, aims))
            second = rebound.sockets[0].getsockname()[1]
            hosts |= hosts_for(second)  # so that the port is right, and only the name is wrong
            before = state(world)
            urls = {"foreign": f"{home}/", "rebound": f"http://{REBOUND}:{second}/"}
            for mode, url in urls.items():
                async with browsing(folder / mode, url), asyncio.timeout(180):
                    await attacker.done[mode].wait()
                assert state(world) == before, mode
            rebound.close()
        assert state(world) == before
        check_seen(attacker)
        check_asked(watched, aims)


def late(make: Callable[[], ASGIApp]) -> ASGIApp:
    """An application that is made when it is first asked."""
    made: list[ASGIApp] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if not made:
            made.append(make())
        await made[0](scope, receive, send)

    return app


def check_seen(attacker: Attacker) -> None:
    """From a foreign name no answer can be read at all; under a rebound one only that it is refused."""
    assert attacker.told["foreign"] == []
    assert attacker.told["rebound"]
    for name, url, text in attacker.told["rebound"]:
        assert text.startswith("421 "), (name, url, text)
        assert SECRET not in text


def check_asked(watched: Watched, aims: list[dict[str, Any]]) -> None:
    """All of it was really tried, and all of it refused; pages, which anybody may link to, are shown to nobody else."""
    paths = {urlsplit(aim["url"]).path for aim in aims}
    for method, path, kind, status in watched.asked:
        shown = path in PAGES and method == "GET" and kind == "iframe" and status == 200
        # a link to a download may come from anywhere; without the key in it nothing is told
        linked = LINKS.fullmatch(path) and kind == "iframe" and status in (401, 405)
        assert status in (403, 421) or shown or linked, (method, path, kind, status)
    for kind in ("image", "script", "style", "iframe", "empty", "unsaid"):
        tried = {path for _, path, sort, _ in watched.asked if sort == kind}
        assert paths <= tried, (kind, sorted(paths - tried)[:5])
    methods = Counter(method for method, *_ in watched.asked)
    assert methods.keys() >= {"GET", "POST", "PUT", "DELETE", "OPTIONS"}
