"""Under any plan of faults with at most m bad servers a fetch is right and in time; with more it may fail, by name."""

from __future__ import annotations

import asyncio
import os
import random
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qmail_core import Cluster, Engine, QMailError, Source
from qmail_core.codec import consts as c
from qmail_core.codec.cipher import NO_KEY
from qmail_core.codec.packet import Batch
from qmail_core.errors import ConnectError
from qmail_core.model import NodeId
from qmail_core.raida.cluster import Cluster as RaidaCluster
from qmail_core.transport.fanout import Fanout, Run
from qmail_core.transport.faults import Faults, FaultyServer, FaultyTransport, Stream
from qmail_core.transport.tcp import TcpTransport
from tests.conftest import virtual
from tests.engine import content, couple, now, play
from tests.transport.test_fanout import Wire, batch

SHARES = st.sampled_from([0.0, 0.3, 1.0])
FAULTS = st.builds(
    Faults,
    latency=st.sampled_from([0.0, 0.01, 0.2, 3.0]),
    jitter=st.sampled_from([0.0, 0.5]),
    bandwidth=st.sampled_from([0.0, 5e3, 1e6]),
    slow=SHARES,
    down=st.booleans(),
    hang=st.booleans(),
    reset=SHARES,
    flip=SHARES,
    truncate=SHARES,
    stale=SHARES,
    swap=SHARES,
)


def spoil(engine: Engine, plan: dict[int, Faults]) -> None:
    """Put a plan between an engine and its nodes."""
    fanout = engine._ctx.fanout
    fanout.transport = FaultyTransport(fanout.transport, plan, seed=7)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(FAULTS, min_size=5, max_size=5), st.integers(0, 1000), st.sampled_from([0, 1_500_000]))
def test_a_fetch_under_any_plan_gives_the_object_in_time(faults: list[Faults], seed: int, size: int) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        data = os.urandom(size)
        await alice.send(alice.draft(["bob"], "s", "b" * 3000, attachments=[Source(name="x", data=data)]))
        guid = (await bob.peek()).notifications[-1].tell.guid
        spoil(bob, dict(zip(random.Random(seed).sample(range(25), 5), faults, strict=True)))
        begun = now()
        got = await bob.download(guid)
        assert got.message.body == "b" * 3000
        assert await content(bob, got.message.id, got.attachments[0].id) == data
        assert now() - begun < 15

    play(story)


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(FAULTS, min_size=8, max_size=8))
def test_with_more_bad_servers_there_is_the_object_or_a_named_error(faults: list[Faults]) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await couple(cluster)
        await alice.send(alice.draft(["bob"], "s", "b" * 3000))
        guid = (await bob.peek()).notifications[-1].tell.guid
        spoil(bob, dict(enumerate(faults)))
        begun = now()
        with suppress(QMailError):
            assert (await bob.download(guid)).message.body == "b" * 3000
        assert now() - begun < 60

    play(story)


def test_a_plan_does_what_it_says_and_the_same_each_time() -> None:
    def outcome() -> tuple[set[int], dict[int, type], float]:
        async def story() -> tuple[set[int], dict[int, type], float]:
            plan = {
                0: Faults(down=True),
                1: Faults(hang=True),
                2: Faults(latency=0.5, jitter=0.5),
                3: Faults(reset=1.0),
                4: Faults(truncate=1.0),
            }
            transport = FaultyTransport(Wire(), plan, seed=1)
            run = Fanout(transport, random.Random(3).randbytes).run(batch(), timeout=3)
            await run.finish()
            assert transport.location(3) == ("127.0.0.1", 3)
            transport.send(1, b"", 0, print)
            await transport.close()
            assert not transport._open
            return set(run.good), {node: type(error) for node, error in run.failed.items()}, now()

        return virtual(story())

    good, failed, ended = outcome()
    assert (good, ended) == ({2, 5}, 3.0)
    assert {node: kind.__name__ for node, kind in failed.items()} == {
        0: "ConnectError",
        1: "NodeTimeout",
        3: "ConnectError",
        4: "RemoteProtocolError",
    }
    assert outcome() == (good, failed, ended)


# ---- real sockets ----


async def _node(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A node that echoes and keeps its connections."""
    raida = RaidaCluster.in_memory(1, entropy=random.Random(5).randbytes)
    with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
        while head := await reader.readexactly(c.HEADER_SIZE):
            frame = bytearray(head + await reader.readexactly(int.from_bytes(head[22:24], "big")))
            writer.write(raida.handle(0, frame, 0.0).reply or b"")
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


async def _quiet() -> None:
    """Wait until what still runs has ended."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


def through(faults: Stream, times: int, timeout: float = 2.0) -> tuple[list[Run], FaultyServer, TcpTransport]:
    """Ask a node behind a faulty server several times, one after the other."""

    async def main() -> tuple[list[Run], FaultyServer, TcpTransport]:
        node = await asyncio.start_server(_node, "127.0.0.1", 0)
        server = FaultyServer("127.0.0.1", node.sockets[0].getsockname()[1], faults)
        await server.start()
        transport = TcpTransport([NodeId(0, "127.0.0.1", server.port)])
        fanout = Fanout(transport, random.Random(6).randbytes)
        runs = []
        for _ in range(times):
            run = fanout.run(Batch(c.GROUP_STATUS, c.CMD_VERSION, [0], [NO_KEY], [b""], [b""]), timeout=timeout)
            await run.finish()
            runs.append(run)
        await transport.close()
        await server.stop()
        node.close()
        await _quiet()
        return runs, server, transport

    return asyncio.run(main())


@pytest.mark.parametrize("piece", [1, 7, 31, 33])
def test_sliced_answers_are_put_together(piece: int) -> None:
    runs, server, transport = through(Stream(slice=piece), 3)
    assert all(run.good for run in runs)
    assert server.connections == 1
    assert transport.keeps(0) is True


def test_a_node_that_closes_is_learned_and_no_request_is_lost() -> None:
    runs, server, transport = through(Stream(close=True), 6)
    assert all(run.good for run in runs)
    assert transport.keeps(0) is False
    assert server.connections == 6


@pytest.mark.parametrize("after", [0, 1, 31, 35])
def test_a_reset_is_an_error_of_that_node(after: int) -> None:
    (run,), _, _ = through(Stream(reset_after=after), 1)
    assert isinstance(run.failed[0], ConnectError)


def test_half_open_servers_time_out() -> None:
    (run,), _, _ = through(Stream(half_open=True), 1, timeout=0.05)
    assert type(run.failed[0]).__name__ == "NodeTimeout"


def test_a_node_that_closes_gets_one_connection_at_a_time() -> None:
    async def main() -> None:
        at_once, most, served = 0, 0, 0
        raida = RaidaCluster.in_memory(1, entropy=random.Random(5).randbytes)

        async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal at_once, most, served
            at_once += 1
            most = max(most, at_once)
            head = await reader.readexactly(c.HEADER_SIZE)
            frame = bytearray(head + await reader.readexactly(int.from_bytes(head[22:24], "big")))
            await asyncio.sleep(0.001)
            at_once -= 1
            served += 1
            writer.write(raida.handle(0, frame, 0.0).reply or b"")
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

        node = await asyncio.start_server(closing, "127.0.0.1", 0)
        transport = TcpTransport([NodeId(0, "127.0.0.1", node.sockets[0].getsockname()[1])])
        fanout = Fanout(transport, random.Random(6).randbytes)
        echo: Any = Batch(c.GROUP_STATUS, c.CMD_ECHO, [0], [NO_KEY], [b""], [b""])
        runs = [fanout.run(echo, timeout=5) for _ in range(10)]
        runs[4].cancel()  # one that may still wait
        for run in runs:
            await run.finish()
        assert sum(bool(run.good) for run in runs) == 9
        assert (most, served >= 9) == (1, True)
        await transport.close()
        node.close()
        await _quiet()

    asyncio.run(main())
