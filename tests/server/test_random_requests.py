"""Ten thousand requests of a drunk: odd words, odd bytes, clients that leave. The process is as healthy as before."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import pytest
from starlette.types import Message

from tests.server.fake_engine import BASE
from tests.server.scenes import World, new_world, operations

REQUESTS = 10_000
DRUNKS = 20
SEED = 5
METHODS = ("GET",) * 16 + ("POST",) * 12 + ("HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW")
FORM, JSON = b"application/x-www-form-urlencoded", b"application/json"
KINDS = (*[FORM] * 5, *[JSON] * 2, b"multipart/form-data; boundary=b", b"text/plain", b"", b"\xff")
WORDS = (
    "", "0", "1", "-1", "99999999999999999999", "true", "inbox", "5d0e7a1c9b8f42d3a6e07714c2bb9f10", "bob", "alice",
    "@", "17.0.0@byte", "a,b;c", "../../etc/passwd", "/dev/zero", "\0", "\x1b[2J", "ü", "\u202e", "%", "%zz", "'; DROP",
    "<script>", "NaN", "1e309", "Default", "x" * 5000,
)  # fmt: skip
QUIET = ("webhook", "echo")  # what asks others, or stays for long


class Drunk:
    """Makes requests up, the same ones for the same seed."""

    def __init__(self, world: World, paths: Sequence[str], names: Sequence[str], seed: int) -> None:
        self._world, self._paths, self._names = world, paths, names
        self._dice = random.Random(seed)

    def path(self) -> str:
        dice = self._dice
        parts = dice.choice(self._paths).split("/")
        parts = [self._value(part[1:-1]) if part.startswith("{") else part for part in parts]
        if dice.random() < 0.1:
            parts[dice.randrange(len(parts))] = dice.choice((*WORDS, "..", "%2e"))
        return "/".join(parts) or "/"

    def _value(self, name: str) -> str:
        known = self._world.values.get(name)
        return str(known) if known is not None and self._dice.random() < 0.5 else self._dice.choice(WORDS)

    def form(self) -> bytes:
        names = self._dice.choices(self._names, k=self._dice.choice((0, 1, 2, 3, 5, 8, 400)))
        pairs = [f"{quote(name)}={quote(self._value(name))}" for name in names]
        return "&".join([*pairs, "timeout_ms=5"]).encode()

    def body(self, kind: bytes) -> bytes:
        dice = self._dice
        if dice.random() < 0.2:
            return dice.randbytes(dice.choice((0, 1, 100, 70_000)))
        if kind.endswith(b"json"):
            deep = "[" * 5000 if dice.random() < 0.05 else None
            return (deep or json.dumps({name: self._value(name) for name in dice.choices(self._names, k=4)})).encode()
        if kind.startswith(b"multipart"):
            name = dice.choice((*self._names, "attachment"))
            head = f'--b\r\nContent-Disposition: form-data; name="{name}"; filename="{self._value(name)}"\r\n\r\n'
            return head.encode() + dice.randbytes(100) + dice.choice((b"\r\n--b--\r\n", b"", b"\r\n--b"))
        return self.form()

    def scope(self) -> dict[str, Any]:
        dice = self._dice
        headers = [(b"host", BASE.removeprefix("http://").encode()), (b"content-type", dice.choice(KINDS))]
        if dice.random() < 0.5:
            headers.append((b"authorization", f"Bearer {self._value('transferToken')}".encode()))
        if dice.random() < 0.1:
            headers.append(
                (dice.choice((b"origin", b"sec-fetch-site", b"range", b"host", b"idempotency-key")), b"\xfe-1")
            )
        return {
            "type": "http", "method": dice.choice(METHODS), "path": self.path(), "scheme": "http", "headers": headers,
            "query_string": self.form() if dice.random() < 0.7 else dice.randbytes(50), "client": ("127.0.0.1", 5),
        }  # fmt: skip

    async def ask(self) -> int:
        """One request; the status of its answer, 0 if there was none because the client left."""
        scope = self.scope()
        body = self.body(dict(scope["headers"])[b"content-type"])
        cut = self._dice.randrange(len(body) + 1)
        pieces = [body[:cut], body[cut:]] if self._dice.random() < 0.9 else [body[:cut], None]
        patience = self._dice.choice((0.0, 0.05))
        sent: list[Message] = []

        async def receive() -> Message:
            if pieces and (piece := pieces.pop(0)) is not None:
                return {"type": "http.request", "body": piece, "more_body": bool(pieces)}
            pieces.clear()
            await asyncio.sleep(patience)
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            sent.append(message)

        await self._world.app(scope, receive, send)
        if not sent:
            return 0
        status: int = sent[0]["status"]
        if status >= 500 and scope["method"] != "HEAD":  # a network that cannot says why
            answer = b"".join(message.get("body", b"") for message in sent[1:])
            assert "reason" in json.loads(answer), (scope["method"], scope["path"], scope["query_string"], answer)
        return status


def files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.timeout(300)
def test_ten_thousand_random_requests_leave_the_process_healthy(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> Counter[int]:
        async with new_world() as world:
            document = (await world.http.get("/openapi.json")).json()
            paths = [path for path in document["paths"] if not any(word in path for word in QUIET)]
            shown = [each for each in operations(document) if each.path in paths]
            names = sorted({name for each in shown for name in (*each.placed("query"), *(each.body or {}), "x")})
            drunks = [Drunk(world, paths, names, SEED + number) for number in range(DRUNKS)]
            before = files()
            tasks = len(asyncio.all_tasks())
            seen: Counter[int] = Counter()

            async def spree(drunk: Drunk) -> None:
                for _ in range(REQUESTS // DRUNKS):
                    seen[await drunk.ask()] += 1

            await asyncio.gather(*map(spree, drunks))
            await asyncio.gather(*(world.bob.wait(task.id) for task in world.bob.tasks()))
            await world.bob.beacon.stop()
            gc.collect()
            assert files() <= before + 2
            polls = world.bob._receiver.polls
            assert polls.waiting == 0
            assert len(polls._watches) <= 9  # requests at the beacons that nobody waits for; each has a task for each
            assert len(asyncio.all_tasks()) <= tasks + 2 + 2 * 9
            assert (await world.http.get("/api/qmail/local/status")).json()["database"]["open"] is True
            sent = await world.alice.send(world.alice.draft(["bob"], "after all", "text"))
            assert sent.receipt.file_guid in {item.tell.guid.hex() for item in (await world.bob.peek()).notifications}
            return seen

    with caplog.at_level(logging.WARNING):
        seen = asyncio.run(story())
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []
    assert seen.total() == REQUESTS
    assert seen.keys() >= {0, 200, 400, 401, 404, 405, 413, 415}
