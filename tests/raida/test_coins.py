"""raida.coins: detect and pown, each coin on its own or all by one sum."""

from __future__ import annotations

import pytest

from qmail_core.codec import coins
from qmail_core.codec import consts as c
from qmail_core.model import Address, Coin

from .client import Peer, World, code


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def peer(world: World) -> Peer:
    return world.peer(world.ones[0])


UNKNOWN = Coin(Address(1, 999), bytes(32))


def wrong(coin: Coin) -> Coin:
    return Coin(coin.address, bytes(len(coin.ans)))


def renewed(listed: list[Coin]) -> list[Coin]:
    return [Coin(coin.address, bytes((i + 1,)) * 32) for i, coin in enumerate(listed)]


def passes(peer: Peer, coin: Coin) -> bool:
    return peer.ask(1, 10, coins.build_detect([coin], 1)).status == 241


def test_detect_all_none_and_mixed(world: World, peer: Peer) -> None:
    right, bad = world.tens[:2], [wrong(world.tens[2]), UNKNOWN]
    assert peer.ask(1, 10, coins.build_detect(right, 1)).status == 241
    assert peer.ask(1, 10, coins.build_detect(bad, 1)).status == 242
    mixed = peer.ask(1, 10, coins.build_detect([right[0], *bad, right[1]], 1))
    assert mixed.status == 243
    assert coins.parse_bitmap(mixed.payload, 4) == [True, False, False, True]


def test_detect_may_name_a_coin_twice(world: World, peer: Peer) -> None:
    assert peer.ask(1, 10, coins.build_detect([world.tens[0]] * 2, 1)).status == 241


@pytest.mark.parametrize(("command", "step"), [(10, 21), (11, 5), (20, 37), (21, 5)])
def test_lists_that_do_not_divide(peer: Peer, command: int, step: int) -> None:
    least = {10: 21, 11: 21, 20: 37, 21: 37}[command]
    assert peer.ask(1, command, bytes(least - 1)).status == c.STATUS_PACKET_LENGTH
    assert peer.ask(1, command, b"").status == c.STATUS_PACKET_LENGTH
    for extra in range(1, step):
        assert peer.ask(1, command, bytes(least + extra)).status == c.STATUS_NOT_DIVISIBLE


def test_detect_sum(world: World, peer: Peer) -> None:
    assert peer.ask(1, 11, coins.build_detect_sum(world.tens[:3], 1)).status == 241
    assert peer.ask(1, 11, coins.build_detect_sum([*world.tens[:2], wrong(world.tens[2])], 1)).status == 242
    assert peer.ask(1, 11, coins.build_detect_sum([*world.tens[:2], UNKNOWN], 1)).status == 242
    # twice the same cancels out
    assert peer.ask(1, 11, coins.build_detect_sum([wrong(world.tens[0])] * 2, 1)).status == 242


def test_pown_all_none_and_mixed(world: World, peer: Peer) -> None:
    old = world.tens[:3]
    new = renewed(old)
    assert peer.ask(1, 20, coins.build_pown(old[:2], new[:2], 1)).status == 241
    assert all(passes(peer, coin) for coin in new[:2])
    assert not passes(peer, old[0])
    assert peer.ask(1, 20, coins.build_pown(old[:2], new[:2], 1)).status == 242
    mixed = peer.ask(1, 20, coins.build_pown([old[0], old[2], UNKNOWN], [new[0], new[2], UNKNOWN], 1))
    assert mixed.status == 243
    assert coins.parse_bitmap(mixed.payload, 3) == [False, True, False]
    assert passes(peer, new[2])


def test_a_pown_that_names_a_coin_twice_fails_whole(world: World, peer: Peer) -> None:
    old, new = world.tens[:1] * 2, renewed(world.tens[:1] * 2)
    assert peer.ask(1, 20, coins.build_pown(old, new, 1)).status == 242
    assert passes(peer, world.tens[0])


def test_pown_by_sum(world: World, peer: Peer) -> None:
    delta = bytes(range(16))
    old = world.tens[:3]
    assert peer.ask(1, 21, coins.build_pown_sum(old, delta, 1)).status == 241
    new = [Coin(coin.address, bytes(16) + coins.xor(coin.an(1), delta)) for coin in old]
    assert all(passes(peer, coin) for coin in new)
    assert peer.ask(1, 21, coins.build_pown_sum(old, delta, 1)).status == 242


@pytest.mark.parametrize("case", ["wrong sum", "unknown coin", "coin twice", "two coins of a locker"])
def test_a_sum_that_proves_nothing_changes_nothing(world: World, peer: Peer, case: str) -> None:
    good = world.tens[0]
    assert peer.put(world.tens[5:7], code("LOCKER")) == 241
    listed = {
        "wrong sum": [good, wrong(world.tens[1])],
        "unknown coin": [good, UNKNOWN],
        "coin twice": [wrong(good), wrong(good)],
        "two coins of a locker": [wrong(coin) for coin in world.tens[5:7]],
    }[case]
    before = [peer.node.state.an(bytes((1, 0, 0, 0, coin.address.serial & 255))) for coin in world.tens]
    assert peer.ask(1, 21, coins.build_pown_sum(listed, b"d" * 16, 1)).status == 242
    assert peer.ask(1, 11, coins.build_detect_sum(listed, 1)).status == 242
    assert [peer.node.state.an(bytes((1, 0, 0, 0, coin.address.serial & 255))) for coin in world.tens] == before
