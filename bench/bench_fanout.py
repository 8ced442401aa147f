"""One request to each of 25 nodes, and all their answers: Python against C, and against the usual asyncio client.

What is measured: our fanout on one core (frames packed and answers opened with AES-128, health and limits included)
against fanout_client.c on the same core, which sends one ready frame and looks into no answer; the servers are one C
process on the other core (fanout_peer.c). All sides take turns in the same run; a value is the median fanout, a ratio
the median of the ratios of neighbouring batches: how many times longer ours takes than C, how many times less than
asyncio streams with gather. Then fanouts whose servers are late, hang or are slow now and then, by a transport
with faults in front of the same servers: medians and p99 against the same fanout without faults. Last a large
attachment up and down (bulk.py); `--size` says how many MiB it has.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import secrets
import shlex
import statistics
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import uvloop
from qmail_server.memory import keep_freed
from typing_extensions import Buffer

from bench import bulk
from bench.measure import Row, row, want
from qmail_core import Cluster, Engine, Source
from qmail_core.codec import consts as c
from qmail_core.codec import mail, packet
from qmail_core.codec.cipher import NO_KEY, Key
from qmail_core.codec.packet import Batch
from qmail_core.engine.context import Context
from qmail_core.engine.fetch import Fetch
from qmail_core.model import FileEntry, Tell, nodes_of
from qmail_core.transport.base import Cancel, Done, Transport
from qmail_core.transport.fanout import Fanout
from qmail_core.transport.faults import Faults, FaultyTransport
from qmail_core.transport.tcp import TcpTransport
from qmail_core.transport.udp import UdpTransport

NODES = 25
KIB, MIB = 1 << 10, 1 << 20
BATCHES = 15
SPAN = 0.05  # seconds a batch takes at least

Times = list[float]
Side = Callable[[int], Times]  # makes so many fanouts, returns the seconds of each


class Peer:
    """The servers' process, the C client, and what both agree on."""

    def __init__(self, folder: str) -> None:
        here = Path(__file__).parent
        compiler = [*shlex.split(sysconfig.get_config_var("CC") or "cc"), "-O2", f"-I{here.parent / 'ext'}"]
        server, client = f"{folder}/peer", f"{folder}/client.so"
        sources = [str(here / "fanout_peer.c"), str(here.parent / "ext" / "aes_ni.c")]
        subprocess.run([*compiler, "-o", server, *sources], check=True, capture_output=True)
        shared = [*compiler, "-shared", "-fPIC", "-o", client, str(here / "fanout_client.c")]
        subprocess.run(shared, check=True, capture_output=True)
        self.library = ctypes.CDLL(client)
        self.key = Key(c.ENC_COIN, secrets.token_bytes(16), bytes(5))
        self.process = subprocess.Popen(
            [server, self.key.secret.hex()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        lines = [self.process.stdout.readline().split() for _ in range(NODES)]
        self.keeping, self.closing = ([int(line[at]) for line in lines] for at in (0, 1))

    def close(self) -> None:
        """End the servers."""
        self.process.communicate()


def batch(key: Key, size: int, *, small: bool = False) -> Batch:
    """The requests of one fanout, `size` bytes to each node."""
    data = bytes(size)
    group, command = (c.GROUP_STATUS, c.CMD_ECHO) if small else (c.GROUP_MAIL, c.CMD_UPLOAD_PAGE)
    return Batch(group, command, list(range(NODES)), [key] * NODES, [b""] * NODES, [data] * NODES)


def ours(runner: asyncio.Runner, fanout: Fanout, key: Key, size: int, *, small: bool = False) -> Side:
    """Our fanout."""

    async def turn(rounds: int) -> Times:
        times = []
        for _ in range(rounds):
            start = time.perf_counter()
            run = fanout.run(batch(key, size, small=small), timeout=5)
            await run.finish()
            times.append(time.perf_counter() - start)
            assert len(run.good) == NODES, run.failed
        return times

    return lambda rounds: runner.run(turn(rounds))


def in_c(peer: Peer, ports: list[int], size: int, *, keep: bool, datagrams: bool = False) -> Side:
    """The same in C, with a frame that is not encrypted."""
    request = packet.pack(batch(NO_KEY, size, small=datagrams).only([0]), bytes(packet.ENTROPY_SHORT))[0]
    frame = bytes(memoryview(request.frame))
    numbers = (ctypes.c_int * NODES)(*ports)

    def turn(rounds: int) -> Times:
        times = (ctypes.c_double * rounds)()
        length = ctypes.c_size_t(len(frame))
        if datagrams:
            failed = peer.library.fanout_udp(numbers, frame, length, rounds, times)
        else:
            failed = peer.library.fanout_tcp(numbers, frame, length, rounds, int(keep), times)
        assert not failed, "a connection failed; after many runs wait a minute for the system to free its ports"
        return list(times)

    return turn


class Streams:
    """What is usually written: a stream for each node and gather."""

    def __init__(self, ports: list[int], frame: bytes, *, keep: bool) -> None:
        self._ports = ports
        self._frame = frame
        self._keep = keep
        self._open: dict[int, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}

    async def one(self, port: int) -> bytes:
        """One exchange."""
        if port not in self._open:
            self._open[port] = await asyncio.open_connection("127.0.0.1", port, limit=4 * MIB)
        reader, writer = self._open[port]
        writer.write(self._frame)
        await writer.drain()
        head = await reader.readexactly(c.HEADER_SIZE)
        body = await reader.readexactly(int.from_bytes(head[9:12], "big"))
        if not self._keep:
            del self._open[port]
            writer.close()
        return body

    async def turn(self, rounds: int) -> Times:
        """So many fanouts."""
        times = []
        for _ in range(rounds):
            start = time.perf_counter()
            await asyncio.gather(*map(self.one, self._ports))
            times.append(time.perf_counter() - start)
        return times

    async def close(self) -> None:
        """Close what is kept."""
        for _, writer in self._open.values():
            writer.close()
            await writer.wait_closed()


def turns(sides: list[Side]) -> list[list[Times]]:
    """Batches of all sides, one after the other."""
    rounds = []
    for side in sides:
        side(3)
        rounds.append(max(5, int(SPAN / statistics.median(side(5)))))
    return [[side(count) for side, count in zip(sides, rounds, strict=True)] for _ in range(BATCHES)]


def compared(what: str, found: list[list[Times]], at: int, peer: str, goal: str) -> Row:
    """One row: how side 0 compares with side `at`; a goal "<= 1.6 x" is on ours / theirs, ">= 3 x" on theirs / ours."""
    medians = [[statistics.median(times) for times in sides] for sides in found]
    less = goal.startswith("<=")
    ratios = [m[0] / m[at] if less else m[at] / m[0] for m in medians]
    low, middle, high = statistics.quantiles(ratios, n=4)
    value = statistics.median(m[0] for m in medians) * 1e6
    line = row(what, value, "us", (high - low) / 2 / middle, (peer, middle))
    bound = float(goal.split()[1])
    holds = middle <= bound if less else middle >= bound
    return line | {"goal": goal, "holds": holds}


@contextlib.contextmanager
def client(transport: Transport) -> Iterator[tuple[asyncio.Runner, Fanout]]:
    """A loop and a fanout over a transport."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            yield runner, Fanout(transport, os.urandom)
        finally:
            runner.run(transport.close())


def tcp(ports: list[int]) -> TcpTransport:
    """A transport to these ports."""
    return TcpTransport(nodes_of([("127.0.0.1", port) for port in ports]))


def streams_side(
    peer: Peer, size: int, *, keep: bool, stack: contextlib.ExitStack, loop: Callable[[], asyncio.AbstractEventLoop]
) -> Side:
    """The usual client on a loop of its own."""
    request = packet.pack(batch(NO_KEY, size).only([0]), bytes(packet.ENTROPY_SHORT))[0]
    runner = stack.enter_context(asyncio.Runner(loop_factory=loop))
    side = Streams(peer.keeping if keep else peer.closing, bytes(memoryview(request.frame)), keep=keep)
    stack.callback(lambda: runner.run(side.close()))
    return lambda rounds: runner.run(side.turn(rounds))


def exchanges(peer: Peer) -> Iterator[Row]:
    """TCP, kept and new."""
    plans: list[tuple[str, int, bool, str, str | None]] = [
        ("25 x 1 KiB, kept connections", KIB, True, "<= 1.6 x", ">= 3 x"),
        ("25 x 1 KiB, new connections", KIB, False, "<= 1.6 x", ">= 2.5 x"),
        ("25 x 64 KiB, kept connections", 64 * KIB, True, "<= 2.3 x", None),
        ("25 x 1 MiB, kept connections", MIB, True, "<= 2.0 x", None),
    ]
    for what, size, keep, goal, streams_goal in plans:
        ports = peer.keeping if keep else peer.closing
        with contextlib.ExitStack() as stack:
            runner, fanout = stack.enter_context(client(tcp(ports)))
            sides = [ours(runner, fanout, peer.key, size), in_c(peer, ports, size, keep=keep)]
            if streams_goal is not None:
                loop = asyncio.new_event_loop
                sides.append(streams_side(peer, size, keep=keep, stack=stack, loop=loop))
            found = turns(sides)
        yield compared(what, found, 1, "C epoll", goal)
        if streams_goal is not None:
            yield compared(what, found, 2, "asyncio streams", streams_goal)


def datagrams(peer: Peer) -> Iterator[Row]:
    """UDP."""
    where = nodes_of([("127.0.0.1", port) for port in peer.keeping])
    transport = UdpTransport(where, TcpTransport(where), timeout=2, largest=1400)
    with client(transport) as (runner, fanout):
        sides = [
            ours(runner, fanout, peer.key, KIB, small=True),
            in_c(peer, peer.keeping, KIB, keep=True, datagrams=True),
        ]
        found = turns(sides)
    yield compared("25 x 1 KiB, datagrams", found, 1, "C sendmmsg", "<= 1.8 x")


# ---- reading k of n stripes while servers misbehave ----


class Reading:
    """One page row of a stored object, read again and again by the engine from 25 nodes in this process."""

    def __init__(self, cluster: Cluster, engine: Engine, tell: Tell, entry: FileEntry) -> None:
        self.cluster = cluster
        self.engine = engine
        self.tell = tell
        self.entry = entry

    @classmethod
    async def prepare(cls, cluster: Cluster) -> Reading:
        """Store the object: a page row of 25 x 64 KiB, 20 of which are enough."""
        sender = await cluster.engine("sender")
        reader = await cluster.engine("reader")
        attachment = Source("large", data=bytes(20 * 64 * KIB))
        await sender.send(sender.draft(["reader"], "large", "", attachments=[attachment]))
        guid = (await reader.peek()).notifications[-1].tell.guid
        tell = mail.parse_record(memoryview(reader._store.mail.tell(guid).record))[0]
        return cls(cluster, reader, tell, FileEntry(c.FILE_ATTACHMENT, 0, len(attachment.data or b""), None))

    def side(self, runner: asyncio.Runner, plan: dict[int, Faults], asked: list[int]) -> Side:
        """Reads by a client of its own that learns about these servers; lists the nodes it asked in `asked`."""
        engine = self.engine._ctx
        context = Context(
            engine.config,
            engine.coin,
            _Counting(FaultyTransport(engine.transport, plan, seed=25), asked),
            engine.store,
            engine.clock,
            engine.entropy,
        )

        async def turn(rounds: int) -> Times:
            times = []
            for _ in range(rounds):
                start = time.perf_counter()
                await Fetch(context, self.tell, self.entry.file_type, self.entry).row(0)
                times.append(time.perf_counter() - start)
            return times

        return lambda rounds: runner.run(turn(rounds))


class _Counting:
    """Lists who is asked, whether an answer comes or not: a hedge that is cancelled has been paid for on the wire."""

    def __init__(self, inner: Transport, asked: list[int]) -> None:
        self._inner = inner
        self._asked = asked
        self.nodes, self.location, self.close = inner.nodes, inner.location, inner.close

    def send(self, node: int, frame: Buffer, enc: int, done: Done) -> Cancel:
        self._asked.append(node)
        return self._inner.send(node, frame, enc, done)


def faults() -> Iterator[Row]:
    """Servers that are late, hang, or are slow now and then."""
    every = range(NODES)
    plans: list[tuple[str, dict[int, Faults], float, str]] = [
        ("read 20 of 25, one server 50 ms late, p50", {3: Faults(latency=0.05)}, 0.5, "<= 1.1 x"),
        ("read 20 of 25, five servers hang, p99", {n: Faults(hang=True) for n in range(0, 25, 5)}, 0.99, "<= 1.2 x"),
        ("read 20 of 25, 2 % of answers 200 ms late, p99", {n: Faults(slow=0.02) for n in every}, 0.99, "<= 1.3 x"),
    ]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        cluster = runner.run(_entered(Cluster(NODES)))
        reading = runner.run(Reading.prepare(cluster))
        well = {node: Faults() for node in every}
        for what, plan, share, goal in plans:
            asked: list[int] = []
            sides = [reading.side(runner, well | plan, asked), reading.side(runner, well, [])]
            for side in sides:
                side(60)  # what a client that has been up for a while knows
            asked.clear()
            found = [[side(8) for side in sides] for _ in range(5 * BATCHES)]  # short turns: noise meets both sides
            ours, healthy = (sorted(t for turn in found for t in turn[at]) for at in (0, 1))
            at = int(share * len(ours))
            ratio = ours[at] / healthy[at]
            line = row(what, ours[at] * 1e6, "us", 0.0, ("no faults", ratio))
            yield line | {"goal": goal, "holds": ratio <= float(goal.split()[1])}
            extra = 100 * (len(asked) / (20 * len(ours)) - 1)
            yield want(row(what.rpartition(",")[0] + ", extra bytes", extra, "%", 0.0), "<= 5 %")
        runner.run(cluster.close())


async def _entered(cluster: Cluster) -> Cluster:
    return await cluster.__aenter__()


@contextlib.contextmanager
def servers() -> Iterator[Peer]:
    """The peer on its core, this process on another."""
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="qmail-bench-") as folder:
        peer = Peer(folder)
        os.sched_setaffinity(peer.process.pid, {cores[0]})
        os.sched_setaffinity(0, {cores[-1]})
        try:
            yield peer
        finally:
            os.sched_setaffinity(0, cores)
            peer.close()


def rows(size: int = bulk.SIZE) -> Iterator[Row]:
    """All rows of this bench; `size` is that of the large attachment, in bytes."""
    keep_freed()  # as `qmail serve` and `qmail raida` do
    with servers() as peer:
        yield from exchanges(peer)
        yield from datagrams(peer)
    yield from faults()
    yield from bulk.rows(size)
