"""Hundreds of parked long polls on real sockets: one mail wakes them all, a stop answers them all."""

from __future__ import annotations

import asyncio
import gc
import json
from collections import Counter
from collections.abc import Awaitable, Callable

from qmail_server import wiring
from qmail_server.http.app import build_app
from qmail_server.http.guard import GuardSettings, hosts_for

from qmail_core.codec import consts as c
from qmail_core.embed import Cluster
from qmail_core.engine.engine import Engine

PARKED = 500
Story = Callable[[Engine, Engine, wiring.HttpServer, int], Awaitable[None]]


def over(story: Story) -> None:
    async def whole() -> None:
        async with Cluster(5) as cluster:
            alice, bob = await cluster.engine("alice"), await cluster.engine("bob")
            guard = GuardSettings(hosts=hosts_for(8080), compat_open=True)
            server = wiring.HttpServer(build_app(bob, guard), [0])
            await server.start()
            try:
                await story(alice, bob, server, server._sockets[0].getsockname()[1])
            finally:
                bob.drain()
                await server.stop()

    asyncio.run(whole())


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and body of one answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    size = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    return int(head[9:12]), await reader.readexactly(size)


async def park(bob: Engine, port: int, count: int) -> list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """So many connections whose ping waits."""
    found = []
    for _ in range(count):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /api/qmail/net/beacon/ping?timeout=600 HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n")
        found.append((reader, writer))
    await parked(bob, count)
    return found


async def parked(bob: Engine, count: int) -> None:
    """Return when so many wait."""
    while bob._receiver.polls.waiting != count:  # noqa: ASYNC110
        await asyncio.sleep(0.001)


def count_pings(bob: Engine) -> Counter[int]:
    asked: Counter[int] = Counter()
    batch = bob._ctx.mail_batch

    def counted(command: int, nodes: list[int], *rest: object) -> object:
        if command == c.CMD_PING:
            asked.update(nodes)
        return batch(command, nodes, *rest)  # type: ignore[arg-type]

    bob._ctx.mail_batch = counted  # type: ignore[method-assign,assignment]
    return asked


def test_one_mail_wakes_all_and_the_beacons_were_asked_once() -> None:
    async def story(alice: Engine, bob: Engine, server: wiring.HttpServer, port: int) -> None:
        asked = count_pings(bob)
        waiting = await park(bob, port, PARKED)
        assert asked == dict.fromkeys(bob.config.beacons, 1)
        sent = await alice.send(alice.draft(["bob"], "s", "b"))
        bodies = []
        for reader, writer in waiting:
            status, body = await answer(reader)
            assert status == 200
            bodies.append(json.loads(body))
            writer.close()
        assert {row["notifications"][0]["file_guid"] for row in bodies} == {sent.receipt.file_guid}
        assert len({row.pop("request_id") for row in bodies}) == PARKED
        for row in bodies:
            assert row.pop("elapsed_ms") >= 0
        assert all(row == bodies[0] for row in bodies)
        assert asked == dict.fromkeys(bob.config.beacons, 1)

    over(story)


def test_who_leaves_is_forgotten() -> None:
    async def story(alice: Engine, bob: Engine, server: wiring.HttpServer, port: int) -> None:
        waiting = await park(bob, port, 20)
        for _, writer in waiting[:10]:
            writer.close()
        await parked(bob, 10)
        for _, writer in waiting[10:]:
            writer.close()
        await parked(bob, 0)

    over(story)


def test_a_stop_answers_all_who_wait() -> None:
    async def story(alice: Engine, bob: Engine, server: wiring.HttpServer, port: int) -> None:
        waiting = await park(bob, port, PARKED)
        bob.drain()
        stopping = asyncio.create_task(server.stop())
        for reader, writer in waiting:
            status, body = await answer(reader)
            assert (status, json.loads(body)["notifications"]) == (200, [])
            writer.close()
        await stopping

    over(story)
    gc.collect()  # nothing that was never awaited is left, or it would warn now
