"""Connections whose client says nothing are closed in time; those that wait for the server, or still move, are not."""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop
from qmail_server import connections, wiring
from qmail_server.connections import Limits, most_connections, raise_files
from qmail_server.http.app import build_app
from qmail_server.http.guard import GuardSettings, hosts_for
from qmail_server.http.params import chunks
from qmail_server.http.respond import Call, Route

from tests.flows.processes import free_ports
from tests.server.fake_engine import FakeEngine

HOUR = Limits(head=3600.0, silence=3600.0, connections=100)  # nothing happens by itself: tests say how late it is


async def until(true: Callable[[], bool]) -> None:
    """Let the loop go on until something is so."""
    while not true():  # noqa: ASYNC110  # nobody tells
        await asyncio.sleep(0)


async def gone(reader: asyncio.StreamReader) -> bool:
    """Whether a connection ends without a word; bytes nobody has read make a reset of it."""
    try:
        return await reader.read() == b""
    except ConnectionError:
        return True


class Site:
    """A server with an endpoint that waits, and one that counts the bytes it is sent."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        (self.port,) = free_ports(1, start=3)
        self.go = asyncio.Event()
        self._writers: list[asyncio.StreamWriter] = []
        self.pieces: asyncio.Queue[int] = asyncio.Queue()
        routes = [Route("/wait", self._wait), Route("/flood", self._flood)]
        guard = GuardSettings(hosts=hosts_for(self.port), compat_open=True)
        app = build_app(FakeEngine(folder), guard, extra_routes=routes)  # type: ignore[arg-type]
        self.server = wiring.HttpServer(_Reading(app, self.pieces), [self.port], limits)  # type: ignore[arg-type]
        self.known = self.server._server.server_state.connections

    async def _wait(self, call: Call) -> dict[str, Any]:
        await self.pieces.put(0)  # it is here
        await self.go.wait()
        return {"waited": True}

    async def _flood(self, call: Call) -> dict[str, Any]:
        return {}

    def late(self, seconds: float) -> None:
        """Look at the connections as they would be looked at so much later."""
        self.server._connections.look(asyncio.get_running_loop().time() + seconds)

    async def open(self, sent: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection the server knows of."""
        count = len(self.known)
        reader, writer = await self.connect(sent)
        await until(lambda: len(self.known) > count)
        return reader, writer

    async def connect(self, sent: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection that is closed with the rest."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._writers.append(writer)
        writer.write(sent)
        return reader, writer

    async def close(self) -> None:
        self.go.set()
        for writer in self._writers:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        await self.server.stop()

    def head(self, method: str, path: str, *headers: str) -> bytes:
        lines = (f"{method} {path} HTTP/1.1", f"Host: localhost:{self.port}", *headers, "", "")
        return "\r\n".join(lines).encode()


class _Reading:
    """`/body` reads what it is sent, and says how much each piece was; `/stream` never ends its answer."""

    def __init__(self, app: Any, pieces: asyncio.Queue[int]) -> None:
        self._app = app
        self._pieces = pieces
        self.drain = app.drain

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/stream":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b": listening", "more_body": True})
            while (await receive())["type"] != "http.disconnect":
                pass
            return
        if scope["path"] != "/body":
            await self._app(scope, receive, send)
            return
        total = 0
        async for chunk in chunks(receive):
            total += len(chunk)
            await self._pieces.put(len(chunk))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"3")]})
        await send({"type": "http.response.body", "body": b"%03d" % total})


@contextlib.asynccontextmanager
async def site(folder: Path, limits: Limits = HOUR) -> AsyncIterator[Site]:
    made = Site(folder, limits)
    await made.server.start()
    try:
        yield made
    finally:
        await made.close()


def run(story: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(story)


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: loc"])
def test_who_owes_a_head_is_closed_in_time(tmp_path: Path, sent: bytes) -> None:
    async def story() -> None:
        async with site(tmp_path) as at:
            reader, writer = await at.open(sent)
            at.late(0)
            at.late(3599)
            assert not writer.is_closing()
            assert len(at.known) == 1
            at.late(3601)
            assert await gone(reader)

    run(story())


def test_a_trickle_does_not_make_a_head(tmp_path: Path) -> None:
    async def story() -> None:
        async with site(tmp_path) as at:
            reader, writer = await at.open()
            at.late(0)
            for second in (900, 1800, 2700):
                writer.write(b"G")
                at.late(second)
            at.late(3601)
            assert await gone(reader)

    run(story())


def test_half_a_head_after_an_answer_counts_too(tmp_path: Path) -> None:
    async def story() -> None:
        async with site(tmp_path) as at:
            reader, writer = await at.open(at.head("GET", "/flood"))
            assert b"200" in await reader.readuntil(b"{}")
            (connection,) = at.known
            assert connection.timeout_keep_alive_task is not None  # type: ignore[union-attr]  # uvicorn's own
            at.late(0)
            at.late(9999)
            assert not connection.transport.is_closing()
            writer.write(b"GET / HT")
            await until(lambda: connection.timeout_keep_alive_task is None)  # type: ignore[union-attr]
            at.late(0)
            at.late(3601)
            assert await gone(reader)

    run(story())


def test_a_body_that_stops_is_answered_408_and_its_reader_is_told(tmp_path: Path) -> None:
    async def story() -> None:
        async with site(tmp_path) as at:
            reader, _ = await at.open(at.head("POST", "/body", "Content-Length: 10") + b"x")
            assert await at.pieces.get() == 1
            at.late(0)
            at.late(3601)
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
            assert b'"message": "The rest of the request did not come"' in answer

    run(story())


def test_a_body_that_moves_takes_as_long_as_it_likes(tmp_path: Path) -> None:
    async def story() -> None:
        async with site(tmp_path) as at:
            reader, writer = await at.open(at.head("POST", "/body", "Content-Length: 10"))
            for piece in range(10):
                at.late(piece * 3000)
                writer.write(b"x")
                assert await at.pieces.get() == 1
            at.late(30_000)
            assert (await reader.readuntil(b"010")).startswith(b"HTTP/1.1 200")

    run(story())


def test_who_waits_for_the_server_may_wait_for_ever(tmp_path: Path) -> None:
    async def story() -> None:
        async with site(tmp_path) as at:
            reader, _ = await at.open(at.head("POST", "/wait", "Content-Length: 0"))
            assert await at.pieces.get() == 0
            for hours in range(10):
                at.late(hours * 3600)
            at.go.set()
            assert (await reader.readuntil(b"true}")).startswith(b"HTTP/1.1 200")

    run(story())


def test_an_event_stream_may_go_on_for_ever(tmp_path: Path) -> None:
    async def story() -> None:
        async with site(tmp_path) as at:
            reader, _ = await at.open(at.head("GET", "/stream"))
            await reader.readuntil(b": listening")
            for hours in range(10):
                at.late(hours * 3600)
            (connection,) = at.known
            assert not connection.transport.is_closing()

    run(story())


def test_the_server_looks_by_itself(tmp_path: Path) -> None:
    async def story() -> None:
        async with site(tmp_path, Limits(head=0.1, silence=0.1, connections=9)) as at:
            waits, _ = await at.open(at.head("GET", "/wait"))
            assert await at.pieces.get() == 0
            silent, _ = await at.open()
            assert await gone(silent)
            stalled, _ = await at.open(at.head("POST", "/body", "Content-Length: 10"))
            assert b" 408 " in await stalled.read()
            at.go.set()  # what waited all the while
            assert (await waits.readuntil(b"true}")).startswith(b"HTTP/1.1 200")

    run(story())


def test_beyond_the_bound_the_silent_make_place(tmp_path: Path) -> None:
    async def story() -> None:
        async with site(tmp_path, Limits(head=3600.0, silence=3600.0, connections=8)) as at:
            first, _ = await at.open()
            at.late(0)
            for _ in range(40):
                await at.connect()
            reader, _ = await at.connect(at.head("GET", "/flood"))
            assert (await reader.readuntil(b"{}")).startswith(b"HTTP/1.1 200")
            assert await gone(first)  # the oldest had to go
            assert len(at.known) <= 9

    run(story())


def test_beyond_the_bound_of_busy_ones_the_answer_is_503(tmp_path: Path) -> None:
    async def story() -> None:
        async with site(tmp_path, Limits(head=3600.0, silence=3600.0, connections=3)) as at:
            parked = [await at.open(at.head("GET", "/wait")) for _ in range(3)]
            for _ in parked:
                await at.pieces.get()
            reader, _ = await at.open(at.head("GET", "/flood"))
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 503 ")
            at.go.set()
            for waits, _ in parked:
                assert (await waits.readuntil(b"true}")).startswith(b"HTTP/1.1 200")

    run(story())


@pytest.mark.parametrize(
    ("files", "share", "expected"),
    [(256, 1, 192), (1024, 1, 768), (1024, 2, 384), (6200, 1, 5176), (20_000, 1, 10_000), (40, 1, 1)],
)
def test_a_process_keeps_files_for_itself(
    monkeypatch: pytest.MonkeyPatch, files: int, share: int, expected: int
) -> None:
    monkeypatch.setattr(connections, "raise_files", lambda: files)
    assert most_connections(share) == expected


@pytest.mark.parametrize(
    ("soft", "hard", "found", "asked"),
    [
        (1024, 1 << 20, 12_000, 12_000),
        (1024, 4096, 4096, 4096),
        (256, 256, 256, None),
        (1 << 16, 1 << 20, 1 << 16, None),
        (-1, -1, 12_000, None),
        (1024, -1, 12_000, 12_000),
    ],
)
def test_the_limit_on_files_is_raised_as_far_as_it_may_be(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, found: int, asked: int | None
) -> None:
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: given.append(limits))
    assert raise_files() == found
    assert given == ([] if asked is None else [(asked, hard)])
