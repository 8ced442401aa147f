"""A client of the mailbox API over a real engine in memory, without sockets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
from qmail_server.http.app import build_app

from qmail_core.embed import Cluster
from qmail_core.engine.engine import Engine
from qmail_core.store.mailbox import HOME
from tests.server.fake_engine import BASE, OPEN


class Client:
    """Speaks for the engine's own user unless a whole path is given."""

    def __init__(self, cluster: Cluster, engine: Engine, other: Engine, http: httpx.AsyncClient) -> None:
        self.cluster, self.engine, self.other, self.http = cluster, engine, other, http
        self.user = engine.mailboxes.user_id(HOME).hex()
        self.boxes = {box.path: box.oid.hex() for box in engine.mailboxes.listed(HOME)}

    def box(self, path: str) -> str:
        return self.boxes[path]

    async def ask(self, verb: str, path: str, expected: int = 200, **options: Any) -> dict[str, Any]:
        answer = await self.http.request(verb, path, **options)
        assert answer.status_code == expected, answer.text
        body: dict[str, Any] = answer.json()
        assert ("error" in body) is (expected >= 400)
        assert expected >= 400 or body["success"] is True
        return body

    async def get(self, path: str, expected: int = 200) -> dict[str, Any]:
        return await self.ask("GET", f"/users/{self.user}{path}", expected)

    async def post(self, path: str, body: Any = None, expected: int = 200) -> dict[str, Any]:
        return await self.ask("POST", f"/users/{self.user}{path}", expected, json=body)

    async def put(self, path: str, body: Any = None, expected: int = 200) -> dict[str, Any]:
        return await self.ask("PUT", f"/users/{self.user}{path}", expected, json=body)

    async def delete(self, path: str, expected: int = 200) -> dict[str, Any]:
        return await self.ask("DELETE", f"/users/{self.user}{path}", expected)


def over(story: Callable[[Client], Awaitable[None]], *, clock: Callable[[], float] = time.time, **config: Any) -> None:
    """Run a story against one engine; `config` are its settings."""

    async def whole() -> None:
        async with Cluster(5, clock=clock) as cluster:
            engine, other = await cluster.engine("alice", **config), await cluster.engine("bob")
            transport = httpx.ASGITransport(build_app(engine, OPEN))
            async with httpx.AsyncClient(transport=transport, base_url=BASE) as http:
                await story(Client(cluster, engine, other, http))

    asyncio.run(whole())
