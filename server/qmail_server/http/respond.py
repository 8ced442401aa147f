"""Answers, and what an endpoint is given to make one: values in, ASGI responses out.

Rule: an endpoint returns a Struct or a dict (sent as JSON with status 200) or a ready ASGI response.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import quote

import msgspec
from msgspec import Struct
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qmail_core.model import Source
from qmail_server import logs
from qmail_server.http.errors import NODE, Dialect, describe, headers_of
from qmail_server.http.params import Params

if TYPE_CHECKING:
    from qmail_core.engine.engine import Engine
    from qmail_server.http.events import Streams

VERBS = ("GET", "HEAD", "POST", "PUT", "DELETE")
_encode = msgspec.json.Encoder().encode
_MOST_KEPT = 4 << 20  # bytes of answers
_ENTRY = 1000  # bytes an answer costs beside its body, with a question that is not long
_JSON_HEADERS = (
    (b"content-type", b"application/json"),
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
)


class Json:
    """A JSON response: one start, one body, nothing between."""

    __slots__ = ("_start", "body")

    def __init__(self, value: Any, status: int = 200, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        self.body = _encode(value)
        headers = (*_JSON_HEADERS, (b"content-length", b"%d" % len(self.body)), *headers)
        self._start: Message = {"type": "http.response.start", "status": status, "headers": headers}

    @classmethod
    def encoded(cls, body: bytes) -> Json:
        """The response of a body that is encoded already."""
        return cls(msgspec.Raw(body))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send(self._start)  # others copy it before they add to it: an answer may be kept
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else self.body})


class Call:
    """One request as an endpoint sees it."""

    __slots__ = ("engine", "guid", "params", "path", "receive", "request_id", "scope", "streams")

    def __init__(
        self,
        engine: Engine,
        scope: Scope,
        receive: Receive,
        request_id: str,
        streams: Streams,
        path: dict[str, str] | None = None,
    ) -> None:
        self.engine = engine
        self.streams = streams  # open event streams of the application
        self.scope = scope
        self.params = Params()
        self.path = path or {}  # parameters of the path itself
        self.receive = receive
        self.request_id = request_id
        self.guid = b""  # of the mail its file parts were spooled for


class Route(Struct, frozen=True):
    """One static path.

    effects   false: a user may open it from the address bar of a browser
    kept      its answers depend on the query and what this gives alone, so they are kept while it stays the same
    sink      opens a file for a file part; None: file parts are refused
    verbs     others are refused
    """

    path: str
    endpoint: Callable[[Call], Awaitable[Any]]
    effects: bool = True
    kept: Callable[[Engine], object] | None = None
    sink: Callable[[Call, str], tuple[BinaryIO, Source]] | None = None
    dialect: Dialect = NODE
    verbs: tuple[str, ...] = VERBS


class Answers:
    """Encoded answers of one engine, each with the revision of what it depends on.

    The revision is read before the answer is made. So an answer that saw a change made meanwhile is kept under the
    revision before it, which nobody asks for again; one that did not see a change is never found after it.
    """

    def __init__(self) -> None:
        self._kept: dict[Any, tuple[object, ASGIApp]] = {}
        self._size = 0

    def find(self, key: Any, revision: object) -> ASGIApp | None:
        """The answer to a question, if it still holds."""
        found = self._kept.get(key)
        return found[1] if found is not None and found[0] == revision else None

    def keep(self, key: Any, revision: object, answer: ASGIApp) -> None:
        """Remember the answer made from this revision or a later one."""
        if not isinstance(answer, Json):
            return
        self._size += len(answer.body) + _ENTRY  # what it takes the place of goes on counting, until all goes
        if self._size > _MOST_KEPT:
            self._kept.clear()
            self._size = len(answer.body) + _ENTRY
        self._kept[key] = revision, answer


def response_of(value: Any) -> ASGIApp:
    """What an endpoint returned, as a response."""
    return value if callable(value) else Json(value)


def failure(error: Exception, dialect: Dialect = NODE) -> ASGIApp:
    """An error as a response."""
    status, body = describe(error, dialect, logs.request_id.get())
    return Json(body, status, (*headers_of(error), *dialect.headers))


def disposition(name: str) -> str:
    """Content-Disposition of a download: a plain name for old clients, the exact one beside it (RFC 6266, RFC 8187)."""
    plain = "".join(char if 0x20 <= ord(char) < 0x7F and char not in '"\\%/' else "_" for char in name)
    exact = quote(name.encode("utf-8", "replace"), safe="!#$&+-.^_`|~")
    return f"attachment; filename=\"{plain or 'attachment'}\"; filename*=UTF-8''{exact}"
