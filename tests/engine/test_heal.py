"""Healing: what more than half of the nodes accept is mended at the others."""

from __future__ import annotations

import pytest

from qmail_core import Address, Cluster
from qmail_core.codec.mail import build_selector
from qmail_core.model import Coin
from tests.engine import play
from tests.engine.test_change import check_coins, passes


def lose(cluster: Cluster, coin: Coin, nodes: range) -> None:
    for node in nodes:
        cluster.raida.nodes[node].state.set_ans([(build_selector(coin.address), b"lost".ljust(16))])
    cluster.raida.commit()


def test_a_healthy_wallet_is_left_alone() -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.engine("alice", balance=250)
        before = alice._store.wallet.coins("Default")
        healed = await alice.heal()
        assert (healed.checked, healed.coins, healed.fixed) == (250, (), 0)
        assert alice._store.wallet.coins("Default") == before
        assert (await alice.heal("Nothing")).checked == 0

    play(story)


def test_fracked_coins_are_mended() -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.engine("alice", balance=3)
        one, two, three = alice._store.wallet.coins("Default")
        lose(cluster, one, range(12))
        lose(cluster, two, range(20, 25))
        healed = await alice.heal()
        assert [(coin.address, coin.before, coin.after) for coin in healed.coins] == [
            (one.address, "f" * 12 + "p" * 13, "p" * 25),
            (two.address, "p" * 20 + "f" * 5, "p" * 25),
        ]
        assert healed.fixed == 2
        assert {passes(cluster, coin) for coin in alice._store.wallet.coins("Default")} == {25}
        assert (await alice.heal()).coins == ()
        assert three in alice._store.wallet.coins("Default")

    play(story)


def test_coins_most_nodes_refuse_are_reported_and_left() -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.engine("alice", balance=1)
        (coin,) = alice._store.wallet.coins("Default")
        lose(cluster, coin, range(13))
        healed = await alice.heal()
        assert [(found.before, found.after) for found in healed.coins] == [("f" * 13 + "p" * 12,) * 2]
        assert healed.fixed == 0
        assert alice._store.wallet.coins("Default") == [coin]

    play(story)


def test_nodes_that_are_away_are_unknown() -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.engine("alice", balance=1)
        (coin,) = alice._store.wallet.coins("Default")
        lose(cluster, coin, range(3))
        cluster.down |= {0, 24}
        (found,) = (await alice.heal()).coins
        assert (found.before, found.after) == ("uff" + "p" * 21 + "u", "u" + "p" * 23 + "u")
        cluster.down.clear()
        (found,) = (await alice.heal()).coins
        assert (found.before, found.after) == ("f" + "p" * 24, "p" * 25)

    play(story)


def test_a_coin_made_while_nodes_were_away_is_made_known_to_them() -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.engine("alice", balance=0)
        await alice.deposit(cluster.mint([Address(1, 5)]))
        cluster.down |= set(range(12))
        await alice.break_coin(Address(1, 5))
        cluster.down.clear()
        healed = await alice.heal()
        assert (len(healed.coins), healed.fixed) == (10, 10)
        check_coins(cluster, alice, 10)
        assert {passes(cluster, coin) for coin in alice._store.wallet.coins("Default")} == {25}

    play(story)


@pytest.mark.parametrize("nodes", [2, 3, 4, 5])
def test_small_networks(nodes: int) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.engine("alice", balance=1)
        (coin,) = alice._store.wallet.coins("Default")
        lose(cluster, coin, range(1))
        (found,) = (await alice.heal()).coins
        assert found.after == ("fp" if nodes == 2 else "p" * nodes)

    play(story, nodes=nodes)
