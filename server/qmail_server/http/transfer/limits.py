"""300 requests a minute from one address; every answer says how many are left."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qmail_server.http.errors import TRANSFER, Failed
from qmail_server.http.respond import failure

LIMIT = 300
WINDOW = 60  # seconds
_ADDRESSES = 10_000  # remembered at most


class RateLimit:
    """Counts requests to some paths in a window for each address, and refuses those beyond the limit."""

    def __init__(
        self,
        app: ASGIApp,
        paths: re.Pattern[str],
        clock: Callable[[], float] = time.time,
        *,
        free: Iterable[str] = (),
    ) -> None:
        self._app = app
        self._paths = paths
        self._free = frozenset(path for path in free if not paths.fullmatch(path))  # known beforehand
        self._clock = clock
        self._windows: dict[str, tuple[float, int]] = {}  # when the window ends, and how many came in it

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        path = scope["path"]
        if path in self._free or not self._paths.fullmatch(path):
            return self._app(scope, receive, send)
        return self._limit(scope, receive, send)

    async def _limit(self, scope: Scope, receive: Receive, send: Send) -> None:
        now = self._clock()
        ends, count = self._count(scope["client"][0] if scope.get("client") else "", now)
        headers = (
            (b"x-ratelimit-limit", str(LIMIT).encode()),
            (b"x-ratelimit-remaining", str(max(0, LIMIT - count)).encode()),
            (b"x-ratelimit-reset", str(int(ends)).encode()),
        )

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *headers]}
            await send(message)

        if count <= LIMIT:
            await self._app(scope, receive, counted)
            return
        wait = {"Retry-After": str(max(1, int(ends - now)))}
        await failure(Failed(429, "Too Many Attempts.", headers=wait), TRANSFER)(scope, receive, counted)

    def _count(self, address: str, now: float) -> tuple[float, int]:
        ends, count = self._windows.get(address, (0.0, 0))
        if ends <= now:
            if len(self._windows) >= _ADDRESSES:
                self._windows = {known: window for known, window in self._windows.items() if window[0] > now}
            ends, count = now + WINDOW, 0
        self._windows[address] = ends, count + 1
        return ends, count + 1
