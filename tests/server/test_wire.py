"""The protocol between sockets and the application: real loopback sockets, bytes in and bytes out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from qmail_server.http import wire
from qmail_server.http.params import chunks
from qmail_server.wiring import HttpServer
from starlette.types import Receive, Scope, Send

Story = Callable[["Peer"], Awaitable[None]]
GET = b"GET %b HTTP/1.1\r\nhost: a\r\n\r\n"


class Echo:
    """Answers with what it was asked; some paths misbehave."""

    def __init__(self) -> None:
        self.parked = asyncio.Event()
        self.release = asyncio.Event()
        self.gone = asyncio.Event()

    def drain(self) -> None:
        self.release.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"x-path", scope["path"].encode())]
        if scope["path"] == "/forged":
            headers = [(b"x-path", b"a\r\nset-cookie: b")]
        if scope["path"] == "/gone":
            self.parked.set()
            while (await receive())["type"] != "http.disconnect":
                pass
            self.gone.set()
            return
        if scope["path"] == "/park":
            self.parked.set()
            await self.release.wait()
        body = scope["query_string"] if scope["method"] == "GET" else b""
        if scope["method"] == "POST" and scope["path"] != "/unread":
            body = b"".join([chunk async for chunk in chunks(receive)])
        if scope["path"] != "/stream":
            headers.append((b"content-length", b"%d" % (len(body) + (scope["path"] == "/short"))))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if scope["path"] == "/stream":
            await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await send({"type": "http.response.body", "body": body})


class Peer:
    """A client of a server that runs Echo."""

    def __init__(self, app: Echo, server: HttpServer, port: int) -> None:
        self.app, self.server, self.port = app, server, port

    async def open(self) -> None:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(self, data: bytes) -> bytes:
        """The next answer, head and body."""
        self.writer.write(data)
        return await self.answer()

    async def answer(self, *, bodiless: bool = False) -> bytes:
        head = await self.reader.readuntil(b"\r\n\r\n")
        lines = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
        if bodiless:
            return head
        if lines.get(b"transfer-encoding") == b"chunked":
            return head + await self.reader.readuntil(b"0\r\n\r\n")
        return head + await self.reader.readexactly(int(lines[b"content-length"]))

    async def ended(self) -> None:
        assert await self.reader.read() == b""


def over(story: Story) -> None:
    async def whole() -> None:
        app = Echo()
        server = HttpServer(app, [0])  # type: ignore[arg-type]
        await server.start()
        peer = Peer(app, server, server._sockets[0].getsockname()[1])
        await peer.open()
        try:
            await asyncio.wait_for(story(peer), 20)
        finally:
            peer.writer.close()
            await server.stop()

    asyncio.run(whole())


def test_requests_of_one_connection_are_answered_in_order() -> None:
    async def story(peer: Peer) -> None:
        peer.writer.write(GET % b"/a?1" + GET % b"/park?2" + GET % b"/c?3")
        assert (await peer.answer()).endswith(b"\r\n\r\n1")
        await peer.app.parked.wait()
        peer.app.release.set()
        assert (await peer.answer()).endswith(b"\r\n\r\n2")
        assert b"x-path: /c\r\n" in await peer.answer()
        answer = await peer.ask(GET % b"/d%20e?%20")
        assert b"x-path: /d e\r\n" in answer
        assert answer.endswith(b"%20")
        assert b"\r\ndate: " in answer

    over(story)


def test_bodies_come_whole_however_they_are_cut() -> None:
    async def story(peer: Peer) -> None:
        head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\n"
        assert (await peer.ask(head + b"hello")).endswith(b"\r\n\r\nhello")
        request = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        for byte in request:
            peer.writer.write(bytes((byte,)))
            await peer.writer.drain()
        assert (await peer.answer()).endswith(b"\r\n\r\nabcde")
        large = bytes(range(256)) * 4096
        assert (await peer.ask(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1048576\r\n\r\n" + large))[
            -1048576:
        ] == large

    over(story)


def test_a_body_nobody_reads_does_not_disturb_the_next_request() -> None:
    async def story(peer: Peer) -> None:
        head = b"POST /unread HTTP/1.1\r\nhost: a\r\ncontent-length: 300000\r\n\r\n"
        assert b"200 OK" in await peer.ask(head + bytes(300_000))
        assert (await peer.ask(GET % b"/?next")).endswith(b"next")

    over(story)


def test_a_client_that_waits_for_it_is_told_to_go_on() -> None:
    async def story(peer: Peer) -> None:
        peer.writer.write(b"POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n")
        assert await peer.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert (await peer.ask(b"ok")).endswith(b"\r\n\r\nok")

    over(story)


def test_head_has_no_body_and_an_unknown_length_is_chunked() -> None:
    async def story(peer: Peer) -> None:
        peer.writer.write(b"HEAD /?x HTTP/1.1\r\nhost: a\r\n\r\n")
        assert b"content-length: 0" in await peer.answer(bodiless=True)
        assert (await peer.ask(GET % b"/stream?two")).endswith(b"\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")

    over(story)


@pytest.mark.parametrize("last", [b"connection: close\r\n", b""])
def test_the_last_request_of_a_connection_closes_it(last: bytes) -> None:
    async def story(peer: Peer) -> None:
        version = b"1.1" if last else b"1.0"
        peer.writer.write(b"GET /?x HTTP/%b\r\nhost: a\r\n%b\r\n" % (version, last))
        assert b"connection: close\r\n" in await peer.answer()
        await peer.ended()

    over(story)


@pytest.mark.parametrize("garbage", [b"\x16\x03\x01\r\n\r\n", b"GET / HTTP/1.1\r\nbad header\r\n\r\n"])
def test_what_is_no_http_is_refused(garbage: bytes) -> None:
    async def story(peer: Peer) -> None:
        assert b" 400 Bad Request" in await peer.ask(garbage)
        await peer.ended()

    over(story)


def test_a_head_that_is_too_large_is_refused() -> None:
    async def story(peer: Peer) -> None:
        many = b"".join(b"x-%d: %b\r\n" % (i, b"y" * 1000) for i in range(70))
        assert b" 400 Bad Request" in await peer.ask(b"GET / HTTP/1.1\r\n" + many + b"\r\n")

    over(story)


@pytest.mark.parametrize("path", [b"/forged", b"/short?x"])
def test_an_answer_that_is_none_cuts_the_connection(path: bytes) -> None:
    async def story(peer: Peer) -> None:
        peer.writer.write(GET % path)
        await peer.ended()

    over(story)


def test_the_application_learns_that_its_client_left() -> None:
    async def story(peer: Peer) -> None:
        peer.writer.write(GET % b"/gone")
        await peer.app.parked.wait()
        peer.writer.close()
        await peer.app.gone.wait()

    over(story)


def test_stopping_answers_what_is_under_way() -> None:
    async def story(peer: Peer) -> None:
        peer.writer.write(GET % b"/park?last")
        await peer.app.parked.wait()
        await peer.server.stop()
        answer = await peer.answer()
        assert answer.endswith(b"\r\n\r\nlast")
        await peer.ended()

    over(story)


def test_a_silent_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "HEAD_TIME", 0.05)
    over(lambda peer: peer.ended())


def test_a_head_that_never_ends_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "HEAD_TIME", 0.05)

    async def story(peer: Peer) -> None:
        peer.writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n")
        await peer.ended()

    over(story)
