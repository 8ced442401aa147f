"""The hub: what changes reaches those who listen, once and in order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from qmail_core.embed import Cluster
from qmail_core.engine import events
from qmail_core.engine.engine import Engine
from qmail_core.model import Folder
from qmail_core.store.mailbox import HOME

Story = Callable[[Engine, Engine], Awaitable[None]]


def over(story: Story) -> None:
    async def whole() -> None:
        async with Cluster(5) as cluster:
            await story(await cluster.engine("alice"), await cluster.engine("bob"))

    asyncio.run(whole())


def test_a_mail_is_announced_then_filed() -> None:
    async def story(alice: Engine, bob: Engine) -> None:
        woken = asyncio.Event()
        listening = bob.events.subscribe(HOME, woken.set)
        elsewhere = bob.events.subscribe(7, lambda: None)
        await alice.send(alice.draft(["bob"], "Minutes", "text"))
        await bob.receive()
        await asyncio.wait_for(woken.wait(), 5)
        await asyncio.sleep(0)
        assert [entry.command for entry in listening.take()] == ["TELL", "EXISTS"]
        assert listening.take() == elsewhere.take() == []

    over(story)


def test_an_old_number_replays_and_then_follows() -> None:
    async def story(alice: Engine, bob: Engine) -> None:
        for subject in ("one", "two"):
            await alice.send(alice.draft(["bob"], subject, "text"))
            await bob.receive()
        first = bob.events.subscribe(HOME, lambda: None, after=0)
        replayed = first.take()
        assert len(replayed) == 4
        assert [entry.id for entry in bob.events.subscribe(HOME, lambda: None, after=replayed[1].id).take()] == [
            entry.id for entry in replayed[2:]
        ]
        message = bob.messages(Folder.INBOX).messages[0]
        await bob.mailbox.set_read(message.id, True)
        await asyncio.sleep(0)
        assert [entry.command for entry in first.take()] == ["FETCH"]
        late = bob.events.subscribe(HOME, lambda: None, after=0)
        await bob.mailbox.set_star(message.id, True)
        assert len(late.take()) == 6  # read before the hub had its turn
        await asyncio.sleep(0)
        assert late.take() == []
        first.take()
        first.close()
        await bob.mailbox.set_read(message.id, False)
        await asyncio.sleep(0)
        assert first.take() == []

    over(story)


@pytest.mark.parametrize("after", [1, 1000, (1 << 63) - 1, 1 << 63, 1 << 64])
def test_a_number_the_journal_has_not_reached_hears_what_is_new(after: int) -> None:
    async def story(alice: Engine, bob: Engine) -> None:
        await alice.send(alice.draft(["bob"], "one", "text"))
        await bob.receive()
        last = bob.events.subscribe(HOME, lambda: None, after=0).take()[-1].id
        ahead = bob.events.subscribe(HOME, lambda: None, after=last + after)
        assert ahead.take() == []
        await bob.mailbox.set_read(bob.messages(Folder.INBOX).messages[0].id, True)
        await asyncio.sleep(0)
        assert [entry.command for entry in ahead.take()] == ["FETCH"]

    over(story)


def test_a_listener_that_falls_behind_misses_nothing() -> None:
    async def story(alice: Engine, bob: Engine) -> None:
        await alice.send(alice.draft(["bob"], "one", "text"))
        await bob.receive()
        message = bob.messages(Folder.INBOX).messages[0]
        slow = bob.events.subscribe(HOME, lambda: None)
        for turn in range(events._HELD + 50):
            await bob.mailbox.set_read(message.id, turn % 2 == 0)
        await asyncio.sleep(0)
        taken = slow.take()
        assert len(taken) == events._HELD + 50
        assert [entry.id for entry in taken] == sorted({entry.id for entry in taken})
        assert slow.take() == []

    over(story)
