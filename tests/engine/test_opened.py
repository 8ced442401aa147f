"""The sender hears that a mail was opened, if both sides are to have that; nobody is paid, and no mail comes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from qmail_core.codec import consts as c
from qmail_core.codec import mail
from qmail_core.embed import Cluster
from qmail_core.engine.engine import Engine
from qmail_core.engine.opened import receipt_of
from qmail_core.model import Address, FileEntry, Profile, SentRow, Striping
from qmail_core.raida.node import Policy

Story = Callable[[Cluster, Engine, Engine], Awaitable[None]]


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def between(
    story: Story,
    clock: Clock | None = None,
    policy: Policy | None = None,
    striping: Striping | None = None,
    tells: bool = True,
) -> None:
    async def whole() -> None:
        async with Cluster(5, clock=clock or Clock(), policy=policy, striping=striping) as cluster:
            await story(cluster, await cluster.engine("alice"), await cluster.engine("bob", read_receipts=tells))

    asyncio.run(whole())


async def sent(alice: Engine, bob: Engine) -> bytes:
    """A mail that Bob has and has not read; its id there."""
    await alice.send(alice.draft(["bob"], "Hello", "text"))
    (received,) = await bob.receive()
    return received.message.id


def row_of(alice: Engine, guid: bytes) -> SentRow:
    (row,) = alice._store.files.sent_rows(guid)
    return row


async def heard(alice: Engine, bob: Engine) -> None:
    """Bob's next background turn, and Alice's next look at her beacons."""
    await bob._opened.tell_due()
    assert not (await alice._receiver.peek(0)).notifications


def test_a_mail_that_is_read_is_known_to_be_opened() -> None:
    clock = Clock()

    async def story(cluster: Cluster, alice: Engine, bob: Engine) -> None:
        guid = await sent(alice, bob)
        await heard(alice, bob)
        assert row_of(alice, guid).opened_at == 0
        clock.now += 100
        await bob.mailbox.set_read(guid, True)
        coins = bob.coins()
        await heard(alice, bob)
        assert row_of(alice, guid).opened_at == int(clock.now)
        assert bob.coins() == coins
        assert not alice.notifications()
        # once is enough: neither unread nor a second reading says anything
        clock.now += 100
        for read in (False, True):
            await bob.mailbox.set_read(guid, read)
        assert await bob._opened.tell_due() == 0
        assert row_of(alice, guid).opened_at == int(clock.now) - 100

    between(story, clock)


def test_a_sender_that_cannot_be_reached_is_told_later() -> None:
    clock = Clock()

    async def story(cluster: Cluster, alice: Engine, bob: Engine) -> None:
        guid = await sent(alice, bob)
        opened = int(clock.now)
        await bob.mailbox.set_read(guid, True)
        cluster.down.update(range(5))
        await bob._opened.tell_due()
        cluster.down.clear()
        assert await bob._opened.tell_due() == 0  # not at once
        clock.now += 60
        await heard(alice, bob)
        assert row_of(alice, guid).opened_at == opened

    between(story, clock)


def test_who_does_not_want_it_tells_nobody() -> None:
    async def story(cluster: Cluster, alice: Engine, bob: Engine) -> None:
        guid = await sent(alice, bob)
        await bob.mailbox.set_read(guid, True)
        await heard(alice, bob)
        assert row_of(alice, guid).opened_at == 0
        assert await bob._opened.tell_due() == 0

    between(story, tells=False)


def test_a_beacon_that_wants_money_gets_none() -> None:
    async def story(cluster: Cluster, alice: Engine, bob: Engine) -> None:
        guid = await sent(alice, bob)
        await bob.mailbox.set_read(guid, True)
        coins = bob.coins()
        await heard(alice, bob)
        assert (row_of(alice, guid).opened_at, bob.coins()) == (0, coins)
        assert await bob._opened.tell_due() == 0

    between(story, policy=Policy(free_receipts=False))


def test_mail_of_foreign_clients_is_never_answered() -> None:
    async def story(cluster: Cluster, alice: Engine, bob: Engine) -> None:
        guid = await sent(alice, bob)
        await bob.mailbox.set_read(guid, True)
        await bob._opened.tell_due()
        mailbox = mail.build_selector(alice.address)
        assert not any(node.state.pending_tells(mailbox) for node in cluster.raida.nodes)

    between(story, striping=Striping(Profile.INTEROP, 4, 1))


def test_a_mail_to_oneself_is_opened_without_a_word() -> None:
    async def story(cluster: Cluster, alice: Engine, bob: Engine) -> None:
        await alice.send(alice.draft(["alice"], "Note", "text"))
        (received,) = await alice.receive()
        await alice.mailbox.set_read(received.message.id, True)
        await alice._opened.tell_due()
        assert row_of(alice, received.message.guid).opened_at

    between(story)


def test_only_a_recipient_can_say_so() -> None:
    async def story(cluster: Cluster, alice: Engine, bob: Engine) -> None:
        guid = await sent(alice, bob)
        assert not await alice._store.files.mark_opened(guid, Address(1, 99), 5)
        assert not await alice._store.files.mark_opened(bytes(16), bob.address, 5)
        assert await alice._store.files.mark_opened(guid, bob.address, 5)

    between(story)


@pytest.mark.parametrize("change", ["size", "two files"])
def test_what_is_no_receipt_pays_like_a_mail(change: str) -> None:
    async def story(cluster: Cluster, alice: Engine, bob: Engine) -> None:
        guid = await sent(alice, bob)
        announced = mail.parse_record(memoryview(bob._store.mail.tell(guid).record))[0]
        wrong = receipt_of(announced, bob.address, 5)
        if change == "size":
            wrong = msgspec.structs.replace(wrong, total_size=1)
        else:
            wrong = msgspec.structs.replace(wrong, files=(*wrong.files, FileEntry(1, 1, 0, 0)))
        body = mail.build_tell(wrong, [mail.TellRecipient(alice.address)])
        run = bob._ctx.fanout.run(bob._ctx.mail_batch(c.CMD_TELL, [0], [body]), timeout=5)
        await run.finish()
        assert run.failed[0].status == c.STATUS_PAYMENT_REQUIRED  # type: ignore[attr-defined]

    between(story)
