"""TCP against small servers of every temper: what a transport owes holds whatever the other end does."""

from __future__ import annotations

import asyncio
import gc
import random
import socket
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import ExitStack, suppress
from typing import Any, TypeAlias

import pytest
import uvloop

from qmail_core.codec import cipher, exchange, mail, packet
from qmail_core.codec import consts as c
from qmail_core.codec.packet import Batch
from qmail_core.errors import ConnectError, NodeTimeout, RemoteProtocolError
from qmail_core.model import Address, NodeId
from qmail_core.raida.cluster import Cluster
from qmail_core.transport import tcp
from qmail_core.transport.fanout import Fanout, Run
from qmail_core.transport.tcp import TcpTransport

Reader: TypeAlias = asyncio.StreamReader
Writer: TypeAlias = asyncio.StreamWriter
entropy = random.Random(5).randbytes


class World:
    """One node behind a server that handles connections as a test says."""

    def __init__(self, enc: int) -> None:
        self.raida = Cluster.in_memory(1, entropy=entropy)
        (self.coin,) = self.raida.mint([Address(1, 7)], entropy)
        self.raida.commit()
        self.enc = enc
        self.connections = 0
        self.frames: list[bytes] = []
        self.open: set[asyncio.Task[Any]] = set()

    async def read(self, reader: Reader) -> bytearray:
        """One whole request."""
        head = bytearray()
        while (size := exchange.request_size(memoryview(bytes(head)))) is None or len(head) < size:
            part = await reader.read(65_536)
            if not part:
                raise ConnectionResetError
            head += part
        assert len(head) == size, "requests were pipelined"
        assert bytes(head) not in self.frames, "a frame was sent twice"
        self.frames.append(bytes(head))
        return head

    def answer(self, frame: bytearray) -> bytes:
        outcome = self.raida.handle(0, bytearray(frame), 0.0)
        assert outcome.reply is not None
        return bytes(outcome.reply)

    async def whole(self, reader: Reader, writer: Writer) -> None:
        """A node that keeps its connections."""
        while True:
            writer.write(self.answer(await self.read(reader)))

    async def once(self, reader: Reader, writer: Writer) -> None:
        """A node that closes after each answer, as deployed servers do."""
        writer.write(self.answer(await self.read(reader)))
        writer.close()

    def batch(self, size: int = 0) -> Batch:
        """An echo, whose answer is bare; with `size`, a download of so many bytes."""
        key = cipher.coin_key(self.enc, self.coin, 0)
        if not size:
            return Batch(c.GROUP_STATUS, c.CMD_ECHO, [0], [key], [b""], [b""])
        guid = size.to_bytes(16, "big")
        self.raida.nodes[0].state.put_page(guid, 10, 0, bytes(size), 0.0, None)
        body = mail.build_identity(self.coin, 0) + mail.build_download(guid, bytes(16), 10, 0)
        return Batch(c.GROUP_MAIL, c.CMD_DOWNLOAD, [0], [key], [body], [b""])


Serve = Callable[[Reader, Writer], Awaitable[None]]
Story = Callable[[World, Fanout, TcpTransport], Coroutine[Any, Any, None]]


def run(
    serve: Callable[[World], Serve],
    story: Story,
    *,
    enc: int = c.ENC_COIN256,
    server_closed: bool = False,
    world: World | None = None,
) -> World:
    """Run a story against one server; afterwards no task and no connection is left."""
    world = world or World(enc)

    async def main() -> World:
        handle = serve(world)

        async def connected(reader: Reader, writer: Writer) -> None:
            world.connections += 1
            task = asyncio.current_task()
            assert task is not None
            world.open.add(task)
            try:
                with suppress(ConnectionError):
                    await handle(reader, writer)
            finally:
                world.open.discard(task)
                writer.close()
                with suppress(ConnectionError):
                    await writer.wait_closed()

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        transport = TcpTransport([NodeId(0, "127.0.0.1", port)])
        assert transport.location(0) == ("127.0.0.1", port)
        assert transport.nodes() == 1
        if server_closed:
            server.close()
        await story(world, Fanout(transport, entropy), transport)
        await transport.close()
        server.close()
        left = list(world.open)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await server.wait_closed()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return world

    return asyncio.run(main())


async def ask(fanout: Fanout, batch: Batch, timeout: float = 2.0) -> Run:
    asked = fanout.run(batch, timeout=timeout)
    await asked.finish()
    return asked


@pytest.mark.parametrize("enc", [c.ENC_COIN, c.ENC_COIN256])
def test_a_kept_connection_serves_many_exchanges(enc: int) -> None:
    async def story(world: World, fanout: Fanout, transport: TcpTransport) -> None:
        for size in (0, 1, 4000, 4096, 5000, 200_000, 0):
            good = (await ask(fanout, world.batch(size))).good
            assert isinstance(good[0], packet.Reply)
            assert len(good[0].payload) == (size + 8 if size else 0)

    assert run(lambda world: world.whole, story, enc=enc).connections == 1


@pytest.mark.parametrize("enc", [c.ENC_COIN, c.ENC_COIN256])
def test_a_server_that_closes_after_each_answer_is_served_with_fresh_connections(enc: int) -> None:
    async def story(world: World, fanout: Fanout, transport: TcpTransport) -> None:
        for size in (0, 5000, 200_000, 0, 0):
            assert (await ask(fanout, world.batch(size))).good

    world = run(lambda world: world.once, story, enc=enc)
    assert len(set(world.frames)) == len(world.frames) >= 5


def test_a_stale_connection_is_retried_once_with_a_fresh_frame() -> None:
    def serve(world: World) -> Serve:
        async def handle(reader: Reader, writer: Writer) -> None:
            writer.write(world.answer(await world.read(reader)))
            if world.connections == 1:
                await world.read(reader)  # the second request is read and dropped: the first connection is stale
                return
            await world.whole(reader, writer)

        return handle

    async def story(world: World, fanout: Fanout, transport: TcpTransport) -> None:
        assert (await ask(fanout, world.batch())).good
        assert (await ask(fanout, world.batch())).good
        assert world.connections == 2
        assert len(world.frames) == 3
        assert fanout.health.failures == [0]

    run(serve, story)


def test_a_server_that_is_always_stale_is_a_failure_after_two_attempts() -> None:
    def serve(world: World) -> Serve:
        async def handle(reader: Reader, writer: Writer) -> None:
            if world.connections == 1:
                writer.write(world.answer(await world.read(reader)))
            await world.read(reader)

        return handle

    async def story(world: World, fanout: Fanout, transport: TcpTransport) -> None:
        assert (await ask(fanout, world.batch())).good
        assert isinstance((await ask(fanout, world.batch())).failed[0], ConnectError)
        assert len(world.frames) == 3

    run(serve, story)


def test_a_refused_connection_is_an_error_of_that_node() -> None:
    async def story(world: World, fanout: Fanout, transport: TcpTransport) -> None:
        error = (await ask(fanout, world.batch())).failed[0]
        assert isinstance(error, ConnectError)
        assert not error.stale
        assert str(error).startswith("node 0:")

    run(lambda world: world.whole, story, server_closed=True)


@pytest.mark.parametrize("sent", [0, 1, 31, 40, 100, 5000])
def test_an_answer_that_breaks_off_is_an_error_and_not_repeated(sent: int) -> None:
    def serve(world: World) -> Serve:
        async def handle(reader: Reader, writer: Writer) -> None:
            writer.write(world.answer(await world.read(reader))[:sent])
            await writer.drain()
            if sent % 2:
                writer.transport.abort()

        return handle

    async def story(world: World, fanout: Fanout, transport: TcpTransport) -> None:
        error = (await ask(fanout, world.batch(9000))).failed[0]
        assert isinstance(error, ConnectError)
        assert len(world.frames) == 1

    run(serve, story)


def test_a_dribbled_answer_is_put_together() -> None:
    def serve(world: World) -> Serve:
        async def handle(reader: Reader, writer: Writer) -> None:
            answer = world.answer(await world.read(reader))
            for at in range(0, len(answer), 7):
                writer.write(answer[at : at + 7])
                await writer.drain()
                await asyncio.sleep(0)

        return handle

    async def story(world: World, fanout: Fanout, transport: TcpTransport) -> None:
        assert (await ask(fanout, world.batch(6000))).good
        assert (await ask(fanout, world.batch())).good

    run(serve, story)


@pytest.mark.parametrize("size", [0, 1000, 9000])
@pytest.mark.parametrize("more", [b"\0", b"more than was asked" * 500])
def test_more_than_an_answer_costs_the_connection(size: int, more: bytes) -> None:
    def serve(world: World) -> Serve:
        async def handle(reader: Reader, writer: Writer) -> None:
            while True:
                writer.write(world.answer(await world.read(reader)) + more)

        return handle

    async def story(world: World, fanout: Fanout, transport: TcpTransport) -> None:
        for _ in range(2):
            asked = await ask(fanout, world.batch(size))
            assert asked.good or isinstance(asked.failed[0], ConnectError)
            await asyncio.sleep(0.02)  # the surplus arrives
        assert world.connections >= 2

    run(serve, story)


def test_an_answer_announced_larger_than_any_is_not_waited_for() -> None:
    def serve(world: World) -> Serve:
        async def handle(reader: Reader, writer: Writer) -> None:
            answer = bytearray(world.answer(await world.read(reader)))
            answer[9:12] = b"\xff\xff\xff"
            writer.write(answer)
            await reader.read()

        return handle

    async def story(world: World, fanout: Fanout, transport: TcpTransport) -> None:
        assert isinstance((await ask(fanout, world.batch(), 0.05)).failed[0], NodeTimeout)

    run(serve, story)


def test_a_node_that_never_answers_times_out_and_its_connection_goes() -> None:
    closed = []

    def serve(world: World) -> Serve:
        async def handle(reader: Reader, writer: Writer) -> None:
            await world.read(reader)
            with suppress(ConnectionError):
                closed.append(await reader.read())

        return handle

    async def story(world: World, fanout: Fanout, transport: TcpTransport) -> None:
        assert isinstance((await ask(fanout, world.batch(), 0.05)).failed[0], NodeTimeout)
        await asyncio.sleep(0.01)
        assert not world.open

    run(serve, story)


def test_the_system_looks_after_connections_that_are_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "_SILENT", 0.01)
    probed = asyncio.Event()
    made: list[Any] = []
    probe = tcp._probe

    def noted(transport: asyncio.BaseTransport) -> None:
        made.append(transport.get_extra_info("socket"))
        probe(transport)
        probed.set()

    monkeypatch.setattr(tcp, "_probe", noted)

    def serve(world: World) -> Serve:
        async def handle(reader: Reader, writer: Writer) -> None:
            request = await world.read(reader)
            await probed.wait()
            writer.write(world.answer(request))

        return handle

    async def story(world: World, fanout: Fanout, transport: TcpTransport) -> None:
        assert (await ask(fanout, world.batch())).good
        (sock,) = made  # once
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30

    run(serve, story)


def test_an_answer_that_claims_another_node_is_a_protocol_error() -> None:
    def serve(world: World) -> Serve:
        async def handle(reader: Reader, writer: Writer) -> None:
            answer = bytearray(world.answer(await world.read(reader)))
            answer[0] = 9
            writer.write(answer)
            await reader.read()

        return handle

    async def story(world: World, fanout: Fanout, transport: TcpTransport) -> None:
        assert isinstance((await ask(fanout, world.batch())).failed[0], RemoteProtocolError)

    run(serve, story)


def test_words_without_a_question_cost_the_connection() -> None:
    def serve(world: World) -> Serve:
        async def handle(reader: Reader, writer: Writer) -> None:
            writer.write(world.answer(await world.read(reader)))
            if world.connections == 1:
                await asyncio.sleep(0.01)
                writer.write(bytes(48))
            await world.whole(reader, writer)

        return handle

    async def story(world: World, fanout: Fanout, transport: TcpTransport) -> None:
        assert (await ask(fanout, world.batch())).good
        await asyncio.sleep(0.03)
        assert (await ask(fanout, world.batch())).good
        assert world.connections == 2

    run(serve, story)


def test_requests_at_the_same_time_have_connections_of_their_own() -> None:
    async def story(world: World, fanout: Fanout, transport: TcpTransport) -> None:
        for _ in range(2):  # now it is known that the node keeps its connections
            assert (await ask(fanout, world.batch())).good
        assert transport.keeps(0) is True
        runs = [fanout.run(world.batch(), timeout=2) for _ in range(12)]
        for asked in runs:
            await asked.finish()
            assert asked.good
        assert world.connections == 12
        await asyncio.sleep(0.01)
        assert len(world.open) == 8  # what is kept idle is bounded
        runs = [fanout.run(world.batch(), timeout=2) for _ in range(8)]
        for asked in runs:
            await asked.finish()
        assert world.connections == 12

    run(lambda world: world.whole, story)


class Behind(World):
    """A node that says that it takes requests behind each other; its answers leave together, cut into pieces."""

    most = 0  # requests that were there before the first was answered
    piece = 1 << 20
    reverse = False

    async def serve(self, reader: Reader, writer: Writer) -> None:
        kept = bytearray()
        while part := await reader.read(65_536):
            kept += part
            await asyncio.sleep(0.01)  # more may be on their way
            frames = []
            while (size := exchange.request_size(memoryview(bytes(kept)))) is not None and len(kept) >= size:
                frames.append(kept[:size])
                del kept[:size]
            self.most = max(self.most, len(frames))
            answers = list(map(self.answer, frames))
            whole = b"".join(reversed(answers) if self.reverse else answers)
            for at in range(0, len(whole), self.piece):
                writer.write(whole[at : at + self.piece])
                await writer.drain()


def behind(
    story: Callable[[Behind, Fanout, TcpTransport], Coroutine[Any, Any, None]], enc: int = c.ENC_COIN256
) -> None:
    """A story against such a node, which the client has got to know."""
    world = Behind(enc)

    async def met(_: World, __: Fanout, transport: TcpTransport) -> None:
        fanout = Fanout(transport, entropy, introduce=True)
        assert (await ask(fanout, world.batch())).good
        while fanout.introductions.unmet:  # noqa: ASYNC110 - nobody waits for an introduction
            await asyncio.sleep(0.005)
        world.most = 0
        await story(world, fanout, transport)

    run(lambda _: world.serve, met, enc=enc, world=world)


@pytest.mark.parametrize("enc", [c.ENC_COIN, c.ENC_COIN256])
@pytest.mark.parametrize("piece", [1, 47, 1 << 20])
def test_small_requests_go_behind_each_other_where_the_node_says_so(enc: int, piece: int) -> None:
    async def story(world: Behind, fanout: Fanout, transport: TcpTransport) -> None:
        world.piece = piece
        assert transport.keeps(0) is True
        before = world.connections
        runs = [fanout.run(world.batch(), timeout=5) for _ in range(20)]
        for asked in runs:
            await asked.finish()
            assert asked.good
        assert world.most == 8
        assert world.connections == before + 2

    behind(story, enc)


def test_bodies_have_connections_of_their_own() -> None:
    async def story(world: Behind, fanout: Fanout, transport: TcpTransport) -> None:
        runs = [fanout.run(world.batch(size), timeout=5) for size in (5000, 0, 5000, 0)]
        for asked in runs:
            await asked.finish()
            assert asked.good
        assert world.connections == 3
        assert world.most == 2  # the two that are small

    behind(story)


def test_answers_out_of_order_cost_the_connection() -> None:
    async def story(world: Behind, fanout: Fanout, transport: TcpTransport) -> None:
        world.reverse = True
        runs = [fanout.run(world.batch(), timeout=5) for _ in range(4)]
        for asked in runs:
            await asked.finish()
            assert isinstance(asked.failed[0], ConnectError)
            assert "out of order" in str(asked.failed[0])
        world.reverse = False
        assert (await ask(fanout, world.batch())).good

    behind(story)


@pytest.mark.parametrize("gone", [{0}, {2}, {0, 1}, {0, 1, 2, 3}])
def test_who_gives_up_among_others_takes_nothing_from_them(gone: set[int]) -> None:
    async def story(world: Behind, fanout: Fanout, transport: TcpTransport) -> None:
        before = world.connections
        runs = [fanout.run(world.batch(), timeout=5) for _ in range(4)]
        await asyncio.sleep(0)
        for at in gone:
            runs[at].cancel()
        for at, asked in enumerate(runs):
            await asked.finish()
            assert bool(asked.good) == (at not in gone)
        assert (await ask(fanout, world.batch())).good
        assert world.connections == before + (len(gone) == 4)

    behind(story)


def test_what_lay_behind_a_lost_connection_is_asked_anew() -> None:
    async def story(world: Behind, fanout: Fanout, transport: TcpTransport) -> None:
        (line,) = transport._pools[0].all
        runs = [fanout.run(world.batch(), timeout=5) for _ in range(4)]
        assert line.transport is not None
        line.transport.abort()
        for asked in runs:
            await asked.finish()
            assert asked.good
        assert len(set(world.frames)) == len(world.frames)

    behind(story)


@pytest.mark.parametrize("turns", [0, 1, 2, 5])
def test_a_cancelled_exchange_is_never_answered(turns: int) -> None:
    async def story(world: World, fanout: Fanout, transport: TcpTransport) -> None:
        answers: list[object] = []
        batch = world.batch()
        sent = packet.pack(batch, entropy(batch.entropy_size()))[0]
        cancel = transport.send(0, sent.frame, world.enc, answers.append)
        for _ in range(turns):
            await asyncio.sleep(0)
        done = bool(answers)
        cancel()
        await asyncio.sleep(0.02)
        assert bool(answers) == done
        assert (await ask(fanout, world.batch())).good

    run(lambda world: world.whole, story)


def test_closing_ends_everything_without_a_word() -> None:
    def serve(world: World) -> Serve:
        async def handle(reader: Reader, writer: Writer) -> None:
            await reader.read()

        return handle

    async def story(world: World, fanout: Fanout, transport: TcpTransport) -> None:
        answers: list[object] = []
        for _ in range(3):
            batch = world.batch()
            sent = packet.pack(batch, entropy(batch.entropy_size()))[0]
            transport.send(0, sent.frame, world.enc, answers.append)
            await asyncio.sleep(0.005)
        batch = world.batch()
        sent = packet.pack(batch, entropy(batch.entropy_size()))[0]
        transport.send(0, sent.frame, world.enc, answers.append)  # still connecting
        await transport.close()
        await asyncio.sleep(0.02)
        assert answers == []

    run(serve, story)


def test_a_connection_given_up_while_it_is_made_leaves_no_error_behind() -> None:
    """uvloop fails the future of such a connection, which nobody waits for any more."""
    reported: list[dict[str, Any]] = []

    async def story() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reported.append(context))
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        transport = TcpTransport([NodeId(0, "127.0.0.1", server.sockets[0].getsockname()[1])])
        for turns in range(4):
            cancel = transport.send(0, bytes(50), c.ENC_NONE, lambda answer: None)
            for _ in range(turns):
                await asyncio.sleep(0)
            cancel()
            await asyncio.sleep(0.01)
        await transport.close()
        server.close()
        await server.wait_closed()
        gc.collect()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(story())
    assert reported == []


def full_server(stack: ExitStack) -> tuple[str, int]:
    """A listener whose queue is full, so that further connections hang."""
    listener = stack.enter_context(socket.socket())
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    where: tuple[str, int] = listener.getsockname()
    for _ in range(3):
        first = stack.enter_context(socket.socket())
        first.setblocking(False)
        with suppress(BlockingIOError):
            first.connect(where)
    return where


@pytest.mark.parametrize("turns", [0, 1, 5])
@pytest.mark.parametrize("new_loop", [asyncio.SelectorEventLoop, uvloop.new_event_loop])
def test_a_hung_connection_that_is_given_up_breaks_no_other_socket(
    new_loop: Callable[[], asyncio.AbstractEventLoop], turns: int
) -> None:
    """The next socket gets the number of the closed one: the loop must have stopped watching that one."""

    reported: list[dict[str, Any]] = []

    async def story(hung: tuple[str, int]) -> None:
        async def serve(reader: Reader, writer: Writer) -> None:
            await reader.read(1)
            writer.close()
            await writer.wait_closed()

        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        healthy = server.sockets[0].getsockname()
        transport = TcpTransport([NodeId(0, *hung), NodeId(1, *healthy)])
        cancels = [transport.send(0, bytes(50), c.ENC_NONE, lambda answer: None) for _ in range(3)]
        await asyncio.sleep(0.01)
        for cancel in cancels:
            cancel()
        for _ in range(turns):
            await asyncio.sleep(0)
        answered = asyncio.Event()
        transport.send(1, bytes(50), c.ENC_NONE, lambda answer: answered.set())
        async with asyncio.timeout(5):
            await answered.wait()
            for _ in range(4):
                reader, writer = await asyncio.open_connection(*healthy)
                writer.write(b"?")
                assert await reader.read() == b""
                writer.close()
                await writer.wait_closed()
        await transport.close()
        server.close()
        await server.wait_closed()

    with ExitStack() as stack, asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(story(full_server(stack)))
    assert reported == []
