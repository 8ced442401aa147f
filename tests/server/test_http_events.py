"""Event streams over a real engine in memory, spoken to as a server would: no socket, no waiting for time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from qmail_server.http import events
from qmail_server.http.app import App, build_app
from qmail_server.http.events import Tickets
from qmail_server.http.guard import GuardSettings, hosts_for
from starlette.types import Message

from qmail_core.embed import Cluster
from qmail_core.engine.engine import Engine
from qmail_core.model import Folder
from qmail_core.store.mailbox import HOME
from tests.server.fake_engine import OPEN

CLOSED = GuardSettings(hosts=hosts_for(8080), token="secret-token")
Story = Callable[[Engine, Engine], Awaitable[None]]


class Stream:
    """One request to an application, read piece by piece."""

    def __init__(self, app: App, path: str = "/api/events", method: str = "GET", **headers: str) -> None:
        path, _, query = path.partition("?")
        given = {"host": "127.0.0.1:8080"} | {name.replace("_", "-"): value for name, value in headers.items()}
        self._scope = {
            "type": "http", "method": method, "path": path, "query_string": query.encode(), "scheme": "http",
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
        }  # fmt: skip
        self._left = asyncio.Event()
        self._asked = False
        self._sent: asyncio.Queue[Message] = asyncio.Queue()
        self.task = asyncio.ensure_future(app(self._scope, self._receive, self._sent.put))

    async def _receive(self) -> Message:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def status(self) -> int:
        message = await asyncio.wait_for(self._sent.get(), 5)
        return int(message["status"])

    async def text(self) -> str:
        """The next piece that says something."""
        while True:
            message = await asyncio.wait_for(self._sent.get(), 5)
            body: str = message.get("body", b"").decode()
            if not message.get("more_body", False) or not body.startswith(": listening\n\n") or len(body) > 13:
                return body.removeprefix(": listening\n\n")

    async def leave(self) -> None:
        self._left.set()
        await asyncio.wait_for(self.task, 5)


def frames(text: str) -> list[dict[str, Any]]:
    """Each event's data, with its number."""
    found = []
    for block in text.strip().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.split("\n"))
        assert lines["event"] == "new-mail"
        found.append(json.loads(lines["data"]) | {"id": int(lines["id"])})
    return found


def over(story: Story) -> None:
    async def whole() -> None:
        async with Cluster(5) as cluster:
            await story(await cluster.engine("alice"), await cluster.engine("bob"))

    asyncio.run(whole())


async def mail(alice: Engine, subject: str) -> None:
    await alice.send(alice.draft(["bob"], subject, "text"))


@pytest.mark.parametrize("path", ["/api/events", "/events"])
def test_a_mail_is_announced_when_told_and_when_filed(path: str) -> None:
    async def story(alice: Engine, bob: Engine) -> None:
        stream = Stream(build_app(bob, OPEN), path)
        assert await stream.status() == 200
        await mail(alice, "Minutes")
        await bob.peek()
        (told,) = frames(await stream.text())
        assert (told["downloaded"], told["sender_address"], told["subject"]) == (False, "alice", "")
        await bob.receive()
        (filed,) = frames(await stream.text())
        assert (filed["file_guid"], filed["downloaded"], filed["subject"]) == (told["file_guid"], True, "Minutes")
        assert filed["email_id"] == bob.messages(Folder.INBOX).messages[0].id.hex()
        await stream.leave()

    over(story)


def test_streams_do_not_share_their_heads() -> None:
    async def story(alice: Engine, bob: Engine) -> None:
        app = build_app(bob, OPEN)
        for _ in range(2):
            stream = Stream(app)
            head = await asyncio.wait_for(stream._sent.get(), 5)
            assert [name for name, _ in head["headers"]].count(b"x-request-id") == 1
            await stream.leave()

    over(story)


def test_whoever_comes_back_gets_what_was_missed() -> None:
    async def story(alice: Engine, bob: Engine) -> None:
        app = build_app(bob, OPEN)
        for subject in ("one", "two"):
            await mail(alice, subject)
            await bob.receive()
        first = Stream(app, last_event_id="0")
        await first.status()
        missed = frames(await first.text())
        assert [row["subject"] for row in missed] == ["", "one", "", "two"]
        second = Stream(app, last_event_id=str(missed[1]["id"]))
        await second.status()
        assert frames(await second.text()) == missed[2:]
        fresh = Stream(app, last_event_id="nonsense")
        await fresh.status()
        await mail(alice, "three")
        await bob.receive()
        seen: list[str] = []
        while "three" not in seen:
            seen += [row["subject"] for row in frames(await fresh.text())]
        assert set(seen) == {"", "three"}
        for stream in (first, second, fresh):
            await stream.leave()

    over(story)


def test_own_mail_and_other_changes_are_no_new_mail() -> None:
    async def story(alice: Engine, bob: Engine) -> None:
        await mail(alice, "one")
        await bob.receive()
        stream = Stream(build_app(bob, OPEN))
        await stream.status()
        message = bob.messages(Folder.INBOX).messages[0]
        await bob.mailbox.set_star(message.id, True)
        await bob.mailbox.move(message.id, Folder.ARCHIVE)
        await bob.send(bob.draft(["alice"], "Re", "text"))
        await mail(alice, "two")
        await bob.receive()
        subjects = [row["subject"] for row in frames(await stream.text())]
        assert set(subjects) <= {"", "two"}
        await stream.leave()

    over(story)


def test_a_quiet_stream_says_that_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "QUIET", 0.01)

    async def story(alice: Engine, bob: Engine) -> None:
        stream = Stream(build_app(bob, OPEN))
        await stream.status()
        assert await stream.text() == ": still here\n\n"
        await stream.leave()

    over(story)


@pytest.mark.parametrize("path", ["/api/events", "/events", "/users/{}/updates"])
def test_the_head_of_a_stream_ends(path: str) -> None:
    async def story(alice: Engine, bob: Engine) -> None:
        app = build_app(bob, OPEN)
        stream = Stream(app, path.format(bob.mailboxes.user_id(HOME).hex()), "HEAD")
        head = await asyncio.wait_for(stream._sent.get(), 5)
        assert (b"content-type", b"text/event-stream; charset=utf-8") in head["headers"]
        assert await asyncio.wait_for(stream._sent.get(), 5) == {"type": "http.response.body", "body": b""}
        await asyncio.wait_for(stream.task, 5)

    over(story)


def test_draining_ends_all_streams() -> None:
    async def story(alice: Engine, bob: Engine) -> None:
        app = build_app(bob, OPEN)
        streams = [Stream(app) for _ in range(3)]
        for stream in streams:
            await stream.status()
        app.drain()
        for stream in [*streams, Stream(app)]:
            await asyncio.wait_for(stream.task, 5)

    over(story)


def test_a_ticket_opens_one_stream_and_nothing_else() -> None:
    async def story(alice: Engine, bob: Engine) -> None:
        app = build_app(bob, CLOSED)
        assert await Stream(app).status() == 401
        issued = Stream(app, "/api/events/ticket", authorization="Bearer secret-token")
        assert await issued.status() == 200
        ticket = json.loads(await issued.text())["ticket"]
        assert await Stream(app, f"/api/qmail/receipts?ticket={ticket}").status() == 401
        stream = Stream(app, f"/api/events?ticket={ticket}")
        assert await stream.status() == 200
        assert await Stream(app, f"/api/events?ticket={ticket}").status() == 401
        assert await Stream(app, "/api/events?ticket=").status() == 401
        await stream.leave()

    over(story)


def test_tickets_end_by_themselves() -> None:
    now = [0.0]
    tickets = Tickets(lambda: now[0])
    old = tickets.issue()
    now[0] = events.TICKET_LIFE
    assert not tickets.redeem(old.encode())
    many = [tickets.issue() for _ in range(1200)]
    assert not tickets.redeem(many[0].encode())
    assert tickets.redeem(many[-1].encode())
