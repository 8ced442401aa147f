"""A transport that misbehaves by plan: for tests, benches and demonstrations. Seeded, so every run is the same run.

What can go wrong between two machines is done to whole exchanges here: a node is slow, silent, gone, breaks off, or its
answers arrive altered. What bytes look like on their way (answers in small pieces, connections reset half-way) belongs
to real sockets; `FaultyServer` stands in front of a node for that.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable

from msgspec import Struct
from typing_extensions import Buffer

from qmail_core.errors import ConnectError, TransportError
from qmail_core.transport.base import Cancel, Done, Transport


class Faults(Struct):
    """What is wrong with one node; may be changed at any time. Shares are between 0 and 1."""

    latency: float = 0.0  # seconds on top of every exchange
    jitter: float = 0.0  # up to so many more, evenly spread
    bandwidth: float = 0.0  # bytes a second of question and answer; 0 is no limit
    slow: float = 0.0  # share of exchanges that take `slow_by` longer
    slow_by: float = 0.2
    down: bool = False  # connections are refused
    hang: bool = False  # requests are taken and never answered
    reset: float = 0.0  # share of exchanges that break off before the answer
    flip: float = 0.0  # share of answers with one bit altered
    truncate: float = 0.0  # share of answers cut short
    stale: float = 0.0  # share of requests answered with an earlier answer of this node
    swap: float = 0.0  # share of requests answered with what another node said last


class FaultyTransport:
    """Puts a plan in front of a transport.

    plan   faults by node; nodes that are not in it are well
    """

    def __init__(self, inner: Transport, plan: dict[int, Faults], seed: int = 0) -> None:
        self.plan = plan
        self._inner = inner
        self._random = random.Random(seed)
        self._last: dict[int, bytes] = {}  # the last answer of each node
        self._open: set[_Exchange] = set()

    def nodes(self) -> int:
        return self._inner.nodes()

    def location(self, node: int) -> tuple[str, int]:
        return self._inner.location(node)

    def send(self, node: int, frame: Buffer, enc: int, done: Done) -> Cancel:
        faults = self.plan.get(node)
        if faults is None:
            return self._inner.send(node, frame, enc, done)
        exchange = _Exchange(self, node, faults, done)
        self._open.add(exchange)
        if faults.hang:
            return exchange.stop
        delay = faults.latency + self._random.uniform(0.0, faults.jitter)
        if self.happens(faults.slow):
            delay += faults.slow_by
        if faults.bandwidth:
            delay += len(memoryview(frame)) / faults.bandwidth
        exchange.later(delay, lambda: exchange.begin(frame, enc))
        return exchange.stop

    def happens(self, share: float) -> bool:
        """Whether something that happens in so many cases does now."""
        return share > 0 and self._random.random() < share

    def altered(self, node: int, faults: Faults, answer: memoryview) -> memoryview:
        """What arrives instead of an answer."""
        data = bytearray(answer)
        others = [other for other in self._last if other != node]
        before = self._last.get(node)
        self._last[node] = bytes(data)
        if before is not None and self.happens(faults.stale):
            data = bytearray(before)
        if others and self.happens(faults.swap):
            data = bytearray(self._last[self._random.choice(others)])
        if self.happens(faults.flip):
            data[self._random.randrange(len(data))] ^= 1 << self._random.randrange(8)
        if self.happens(faults.truncate):
            del data[self._random.randrange(len(data)) :]
        return memoryview(data)

    def ended(self, exchange: _Exchange) -> None:
        """An exchange is over."""
        self._open.discard(exchange)

    def pass_on(self, node: int, frame: Buffer, enc: int, done: Done) -> Cancel:
        """Send through the transport behind."""
        return self._inner.send(node, frame, enc, done)

    async def close(self) -> None:
        for exchange in list(self._open):
            exchange.stop()
        await self._inner.close()


class _Exchange:
    """One exchange with a node that is not well."""

    def __init__(self, owner: FaultyTransport, node: int, faults: Faults, done: Done) -> None:
        self._owner = owner
        self._node = node
        self._faults = faults
        self._done = done
        self._undo: Callable[[], None] = lambda: None

    def later(self, delay: float, step: Callable[[], None]) -> None:
        """Go on after a while; a delay of 0 is the next turn."""
        self._undo = asyncio.get_running_loop().call_later(delay, step).cancel

    def begin(self, frame: Buffer, enc: int) -> None:
        """The request leaves."""
        why = "connection refused" if self._faults.down else "connection reset"
        if self._faults.down or self._owner.happens(self._faults.reset):
            self._end(ConnectError(f"node {self._node}: {why}"))
            return
        self._undo = self._owner.pass_on(self._node, frame, enc, self._answered)

    def _answered(self, answer: memoryview | TransportError) -> None:
        if isinstance(answer, TransportError):
            self._end(answer)
            return
        faults = self._faults
        arrived = self._owner.altered(self._node, faults, answer)
        if faults.bandwidth:
            self.later(len(arrived) / faults.bandwidth, lambda: self._end(arrived))
        else:
            self._end(arrived)

    def _end(self, answer: memoryview | TransportError) -> None:
        self._owner.ended(self)
        self._done(answer)

    def stop(self) -> None:
        """Let go of it."""
        self._owner.ended(self)
        self._undo()


class Stream(Struct):
    """What a FaultyServer does to the bytes of one node's answers."""

    slice: int = 0  # bytes of a piece; 0 leaves answers whole
    pause: float = 0.0  # seconds between pieces
    reset_after: int = -1  # bytes after which the connection is reset; negative for never
    half_open: bool = False  # requests are read, no answer leaves
    close: bool = False  # the connection is closed behind an answer (of up to 64 KB), as deployed servers do


class FaultyServer:
    """A listener in front of one node: passes requests on, and mistreats the answers."""

    def __init__(self, host: str, port: int, faults: Stream) -> None:
        self.faults = faults
        self.port = 0
        self.connections = 0
        self._where = (host, port)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen on `port`, which is set then."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close everything."""
        if self._server is not None:
            self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.connections += 1
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._where)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(_pump(reader, far_writer))
                    group.create_task(self._answers(far_reader, writer))
            finally:
                far_writer.close()
        except* OSError:
            pass  # either side left
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sent = 0
        while data := await reader.read(65_536):
            if self.faults.half_open:
                continue
            step = self.faults.slice or len(data)
            for at in range(0, len(data), step):
                piece = data[at : at + step]
                if 0 <= self.faults.reset_after < sent + len(piece):
                    writer.write(piece[: self.faults.reset_after - sent])
                    writer.transport.abort()
                    return
                writer.write(piece)
                await writer.drain()
                sent += len(piece)
                await asyncio.sleep(self.faults.pause)
            if self.faults.close:
                writer.close()
                return


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    raise ConnectionResetError
