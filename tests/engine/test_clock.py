"""A clock that is set back: what was put off by the time before waits for its longest pause at most."""

from __future__ import annotations

import asyncio

import pytest

from qmail_core import Address, Cluster
from qmail_core.store.base import LockerKind, LockerState, WorkKind
from tests.conftest import skip
from tests.engine import T0, check_books, couple, lockers, play
from tests.engine.test_outgoing import row, started

BACK = [3600, 365 * 86400]


async def two_hours(busy: float = 3.0) -> None:
    """Let time pass, with so many seconds of every minute lived through."""
    for _ in range(120):
        skip(60 - busy)
        await asyncio.sleep(busy)


@pytest.mark.parametrize("seconds", BACK)
def test_tells_and_repairs_are_tried_again(seconds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        cluster.down |= {11, 14, 3}
        guid, _ = await started(alice)
        await asyncio.sleep(20)
        cluster.down.clear()
        monkeypatch.setattr("tests.engine.T0", T0 - seconds)
        await two_hours()
        assert row(alice, guid).status == "sent"
        assert alice._store.sends.due_repairs(1 << 40) == []
        assert alice.receipt(guid).upload.servers.ok == 25
        assert [mail.message.guid for mail in await bob.receive()] == [guid]
        check_books(cluster, alice)

    play(story)


@pytest.mark.parametrize("seconds", BACK)
def test_openings_are_told(seconds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        await alice.send(alice.draft(["bob"], "s", "b"))
        (mail,) = await bob.receive()
        cluster.down |= {11, 14}
        await bob.message(mail.message.id)
        await asyncio.sleep(10)
        (row,) = bob._store.files.due_opened(1 << 40, 9)
        assert row.tries > 0
        cluster.down.clear()
        monkeypatch.setattr("tests.engine.T0", T0 - seconds)
        await two_hours()
        assert bob._store.files.due_opened(1 << 40, 9) == []

    play(story)


@pytest.mark.parametrize("seconds", BACK)
def test_coins_under_way_are_looked_into(seconds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.engine("alice")
        wallet, changer = alice._store.wallet, alice._purse.changer
        plan = alice._wallet._plan("Default", {(LockerKind.UPLOAD, 1): 3})
        await wallet.begin_funding(plan, alice._ctx.now())
        (coin,) = cluster.mint([Address(0, 77)])
        await wallet.begin_work([changer._work(WorkKind.POWN, "Default", [coin], [coin.address])], alice._ctx.now())
        monkeypatch.setattr("tests.engine.T0", T0 - seconds)
        await asyncio.sleep(60)
        assert not lockers(alice, state=LockerState.FUNDING)
        assert wallet.works() == []
        assert alice.balance() == 501

    play(story, nodes=5)
