"""A client of the file-transfer API over two real engines in memory, without sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from qmail_server.http.app import App, build_app

from qmail_core.embed import Cluster
from qmail_core.engine.engine import Engine
from qmail_core.engine.files import pins
from qmail_core.store.mailbox import HOME
from tests.server.fake_engine import BASE, OPEN

PIN = "1234"


class Clock:
    """Unix time that only tests move."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Client:
    """Speaks with a token of its own unless told otherwise."""

    def __init__(self, cluster: Cluster, engine: Engine, http: httpx.AsyncClient, token: str, clock: Clock) -> None:
        self.cluster, self.engine, self.http, self.token, self.clock = cluster, engine, http, token, clock
        self.headers = {"Authorization": f"Bearer {token}"}

    async def ask(self, verb: str, path: str, expected: int = 200, **options: Any) -> httpx.Response:
        headers = {**self.headers, **options.pop("headers", {})}
        answer = await self.http.request(verb, path, headers=headers, **options)
        assert answer.status_code == expected, (answer.status_code, answer.text)
        if path.startswith("/api/files/tus"):  # required in every answer but to OPTIONS
            assert answer.headers.get_list("tus-resumable") == ["1.0.0"]
        if expected >= 400 and answer.content:
            assert set(answer.json()) <= {"message", "errors"}
        return answer

    async def get(self, path: str, expected: int = 200, **options: Any) -> Any:
        return (await self.ask("GET", path, expected, **options)).json()

    async def post(self, path: str, body: Any = None, expected: int = 200) -> Any:
        return (await self.ask("POST", path, expected, json=body)).json()

    async def upload(self, data: bytes = b"content", name: str = "invoice.pdf", kind: str = "application/pdf") -> Any:
        answer = await self.ask("POST", "/api/files", files={"file": (name, data, kind)})
        return answer.json()["data"]

    async def pin_key(self) -> str:
        key: str = (await self.post("/api/keys", {"pin": PIN}))["data"]["key"]
        return key

    async def download(self, *files: str) -> str:
        """The path, key and all, of a new download."""
        made = (await self.post("/api/downloads", {"files": list(files)}))["data"]
        return await self.opened(made["id"])

    async def opened(self, download: str) -> str:
        found = await self.post(f"/api/downloads/{download}/keys", {"pinKey": await self.pin_key()})
        url: str = found["data"]["url"]
        return url.removeprefix(BASE)

    async def fetch(self, path: str, expected: int = 200, **headers: str) -> httpx.Response:
        """The bytes, without any authorization."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = await self.http.get(path, headers=named)
        assert answer.status_code == expected, answer.text[:500]
        return answer


async def speaker(cluster: Cluster, engine: Engine, app: App, clock: Clock, address: str = "127.0.0.1") -> Client:
    """A client of an engine."""
    _, token = await engine.transfer.tokens.create("tests")
    transport = httpx.ASGITransport(app, client=(address, 1234))
    return Client(cluster, engine, httpx.AsyncClient(transport=transport, base_url=BASE), token, clock)


def over(story: Callable[..., Awaitable[None]], people: int = 1) -> None:
    """Run a story against the engines of some people, each with a PIN."""

    async def whole() -> None:
        clock = Clock()
        async with Cluster(5, clock=clock) as cluster:
            clients = []
            for name in ("alice", "bob")[:people]:
                engine = await cluster.engine(name)
                await engine.transfer.pins.set(HOME, PIN)
                clients.append(await speaker(cluster, engine, build_app(engine, OPEN), clock))
            try:
                await story(*clients)
            finally:
                for client in clients:
                    await client.http.aclose()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pins, "COST", 1 << 4)
        asyncio.run(whole())
