"""raida.lockers: lockers in and out, and how they pay."""

from __future__ import annotations

import pytest

from qmail_core.codec import cipher, coins, lockers
from qmail_core.codec import consts as c
from qmail_core.model import Address, Coin
from qmail_core.raida.coins import fresh_ans
from qmail_core.raida.lockers import Locker

from .client import NOW, Peer, World, code, frame_of, request

CODE = code("X7KQ-M3PL-9RVB")


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def peer(world: World) -> Peer:
    return world.peer(world.ones[0])


def key(text: bytes = CODE) -> bytes:
    return cipher.locker_key(text, 1)


def wrong(coin: Coin) -> Coin:
    return Coin(coin.address, bytes(len(coin.ans)))


def test_lists_that_do_not_divide(peer: Peer) -> None:
    assert peer.ask(8, 82, bytes(38)).status == c.STATUS_NOT_DIVISIBLE
    assert peer.ask(8, 82, bytes(36)).status == c.STATUS_PACKET_LENGTH
    assert peer.ask(8, 84, bytes(38)).status == c.STATUS_NOT_DIVISIBLE
    assert peer.ask(8, 83, bytes(15)).status == c.STATUS_PACKET_LENGTH
    assert peer.ask(8, 88, b"\2" + bytes(60)).status == c.STATUS_PACKET_LENGTH


def test_put_peek_and_remove(world: World, peer: Peer) -> None:
    assert peer.ask(8, 83, key()).status == 242
    assert peer.put(world.tens[:3], CODE) == 241
    found = peer.ask(8, 83, key())
    assert found.status == 241
    assert coins.parse_coin_list(found.payload) == tuple(coin.address for coin in world.tens[:3])
    renewed = [Coin(coin.address, bytes([coin.address.serial]) * 32) for coin in world.tens[:3]]
    assert peer.ask(8, 84, lockers.build_remove(key(), renewed, 1)).status == 241
    assert peer.ask(8, 83, key()).status == 242
    assert peer.ask(1, 10, coins.build_detect(renewed, 1)).status == 241
    assert peer.ask(8, 84, lockers.build_remove(key(), renewed, 1)).status == 242


def test_download_takes_all_coins(world: World, peer: Peer) -> None:
    seed = bytes(range(16))
    body = lockers.build_download(key(), seed)
    assert peer.ask(8, 8, body).status == 242
    assert peer.put(world.tens[:3], CODE) == 241
    for size in (0, 31, 33):
        assert peer.ask(8, 8, bytes(size)).status == c.STATUS_PACKET_LENGTH
    reply = peer.ask(8, 8, body)
    assert reply.status == 241
    taken = coins.parse_coin_list(reply.payload)
    assert taken == tuple(coin.address for coin in world.tens[:3])
    now = [Coin(address, bytes(16) + lockers.seeded_an(address, seed)) for address in taken]
    assert peer.ask(1, 10, coins.build_detect(now, 1)).status == 241
    assert peer.ask(8, 8, body).status == 242


def test_download_works_on_lockers_only(world: World, peer: Peer) -> None:
    assert peer.ask(8, 8, lockers.build_download(world.tens[0].an(1), bytes(16))).status == 242


def test_put_needs_a_locker_key(world: World, peer: Peer) -> None:
    body = lockers.build_put(world.tens[:1], bytes(16), 1)
    assert peer.ask(8, 82, body).status == c.STATUS_INVALID_PAN


@pytest.mark.parametrize("case", ["wrong sum", "unknown coin", "coin twice"])
def test_a_put_that_proves_nothing_changes_nothing(world: World, peer: Peer, case: str) -> None:
    good = world.tens[0]
    listed = {
        "wrong sum": [good, wrong(world.tens[1])],
        "unknown coin": [good, Coin(Address(1, 999), bytes(32))],
        "coin twice": [wrong(good), wrong(good)],  # twice the same cancels out, whatever it is
    }[case]
    assert peer.put(listed, CODE) == 242
    assert peer.ask(8, 83, key()).status == 242
    assert peer.ask(1, 10, coins.build_detect(world.tens[:1], 1)).status == 241


def test_two_coins_of_a_locker_cannot_be_stolen_with_a_sum_of_zeros(world: World, peer: Peer) -> None:
    assert peer.put(world.tens[:2], CODE) == 241
    stolen = [wrong(coin) for coin in world.tens[:2]]
    assert peer.put(stolen, code("THIEF")) == 242
    body = lockers.build_put_many([(stolen, key(code("THIEF")))], 1)
    assert peer.ask(8, 88, body).status == 242
    assert len(peer.node.state.locker(key())) == 2


def test_remove_says_which_coins_were_there(world: World, peer: Peer) -> None:
    assert peer.put(world.tens[:2], CODE) == 241
    renewed = [Coin(coin.address, b"n" * 32) for coin in world.tens[:3]]
    reply = peer.ask(8, 84, lockers.build_remove(key(), renewed, 1))
    assert reply.status == 243
    assert coins.parse_bitmap(reply.payload, 3) == [True, True, False]
    assert peer.ask(1, 10, coins.build_detect(world.tens[2:3], 1)).status == 241


def test_remove_of_a_coin_twice_fails_whole(world: World, peer: Peer) -> None:
    assert peer.put(world.tens[:1], CODE) == 241
    twice = [Coin(world.tens[0].address, b"n" * 32)] * 2
    assert peer.ask(8, 84, lockers.build_remove(key(), twice, 1)).status == 242
    assert peer.node.state.locker(key())


def test_remove_works_on_lockers_only(world: World, peer: Peer) -> None:
    coin = world.tens[0]
    body = lockers.build_remove(coin.an(1), [Coin(coin.address, b"n" * 32)], 1)
    assert peer.ask(8, 84, body).status == 242
    assert peer.ask(8, 83, coin.an(1)).status == 242
    assert peer.ask(1, 10, coins.build_detect([coin], 1)).status == 241


def test_put_many_all_none_and_mixed(world: World, peer: Peer) -> None:
    one, two, three = (key(code(text)) for text in ("ONE", "TWO", "THREE"))
    good = lockers.build_put_many([(world.tens[:2], one), (world.tens[2:3], two)], 1)
    assert peer.ask(8, 88, good).status == 241
    bad = lockers.build_put_many([([wrong(world.tens[4])], one), (world.tens[5:6], bytes(16))], 1)
    assert peer.ask(8, 88, bad).status == 242
    mixed = lockers.build_put_many([([wrong(world.tens[6])], one), (world.tens[7:8], three)], 1)
    reply = peer.ask(8, 88, mixed)
    assert (reply.status, coins.parse_bitmap(reply.payload, 2)) == (243, [False, True])
    assert len(peer.node.state.locker(one)) == 2


def test_put_many_refuses_a_coin_in_two_lockers(world: World, peer: Peer) -> None:
    body = lockers.build_put_many([(world.tens[:1], key(code("ONE"))), (world.tens[:1], key(code("TWO")))], 1)
    assert peer.ask(8, 88, body).status == 242
    assert peer.ask(1, 10, coins.build_detect(world.tens[:1], 1)).status == 241


def test_fresh_secrets_never_look_like_lockers() -> None:
    assert fresh_ans(lambda n: b"\xff" * n, 2) == [b"\xff" * 15 + b"\0"] * 2


def test_lockers_print_without_secrets() -> None:
    assert repr(Locker(b"code", b"secret", (b"coin",), 3)) == "Locker(3 CC)"


def test_a_cluster_hands_frames_to_its_nodes(world: World) -> None:
    for index in (0, 1):
        outcome = world.cluster.handle(index, frame_of(request(index, 0, c.CMD_ECHO)), NOW)
        assert outcome.reply is not None
        assert (outcome.reply[0], outcome.reply[2]) == (index, 250)
