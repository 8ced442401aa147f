"""Coins for coins: pown, lockers, break and join; whatever moment a process dies at, no coin is lost or doubled."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from qmail_core import Address, Cluster, Engine, QMailError
from qmail_core.codec.cipher import locker_key
from qmail_core.codec.mail import build_selector
from qmail_core.engine.change import FRACKED
from qmail_core.errors import Conflict, NotFound, UsageError
from qmail_core.model import Coin
from qmail_core.store.base import LockerState
from tests.conftest import skip
from tests.engine import check_books, lockers, play

CODE = "X7KQ-M3PL-9RVB"


def passes(cluster: Cluster, coin: Coin) -> int:
    """How many nodes know a coin under the numbers we have for it."""
    selector = build_selector(coin.address)
    return sum(node.state.an(selector) == coin.an(node.index) for node in cluster.raida.nodes)


def check_coins(cluster: Cluster, engine: Engine, value: int, wallet: str = "Default") -> None:
    """The wallet is worth so much, and more than half of the nodes accept each of its coins."""
    listed = engine._store.wallet.coins(wallet)
    assert sum(coin.value for coin in listed) == value == engine.balance(wallet)
    for coin in listed:
        assert passes(cluster, coin) > len(cluster.raida.nodes) // 2


def check_nodes(cluster: Cluster, value: int) -> None:
    """Every node knows as much value as it did."""
    for node in cluster.raida.nodes:
        known = node.state._ans  # type: ignore[attr-defined]
        assert sum(10 ** (s[0] if s[0] < 128 else s[0] - 256) for s in known) == value


def put_in_locker(cluster: Cluster, coins: list[Coin], nodes: range = range(25)) -> None:
    for node in nodes:
        key = locker_key(CODE.encode(), node)
        cluster.raida.nodes[node].state.set_ans((build_selector(coin.address), key) for coin in coins)
    cluster.raida.commit()


# ------------------------------------------------------------------------------------------------- break and join


def test_break_and_join_again() -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.engine("alice", balance=0)
        (large,) = cluster.mint([Address(2, 5)])
        await alice.deposit([large])
        ten = await alice.break_coin(large.address)
        assert {coin.denomination for coin in ten} == {1}
        assert sorted(alice.coins()) == sorted(ten)
        check_coins(cluster, alice, 100)
        one = await alice.join_coins(ten)
        assert list(alice.coins()) == [one]
        assert one.denomination == 2
        check_coins(cluster, alice, 100)
        check_nodes(cluster, 110)  # with the coin of the mailbox
        assert alice._store.wallet.works() == []

    play(story)


def test_what_cannot_be_changed_is_refused_before_anything_is_asked() -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.engine("alice", balance=12)
        ones = list(alice.coins())
        with pytest.raises(UsageError, match="10 CC and more"):
            await alice.break_coin(ones[0])
        with pytest.raises(NotFound, match="no such coin"):
            await alice.break_coin(Address(1, 77))
        for wrong in (ones[:9], ones[:11], [*ones[:9], ones[0]], [*ones[:9], Address(1, 5)]):
            with pytest.raises(UsageError, match="Ten different coins"):
                await alice.join_coins(wrong)
        for denomination in (-1, 6):
            with pytest.raises(UsageError, match="cannot be joined"):
                await alice.join_coins([Address(denomination, i + 1) for i in range(10)])
        assert alice.balance() == 12

    play(story, nodes=5)


def test_change_needs_more_than_half_of_the_nodes() -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.engine("alice", balance=0)
        (large,) = cluster.mint([Address(1, 5)])
        await alice.deposit([large])
        cluster.down |= set(range(13))
        with pytest.raises(QMailError, match="Too few servers can change coins"):
            await alice.break_coin(large.address)
        assert list(alice.coins()) == [large.address]
        cluster.down.remove(0)
        assert len(await alice.break_coin(large.address)) == 10
        check_coins(cluster, alice, 10)
        check_nodes_without(cluster)

    def check_nodes_without(cluster: Cluster) -> None:
        assert all(node.state.an(build_selector(Address(1, 5))) for node in cluster.raida.nodes[1:13])

    play(story)


def test_a_coin_of_somebody_else_comes_back_as_fracked() -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.engine("alice", balance=0)
        await alice.deposit([Coin(Address(1, 5), bytes(16 * 5))])
        with pytest.raises(QMailError, match="could not be changed"):
            await alice.break_coin(Address(1, 5))
        assert (alice.balance(), alice.balance(FRACKED)) == (0, 10)

    play(story, nodes=5)


# ------------------------------------------------------------------------------------------------------ pown


def test_pown_gives_numbers_nobody_else_knows() -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.engine("alice", balance=0)
        given = cluster.mint([Address(0, 100 + i) for i in range(20)])
        forged = Coin(Address(0, 500), bytes(400))
        unknown = Coin(Address(3, 9), bytes(400))
        result = await alice.pown([*given, forged, unknown])
        assert len(result.accepted) == 20
        assert set(result.rejected) == {forged.address, unknown.address}
        assert result.unclear == ()
        check_coins(cluster, alice, 20)
        assert {passes(cluster, coin) for coin in given} == {0}
        assert {passes(cluster, coin) for coin in alice._store.wallet.coins("Default")} == {25}
        assert alice.balance(FRACKED) == 0

    play(story)


def test_a_coin_too_few_nodes_know_is_kept_apart() -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.engine("alice", balance=0)
        (coin,) = cluster.mint([Address(0, 100)])
        partly = Coin(coin.address, coin.ans[: 16 * 4] + bytes(16 * 21))
        result = await alice.pown([partly])
        assert result.rejected == (coin.address,)
        assert (alice.balance(), alice.balance(FRACKED)) == (0, 1)
        (kept,) = alice._store.wallet.coins(FRACKED)
        assert passes(cluster, kept) == 4

    play(story)


def test_pown_refuses_what_makes_no_sense() -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.engine("alice", balance=3)
        coin = Coin(Address(0, 5), bytes(80))
        with pytest.raises(UsageError, match="listed twice"):
            await alice.pown([coin, coin])
        with pytest.raises(UsageError, match="one authenticity number"):
            await alice.pown([Coin(Address(0, 5), bytes(64))])
        with pytest.raises(Conflict, match="already"):
            await alice.pown([Coin(alice.coins()[0], bytes(80))])
        assert alice.balance() == 3

    play(story, nodes=5)


def test_a_pown_without_a_majority_is_finished_later() -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.engine("alice", balance=0)
        (coin,) = cluster.mint([Address(0, 100)])
        cluster.down |= set(range(15))
        result = await alice.pown([coin])
        assert result.unclear == (coin.address,)
        assert alice.balance() == 0
        with pytest.raises(Conflict):
            await alice.pown([coin])
        await alice.deposit([coin])  # it stays where it is
        assert alice.balance() == 0
        cluster.down.clear()
        skip(10)
        await asyncio.sleep(10)
        check_coins(cluster, alice, 1)
        assert passes(cluster, alice._store.wallet.coins("Default")[0]) == 25

    play(story)


# ---------------------------------------------------------------------------------------------------- lockers


def test_a_locker_is_received() -> None:
    async def story(cluster: Cluster) -> None:
        bob = await cluster.engine("bob", balance=0)
        with pytest.raises(NotFound, match="empty or unknown"):
            await bob.receive_locker(CODE)
        for wrong in ("", "X" * 17, "Schließfach"):
            with pytest.raises(UsageError, match="1 to 16 ASCII"):
                await bob.receive_locker(wrong)
        put_in_locker(cluster, cluster.mint([Address(0, 100), Address(1, 7)]))
        result = await bob.receive_locker(CODE)
        assert result.accepted == (Address(0, 100), Address(1, 7))
        check_coins(cluster, bob, 11)
        with pytest.raises(NotFound):
            await bob.receive_locker(CODE)

    play(story)


def test_a_locker_few_nodes_know_counts_as_empty() -> None:
    async def story(cluster: Cluster) -> None:
        bob = await cluster.engine("bob", balance=0)
        put_in_locker(cluster, cluster.mint([Address(0, 100)]), range(12))
        with pytest.raises(NotFound):
            await bob.receive_locker(CODE)

    play(story)


def test_ones_own_locker_is_not_received() -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.engine("alice", balance=35, pool_upload=1)
        await alice.fill_pool()
        (locker,) = lockers(alice, state=LockerState.AVAILABLE)
        with pytest.raises(Conflict):
            await alice.receive_locker(locker.code)
        check_books(cluster, alice, 35)

    play(story, nodes=5)


def test_a_coin_in_an_unspent_locker_is_not_doubled() -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.engine("alice", balance=35, pool_upload=1)
        (kept, *_) = before = alice._store.wallet.coins("Default")
        await alice.fill_pool()
        await alice.deposit(before)
        assert alice.balance() == 34
        check_books(cluster, alice, 35)
        assert kept.address

    play(story, nodes=5)


# ------------------------------------------------------------------------------------------------ kill points


class Killed(BaseException):
    """The process is gone."""


Poll = Callable[..., Awaitable[tuple[dict[int, Any], dict[int, Any]]]]


def kill_at(engine: Engine, step: int, reach: int) -> None:
    """Die at the step-th round of requests, when `reach` nodes have been asked and nobody has been heard."""
    poll: Poll = engine._ctx.poll
    count = 0

    async def dying(group: int, command: int, bodies: Mapping[int, bytes], judge: Any) -> Any:
        nonlocal count
        count += 1
        if count == step:
            await poll(group, command, dict(list(bodies.items())[:reach]), judge)
            raise Killed
        return await poll(group, command, bodies, judge)

    engine._ctx.poll = dying  # type: ignore[method-assign]


ROUNDS = [(step, reach) for step in range(1, 4) for reach in (0, 1, 3, 4, 7)]


@pytest.mark.parametrize("story_name", ["break", "join", "pown", "receive"])
@pytest.mark.parametrize(("step", "reach"), ROUNDS)
def test_a_kill_between_any_two_steps_loses_nothing(story_name: str, step: int, reach: int) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.engine("alice", balance=0)
        poll = alice._ctx.poll
        ones = [Address(0, 100 + i) for i in range(10)]
        if story_name == "break":
            await alice.deposit(cluster.mint([Address(1, 5)]))
            run: Awaitable[object] = alice.break_coin(Address(1, 5))
        elif story_name == "join":
            await alice.deposit(cluster.mint(ones))
            run = alice.join_coins(ones)
        elif story_name == "pown":
            run = alice.pown(cluster.mint(ones))
        else:
            put_in_locker(cluster, cluster.mint(ones), range(7))
            run = alice.receive_locker(CODE)
        kill_at(alice, step, reach)
        try:
            await run
        except Killed:
            died = True
        else:
            died = False
        alice._ctx.poll = poll  # type: ignore[method-assign]
        begun = bool(alice._store.wallet.works()) or alice.balance() == 10
        assert begun or step == 1  # the first round asks for serial numbers, or what is in the locker
        skip(30)
        await asyncio.sleep(10)
        assert alice._store.wallet.works() == []
        if begun:
            check_coins(cluster, alice, 10)
        elif story_name == "pown":
            raise AssertionError("a pown is remembered before anything is asked")
        assert died or alice.balance() == 10
        check_nodes(cluster, 20)

    play(story, nodes=7)


@pytest.mark.parametrize("seed", range(8))
def test_nodes_come_and_go_and_nothing_is_lost(seed: int) -> None:
    """Break, join and pay while up to half of the nodes are away at random."""
    dice = random.Random(seed)

    async def story(cluster: Cluster) -> None:
        alice = await cluster.engine("alice", balance=0, pool_upload=0, pool_inbox=0)
        await alice.deposit(cluster.mint([Address(2, 5), Address(1, 6)]))
        for _ in range(6):
            cluster.down.clear()
            cluster.down |= set(dice.sample(range(7), dice.randrange(5)))
            listed = list(alice.coins())
            large = [coin for coin in listed if coin.denomination > 0]
            ones = [coin for coin in listed if coin.denomination == 0]
            try:
                if len(ones) >= 10 and dice.random() < 0.4:
                    await alice.join_coins(ones[:10])
                elif large:
                    await alice.break_coin(dice.choice(large))
            except QMailError:
                pass
            cluster.down.clear()
            await alice.heal()
        cluster.down.clear()
        skip(30)
        await asyncio.sleep(10)
        assert alice._store.wallet.works() == []
        assert alice.balance() + alice.balance(FRACKED) == 110
        await alice.heal()
        check_coins(cluster, alice, 110)

    play(story, nodes=7)
