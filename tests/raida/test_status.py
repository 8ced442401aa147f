"""raida.status: the small commands of group 0."""

from __future__ import annotations

import pytest

from qmail_core.codec import cipher
from qmail_core.codec import consts as c
from qmail_core.codec import status as codec
from qmail_core.raida.node import Node
from qmail_core.raida.state import MemoryState
from qmail_core.raida.status import COUNT_AGE

from .client import Peer, World, entropy

ADMIN = b"sixteen bytes 16"


def test_the_count_of_coins_is_remembered_for_a_while() -> None:
    world = World()
    peer = world.peer(world.ones[0])

    def asked() -> dict[int, int]:
        return codec.parse_count(peer.ask(0, c.CMD_COUNT, key=peer.key).payload)

    assert {dn: count for dn, count in asked().items() if count} == {0: 20, 1: 20}
    peer.node.state.set_ans([(cipher.selector_of(-8, 5), bytes(16))])
    peer.node.state.commit()
    assert asked()[-8] == 0
    peer.now += COUNT_AGE
    assert asked()[-8] == 1
    peer.now -= COUNT_AGE + 1  # a clock that was set back
    assert asked()[-8] == 1


def test_a_count_may_be_asked_with_a_password() -> None:
    world = World()
    assert len(world.peer(world.ones[0]).ask(0, c.CMD_COUNT, bytes(16)).payload) == 75


@pytest.mark.parametrize(
    ("configured", "given", "status"),
    [(b"", bytes(16), 38), (b"", b"", 16), (ADMIN, ADMIN, 250), (ADMIN, bytes(16), 38), (ADMIN, ADMIN[:15], 16)],
)
def test_statistics_need_the_key_of_the_operator(configured: bytes, given: bytes, status: int) -> None:
    coin = World().ones[0]
    node = Node(1, MemoryState(), entropy=entropy, admin_key=configured)
    node.state.set_ans([(cipher.selector_of(coin.address.denomination, coin.address.serial), coin.an(1))])
    peer = Peer(node, coin)
    peer.ask(0, c.CMD_ECHO, key=peer.key)
    reply = peer.ask(0, c.CMD_STATS, given, key=peer.key)
    assert reply.status == status
    if status == c.STATUS_SUCCESS:
        assert codec.parse_stats(reply.payload) == {"requests": 2, "refused": 0, "replayed": 0}


def test_the_key_of_the_operator_is_never_shown() -> None:
    node = Node(1, MemoryState(), entropy=entropy, admin_key=ADMIN)
    assert ADMIN.decode() not in repr(node._context)
