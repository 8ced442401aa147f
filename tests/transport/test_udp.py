"""Datagrams: lost, late, doubled, forged and too large ones; the stream takes over, and no frame is sent twice."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from qmail_core.codec import cipher, mail
from qmail_core.codec import consts as c
from qmail_core.codec.cipher import NO_KEY
from qmail_core.codec.packet import Batch
from qmail_core.errors import NodeTimeout
from qmail_core.model import Address, NodeId
from qmail_core.raida.cluster import Cluster
from qmail_core.transport.fanout import Fanout
from qmail_core.transport.loopback import LoopbackHost, LoopbackTransport
from qmail_core.transport.udp import UdpTransport

NODES = 5
Mangle = Callable[[bytes], list[bytes]]  # what leaves instead of an answer


class _Server(asyncio.DatagramProtocol):
    """One node that takes datagrams."""

    def __init__(self, world: World, node: int) -> None:
        self.world = world
        self.node = node

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, place: Any) -> None:
        world = self.world
        assert data not in world.frames, "a frame was sent twice"
        world.frames.append(data)
        outcome = world.raida.handle(self.node, bytearray(data), 0.0)
        for answer in world.mangle(bytes(outcome.reply or b"")):
            self.transport.sendto(answer, place)  # type: ignore[attr-defined]


class World:
    """Nodes behind datagrams and, for the rest, behind a loopback transport."""

    def __init__(self) -> None:
        entropy = random.Random(5).randbytes
        self.raida = Cluster.in_memory(NODES, entropy=entropy)
        (self.coin,) = self.raida.mint([Address(1, 7)], entropy)
        self.raida.commit()
        self.frames: list[bytes] = []
        self.mangle: Mangle = lambda answer: [answer]
        self.transport: UdpTransport
        self.fanout: Fanout

    def echo(self, enc: int, size: int = 0) -> Batch:
        keys = [cipher.coin_key(enc, self.coin, node) if enc else NO_KEY for node in range(NODES)]
        return Batch(c.GROUP_STATUS, c.CMD_ECHO, list(range(NODES)), keys, [b""] * NODES, [bytes(size)] * NODES)


def run(story: Callable[[World], Coroutine[Any, Any, None]], timeout: float = 0.05) -> None:
    async def main() -> None:
        world = World()
        loop = asyncio.get_running_loop()
        servers = [
            await loop.create_datagram_endpoint(lambda node=node: _Server(world, node), ("127.0.0.1", 0))  # type: ignore[misc]
            for node in range(NODES)
        ]
        places = [server[0].get_extra_info("sockname") for server in servers]
        nodes = [NodeId(node, *place) for node, place in enumerate(places)]
        stream = LoopbackTransport(LoopbackHost(world.raida.nodes, float))
        world.transport = UdpTransport(nodes, stream, timeout=timeout)
        world.fanout = Fanout(world.transport, random.Random(6).randbytes)
        await story(world)
        await world.transport.close()
        for server in servers:
            server[0].close()
        await asyncio.sleep(0)

    asyncio.run(main())


@pytest.mark.parametrize("enc", [c.ENC_NONE, c.ENC_COIN, c.ENC_COIN256])
def test_small_requests_go_as_datagrams(enc: int) -> None:
    async def story(world: World) -> None:
        assert world.transport.nodes() == NODES
        assert world.transport.location(1)[0] == "127.0.0.1"
        for _ in range(3):
            asked = world.fanout.run(world.echo(enc), timeout=2)
            await asked.finish()
            assert len(asked.good) == NODES
        assert len(world.frames) == 3 * NODES

    run(story, timeout=2)


def test_large_requests_and_those_that_must_not_repeat_go_over_the_stream() -> None:
    async def story(world: World) -> None:
        asked = world.fanout.run(world.echo(c.ENC_COIN, 2000), timeout=2)
        await asked.finish()
        assert len(asked.good) == NODES
        key = cipher.coin_key(c.ENC_COIN, world.coin, 0)
        body = mail.build_identity(world.coin, 0) + mail.build_download(bytes(16), bytes(16), 10, 0)
        asked = world.fanout.run(Batch(c.GROUP_MAIL, c.CMD_DOWNLOAD, [0], [key], [body], [b""]), timeout=2)
        await asked.finish()
        assert not world.frames

    run(story)


@pytest.mark.parametrize("seed", range(6))
def test_loss_reordering_and_doubles_cost_time_at_most(seed: int) -> None:
    async def story(world: World) -> None:
        rng = random.Random(seed)
        held: list[bytes] = []

        def mangle(answer: bytes) -> list[bytes]:
            kind = rng.randrange(4)
            if kind == 0:
                return []
            if kind == 1:
                held.append(answer)
                return []
            if kind == 2 and held:
                return [held.pop(), answer, answer]  # late, and from another node's place
            return [answer]

        world.mangle = mangle
        for _ in range(4):
            asked = world.fanout.run(world.echo(c.ENC_COIN256), timeout=5)
            await asked.finish()
            assert len(asked.good) == NODES

    run(story)


@pytest.mark.parametrize("enc", [c.ENC_COIN, c.ENC_COIN256])
def test_forged_answers_are_ignored_and_the_right_one_is_taken(enc: int) -> None:
    def mangle(answer: bytes) -> list[bytes]:
        forged = bytearray(answer)
        at = 16 if enc == c.ENC_COIN else 2
        forged[at] ^= 1
        garbage = [b"", answer[:10], bytes(40), answer + b"more", random.Random(1).randbytes(60)]
        return [*garbage, bytes(forged), answer] if enc == c.ENC_COIN else [*garbage, answer]

    async def story(world: World) -> None:
        world.mangle = mangle
        asked = world.fanout.run(world.echo(enc), timeout=2)
        await asked.finish()
        assert len(asked.good) == NODES
        assert not any(world.fanout.health.failures)
        assert len(world.frames) == NODES

    run(story, timeout=2)


def test_an_answer_too_large_for_a_datagram_comes_over_the_stream_at_once() -> None:
    def mangle(answer: bytes) -> list[bytes]:
        cut = bytearray(answer)
        cut[9:12] = (60_000).to_bytes(3, "big")
        return [bytes(cut)]

    async def story(world: World) -> None:
        world.mangle = mangle
        for _ in range(2):  # the second goes over the stream right away
            asked = world.fanout.run(world.echo(c.ENC_COIN), timeout=2)
            await asked.finish()
            assert len(asked.good) == NODES
        assert len(world.frames) == NODES

    run(story, timeout=60)


def test_what_is_cancelled_or_closed_is_never_answered() -> None:
    async def story(world: World) -> None:
        asked = world.fanout.run(world.echo(c.ENC_COIN), timeout=2)
        asked.cancel()
        await asyncio.sleep(0.02)
        assert not asked.good
        world.mangle = lambda answer: []
        asked = world.fanout.run(world.echo(c.ENC_COIN), timeout=0.02)
        await asked.finish()
        assert {type(error) for error in asked.failed.values()} == {NodeTimeout}
        world.fanout.run(world.echo(c.ENC_COIN), timeout=2)
        await world.transport.close()

    run(story)
