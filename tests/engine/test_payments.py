"""Payments that come with mail, the identity coin, balances, and what is known of servers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from qmail_core.codec import consts as c
from qmail_core.codec import mail
from qmail_core.embed import Cluster
from qmail_core.engine.engine import Engine
from qmail_core.errors import Conflict, NotFound, QMailError, UsageError
from qmail_core.model import Address, PaymentStatus
from qmail_core.store.base import LockerKind
from tests.conftest import skip
from tests.engine import couple, lockers, play

NODES = 5


async def gift(alice: Engine, value: int = 7) -> str:
    """A locker alice has filled for somebody."""
    before = {locker.code for locker in lockers(alice)}
    await alice._wallet._fund("Default", {(LockerKind.INBOX, value): 1})
    (code,) = {locker.code for locker in lockers(alice)} - before
    return code


async def paid_mail(alice: Engine, bob: Engine, code: str) -> bytes:
    """A mail whose tell carries a locker code; its e-mail id at bob's."""
    sent = await alice.send(alice.draft(["bob"], "Paid", "text"))
    await bob.peek()
    guid = bytes.fromhex(sent.receipt.file_guid)
    tell = mail.parse_record(memoryview(bob._store.mail.tell(guid).record))[0]
    record = mail.build_record(msgspec.structs.replace(tell, locker_code=code.encode().ljust(16, b"\0")))
    await bob._store.mail._db.write(  # type: ignore[attr-defined]
        lambda db: db.execute("UPDATE tell SET record=? WHERE guid=?", (record, guid))
    )
    return (await bob.download(guid)).message.id


def test_a_payment_is_claimed_once() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        email_id = await paid_mail(alice, bob, await gift(alice))
        payment = bob.payments.get(email_id)
        assert (payment.attached, payment.status) == (True, PaymentStatus.UNCLAIMED)
        assert payment.text not in repr(payment)
        before = bob.balance()
        taken = await bob.payments.claim(email_id, "Default")
        assert taken is not None
        assert bob.balance() == before + 7 == before + len(taken.accepted)
        assert bob.payments.get(email_id).status == PaymentStatus.CLAIMED
        assert await bob.payments.claim(email_id, "Default") is None

    play(story, NODES)


def test_a_mail_without_a_gift_shows_no_payment() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        await alice.send(alice.draft(["bob"], "Plain", "text"))
        (got,) = await bob.receive()
        # a storage locker is spent at one server only: whoever knew its code could take its coins at the others
        assert not bob.payments.get(got.message.id).attached

    play(story, NODES)


def test_two_claims_at_once_are_one() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        email_id = await paid_mail(alice, bob, await gift(alice))
        claims = await asyncio.gather(*(bob.payments.claim(email_id, "Default") for _ in range(3)))
        assert [claim is None for claim in claims] == [False, True, True]
        assert bob.payments.get(email_id).status == PaymentStatus.CLAIMED

    play(story, NODES)


def test_an_empty_locker_fails_and_can_be_tried_again() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        email_id = await paid_mail(alice, bob, "NOTHING")
        for _ in range(2):
            with pytest.raises(NotFound, match="The locker is empty or unknown"):
                await bob.payments.claim(email_id, "Default")
            assert bob.payments.get(email_id).status == PaymentStatus.FAILED

    play(story, NODES)


def test_a_refund_is_noted() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        email_id = await paid_mail(alice, bob, "GIFT")
        assert [again for _, again in [await bob.payments.refund(email_id) for _ in range(2)]] == [False, True]
        with pytest.raises(Conflict, match="This payment was refunded"):
            await bob.payments.claim(email_id, "Default")

    play(story, NODES)


@pytest.mark.parametrize("dead", [False, True])
def test_a_claim_that_ends_in_the_background_is_noted(dead: bool) -> None:
    """The servers have taken the coins over, and nobody heard of it: the answers were lost, or the engine was."""

    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        email_id = await paid_mail(alice, bob, await gift(alice))
        before, poll = bob.balance(), bob._ctx.poll

        async def deaf(group: int, command: int, bodies: Mapping[int, bytes], judge: Any) -> Any:
            answers, failed = await poll(group, command, bodies, judge)
            if command == c.CMD_LOCKER_REMOVE and dead:
                raise asyncio.CancelledError
            return ({}, failed) if command != c.CMD_LOCKER_PEEK else (answers, failed)

        bob._ctx.poll = deaf  # type: ignore[method-assign]
        with pytest.raises((QMailError, asyncio.CancelledError)):
            await bob.payments.claim(email_id, "Default")
        bob._ctx.poll = poll  # type: ignore[method-assign]
        waits = PaymentStatus.UNCLAIMED if dead else PaymentStatus.FAILED
        assert bob.payments.get(email_id).status == waits
        skip(30)
        await asyncio.sleep(10)
        assert (bob.balance(), bob.payments.get(email_id).status) == (before + 7, PaymentStatus.CLAIMED)
        assert await bob.payments.claim(email_id, "Default") is None

    play(story, NODES)


def test_coins_that_nobody_took_over_are_a_failure_also_later() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        email_id = await paid_mail(alice, bob, await gift(alice))
        poll = bob._ctx.poll

        async def dying(group: int, command: int, bodies: Mapping[int, bytes], judge: Any) -> Any:
            if command == c.CMD_LOCKER_REMOVE:
                raise asyncio.CancelledError
            return await poll(group, command, bodies, judge)

        bob._ctx.poll = dying  # type: ignore[method-assign]
        with pytest.raises(asyncio.CancelledError):
            await bob.payments.claim(email_id, "Default")
        bob._ctx.poll = poll  # type: ignore[method-assign]
        for work in bob._store.wallet.works():  # somebody else was quicker
            for node in cluster.raida.nodes:
                node.state.set_ans([(mail.build_selector(coin.address), b"another's number") for coin in work.given])
        skip(30)
        await asyncio.sleep(10)
        assert bob._store.wallet.works() == []
        assert bob.payments.get(email_id).status == PaymentStatus.FAILED

    play(story, NODES)


def test_a_refund_waits_for_a_claim() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        email_id = await paid_mail(alice, bob, await gift(alice))
        cluster.delay.update(dict.fromkeys(range(NODES), 0.2))
        claim = asyncio.ensure_future(bob.payments.claim(email_id, "Default"))
        await asyncio.sleep(0.3)
        payment, before = await bob.payments.refund(email_id)
        assert claim.done()
        assert (payment.status, before) == (PaymentStatus.REFUNDED, False)
        assert bob.payments.get(email_id).status == PaymentStatus.REFUNDED

    play(story, NODES)


def test_mail_without_a_payment() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        email_id = await paid_mail(alice, bob, "\0")
        assert not bob.payments.get(email_id).attached
        with pytest.raises(UsageError, match="No payment attached to this email"):
            await bob.payments.claim(email_id, "Default")
        assert not alice.payments.get(email_id).attached
        with pytest.raises(NotFound, match="Email not found"):
            bob.payments.get(bytes(16))
        direct = await alice.send(alice.draft(["alice"], "s", "b"))
        got = await bob.download(bytes.fromhex(direct.receipt.file_guid), alice.address.serial)
        assert not bob.payments.get(got.message.id).attached

    play(story, NODES)


def test_what_a_mail_has_cost() -> None:
    async def story(cluster: Cluster) -> None:
        alice, _ = await couple(cluster)
        await alice.send(alice.draft(["bob"], "First", "b"))
        ((receipt, spent),) = alice.payments.sent(10, 0)
        assert receipt.upload.subject == "First"
        assert sorted(locker.value for locker in spent) == [1] * NODES + [10]
        assert all(locker.consumed_at and locker.code not in repr(locker) for locker in spent)

    play(story, NODES)


def test_the_identity_coin_is_healed_with_borrowed_keys() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        with pytest.raises(UsageError, match="No identity coin found"):
            await alice.identity.heal()
        await alice.deposit([alice._ctx.coin], "Mail")
        assert (await alice.identity.heal()).word == "healthy"
        coin = alice._ctx.coin
        cluster.raida.nodes[2].state.set_ans([(mail.build_selector(coin.address), bytes(range(16)))])
        health = await alice.identity.heal()
        assert (health.word, health.healed) == ("healthy", True)
        assert alice._ctx.coin != coin
        sent = await alice.send(alice.draft(["bob"], "s", "b"))
        assert sent.receipt.upload.servers.ok == NODES
        for node in range(3):
            cluster.raida.nodes[node].state.set_ans([(mail.build_selector(coin.address), bytes([node] * 16))])
        assert (await alice.identity.heal()).word == "counterfeit"
        assert len(await bob.receive()) == 1

    play(story, NODES)


def test_without_coins_nobody_lends_keys() -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.engine("alice", balance=0)
        await alice.deposit([alice._ctx.coin], "Mail")
        with pytest.raises(QMailError, match="No encryption keys available"):
            await alice.identity.heal()

    play(story, NODES)


def test_an_identity_comes_out_of_a_locker_once() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        taken = await bob.identity.receive(await gift(alice, 1))
        assert len(taken.accepted) == 1
        with pytest.raises(Conflict, match="The Mail wallet holds an identity coin already"):
            await bob.identity.receive("GIFT")

    play(story, NODES)


def test_balances_and_change() -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.engine("alice", balance=3)
        await alice.deposit(cluster.mint([Address(2, 900), Address(1, 901)]))
        held = alice.balances.of("Default")
        assert (held.value, dict(held.notes), held.limbo_value) == (113, {0: 3, 1: 1, 2: 1}, 0)
        need = alice.balances.affordable("Default", 100, 20)
        assert (need.from_wallet, need.ok) == (120, False)
        assert await alice.balances.prepare_change("Default") == 4
        assert dict(alice.balances.of("Default").notes) == {0: 33, 1: 8}
        assert await alice.balances.prepare_change("Default") == 0
        assert (await alice.balances.quote([alice.address], 2)).total == 2 * NODES + 10

    play(story, NODES)


def test_echoes_and_what_a_mail_survives() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        sent = await alice.send(alice.draft(["bob"], "s", "b"))
        guid = bytes.fromhex(sent.receipt.file_guid)
        explained = await alice.network.explain(guid)
        assert (explained.reachable, explained.survives, explained.sent) == (5, 1, True)
        assert explained.expires_at == sent.receipt.created_at + 4 * 7 * 86_400
        cluster.down |= {1, 2}
        found = await alice.network.echo()
        assert [not found[node].error for node in range(NODES)] == [True, False, False, True, True]
        await bob.peek()
        explained = await bob.network.explain(guid)
        assert (explained.reachable, explained.survives, explained.sent) == (3, -1, False)
        with pytest.raises(NotFound, match="Nothing is known of that file_guid"):
            await alice.network.explain(bytes(16))
        for _ in range(3):
            await alice.network.echo()
        assert [server.index for server in alice.network.servers() if not server.available] == [1, 2]

    play(story, NODES)
