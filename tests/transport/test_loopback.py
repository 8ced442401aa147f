"""Frames inside one process: what a transport owes, and what a host of nodes owes them."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from qmail_core.codec import cipher, healing, lockers, mail, packet
from qmail_core.codec import consts as c
from qmail_core.codec.packet import Reply, Sent
from qmail_core.errors import ConnectError, TransportError
from qmail_core.model import Address, Coin
from qmail_core.raida.cluster import Cluster
from qmail_core.raida.node import Policy
from qmail_core.transport.loopback import LoopbackHost, LoopbackTransport
from tests.conftest import virtual
from tests.raida.client import tell_from

entropy = random.Random(4).randbytes
T0 = 1_800_000_000.0


class World:
    """Three nodes, two users."""

    def __init__(self, **policy: Any) -> None:
        self.raida = Cluster.in_memory(3, policy=Policy(storage_fee=0, inbox_fee=0, **policy), entropy=entropy)
        self.alice, self.bob = self.raida.mint([Address(1, 1), Address(1, 2)], entropy)
        self.raida.commit()
        self.host = LoopbackHost(self.raida.nodes, self.now)
        self.wire = LoopbackTransport(self.host)

    @staticmethod
    def now() -> float:
        return T0 + asyncio.get_running_loop().time()

    def frame(self, coin: Coin, node: int, command: int, rest: bytes) -> Sent:
        key = cipher.coin_key(c.ENC_COIN256, coin, node)
        batch = packet.Batch(c.GROUP_MAIL, command, [node], [key], [mail.build_identity(coin, node)], [rest])
        return packet.pack(batch, entropy(batch.entropy_size()))[0]

    def start(self, sent: Sent) -> tuple[asyncio.Future[Any], Any]:
        """The answer to come, and how to stop waiting for it."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        cancel = self.wire.send(sent.node, sent.frame, c.ENC_COIN256, answer.set_result)
        assert not answer.done(), "an answer from inside send"
        return answer, cancel

    async def ask(self, sent: Sent) -> Reply | TransportError:
        answer = await self.start(sent)[0]
        return answer if isinstance(answer, TransportError) else packet.open_reply(sent, answer)

    def tell_bob(self, node: int = 0) -> Sent:
        tell = mail.build_tell(tell_from(self.alice), [mail.TellRecipient(self.bob.address)])
        return self.frame(self.alice, node, c.CMD_TELL, tell)

    def ping(self, coin: Coin, node: int = 0) -> Sent:
        return self.frame(coin, node, c.CMD_PING, mail.build_poll())


def status(answer: Reply | TransportError) -> int:
    assert isinstance(answer, Reply)
    return answer.status


def test_an_answer_comes_from_the_node_asked_and_the_frame_stays_as_it_was() -> None:
    async def story() -> None:
        world = World()
        for node in range(3):
            sent = world.frame(world.alice, node, c.CMD_PEEK, mail.build_poll())
            before = bytes(sent.frame)
            assert status(await world.ask(sent)) == c.STATUS_SUCCESS
            assert sent.frame == before
        assert world.wire.nodes() == 3
        assert world.wire.location(2) == ("127.0.0.1", 50002)

    virtual(story())


def test_a_node_that_is_down_refuses_and_comes_back() -> None:
    async def story() -> None:
        world = World()
        world.host.down.add(1)
        sent = world.frame(world.alice, 1, c.CMD_PEEK, mail.build_poll())
        refused = await world.ask(sent)
        assert isinstance(refused, ConnectError)
        assert not refused.stale
        world.host.down.clear()
        assert status(await world.ask(world.frame(world.alice, 1, c.CMD_PEEK, mail.build_poll()))) == 250

    virtual(story())


def test_a_slow_node_is_as_slow_as_it_is_told() -> None:
    async def story() -> None:
        world = World()
        world.host.delay[2] = 3.0
        await world.ask(world.frame(world.alice, 2, c.CMD_PEEK, mail.build_poll()))
        assert asyncio.get_running_loop().time() == pytest.approx(3.0)

    virtual(story())


def test_a_cancelled_request_is_never_delivered_nor_answered() -> None:
    async def story() -> None:
        world = World()
        world.host.delay[0] = 1.0
        answer, cancel = world.start(world.tell_bob())
        cancel()
        cancel()
        await asyncio.sleep(5)
        assert not answer.done()
        peek = await world.ask(world.frame(world.bob, 0, c.CMD_PEEK, mail.build_poll()))
        assert isinstance(peek, Reply)
        assert mail.parse_tells(peek.payload) == []

    virtual(story())


def test_closing_drops_whatever_is_under_way() -> None:
    async def story() -> None:
        world = World()
        world.host.delay[1] = 1.0
        slow, _ = world.start(world.frame(world.alice, 1, c.CMD_PEEK, mail.build_poll()))
        parked, _ = world.start(world.ping(world.bob))
        await asyncio.sleep(0.1)
        await world.wire.close()
        await asyncio.sleep(2000)
        assert not slow.done()
        assert not parked.done()

    virtual(story())


def test_changes_are_committed_before_an_answer_leaves() -> None:
    async def story() -> None:
        world = World()
        state = world.raida.nodes[0].state
        answer, _ = world.start(world.tell_bob())
        await answer
        assert not state.dirty()
        state.rollback()
        peek = await world.ask(world.frame(world.bob, 0, c.CMD_PEEK, mail.build_poll()))
        assert isinstance(peek, Reply)
        assert len(mail.parse_tells(peek.payload)) == 1

    virtual(story())


def test_a_parked_ping_is_woken_by_a_tell_and_only_its_own() -> None:
    async def story() -> None:
        world = World()
        sent = world.ping(world.bob)
        bobs, _ = world.start(sent)
        alices, _ = world.start(world.ping(world.alice))
        elsewhere, _ = world.start(world.ping(world.bob, 1))
        await asyncio.sleep(100)
        assert not bobs.done()
        assert status(await world.ask(world.tell_bob())) == c.STATUS_SUCCESS
        reply = packet.open_reply(sent, await bobs)
        assert len(mail.parse_tells(reply.payload)) == 1
        assert not alices.done()
        assert not elsewhere.done()
        await world.wire.close()

    virtual(story())


def test_a_parked_ping_ends_at_the_nodes_limit() -> None:
    async def story() -> None:
        world = World(poll_limit=600.0)
        sent = world.ping(world.bob)
        answer, _ = world.start(sent)
        assert packet.open_reply(sent, await answer).status == c.STATUS_POLL_TIMEOUT
        assert asyncio.get_running_loop().time() == pytest.approx(600)

    virtual(story())


def test_a_cancelled_ping_leaves_its_tells_to_the_next() -> None:
    async def story() -> None:
        world = World()
        _, cancel = world.start(world.ping(world.bob))
        await asyncio.sleep(1)
        cancel()
        await world.ask(world.tell_bob())
        peek = await world.ask(world.frame(world.bob, 0, c.CMD_PEEK, mail.build_poll()))
        assert isinstance(peek, Reply)
        assert len(mail.parse_tells(peek.payload)) == 1

    virtual(story())


# ------------------------------------------------------------------------------------------------- from node to node


def healing_frame(world: World, node: int, command: int, body: bytes) -> Sent:
    batch = packet.Batch(c.GROUP_HEALING, command, [node], [cipher.NO_KEY], [b""], [body])
    return packet.pack(batch, entropy(batch.entropy_size()))[0]


async def fix_frame(world: World, node: int) -> Sent:
    """Two tickets for Alice's coin, shown to the third node."""
    tickets = []
    for index in range(3):
        asked = healing_frame(world, index, c.CMD_GET_TICKET, healing.build_get_ticket([world.alice], index))
        answer = await world.ask(asked)
        assert isinstance(answer, Reply)
        tickets.append(healing.parse_ticket(answer, 1)[1])
    return healing_frame(world, node, c.CMD_FIX, healing.build_fix([world.alice.address], bytes(16), tickets))


@pytest.mark.parametrize(("down", "expected"), [(set(), 241), ({0}, 242)])
def test_a_node_asks_the_others_before_it_answers(down: set[int], expected: int) -> None:
    async def story() -> None:
        world = World()
        sent = await fix_frame(world, 2)
        world.host.down |= down
        assert status(await world.ask(sent)) == expected
        known = world.raida.nodes[2].state.an(mail.build_selector(world.alice.address))
        assert (known == healing.healed_an(2, world.alice.address, bytes(16))) == (expected == 241)
        await world.host.close()

    virtual(story())


def test_a_node_does_not_wait_for_ever() -> None:
    async def story() -> None:
        world = World()
        sent = await fix_frame(world, 2)
        world.host.delay[0] = 3600.0
        begun = world.now()
        assert status(await world.ask(sent)) == 242
        assert world.now() - begun == 5.0
        await world.host.close()

    virtual(story())


def test_whoever_left_is_not_answered_and_the_fix_stands() -> None:
    async def story() -> None:
        world = World()
        sent = await fix_frame(world, 2)
        world.host.delay[0] = 1.0
        answer, cancel = world.start(sent)
        await asyncio.sleep(0.5)
        cancel()
        await asyncio.sleep(2)
        assert not answer.done()
        known = world.raida.nodes[2].state.an(mail.build_selector(world.alice.address))
        assert known == healing.healed_an(2, world.alice.address, bytes(16))
        await world.host.close()

    virtual(story())


def test_too_many_fixes_at_once_are_refused() -> None:
    async def story() -> None:
        world = World()
        frames = [await fix_frame(world, 2) for _ in range(65)]
        world.host.delay[0] = 1.0
        answers = await asyncio.gather(*map(world.ask, frames))
        assert sorted(map(status, answers)) == [160] + [241] * 64
        await world.host.close()

    virtual(story())


def test_earned_coins_are_taken_at_the_other_nodes_behind_the_answer() -> None:
    async def story() -> None:
        world = World()
        raida = Cluster.in_memory(3, policy=Policy(redeem="network"), entropy=entropy)
        (alice,) = raida.mint([Address(0, 1)], entropy)
        raida.commit()
        host = LoopbackHost(raida.nodes, world.now, entropy=entropy)
        wire = LoopbackTransport(host)
        code = cipher.locker_code("PAY")
        for node in range(3):
            body = lockers.build_put([alice], cipher.locker_key(code, node), node)
            answer = asyncio.get_running_loop().create_future()
            batch = packet.Batch(c.GROUP_LOCKER, c.CMD_LOCKER_PUT, [node], [cipher.NO_KEY], [b""], [body])
            sent = packet.pack(batch, entropy(batch.entropy_size()))[0]
            wire.send(node, sent.frame, 0, answer.set_result)
            assert status(packet.open_reply(sent, await answer)) == 241
        sender = Coin(alice.address, b"".join(cipher.locker_key(code, node) for node in range(3)))
        host.delay[1] = 30.0  # it cannot be reached in time
        world.host, world.wire, world.raida = host, wire, raida
        rest = mail.build_upload(bytes(16), code, 1, 2, 4) + b"data"
        assert status(await world.ask(world.frame(sender, 0, c.CMD_UPLOAD, rest))) == c.STATUS_SUCCESS
        await asyncio.sleep(6)
        assert [node for node, _ in raida.nodes[0].state.claimed()] == [2]
        assert not raida.nodes[2].state.locker(cipher.locker_key(code, 2))
        assert raida.nodes[1].state.locker(cipher.locker_key(code, 1))
        await host.close()

    virtual(story())
