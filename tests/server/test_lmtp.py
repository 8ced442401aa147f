"""Mail that comes in by LMTP: real connections on loopback and a Unix socket, one answer for each recipient."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
from qmail_server import lmtp

from qmail_core.embed import Cluster
from qmail_core.engine.accounts import NewUser
from qmail_core.engine.engine import Engine
from qmail_core.errors import ConfigError, StoreUnavailable
from qmail_core.model import MessageState


class Talk:
    """A connection of an SMTP server."""

    def __init__(self, open_connection: Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]) -> None:
        self._opening = open_connection

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await self._opening
        assert (await self.answer()).startswith("220 ")
        assert (await self.say("LHLO mx.example.org"))[:3] == "250"
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: Any, trace: TracebackType | None) -> None:
        self._writer.close()

    async def answer(self) -> str:
        """One reply, its last line."""
        while True:
            line = (await asyncio.wait_for(self._reader.readline(), 10)).decode().rstrip("\r\n")
            if line[3:4] != "-":
                return line

    async def say(self, text: str) -> str:
        self._writer.write(f"{text}\r\n".encode())
        return await self.answer()

    async def send(self, raw: bytes, *to: str, sender: str = "ann@far.example") -> list[str]:
        """A message; the answers for its recipients."""
        assert (await self.say(f"MAIL FROM:<{sender}>"))[:3] == "250"
        for who in to:
            assert (await self.say(f"RCPT TO:<{who}>"))[:3] == "250"
        assert (await self.say("DATA"))[:3] == "354"
        self._writer.write(raw.replace(b"\r\n.", b"\r\n..") + b"\r\n.\r\n")
        return [await self.answer() for _ in to]


class Site:
    """An engine with users and a listener."""

    def __init__(self, engine: Engine, server: lmtp.LmtpServer) -> None:
        self.engine, self.server = engine, server

    async def user(self, name: str, **fields: Any) -> int:
        new = NewUser(username=name, password="secretpass", address=f"{name}@example.org", **fields)
        return (await self.engine.accounts.users.create(new)).id

    def inbox(self, user: int) -> list[MessageState]:
        return list(self.engine.messages_of.uids(user, self.engine.mailboxes.listed(user)[0], 1, None))

    async def raw(self, message: MessageState) -> bytes:
        return b"".join([chunk async for chunk in self.engine.letters.source(message)])

    def talk(self) -> Talk:
        return Talk(asyncio.open_connection("127.0.0.1", self.server.port()))


def over(story: Callable[[Site], Awaitable[None]], place: str = "127.0.0.1:0", **options: Any) -> None:
    pytest.importorskip("aiosmtpd")

    async def whole() -> None:
        async with Cluster(5) as cluster:
            engine = await cluster.engine("alice")
            server = lmtp.LmtpServer(engine, place, **options)
            await server.start()
            try:
                await story(Site(engine, server))
            finally:
                await server.stop()

    asyncio.run(whole())


def test_each_recipient_is_answered_for() -> None:
    async def story(site: Site) -> None:
        cy, dee = await site.user("cy"), await site.user("dee", quota=100)
        raw = b"Subject: hello\r\n\r\n.dots\r\n..\r\n8 bits: \xff" + b"x" * 100
        async with site.talk() as talk:
            stored, full = await talk.send(raw, "CY+label@example.org", "dee@example.org")
            (message,) = site.inbox(cy)
            assert stored == f"250 2.0.0 Message stored as {message.oid.hex()}"
            assert full == "552 5.2.2 Mailbox full"
            assert await site.raw(message) == b"Delivered-To: cy@example.org\r\n" + raw + b"\r\n"
            assert site.inbox(dee) == []
            assert (await talk.send(b"Subject: again\r\n\r\nx", "cy@example.org", sender=""))[0][:3] == "250"
        assert len(site.inbox(cy)) == 2

    over(story)


def test_strangers_and_crowds_are_refused() -> None:
    async def story(site: Site) -> None:
        await site.user("cy")
        async with site.talk() as talk:
            assert (await talk.say("EHLO mx"))[:3] == "500"
            await talk.say("MAIL FROM:<ann@far.example>")
            for who in ("nobody@example.org", "cy", "cy@elsewhere.example"):
                assert await talk.say(f"RCPT TO:<{who}>") == "550 5.1.1 Unknown recipient"
            for _ in range(lmtp.MOST_RECIPIENTS):
                await talk.say("RCPT TO:<cy@example.org>")
            assert (await talk.say("RCPT TO:<cy@example.org>"))[:3] == "452"

    over(story)


@pytest.mark.parametrize("body", [b"x\r\n" * 1000, b"x" * (lmtp.LONGEST_LINE * 3)])
def test_what_is_too_large_is_refused_for_everybody(body: bytes) -> None:
    async def story(site: Site) -> None:
        cy, dee = await site.user("cy"), await site.user("dee")
        async with site.talk() as talk:
            answers = await talk.send(b"Subject: x\r\n\r\n" + body, "cy@example.org", "dee@example.org")
            assert {answer[:3] for answer in answers} <= {"500", "552"}
            assert (await talk.send(b"Subject: y\r\n\r\nx", "cy@example.org"))[0][:3] == "250"
        assert [len(site.inbox(user)) for user in (cy, dee)] == [1, 0]

    over(story, most=2000)


def test_what_fails_here_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(site: Site) -> None:
        await site.user("cy")
        problems: list[Exception] = [StoreUnavailable("away"), ValueError("a mistake")]

        async def fail(*_: Any, **__: Any) -> None:
            raise problems.pop()

        async with site.talk() as talk:
            with monkeypatch.context() as patch:
                patch.setattr(site.engine.post, "deliver", fail)
                for _ in range(2):
                    assert await talk.send(b"Subject: x\r\n\r\n", "cy@example.org") == ["451 4.3.0 Try again later"]
            assert (await talk.send(b"Subject: x\r\n\r\n", "cy@example.org"))[0][:3] == "250"

    over(story)


def test_a_unix_socket(tmp_path: Path) -> None:
    place = tmp_path / "lmtp"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(place))  # by a process that was killed

    async def story(site: Site) -> None:
        cy = await site.user("cy")
        assert place.stat().st_mode & 0o777 == 0o660
        async with Talk(asyncio.open_unix_connection(str(place))) as talk:
            assert (await talk.send(b"Subject: x\r\n\r\n", "cy@example.org"))[0][:3] == "250"
        assert len(site.inbox(cy)) == 1

    over(story, str(place))
    assert not place.exists()


@pytest.mark.parametrize("place", ["0.0.0.0:24", "192.0.2.1:24", "mx.example.org:24", "24", "127.0.0.1:x", "[::]:24"])
def test_places_that_others_could_reach_are_refused(place: str) -> None:
    with pytest.raises(ConfigError, match="--lmtp"):
        over(none, place)


async def none(_: Site) -> None:
    raise AssertionError


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiosmtpd.lmtp", None)
    with pytest.raises(ConfigError, match=r"qmail-core\[lmtp\]"):
        lmtp._protocol()
