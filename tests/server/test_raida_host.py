"""qmail_server.raida over real loopback sockets: framing, order, time-outs, parked pings, modes, failing commits."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import struct
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import uvloop
from qmail_server.raida import BEHIND, DRAIN_LIMIT, HostThread, RaidaHost, flip
from qmail_server.raida import host as host_module
from qmail_server.raida.host import SCRATCH

from qmail_core.codec import consts as c
from qmail_core.codec import exchange, healing, mail, objects, packet
from qmail_core.codec.cipher import NO_KEY
from qmail_core.errors import StoreUnavailable
from qmail_core.model import Coin
from qmail_core.raida.cluster import Cluster
from qmail_core.raida.node import Node, Policy
from qmail_core.store.node import NodeStore
from tests.raida import faults
from tests.raida.client import GUID, Peer, World, code, entropy, request, tell_from

FREE = Policy(storage_fee=0, inbox_fee=0)


class Line:
    """One client connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, sent: packet.Sent) -> None:
        self.writer.write(bytes(sent.frame))

    async def answer(self, sent: packet.Sent) -> packet.Reply:
        async with asyncio.timeout(5):
            frame = bytearray()
            while (size := exchange.reply_size(memoryview(frame), sent.key.enc)) is None or len(frame) < size:
                frame += await self.reader.readexactly((size or len(frame) + 16) - len(frame))
        return packet.open_reply(sent, memoryview(frame))

    async def ask(self, sent: packet.Sent) -> packet.Reply:
        self.send(sent)
        return await self.answer(sent)

    async def at_end(self) -> bool:
        """Whether the node closes the connection without another byte."""
        async with asyncio.timeout(5):
            try:
                return await self.reader.read(1) == b""
            except ConnectionError:
                return True

    def reset(self) -> None:
        """Leave without a word."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


class Kit:
    """A host with two nodes, and clients that are closed in the end."""

    def __init__(self, world: World, host: RaidaHost) -> None:
        self.world, self.host = world, host
        self.lines: list[Line] = []
        self.sender, self.reader = world.peer(world.ones[0]), world.peer(world.ones[1])

    async def connect(self, index: int = 1) -> Line:
        self.lines.append(Line(*await asyncio.open_connection("127.0.0.1", self.host.ports()[index])))
        return self.lines[-1]


def run(story: Callable[[Kit], Awaitable[None]], *, policy: Policy = FREE, count: int = 2, **options: object) -> None:
    """Run a story against a fresh host, in uvloop."""

    async def whole() -> None:
        world = World(policy=policy, count=count)
        host = RaidaHost(world.cluster.nodes, **options)  # type: ignore[arg-type]
        await host.start()
        kit = Kit(world, host)
        try:
            await story(kit)
        finally:
            for line in kit.lines:
                await line.close()
            await host.stop()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(whole())


class Post(asyncio.DatagramProtocol):
    """A client of one node over UDP."""

    def __init__(self) -> None:
        self.answers: asyncio.Queue[bytes] = asyncio.Queue()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.answers.put_nowait(data)

    def error_received(self, exc: Exception) -> None:
        """The node is down."""

    def send(self, frame: bytes) -> None:
        self.transport.sendto(frame)  # type: ignore[attr-defined]

    async def answer(self) -> bytes:
        async with asyncio.timeout(5):
            return await self.answers.get()

    async def ask(self, sent: packet.Sent) -> packet.Reply:
        self.send(bytes(sent.frame))
        return packet.open_reply(sent, memoryview(bytearray(await self.answer())))

    @staticmethod
    @contextlib.asynccontextmanager
    async def to(kit: Kit, index: int = 1) -> AsyncIterator[Post]:
        where = ("127.0.0.1", kit.host.ports()[index])
        transport, post = await asyncio.get_running_loop().create_datagram_endpoint(Post, remote_addr=where)
        try:
            yield post
        finally:
            transport.close()


def version(index: int = 1, peer: Peer | None = None) -> packet.Sent:
    return request(index, 0, c.CMD_VERSION, key=peer.key if peer else NO_KEY)


def upload(peer: Peer, data: bytes, guid: bytes = GUID, page: int = 0) -> packet.Sent:
    rest = mail.build_upload_page(guid, bytes(16), 10, 2, page, len(data)) + data
    return request(peer.index, 6, c.CMD_UPLOAD_PAGE, peer.identity + rest, key=peer.key, page=page)


def download(peer: Peer, page: int = 0) -> packet.Sent:
    rest = mail.build_download(GUID, bytes(16), 10, page)
    return request(peer.index, 6, c.CMD_DOWNLOAD, peer.identity + rest, key=peer.key)


def ping(peer: Peer) -> packet.Sent:
    return request(peer.index, 6, c.CMD_PING, peer.identity, key=peer.key)


def tell(sender: Peer, reader: Peer, guid: bytes = GUID) -> packet.Sent:
    rest = mail.build_tell(tell_from(sender.coin, guid), [mail.TellRecipient(reader.coin.address)])
    return request(sender.index, 6, c.CMD_TELL, sender.identity + rest, key=sender.key)


async def settle(done: Callable[[], bool]) -> None:
    """Wait until the host noticed something."""
    async with asyncio.timeout(5):
        while not done():  # noqa: ASYNC110 - the host has no hooks for tests
            await asyncio.sleep(0.005)


def test_many_requests_one_after_another() -> None:
    async def story(kit: Kit) -> None:
        line = await kit.connect()
        for _ in range(20):
            assert bytes((await line.ask(version(peer=kit.sender))).payload) == b"Q261121F"
        assert (await (await kit.connect(0)).ask(version(0))).status == 250

    run(story)


def test_it_runs_in_the_standard_loop_too() -> None:
    async def story() -> None:
        host = RaidaHost(World().cluster.nodes)
        await host.start()
        line = Line(*await asyncio.open_connection("127.0.0.1", host.ports()[1]))
        assert (await line.ask(version())).status == 250
        await line.close()
        await host.set_mode(1, "down")
        await host.stop()
        await host.stop()

    asyncio.run(story())


def test_dribbled_bytes() -> None:
    async def story(kit: Kit) -> None:
        line = await kit.connect()
        sent = upload(kit.sender, b"dribble")
        for byte in bytes(sent.frame):
            line.writer.write(bytes([byte]))
            await asyncio.sleep(0)
        assert (await line.answer(sent)).status == 250

    run(story)


def test_pages_of_every_size_around_the_buffer() -> None:
    async def story(kit: Kit) -> None:
        line = await kit.connect()
        for size in (0, BEHIND, SCRATCH - 170, *range(SCRATCH - 156, SCRATCH - 146), SCRATCH, c.PAGE_SIZE):
            data = entropy(size)
            assert (await line.ask(upload(kit.sender, data))).status == 250
            reply = await line.ask(download(kit.reader))
            assert bytes(mail.parse_page(reply.payload)) == data

    run(story)


def test_pipelined_requests_are_answered_in_order() -> None:
    async def story(kit: Kit) -> None:
        line = await kit.connect()
        batch = []
        for page in range(12):
            batch += [upload(kit.sender, entropy(page * 3000), page=page), download(kit.reader, page), version()]
        line.writer.write(b"".join(bytes(sent.frame) for sent in batch))
        replies = [await line.answer(sent) for sent in batch]
        assert [reply.status for reply in replies] == [250] * len(batch)
        assert len(mail.parse_page(replies[-2].payload)) == 11 * 3000

    run(story)


def test_pipelined_requests_may_be_split_anywhere() -> None:
    async def story(kit: Kit) -> None:
        line = await kit.connect()
        size = len(bytes(version(peer=kit.sender).frame))
        for cut in range(1, 4 * size, 13):
            asked = [version(peer=kit.sender), version(), download(kit.reader), version(peer=kit.reader)]
            together = b"".join(bytes(sent.frame) for sent in asked)
            line.writer.write(together[:cut])
            await settle(lambda: line.writer.transport.get_write_buffer_size() == 0)
            await asyncio.sleep(0)
            line.writer.write(together[cut:])
            statuses = [(await line.answer(sent)).status for sent in asked]
            assert statuses == [c.STATUS_SUCCESS, c.STATUS_SUCCESS, c.STATUS_FILE_NOT_EXIST, c.STATUS_SUCCESS]

    run(story)


def test_a_client_that_does_not_read_is_not_read_either() -> None:
    async def story(kit: Kit) -> None:
        line = await kit.connect()
        assert (await line.ask(upload(kit.sender, entropy(c.PAGE_SIZE)))).status == 250
        batch = [download(kit.reader) for _ in range(60)]
        for sent in batch:
            line.send(sent)
        await asyncio.sleep(0.1)
        for sent in batch:
            assert len(mail.parse_page((await line.answer(sent)).payload)) == c.PAGE_SIZE

    run(story)


def test_garbage_is_refused_and_the_connection_closed() -> None:
    async def story(kit: Kit) -> None:
        line = await kit.connect()
        line.writer.write(b"GET / HTTP/1.1\r\n\0" + bytes(15) + b"x" * 99)
        reply = await line.reader.readexactly(32)
        assert reply[2] == c.STATUS_INVALID_ROUTING
        assert await line.at_end()
        assert (await (await kit.connect()).ask(version())).status == 250

    run(story)


def test_an_oversized_body_is_refused_before_it_is_read() -> None:
    async def story(kit: Kit) -> None:
        line = await kit.connect()
        frame = bytearray(upload(kit.sender, b"x").frame)
        frame[10:14] = (c.MAX_BODY + 1).to_bytes(4, "big")
        line.writer.write(bytes(frame[:48]))
        reply = await line.reader.readexactly(48)
        assert (reply[2], reply[9:12]) == (c.STATUS_PACKET_LENGTH, bytes(3))
        # the rest of the body may still come without killing the answer, but not without end
        line.writer.write(bytes(DRAIN_LIMIT // 2))
        await line.writer.drain()
        assert await line.at_end()
        line.writer.write(bytes(2 * DRAIN_LIMIT))
        await settle(lambda: not kit.host._seats[1].peers)

    run(story)


def test_a_half_closed_client_still_gets_its_answers() -> None:
    async def story(kit: Kit) -> None:
        line = await kit.connect()
        sent = [version(), upload(kit.sender, b"x"), version()]
        line.writer.write(b"".join(bytes(each.frame) for each in sent))
        line.writer.write_eof()
        assert [(await line.answer(each)).status for each in sent] == [250] * 3
        assert await line.at_end()

    run(story)


def test_half_open_connections_are_closed() -> None:
    async def story(kit: Kit) -> None:
        silent, header, body = [await kit.connect() for _ in range(3)]
        whole = bytes(upload(kit.sender, entropy(c.PAGE_SIZE)).frame)
        header.writer.write(whole[:20])
        body.writer.write(whole[:9000])
        assert await header.at_end()
        assert await body.at_end()
        assert (await silent.ask(version())).status == 250
        assert await silent.at_end()
        await settle(lambda: not kit.host._seats[1].peers)

    run(story, frame_timeout=0.1, idle_timeout=0.6)


def test_a_parked_ping_is_woken_by_a_tell() -> None:
    async def story(kit: Kit) -> None:
        waiting, second, other = [await kit.connect() for _ in range(3)]
        sent, again = ping(kit.reader), ping(kit.reader)
        waiting.send(sent)
        second.send(again)
        await settle(lambda: len(kit.host._seats[1].parked.get(kit.reader.key.selector, ())) == 2)
        assert (await other.ask(tell(kit.sender, kit.reader))).status == 250
        answers = [asyncio.ensure_future(waiting.answer(sent)), asyncio.ensure_future(second.answer(again))]
        done, rest = await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
        assert [tell.guid for tell, _ in mail.parse_tells(done.pop().result().payload)] == [GUID]
        # the record was served once; the other device goes on waiting for the next
        assert (await other.ask(tell(kit.sender, kit.reader, b"2" * 16))).status == 250
        assert [tell.guid for tell, _ in mail.parse_tells((await rest.pop()).payload)] == [b"2" * 16]
        assert kit.host._seats[1].parked == {}
        assert (await waiting.ask(version())).status == 250

    run(story)


def test_a_tell_and_a_ping_of_one_turn_meet() -> None:
    async def story(kit: Kit) -> None:
        for order in (0, 1):
            lines = [await kit.connect(), await kit.connect()]
            sent = [ping(kit.reader), tell(kit.sender, kit.reader, bytes([order]) * 16)]
            for position in (order, 1 - order):
                lines[position].send(sent[position])
            assert mail.parse_tells((await lines[0].answer(sent[0])).payload)[0][0].guid == bytes([order]) * 16
            assert (await lines[1].answer(sent[1])).status == 250

    run(story)


def test_two_tells_of_one_turn_answer_a_ping_once() -> None:
    async def story(kit: Kit) -> None:
        waiting, one, two = [await kit.connect() for _ in range(3)]
        waiting.send(sent := ping(kit.reader))
        await settle(lambda: bool(kit.host._seats[1].parked))
        first, second = tell(kit.sender, kit.reader, b"1" * 16), tell(kit.sender, kit.reader, b"2" * 16)
        one.send(first)
        two.send(second)
        assert [(await one.answer(first)).status, (await two.answer(second)).status] == [250, 250]
        assert 1 <= len(mail.parse_tells((await waiting.answer(sent)).payload)) <= 2
        assert (await waiting.ask(version())).status == 250
        await asyncio.sleep(0.02)
        assert kit.host._seats[1].parked == {}

    run(story)


def test_peers_that_end_their_half_early() -> None:
    async def story(kit: Kit) -> None:
        parked, refused, slow = [await kit.connect() for _ in range(3)]
        parked.send(ping(kit.reader))
        parked.writer.write_eof()
        assert await parked.at_end()
        await kit.host.set_mode(1, "slow", delay=0.1)
        refused.writer.write(bytes(40))
        refused.writer.write_eof()
        assert (await refused.reader.readexactly(32))[2] == c.STATUS_INVALID_RAIDA
        assert await refused.at_end()
        slow.send(version())
        await asyncio.sleep(0.02)
        slow.reset()
        await settle(lambda: not kit.host._seats[1].peers)
        await asyncio.sleep(0.1)
        assert kit.host._seats[1].parked == {}

    run(story)


def test_a_ping_expires_and_the_connection_goes_on() -> None:
    async def story(kit: Kit) -> None:
        line = await kit.connect()
        sent, behind = ping(kit.reader), version()
        line.writer.write(bytes(sent.frame) + bytes(behind.frame))
        assert (await line.answer(sent)).status == c.STATUS_POLL_TIMEOUT
        assert (await line.answer(behind)).status == 250

    run(story, policy=Policy(inbox_fee=0, poll_limit=0.05))


def test_parked_clients_that_leave_free_everything() -> None:
    async def story(kit: Kit) -> None:
        seat = kit.host._seats[1]
        for _ in range(200):
            line = await kit.connect()
            line.send(ping(kit.reader))
        await settle(lambda: len(seat.parked.get(kit.reader.key.selector, ())) == 200)
        for number, line in enumerate(kit.lines):
            if number % 2:
                line.reset()
            await line.close()
        await settle(lambda: not seat.peers)
        assert seat.parked == {}
        assert len(kit.host._deadlines) < 100

    run(story)


def test_sending_on_behind_a_parked_ping_is_bounded() -> None:
    async def story(kit: Kit) -> None:
        for together in (True, False):
            line = await kit.connect()
            first, flood = bytes(ping(kit.reader).frame), bytes(4 * BEHIND)
            line.writer.write(first + flood if together else first)
            if not together:
                await settle(lambda: bool(kit.host._seats[1].parked))
                line.writer.write(flood)
            assert await line.at_end()
            await settle(lambda: not kit.host._seats[1].peers)

    run(story)


def test_modes() -> None:
    async def story(kit: Kit) -> None:
        line, port = await kit.connect(), kit.host.ports()[1]
        assert (await line.ask(upload(kit.sender, b"stripe" * 50))).status == 250
        waiting = await kit.connect()
        waiting.send(ping(kit.reader))
        await settle(lambda: bool(kit.host._seats[1].parked))

        await kit.host.set_mode(1, "down")
        assert await line.at_end()
        assert await waiting.at_end()
        with pytest.raises(ConnectionRefusedError):
            await kit.connect()
        assert kit.host.modes() == ["up", "down"]

        await kit.host.set_mode(1, "corrupt")
        assert kit.host.ports()[1] == port
        line = await kit.connect()
        served = bytes(mail.parse_page((await line.ask(download(kit.reader))).payload))
        assert served == flip(b"stripe" * 50) != b"stripe" * 50

        await kit.host.set_mode(1, "slow", delay=0.2)
        loop = asyncio.get_running_loop()
        started = loop.time()
        quick = await kit.connect(0)
        line.send(sent := download(kit.reader))
        assert (await quick.ask(version(0))).status == 250
        assert loop.time() - started < 0.15
        assert bytes(mail.parse_page((await line.answer(sent)).payload)) == b"stripe" * 50
        assert loop.time() - started >= 0.19

        await kit.host.set_mode(1, "up")
        assert (await line.ask(version())).status == 250

    run(story)


def test_a_node_may_be_down_before_the_start() -> None:
    async def story() -> None:
        host = RaidaHost(World().cluster.nodes)
        await host.set_mode(1, "down")
        await host.set_mode(1, "up")
        await host.set_mode(0, "down")
        await host.start()
        assert host.ports()[0] == 0
        await host.stop()

    asyncio.run(story())


def test_a_taken_port_starts_nothing() -> None:
    async def story(kit: Kit) -> None:
        host = RaidaHost(World().cluster.nodes, ports=[0, kit.host.ports()[0]])
        with pytest.raises(OSError):
            await host.start()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", host.ports()[0])
        assert len(host.nodes) == 2

    run(story)


def test_a_failed_commit_answers_194_to_the_whole_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(kit: Kit) -> None:
        lines = [await kit.connect() for _ in range(3)]
        state = kit.world.cluster.nodes[1].state
        commits = []

        def full() -> None:
            commits.append(1)
            raise StoreUnavailable("no space left")

        with monkeypatch.context() as patch:
            patch.setattr(state, "commit", full)
            sent = [upload(kit.sender, b"1"), version(peer=kit.reader), ping(kit.reader)]
            statuses = []
            for line, each in zip(lines, sent, strict=True):
                line.send(each)
            for line, each in zip(lines[:2], sent, strict=False):
                statuses.append((await line.answer(each)).status)
            assert statuses[0] == c.STATUS_FILESYSTEM
            # a tell that could not be kept wakes nobody
            assert (await lines[0].ask(tell(kit.sender, kit.reader))).status == c.STATUS_FILESYSTEM
            assert kit.host._seats[1].parked
        assert (await lines[0].ask(download(kit.reader))).status == c.STATUS_FILE_NOT_EXIST
        assert (await lines[0].ask(upload(kit.sender, b"1"))).status == 250
        assert (await lines[0].ask(tell(kit.sender, kit.reader))).status == 250
        assert len(mail.parse_tells((await lines[2].answer(sent[2])).payload)) == 1

    run(story)


def test_frames_of_one_turn_share_a_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(kit: Kit) -> None:
        lines = [await kit.connect() for _ in range(20)]
        await settle(lambda: len(kit.host._seats[1].peers) == 20)
        state = kit.world.cluster.nodes[1].state
        commits: list[int] = []
        commit = state.commit

        def counted() -> None:
            commits.append(1)
            commit()

        monkeypatch.setattr(state, "commit", counted)
        sent = [upload(kit.sender, b"x", bytes([number]) * 16) for number in range(20)]
        for line, each in zip(lines, sent, strict=True):
            line.send(each)
        assert [(await line.answer(each)).status for line, each in zip(lines, sent, strict=True)] == [250] * 20
        assert len(commits) < 10

    run(story)


# ------------------------------------------------------------------------------------------------------------------
# Every check, over both transports


def test_each_fault_over_tcp() -> None:
    async def story(kit: Kit) -> None:
        for row in faults.ROWS:
            line, frame = await kit.connect(), bytes(row.make(kit.world))
            line.writer.write(frame)
            async with asyncio.timeout(5):
                faults.check(row, frame, await line.reader.readexactly(row.header))
            if not row.echo:
                assert await line.at_end(), row.name
            await line.close()
        await settle(lambda: not kit.host._seats[1].peers)

    run(story, frame_timeout=0.2)


def test_each_fault_over_udp() -> None:
    async def story(kit: Kit) -> None:
        async with Post.to(kit) as post:
            for row in faults.ROWS:
                frame = bytes(row.make(kit.world))
                post.send(frame)
                faults.check(row, frame, await post.answer())

    run(story)


def test_a_refused_header_is_answered_before_its_body_comes() -> None:
    async def story(kit: Kit) -> None:
        line = await kit.connect()
        head = bytearray(version().frame)[:32]
        head[2], head[22:24] = 9, b"\xff\xff"
        line.writer.write(bytes(head))
        assert (await line.reader.readexactly(32))[2] == c.STATUS_INVALID_RAIDA
        line.writer.write(bytes(65535))  # the body, still on its way, does not kill the answer
        assert await line.at_end()

    run(story)


def test_bytes_behind_a_frame_are_the_next_frame_or_nothing() -> None:
    async def story(kit: Kit) -> None:
        line, sent = await kit.connect(), version()
        line.writer.write(bytes(sent.frame) + b"\1\0\1")
        assert (await line.answer(sent)).status == 250
        assert await line.at_end()

    run(story, frame_timeout=0.1)


def test_many_unfinished_requests_cost_little_and_end() -> None:
    async def story(kit: Kit) -> None:
        whole = bytes(upload(kit.sender, b"x").frame)
        for number in range(150):
            (await kit.connect()).writer.write(whole[: number % 48])
        seat = kit.host._seats[1]
        await settle(lambda: len(seat.peers) == 150)
        assert all(len(peer._rest) < 48 and peer._frame is None for peer in seat.peers)
        assert (await (await kit.connect()).ask(version())).status == 250
        await settle(lambda: not seat.peers)
        assert len(kit.host._deadlines) < 500

    run(story, frame_timeout=0.3, idle_timeout=0.6)


def test_more_pings_of_one_mailbox_than_sense_are_answered_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_module, "MAX_PARKED", 2)

    async def story(kit: Kit) -> None:
        lines = [await kit.connect() for _ in range(3)]
        for line in lines[:2]:
            line.send(ping(kit.reader))
        await settle(lambda: len(kit.host._seats[1].parked.get(kit.reader.key.selector, ())) == 2)
        assert (await lines[2].ask(ping(kit.reader))).status == c.STATUS_POLL_TIMEOUT
        assert (await lines[2].ask(version())).status == 250

    run(story)


# ------------------------------------------------------------------------------------------------------------------
# UDP


def test_datagrams_and_connections_share_port_and_state() -> None:
    async def story(kit: Kit) -> None:
        async with Post.to(kit) as post:
            line = await kit.connect()
            assert bytes((await post.ask(version(peer=kit.reader))).payload) == b"Q261121F"
            rest = mail.build_upload(GUID, bytes(16), 1, 2, 4) + b"kept"
            stored = request(1, 6, c.CMD_UPLOAD, kit.sender.identity + rest, key=kit.sender.key)
            line.send(sent := version())
            assert (await post.ask(stored)).status == 250
            assert (await line.answer(sent)).status == 250
            wanted = mail.build_download(GUID, bytes(16), 1, 0)
            reply = await line.ask(request(1, 6, c.CMD_DOWNLOAD, kit.sender.identity + wanted, key=kit.sender.key))
            assert bytes(mail.parse_page(reply.payload)) == b"kept"

    run(story)


def test_ignored_datagrams_get_no_answer() -> None:
    async def story(kit: Kit) -> None:
        async with Post.to(kit) as post:
            for data in (b"", bytes(16), b"\7" + bytes(60)):
                post.send(data)
            assert (await post.ask(version())).status == 250
            assert post.answers.empty()

    run(story)


def test_a_tell_by_datagram_wakes_a_ping() -> None:
    async def story(kit: Kit) -> None:
        line = await kit.connect()
        line.send(sent := ping(kit.reader))
        await settle(lambda: bool(kit.host._seats[1].parked))
        async with Post.to(kit) as post:
            assert (await post.ask(tell(kit.sender, kit.reader))).status == 250
        assert mail.parse_tells((await line.answer(sent)).payload)[0][0].guid == GUID

    run(story)


def test_modes_of_a_node_go_for_datagrams_too() -> None:
    async def story(kit: Kit) -> None:
        loop = asyncio.get_running_loop()
        async with Post.to(kit) as post:
            await kit.host.set_mode(1, "slow", delay=0.1)
            started = loop.time()
            assert (await post.ask(version())).status == 250
            assert loop.time() - started > 0.09
            post.send(bytes(version().frame))
            await asyncio.sleep(0.02)
            await kit.host.set_mode(1, "down")
            post.send(bytes(version().frame))
            await asyncio.sleep(0.15)
            assert post.answers.empty()
        await kit.host.set_mode(1, "up")
        async with Post.to(kit) as post:
            assert (await post.ask(version())).status == 250

    run(story)


def test_a_port_taken_for_datagrams_starts_nothing() -> None:
    async def story() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", 0))
            host = RaidaHost(World().cluster.nodes, ports=[0, taken.getsockname()[1]])
            with pytest.raises(OSError):
                await host.start()
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", taken.getsockname()[1])

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(story())


# ------------------------------------------------------------------------------------------------------------------
# What is past its time


def test_the_host_sweeps_between_turns_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_module, "SWEEP_PORTION", 2)
    monkeypatch.setattr(host_module, "SWEEP_PAUSE", 0.001)
    times = [1_800_000_000.0]

    async def story(kit: Kit) -> None:
        line = await kit.connect()
        for page in range(7):
            rest = mail.build_upload_page(GUID, bytes(16), 10, 0, page, 1) + b"x"
            sent = request(1, 6, c.CMD_UPLOAD_PAGE, kit.sender.identity + rest, key=kit.sender.key, page=page)
            assert (await line.ask(sent)).status == 250
        state = kit.world.cluster.nodes[1].state
        times[0] += 86_400.0
        assert (await line.ask(download(kit.reader))).status == c.STATUS_FILE_NOT_EXIST
        await settle(lambda: state.owner(GUID) is None and not state.dirty())
        assert state.page(GUID, 10, 0) is None

    run(story, sweep_every=0.02, clock=lambda: times[0])


def test_a_sweep_that_cannot_be_kept_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls = []

    async def story(kit: Kit) -> None:
        node = kit.world.cluster.nodes[1]

        def sweep(now: float, limit: int) -> int:
            calls.append(now)
            node.state.set_ans([(b"\0\0\0\0\1", bytes(16))])
            return limit

        def fail() -> None:
            raise StoreUnavailable("disk on fire")

        monkeypatch.setattr(node, "sweep", sweep)
        with monkeypatch.context() as patch:
            patch.setattr(node.state, "commit", fail)
            await settle(lambda: len(calls) > 2)
            assert (await (await kit.connect()).ask(version())).status == 250
        monkeypatch.undo()

    run(story, sweep_every=0.02)
    assert "disk on fire" in caplog.text


def nodes_on_disk(folder: Path) -> list[Node]:
    return [Node(index, NodeStore(folder / str(index)), policy=FREE, entropy=entropy) for index in range(2)]


def test_a_host_thread_keeps_what_it_answered(tmp_path: Path) -> None:
    nodes = nodes_on_disk(tmp_path)
    cluster = Cluster(nodes)
    coins = cluster.mint([coin.address for coin in World().ones[:2]], entropy)
    cluster.commit()
    sender = Peer(nodes[1], coins[0])
    thread = HostThread(RaidaHost(nodes))
    thread.start()

    async def send(sent: packet.Sent) -> packet.Reply:
        line = Line(*await asyncio.open_connection("127.0.0.1", thread.ports()[1]))
        try:
            return await line.ask(sent)
        finally:
            await line.close()

    assert asyncio.run(send(upload(sender, b"kept"))).status == 250
    thread.set_mode(1, "down")
    assert thread.modes() == ["up", "down"]
    with pytest.raises(ConnectionRefusedError):
        asyncio.run(send(version()))
    thread.set_mode(1, "up")
    thread.stop()
    for node in nodes:
        node.state.close()

    nodes = nodes_on_disk(tmp_path)
    thread = HostThread(RaidaHost(nodes))
    thread.start()
    reply = asyncio.run(send(download(sender)))
    assert bytes(mail.parse_page(reply.payload)) == b"kept"
    thread.lose(1, GUID)
    assert asyncio.run(send(download(sender))).status == c.STATUS_FILE_NOT_EXIST
    assert thread.call(lambda: 7) == 7
    thread.stop()
    thread.stop()
    for node in nodes:
        node.state.close()


class Slow:
    """A commit that waits until it is let go, or fails then."""

    def __init__(self, commit: Callable[[], None]) -> None:
        self.begun, self.go_on, self.calls = threading.Event(), threading.Event(), 0
        self.error: Exception | None = None
        self._commit = commit

    def __call__(self) -> None:
        self.calls += 1
        self.begun.set()
        assert self.go_on.wait(10)
        if self.error is not None:
            raise self.error
        self._commit()


def on_disk(folder: Path, story: Callable[[Kit, Slow], Awaitable[None]], monkeypatch: pytest.MonkeyPatch) -> None:
    """A story of two nodes on disk, of which node 1 has a slow medium."""

    async def whole() -> None:
        nodes = nodes_on_disk(folder)
        cluster = Cluster(nodes)
        world = World(policy=FREE)
        for coin in world.ones:
            for index, node in enumerate(nodes):
                node.state.set_ans([(mail.build_selector(coin.address), coin.an(index))])
        cluster.commit()
        host = RaidaHost(nodes)
        await host.start()
        kit = Kit(world, host)
        slow = Slow(nodes[1].state.commit)
        monkeypatch.setattr(nodes[1].state, "commit", slow)
        try:
            await story(kit, slow)
        finally:
            slow.go_on.set()
            for line in kit.lines:
                await line.close()
            await host.stop()
            for node in nodes:
                node.state.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(whole())


def test_a_slow_disk_holds_up_its_own_node_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(kit: Kit, slow: Slow) -> None:
        lines, other = [await kit.connect(1) for _ in range(4)], await kit.connect(0)
        first = upload(kit.sender, b"1")
        lines[0].send(first)
        await settle(slow.begun.is_set)
        later = [upload(kit.sender, b"2", page=1), upload(kit.sender, b"3", page=2), version(peer=kit.reader)]
        for line, sent in zip(lines[1:], later, strict=True):
            line.send(sent)
        # node 0 knows its coins under other numbers than the kit's peers of node 1 have: a clear request will do
        assert (await other.ask(version(0))).status == 250
        assert slow.calls == 1
        slow.go_on.set()
        assert [(await line.answer(sent)).status for line, sent in zip(lines, [first, *later], strict=True)] == [
            250
        ] * 4
        assert slow.calls == 2  # what came meanwhile was one turn
        assert bytes(mail.parse_page((await lines[0].ask(download(kit.reader, 2))).payload)) == b"3"

    on_disk(tmp_path, story, monkeypatch)


def test_a_disk_that_fails_late_answers_194_and_nothing_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(kit: Kit, slow: Slow) -> None:
        line, other = await kit.connect(1), await kit.connect(1)
        sent, told = upload(kit.sender, b"1"), tell(kit.sender, kit.reader)
        line.send(sent)
        await settle(slow.begun.is_set)
        slow.error = StoreUnavailable("no space left")
        other.send(told)
        slow.go_on.set()
        assert [(await line.answer(sent)).status, (await other.answer(told)).status] == [c.STATUS_FILESYSTEM] * 2
        slow.error = None
        assert (await line.ask(download(kit.reader))).status == c.STATUS_FILE_NOT_EXIST
        assert (await line.ask(upload(kit.sender, b"1"))).status == 250

    on_disk(tmp_path, story, monkeypatch)


@pytest.mark.parametrize("what", ["stop", "rest", "leave"])
def test_nobody_touches_a_node_while_it_commits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    async def story(kit: Kit, slow: Slow) -> None:
        line, state = await kit.connect(1), kit.host.nodes[1].state
        sent = upload(kit.sender, b"1")
        line.send(sent)
        await settle(slow.begun.is_set)
        if what == "leave":  # whoever asked is gone: it is kept all the same
            line.reset()
            slow.go_on.set()
            await settle(lambda: not kit.host._commits)
        else:
            waiting = asyncio.ensure_future(
                kit.host.stop() if what == "stop" else kit.host.at_rest(lambda: state.dirty())
            )
            await asyncio.sleep(0.01)
            assert not waiting.done()
            slow.go_on.set()
            assert not await waiting
        assert state.page(GUID, 10, 0) == b"1"
        assert not state.dirty()

    on_disk(tmp_path, story, monkeypatch)


def test_a_host_thread_reports_why_it_cannot_start() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        thread = HostThread(RaidaHost(World().cluster.nodes, ports=[0, taken.getsockname()[1]]))
        with pytest.raises(OSError):
            thread.start()
    with pytest.raises(RuntimeError, match="not running"):
        thread.call(lambda: None)
    thread.stop()


def test_a_whole_range_goes_up_and_down() -> None:
    data = entropy(c.MAX_RANGE)
    digest = hashlib.sha256(data).digest()
    transfer = b"T" * 16
    steps = [
        (76, objects.Begin(transfer, GUID, bytes(16), 10, 0, 1, 0, 0, bytes(7), 1 << 24, len(data), 0, 1, digest), b""),
        (77, objects.PutRange(transfer, 0, len(data), 1, digest), data),
        (79, objects.Commit(transfer, len(data), 1, digest), b""),
        (82, objects.GetRange(GUID, 10, 1, 0, len(data)), b""),
    ]

    async def story(kit: Kit) -> None:
        line, payload = await kit.connect(), memoryview(b"")
        for command, fields, tail in steps:
            body = kit.sender.identity + objects.build_request(7, fields) + tail
            reply = await line.ask(request(1, c.GROUP_MAIL, command, body, key=kit.sender.key))
            assert reply.status == 250
            payload = memoryview(reply.payload)
        assert bytes(objects.parse_range_got(payload, 7)[1]) == data

    run(story)


# ------------------------------------------------------------------------------------------------- from node to node


async def tickets_of(kit: Kit, coin: Coin) -> list[int]:
    """What the nodes of a host give for a coin."""
    tickets = []
    for index in range(len(kit.host.nodes)):
        line = await kit.connect(index)
        asked = request(index, c.GROUP_HEALING, c.CMD_GET_TICKET, healing.build_get_ticket([coin], index))
        tickets.append(healing.parse_ticket(await line.ask(asked), 1)[1])
    return tickets


async def fix_of(kit: Kit, coin: Coin, node: int) -> packet.Sent:
    """All tickets for a coin, to be shown to one node."""
    body = healing.build_fix([coin.address], bytes(16), await tickets_of(kit, coin))
    return request(node, c.GROUP_HEALING, c.CMD_FIX, body)


def test_a_node_asks_the_others_over_their_sockets() -> None:
    async def story(kit: Kit) -> None:
        coin = kit.world.ones[5]
        sent = await fix_of(kit, coin, 2)
        line = await kit.connect(2)
        assert (await line.ask(sent)).status == 241
        known = kit.host.nodes[2].state.an(mail.build_selector(coin.address))
        assert known == healing.healed_an(2, coin.address, bytes(16))
        echo = request(2, c.GROUP_STATUS, c.CMD_ECHO)
        assert (await line.ask(echo)).status == 250  # the connection goes on
        await kit.host.set_mode(0, "down")
        again = request(2, c.GROUP_HEALING, c.CMD_FIX, healing.build_fix([coin.address], bytes(16), [9] * 3))
        assert (await line.ask(again)).status == 242

    run(story, count=3)


def test_whoever_leaves_while_a_node_asks_harms_nothing() -> None:
    async def story(kit: Kit) -> None:
        coin = kit.world.ones[5]
        sent = await fix_of(kit, coin, 2)
        line = await kit.connect(2)
        line.send(sent)
        await line.writer.drain()
        line.reset()
        other = await kit.connect(2)
        for _ in range(50):
            assert (await other.ask(request(2, c.GROUP_STATUS, c.CMD_ECHO))).status == 250

    run(story, count=3)


def test_a_fix_that_cannot_be_kept_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(kit: Kit) -> None:
        coin = kit.world.ones[5]
        sent = await fix_of(kit, coin, 2)
        state = kit.host.nodes[2].state

        def fail() -> None:
            raise StoreUnavailable("disk full")

        monkeypatch.setattr(state, "commit", fail)
        line = await kit.connect(2)
        assert (await line.ask(sent)).status == c.STATUS_FILESYSTEM
        assert state.an(mail.build_selector(coin.address)) == coin.an(2)

    run(story, count=3)


def test_a_host_with_a_part_of_the_network_asks_nobody_unless_told_where() -> None:
    async def story() -> None:
        world = World(policy=FREE, count=3)
        others = RaidaHost(world.cluster.nodes[:2])
        await others.start()
        there = Kit(world, others)
        places = [("127.0.0.1", port) for port in others.ports()]
        for network, expected in (((), 242), ([*places, ("127.0.0.1", 9)], 241)):
            host = RaidaHost(world.cluster.nodes[2:], network=network)
            await host.start()
            kit = Kit(world, host)
            tickets = await tickets_of(there, world.ones[0])
            body = healing.build_fix([world.ones[0].address], bytes(16), tickets)
            line = await kit.connect(0)
            assert (await line.ask(request(2, c.GROUP_HEALING, c.CMD_FIX, body))).status == expected
            await line.close()
            await host.stop()
        for line in there.lines:
            await line.close()
        await others.stop()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(story())


def test_earned_coins_are_taken_at_the_other_nodes() -> None:
    async def story(kit: Kit) -> None:
        world = kit.world
        for node in range(3):
            assert world.peer(world.ones[0], node).put(world.ones[5:6], code("PAY")) == 241
        line = await kit.connect(0)
        sender = world.peer(world.ones[0], 0)
        rest = mail.build_upload(GUID, code("PAY"), 1, 2, 4) + b"data"
        sent = request(0, c.GROUP_MAIL, c.CMD_UPLOAD, sender.identity + rest, key=sender.key)
        assert (await line.ask(sent)).status == c.STATUS_SUCCESS
        # the other nodes answer node 0 in their own turns: an echo at each, until it has heard of both
        for _ in range(1000):
            if len(kit.host.nodes[0].state.claimed()) == 2:
                break
            await line.ask(request(0, c.GROUP_STATUS, c.CMD_ECHO))
        assert [node for node, _ in kit.host.nodes[0].state.claimed()] == [1, 2]

    run(story, count=3, policy=Policy(redeem="network"))
