"""HTTP/1.1 between a socket and an ASGI application: the protocol class our uvicorn server runs.

uvicorn's own checks every header of every answer with regular expressions and writes head and body apart, which costs
more than the rest of a small request. Here an answer leaves in one write, and one check of its head as a whole keeps a
value from forging a header. Requests of one connection are answered in order, whatever is pipelined.

A connection that brings no request within IDLE seconds, or not the whole head of one within HEAD_TIME, is closed.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import unquote

import httptools
from starlette.types import ASGIApp, Message, Scope
from uvicorn import Config
from uvicorn.server import ServerState

log = logging.getLogger("qmail.http")

IDLE = 5.0  # seconds a connection may wait for its next request
HEAD_TIME = 20.0  # seconds until a head has come whole, also that of the first request
MAX_HEAD = 64 * 1024  # bytes of one head
_HIGH_WATER = 64 * 1024  # bytes of a body nobody has asked for yet
_MOST_PIPELINED = 256  # requests behind one that is being answered
_JOINED = 64 * 1024  # bodies up to this leave in one write with their head

_STATUS = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_BAD_REQUEST = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 31\r\n"
    b"connection: close\r\n\r\nInvalid HTTP request received.\n"
)
_BODILESS = frozenset((204, 304))
_GONE: Message = {"type": "http.disconnect"}
_ASGI = {"version": "3.0", "spec_version": "2.3"}


class Connection(asyncio.Protocol):
    """One connection. `shutdown` and `connections` are what uvicorn's server asks of its protocols."""

    __slots__ = (
        "_app", "_bad", "_client", "_current", "_deadline", "_drained", "_head_size", "_headers", "_next",
        "_parser", "_paused", "_reading", "_server", "_timer", "_transport", "_url", "loop", "state",
    )  # fmt: skip

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        if not config.loaded:
            config.load()
        self.state = server_state
        self._app = cast(ASGIApp, config.loaded_app)
        self.loop = _loop or asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._server = self._client = None
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_size = 0
        self._reading: Exchange | None = None  # whose body comes in
        self._current: Exchange | None = None  # that is being answered
        self._next: deque[Exchange] | None = None  # pipelined behind it
        self._paused = False
        self._drained: asyncio.Future[None] | None = None  # set while the client reads slower than we write
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._bad = False

    # ------------------------------------------------------------------ of the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._server = _pair(transport.get_extra_info("sockname"))
        self._client = _pair(transport.get_extra_info("peername"))
        self.state.connections.add(self)  # type: ignore[arg-type]
        self._wait(HEAD_TIME)

    def connection_lost(self, exc: Exception | None) -> None:
        self.state.connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for exchange in (self._current, self._reading):
            if exchange is not None:
                exchange.leave()
        self._next = None
        self.resume_writing()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # the request is answered as if it had not asked, and the connection closed behind it
        except httptools.HttpParserError:
            self._refuse()

    def pause_writing(self) -> None:
        if self._drained is None:
            self._drained = self.loop.create_future()

    def resume_writing(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)

    def _refuse(self) -> None:
        """What came is no HTTP. Answers that are owed go out first."""
        self._bad = True
        if self._current is None:
            if not self._transport.is_closing():
                self._transport.write(_BAD_REQUEST)
            self._transport.close()
            return
        if self._reading is not None and self._reading.more:
            self._reading.leave()  # its body can never be whole
            self._transport.close()

    # ------------------------------------------------------------------ of the parser

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers = []
        self._head_size = 0
        if self._current is None:
            self._wait(HEAD_TIME)

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))
        self._count(len(name) + len(value))

    def _count(self, size: int) -> None:
        self._head_size += size
        if self._head_size > MAX_HEAD:
            raise ValueError("the head is too large")

    def on_headers_complete(self) -> None:
        parser = self._parser
        version = parser.get_http_version()
        path, query = _split(self._url)
        scope = {
            "type": "http",
            "asgi": _ASGI,
            "http_version": version,
            "method": parser.get_method().decode("ascii"),
            "scheme": "http",
            "path": unquote(path) if "%" in path else path,
            "raw_path": path.encode("ascii"),
            "query_string": query,
            "root_path": "",
            "headers": self._headers,
            "server": self._server,
            "client": self._client,
        }
        keep = version == "1.1" and parser.should_keep_alive() and not parser.should_upgrade()
        exchange = self._reading = Exchange(self, scope, keep)
        if self._current is None:
            self._start(exchange)
        else:
            if self._next is None:
                self._next = deque()
            self._next.append(exchange)
            self.pause_reading()
            if len(self._next) > _MOST_PIPELINED:
                self._transport.abort()

    def on_body(self, body: bytes) -> None:
        if self._reading is not None:
            self._reading.feed(body)

    def on_message_complete(self) -> None:
        exchange, self._reading = self._reading, None
        if exchange is not None:
            exchange.feed_end()

    # ------------------------------------------------------------------ of the exchanges

    def _start(self, exchange: Exchange) -> None:
        self._current = exchange
        exchange.task = self.loop.create_task(exchange.run(self._app))
        self.state.tasks.add(exchange.task)

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    async def drained(self) -> None:
        """Return when the client has taken what was written."""
        while self._drained is not None:
            await asyncio.shield(self._drained)

    @property
    def slow(self) -> bool:
        """Whether what was written piles up."""
        return self._drained is not None

    def pause_reading(self) -> None:
        if not self._paused and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._paused:
            self._paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()

    def close(self) -> None:
        self._transport.close()

    def answered(self, keep: bool) -> None:
        """The current exchange has its answer."""
        self._current = None
        self.state.total_requests += 1
        if not keep:
            self._transport.close()
        elif self._next:
            self._start(self._next.popleft())
        elif self._bad:
            self._transport.close()
        else:
            self.resume_reading()
            self._wait(IDLE)

    def shutdown(self) -> None:
        """The server stops: close, or do so behind the answer that is under way."""
        if self._current is None:
            self._transport.close()
        else:
            self._current.keep = False

    # ------------------------------------------------------------------ patience

    def _wait(self, seconds: float) -> None:
        """Close unless a head has come whole by then. The timer of earlier waiting is left to find that out."""
        self._deadline = self.loop.time() + seconds
        if self._timer is None:
            self._timer = self.loop.call_later(seconds, self._late)

    def _late(self) -> None:
        self._timer = None
        if self._current is not None:
            return  # waits for us; the answer starts the next wait
        left = self._deadline - self.loop.time()
        if left <= 0.01:
            self._transport.close()
        else:
            self._timer = self.loop.call_later(left, self._late)


class Exchange:
    """One request and its answer."""

    __slots__ = (
        "_chunked", "_connection", "_gone", "_head", "_invited", "_left", "_parts", "_scope", "_size", "_state",
        "_told", "_waiter", "keep", "more", "task",
    )  # fmt: skip

    def __init__(self, connection: Connection, scope: Scope, keep: bool) -> None:
        self._connection = connection
        self._scope = scope
        self.keep = keep
        self.task: asyncio.Task[None]
        self.more = True  # of the body is to come
        self._parts: list[bytes] = []
        self._size = 0
        self._told = False  # the application has seen the end of the body
        self._gone = False
        self._waiter: asyncio.Future[None] | None = None
        self._state = 0  # 0 nothing answered, 1 the head is there, 2 all of it
        self._head = b""  # to leave with the first part of the body
        self._chunked = False
        self._left = 0  # bytes of the body that Content-Length still promises
        self._invited = False  # the body has been asked for, if the client waits for that

    # ------------------------------------------------------------------ from the client

    def feed(self, body: bytes) -> None:
        if self._state == 2 or self._gone:
            return  # nobody will ask for it any more
        self._parts.append(body)
        self._size += len(body)
        if self._size > _HIGH_WATER:
            self._connection.pause_reading()
        self._wake()

    def feed_end(self) -> None:
        self.more = False
        self._wake()

    def leave(self) -> None:
        """The client has gone."""
        self._gone = True
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # ------------------------------------------------------------------ of the application

    async def run(self, app: ASGIApp) -> None:
        try:
            await app(self._scope, self.receive, self.send)
            if self._state != 2 and not self._gone:
                raise RuntimeError("the application ended without a whole answer")
        except Exception:
            log.exception("an answer failed")
            self._connection.close()
        except BaseException:  # cancelled, as the server's patience is over
            self._connection.close()
            raise
        finally:
            self._connection.state.tasks.discard(self.task)

    async def receive(self) -> Message:
        while not self._gone and self._state != 2:
            if self._parts or not (self.more or self._told):
                body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
                self._parts.clear()
                self._size = 0
                self._told = not self.more
                return {"type": "http.request", "body": body, "more_body": self.more}
            if self.more and not self._invited:
                self._invite()
            self._connection.resume_reading()  # nobody sees the client leave otherwise
            self._waiter = self._connection.loop.create_future()
            await self._waiter
        return _GONE

    def _invite(self) -> None:
        self._invited = True
        expects = any(name == b"expect" and value.lower() == b"100-continue" for name, value in self._scope["headers"])
        if expects and self._state == 0:
            self._connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    async def send(self, message: Message) -> None:
        if self._connection.slow and not self._gone:
            await self._connection.drained()
        if self._gone:
            return
        kind = message["type"]
        if self._state == 0 and kind == "http.response.start":
            self._state = 1
            self._head = self._format(message["status"], message.get("headers", ()))
        elif self._state == 1 and kind == "http.response.body":
            self._send_body(message.get("body", b""), message.get("more_body", False))
        else:
            raise RuntimeError(f"{kind} is out of turn")

    def _format(self, status: int, headers: Any) -> bytes:
        length = None
        parts = [
            _STATUS[status] if status in _STATUS else b"HTTP/1.1 %d \r\n" % status,
            _common(self._connection.state),
        ]
        lines = parts[1].count(b"\n") + 1
        for name, value in headers:
            if name == b"content-length":
                length = int(value)
            elif name == b"connection" and value.lower() == b"close":
                self.keep = False
                continue
            parts.append(b"%b: %b\r\n" % (name, value))
            lines += 1
        if self._scope["method"] == "HEAD" or status in _BODILESS:
            self._left = -1
        elif length is not None:
            self._left = length
        elif self._scope["http_version"] == "1.1":
            self._chunked = True
            parts.append(b"transfer-encoding: chunked\r\n")
            lines += 1
        else:
            self._left, self.keep = -2, False  # the end of the connection is the end of the body
        if not self.keep:
            parts.append(b"connection: close\r\n")
            lines += 1
        head = b"".join(parts)
        if head.count(b"\n") != lines or head.count(b"\r") != lines or b"\0" in head:
            raise RuntimeError("a header value has characters no header can have")
        return head + b"\r\n"

    def _send_body(self, body: bytes, more: bool) -> None:
        head, self._head = self._head, b""
        if self._chunked:
            body = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + (b"" if more else b"0\r\n\r\n")
        elif self._left == -1:
            body = b""  # the answer to HEAD
        elif self._left >= 0:
            self._left -= len(body)
            if self._left < 0 or (self._left and not more):
                raise RuntimeError("the body is not as long as Content-Length says")
        write = self._connection.write
        if len(body) <= _JOINED:
            if head or body:
                write(head + body)
        else:
            if head:
                write(head)
            write(body)
        if not more:
            self._state = 2
            self._parts.clear()
            self._wake()
            self._connection.answered(self.keep)


_common_of: tuple[object, bytes] = (None, b"")


def _common(state: ServerState) -> bytes:
    """The headers every answer has; the server makes a new list of them every second."""
    global _common_of
    if _common_of[0] is not state.default_headers:
        block = b"".join(b"%b: %b\r\n" % pair for pair in state.default_headers)
        _common_of = (state.default_headers, block)
    return _common_of[1]


def _split(url: bytes) -> tuple[str, bytes]:
    """Path and query of a request target; HttpParserInvalidURLError, UnicodeDecodeError."""
    if url.startswith(b"/") and not url.startswith(b"//") and b"#" not in url:
        path, _, query = url.partition(b"?")
        return path.decode("ascii"), query
    parsed = httptools.parse_url(url)
    return (parsed.path or b"/").decode("ascii"), parsed.query or b""


def _pair(address: Any) -> Any:
    """Host and port of a socket's address; None where there is none."""
    return (str(address[0]), int(address[1])) if isinstance(address, tuple) else None
