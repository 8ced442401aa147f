"""Paying: exact sums, quorums, and lockers whose fate is asked of the network before they are used again."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmail_core import Address, Cluster, PaymentError, QMailError
from qmail_core.codec.cipher import locker_code, selector_of
from qmail_core.engine.wallet import choose, draw_code
from qmail_core.model import Coin
from qmail_core.raida.node import Policy
from qmail_core.store.base import LockerKind, LockerState
from tests.conftest import skip
from tests.engine import check_books, lockers, play


@given(st.lists(st.integers(0, 3), max_size=30), st.integers(1, 300))
def test_coins_are_chosen_exactly_or_not_at_all(denominations: list[int], value: int) -> None:
    coins = [Coin(Address(d, i + 1), b"") for i, d in enumerate(sorted(denominations, reverse=True))]
    left = list(coins)
    taken = choose(left, value)
    if taken is None:
        assert left == coins
    else:
        assert sum(coin.value for coin in taken) == value
        assert sorted([*taken, *left], key=lambda coin: coin.address.serial) == coins


def test_codes_are_16_symbols_of_32() -> None:
    seen = {draw_code(random.Random(i).randbytes(16)) for i in range(1000)}
    assert len(seen) == 1000
    assert {len(locker_code(code).rstrip(b"\0")) for code in seen} == {16}
    assert len(set("".join(seen))) == 32


def test_coins_too_large_to_pay_exactly_are_broken() -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.engine("alice", balance=0)
        await alice.deposit(cluster.mint([Address(2, 5), Address(2, 6)]))
        await alice.send(alice.draft(["alice"], "s", "b"))
        assert alice.balance() == 185
        check_books(cluster, alice, 200)

    play(story, nodes=5)


def test_coins_that_cannot_be_broken_now_are_named() -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.engine("alice", balance=0)
        await alice.deposit(cluster.mint([Address(2, 5), Address(2, 6)]))
        cluster.down |= {0, 1, 2}
        with pytest.raises(PaymentError, match="in coins that are too large to pay exactly"):
            await alice.send(alice.draft(["alice"], "s", "b"))
        assert alice.balance() == 200
        check_books(cluster, alice, 200)

    play(story, nodes=5)


def test_tens_pay_fees_and_ones_pay_storage() -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.engine("alice", balance=5)
        await alice.deposit(cluster.mint([Address(1, 5), Address(1, 6)]))
        await alice.send(alice.draft(["alice"], "s", "b"))
        assert alice.balance() == 10
        check_books(cluster, alice, 25)

    play(story, nodes=5)


@pytest.mark.parametrize("away", [{0, 1, 2, 3}, set(range(12))])
def test_lockers_filled_by_a_quorum_are_made_known_to_the_others_later(away: set[int]) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.engine("alice", pool_upload=30, pool_inbox=1)
        cluster.down |= away
        await alice.fill_pool()
        ready = lockers(alice, state=LockerState.AVAILABLE)
        assert len(ready) == 31
        assert all(locker.funded == set(range(25)) - away for locker in ready)
        cluster.down.clear()
        result = await alice.send(alice.draft(["alice"], "s", "b"))
        assert result.receipt.upload.servers.ok >= 25 - len(away)
        skip(100)
        await asyncio.sleep(10)
        assert alice.receipt(bytes.fromhex(result.receipt.file_guid)).upload.servers.ok == 25
        check_books(cluster, alice)

    play(story)


def test_lockers_without_a_quorum_are_not_used_until_they_have_one() -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.engine("alice", balance=35)
        cluster.down |= set(range(13))
        with pytest.raises(QMailError, match="Failed to acquire funded locker codes from pool"):
            await alice.send(alice.draft(["alice"], "s", "b"))
        assert alice.pool_status().upload_available == 0
        assert {locker.state for locker in lockers(alice)} == {LockerState.LIMBO}
        check_books(cluster, alice, 35)
        cluster.down.clear()
        await asyncio.sleep(10)
        assert alice.pool_status().upload_available == 25
        assert (await alice.send(alice.draft(["alice"], "s", "b"))).receipt.upload.servers.ok == 25
        check_books(cluster, alice, 35)

    play(story)


def test_coins_come_back_when_every_node_refuses_them() -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.engine("alice", balance=0)
        await alice.deposit([Coin(Address(0, 7000 + i), bytes(16 * 5)) for i in range(20)])
        with pytest.raises(QMailError):
            await alice.send(alice.draft(["alice"], "s", "b"))
        assert (alice.balance(), lockers(alice)) == (20, [])

    play(story, nodes=5)


def test_what_is_being_funded_is_not_taken_for_lost() -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.engine("alice")
        cluster.delay.update(dict.fromkeys(range(5), 1.5))
        sending = asyncio.create_task(alice.send(alice.draft(["alice"], "s", "b")))
        await asyncio.sleep(0.1)
        skip(1)
        await asyncio.gather(alice._wallet.recover(), sending)
        check_books(cluster, alice)
        assert alice.balance() == 485

    play(story, nodes=5)


@pytest.mark.parametrize("told", [set(), {0}, {0, 1, 2, 3, 4}])
def test_a_funding_cut_short_is_finished_or_taken_back(told: set[int]) -> None:
    """The process died between asking the nodes and hearing of it."""

    async def story(cluster: Cluster) -> None:
        alice = await cluster.engine("alice")
        wallet = alice._wallet
        plan = wallet._plan("Default", {(LockerKind.UPLOAD, 1): 3})
        await alice._store.wallet.begin_funding(plan, alice._ctx.now())
        for code, (locker, _) in plan.items():
            for node in told:
                await wallet.ensure(locker, node)
            found = next(x for x in lockers(alice) if x.code == code)
            assert found.state == LockerState.FUNDING
        skip(10)
        await wallet.recover()
        await wallet.recover()
        assert alice.balance() + 3 * bool(told) == 500
        assert {x.state for x in lockers(alice)} == ({LockerState.AVAILABLE} if told else set())
        check_books(cluster, alice)
        await alice.send(alice.draft(["alice"], "s", "b"))
        check_books(cluster, alice)

    play(story, nodes=5)


def test_nodes_that_empty_lockers_everywhere_serve_honest_senders_as_before() -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await cluster.engine("alice"), await cluster.engine("bob")
        inside: dict[str, list[Coin]] = {}
        for _ in range(2):
            result = await alice.send(alice.draft(["bob"], "s", "b"))
            assert result.receipt.upload.servers.ok == 5
            inside = {x.code: alice._store.wallet.locker_coins(x.code) for x in lockers(alice)} | inside
            (mail,) = await bob.receive()
            assert mail.message.subject == "s"
        await asyncio.sleep(6)
        check_books(cluster, alice)
        for node in cluster.raida.nodes:
            paid = {selector for selector, _ in node.state.earned()}
            assert paid
            for where, pairs in node.state.claimed():
                state = cluster.raida.nodes[where].state
                for at in range(0, len(pairs), 21):
                    assert state.an(pairs[at : at + 5]) == pairs[at + 5 : at + 21]
            # what paid for storage was shown to this node alone, so it is the node's everywhere
            storage = {code.code for code in lockers(alice) if code.node == node.index and code.guid}
            coins = [coin for code in storage for coin in inside[code]]
            assert len(coins) == 2
            owned = [pairs[at : at + 5] for _, pairs in node.state.claimed() for at in range(0, len(pairs), 21)]
            for coin in coins:
                assert owned.count(selector_of(coin.address.denomination, coin.address.serial)) == 4

    play(story, nodes=5, policy=Policy(redeem="network"))
