"""TCP and UDP around RAIDA nodes: one port of each per node, any number of requests one after another on a connection.

Rules: a node is never called from two places at once, and never waits; frames that became whole in one turn of the
loop are handled together, each changed node commits once, and only then their answers leave. Where a commit waits for a
disk it does so in a thread of its own; what comes for that node meanwhile is its next turn. A parked ping is a
connection with a deadline, not a task. What is past its time is removed between turns, a little at a time.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import itertools
import logging
import os
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, cast

from qmail_core.codec import consts as c
from qmail_core.errors import StoreUnavailable
from qmail_core.raida.node import Node, Outcome, Wait
from qmail_server.raida.between import Between
from qmail_server.raida.clock import Deadlines
from qmail_server.raida.peers import Connection, Datagrams, Mode, Peer, Seat

log = logging.getLogger("qmail.raida")

T = TypeVar("T")

SCRATCH = 1 << 16  # one buffer for all connections: what was read is taken out before the next one reads
FRAME_TIMEOUT = 30.0  # seconds without a byte inside a frame
IDLE_TIMEOUT = 600.0  # seconds without a byte between frames
SWEEP_EVERY = 60.0  # seconds until each node was swept once
SWEEP_PAUSE = 0.05  # seconds between two portions of one sweep
SWEEP_PORTION = 32  # pages, and tells, and transfers of a portion
SLOW_DELAY = 2.0
MAX_PARKED = 256  # pings of one mailbox; more are answered as if their time were over
_COMMITTERS = 32  # nodes whose disks are waited for at the same time: syncs that wait together share one journal write
_LOOKS = 64  # turns of the loop a turn waits for large frames whose bytes keep coming
_PORT_TRIES = 20  # chosen ports tried until one is free for TCP and UDP alike


def flip(data: bytes) -> bytes:
    """What a corrupt node serves: every 64th byte altered."""
    changed = bytearray(data)
    for position in range(0, len(changed), 64):
        changed[position] ^= 0x5A
    return bytes(changed)


class RaidaHost:
    """Listeners around some nodes, in whatever loop `start` is called.

    nodes   each with a state of its own; the host is their only user while it runs
    ports   one per node; none or 0 lets the system choose, and a chosen port is kept for the life of the host
    clock   Unix seconds, the `now` of the nodes
    network where all nodes of the network listen, by index; default: the nodes of this host, if they are all of it
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        *,
        host: str = "127.0.0.1",
        ports: Sequence[int] = (),
        clock: Callable[[], float] = time.time,
        frame_timeout: float = FRAME_TIMEOUT,
        idle_timeout: float = IDLE_TIMEOUT,
        sweep_every: float = SWEEP_EVERY,
        network: Sequence[tuple[str, int]] = (),
    ) -> None:
        self.scratch = memoryview(bytearray(SCRATCH))
        self._host = host
        self._clock = clock
        self._frame_timeout, self._idle_timeout, self._sweep_every = frame_timeout, idle_timeout, sweep_every
        self._seats = [Seat(node, port) for node, port in zip(nodes, ports or [0] * len(nodes), strict=True)]
        self._deadlines: Deadlines[Connection] = Deadlines(self._expire)
        self._frames: list[tuple[Peer, bytearray]] = []  # whole, for the next turn
        self._woken: dict[Connection, None] = {}  # parked, to be looked at in the next turn, each once
        self._network = network
        self._busy: set[Seat] = set()  # their commits are under way; nobody else may touch these nodes
        self._commits: set[asyncio.Future[bool]] = set()
        self._resting = 0  # whoever wants no turn to begin
        self._between = Between(self._seats, self._busy, self._schedule, clock)
        self._turn_due = False
        self._moving = False  # bytes of an unfinished frame came
        self._looks = _LOOKS
        self._started = False
        self._sweeper: asyncio.TimerHandle | None = None
        self._committers = ThreadPoolExecutor(_COMMITTERS, thread_name_prefix="raida-commit")

    @property
    def nodes(self) -> list[Node]:
        """The nodes, by position."""
        return [seat.node for seat in self._seats]

    async def start(self) -> None:
        """Listen for every node that is not down; if one port is taken, for none."""
        self._started = True
        self._committers = ThreadPoolExecutor(_COMMITTERS, thread_name_prefix="raida-commit")
        try:
            for seat in self._seats:
                if seat.mode != "down":
                    await self._listen(seat)
        except OSError:
            await self.stop()
            raise
        self._between.open(self._network or self._own_places())
        self._sweep_next(0)

    def _own_places(self) -> list[tuple[str, int]]:
        """Where the nodes of this host listen, if they are the whole network."""
        own = {seat.node.index: (self._host, seat.port) for seat in self._seats}
        return [own[index] for index in sorted(own)] if sorted(own) == list(range(len(own))) else []

    async def stop(self) -> None:
        """Close listeners and connections; what was answered is committed, what was not is dropped."""
        self._started = False
        if self._sweeper is not None:
            self._sweeper.cancel()
        await self._between.close()
        for seat in self._seats:
            await self._silence(seat)
        self._deadlines.stop()
        self._frames.clear()
        self._woken.clear()
        while self._commits:
            await asyncio.wait(self._commits)
        self._committers.shutdown()

    async def at_rest(self, run: Callable[[], T]) -> T:
        """Run a short function between two turns, when no node is in use."""
        self._resting += 1
        try:
            while self._commits:
                await asyncio.wait(self._commits)
            return run()
        finally:
            self._resting -= 1
            self._schedule()

    def ports(self) -> list[int]:
        """The port of each node, by position."""
        return [seat.port for seat in self._seats]

    def modes(self) -> list[Mode]:
        """How each node behaves, by position."""
        return [seat.mode for seat in self._seats]

    def requests(self) -> list[int]:
        """How many requests each node has handled, by position."""
        return [seat.requests for seat in self._seats]

    async def set_mode(self, index: int, mode: Mode, *, delay: float = SLOW_DELAY) -> None:
        """Make a node behave: up, down (connections refused), slow by `delay` seconds, or corrupt (wrong page data)."""
        seat = self._seats[index]
        was, seat.mode = seat.mode, mode
        seat.delay = delay if mode == "slow" else 0.0
        seat.node.tamper = flip if mode == "corrupt" else None
        if mode == "down":
            await self._silence(seat)
        elif was == "down" and self._started:
            await self._listen(seat)

    async def _listen(self, seat: Seat) -> None:
        """Open both ports of a node; a port the system chose must be free for both."""
        chosen = seat.port
        for left in reversed(range(_PORT_TRIES)):
            try:
                await self._open(seat, chosen)
                return
            except OSError as error:
                if chosen or error.errno != errno.EADDRINUSE or not left:
                    why = os.strerror(error.errno) if error.errno else str(error)
                    where = f"node {seat.node.index} cannot listen on {self._host}:{chosen}"
                    raise OSError(error.errno, f"{where}: {why}") from error

    async def _open(self, seat: Seat, port: int) -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: Connection(self, seat), self._host, port, reuse_address=True, backlog=1024
        )
        family, where = server.sockets[0].family, server.sockets[0].getsockname()
        post = socket.socket(family, socket.SOCK_DGRAM)  # bound here: a loop that fails to bind leaves its own open
        try:
            post.setblocking(False)
            post.bind(where)
            _, seat.datagrams = await loop.create_datagram_endpoint(lambda: Datagrams(self, seat), sock=post)
        except OSError:
            post.close()
            server.close()
            await server.wait_closed()
            raise
        seat.server, seat.port = server, where[1]

    async def _silence(self, seat: Seat) -> None:
        if seat.server is not None:
            seat.server.close()
        if seat.datagrams is not None:
            seat.datagrams.close()
            seat.datagrams = None
        for peer in list(seat.peers):
            peer.abort()
        if seat.server is not None:
            await seat.server.wait_closed()
            seat.server = None
        while seat.peers:  # noqa: ASYNC110 - aborts are reported in the next turn of the loop
            await asyncio.sleep(0)

    # ------------------------------------------------------------------ from peers
    def joined(self, peer: Connection) -> None:
        """A connection is there."""
        peer.seat.peers.add(peer)
        self.watch(peer, inside=False)

    def left(self, peer: Connection) -> None:
        """A connection is gone."""
        peer.seat.peers.discard(peer)
        self._unpark(peer)
        self._deadlines.drop(peer)

    def watch(self, peer: Connection, *, inside: bool) -> None:
        """Close a peer that stays silent too long, inside a frame or between frames."""
        self._moving = self._moving or inside
        span = self._frame_timeout if inside else self._idle_timeout
        self._deadlines.put(peer, asyncio.get_running_loop().time() + span)

    def accept(self, peer: Peer, frame: bytearray) -> None:
        """Take a whole frame into the next turn."""
        self._frames.append((peer, frame))
        if not self._turn_due:
            self._schedule()

    def _unpark(self, peer: Connection) -> None:
        """Forget what a peer waits for."""
        if peer.wait is None:
            return
        parked = peer.seat.parked
        parked[peer.wait.mailbox].remove(peer)
        if not parked[peer.wait.mailbox]:
            del parked[peer.wait.mailbox]
        peer.wait = None

    def _schedule(self) -> None:
        if not self._turn_due:
            self._turn_due = True
            asyncio.get_running_loop().call_soon(self._turn)

    # ------------------------------------------------------------------ one turn
    def _turn(self) -> None:
        """Handle what is ready, commit each changed node once, then answer.

        Frames that are just arriving are waited for while they do: one commit then serves pages of several rows.
        """
        if self._moving and self._looks:
            self._moving = False
            self._looks -= 1
            asyncio.get_running_loop().call_soon(self._turn)
            return
        self._turn_due = self._moving = False
        self._looks = _LOOKS
        if self._resting:
            return
        frames, woken = self._take_ready()
        now = self._clock()
        done: list[tuple[Peer, Outcome]] = []
        for peer, frame in frames:
            seat = peer.seat
            seat.requests += 1
            if peer.is_reachable:
                node = seat.node
                handle = node.handle_datagram if peer.is_datagram else node.handle
                done.append((peer, handle(frame, now)))
        done += [(peer, peer.seat.node.resume(peer.wait, now)) for peer in woken if peer.wait is not None]
        settled = self._between.settle(now)
        done += [(peer, outcome) for _, peer, outcome in settled if peer is not None]
        changed: dict[Seat, list[tuple[Peer, Outcome]]] = {peer.seat: [] for peer, outcome in done if outcome.changed}
        changed |= {seat: [] for seat, _, outcome in settled if outcome.changed}
        idle = asyncio.get_running_loop().time() + self._idle_timeout
        for peer, outcome in done:
            if peer.seat in changed:
                # it may have read what is lost if the commit fails, so all of them wait for it
                changed[peer.seat].append((peer, outcome))
            else:
                self._finish(peer, outcome, now, idle)
        for seat, waiting in changed.items():
            self._keep(seat, functools.partial(self._kept, seat, waiting))

    def _take_ready(self) -> tuple[list[tuple[Peer, bytearray]], list[Connection]]:
        """Frames and parked peers whose nodes are free; the others stay where they are."""
        busy = self._busy
        frames, woken = self._frames, list(self._woken)
        self._frames = [one for one in frames if one[0].seat in busy] if busy else []
        self._woken = {peer: None for peer in woken if peer.seat in busy}
        if self._frames:
            frames = [one for one in frames if one[0].seat not in busy]
        return frames, [peer for peer in woken if peer.seat not in busy]

    def _keep(self, seat: Seat, then: Callable[[bool], None]) -> None:
        """Commit a node and say whether that worked; several at a time where they wait for their disks."""
        if not seat.node.state.waits:
            then(_commit(seat))
            return

        def ended(future: asyncio.Future[bool]) -> None:
            self._busy.discard(seat)
            self._commits.discard(future)
            then(future.result())
            if self._frames or self._woken or self._between.is_due:
                self._schedule()

        self._busy.add(seat)
        future = asyncio.get_running_loop().run_in_executor(self._committers, _commit, seat)
        self._commits.add(future)
        future.add_done_callback(ended)

    def _kept(self, seat: Seat, waiting: Sequence[tuple[Peer, Outcome]], kept: bool) -> None:
        """Answer what a commit was for."""
        now, idle = self._clock(), asyncio.get_running_loop().time() + self._idle_timeout
        for peer, outcome in waiting:
            self._finish(peer, outcome if kept else seat.node.fail(outcome, c.STATUS_FILESYSTEM), now, idle)
        if kept:
            self._between.run_errands(seat, now)

    def _finish(self, peer: Peer, outcome: Outcome, now: float, idle: float) -> None:
        """Park, ask others, answer or ignore; `idle` is when a peer that stays silent from now on is closed."""
        if outcome.ask is not None:
            self._between.ask(peer, outcome)
            return
        if isinstance(peer, Connection):
            if outcome.wait is not None:
                self._park(peer, outcome.wait, now)
                return
            if peer.wait is not None:
                self._unpark(peer)
            if peer.transport is not None:
                peer.deadline = idle
        seat, reply = peer.seat, outcome.reply
        if reply is not None:
            if seat.delay:
                late = functools.partial(peer.answer, reply, close=outcome.close)
                asyncio.get_running_loop().call_later(seat.delay, late)
            else:
                peer.answer(reply, close=outcome.close)
        if outcome.woken:
            for parked in itertools.chain.from_iterable(seat.parked.get(mailbox, ()) for mailbox in outcome.woken):
                self._woken[parked] = None
                self._schedule()

    def _park(self, peer: Connection, wait: Wait, now: float) -> None:
        if peer.wait is not None or peer.transport is None:
            return
        parked = peer.seat.parked.setdefault(wait.mailbox, [])
        if len(parked) >= MAX_PARKED:
            peer.answer(cast(bytearray, peer.seat.node.expire(wait, now).reply), close=False)
            return
        parked.append(peer)
        self._deadlines.put(peer, asyncio.get_running_loop().time() + max(wait.until - now, 0.0))
        peer.park(wait)

    def _expire(self, peer: Connection) -> None:
        """A deadline of a peer passed: answer its ping, or close it. A request in hand is answered first."""
        idle = asyncio.get_running_loop().time() + self._idle_timeout
        if peer.wait is not None:
            now = self._clock()
            self._finish(peer, peer.seat.node.expire(peer.wait, now), now, idle)
            self._deadlines.put(peer, peer.deadline)
        elif peer.is_busy:
            self._deadlines.put(peer, idle)
        else:
            peer.abort()

    # ------------------------------------------------------------------ what is past its time
    def _sweep_next(self, index: int, delay: float | None = None) -> None:
        span = self._sweep_every / max(len(self._seats), 1) if delay is None else delay
        self._sweeper = asyncio.get_running_loop().call_later(span, self._sweep, index)

    def _sweep(self, index: int) -> None:
        """Remove a portion at one node; go on there soon if there was more, else with the next one."""
        if not self._seats:
            return
        seat = self._seats[index % len(self._seats)]
        if seat in self._busy or self._resting:
            self._sweep_next(index, SWEEP_PAUSE)
            return
        count = seat.node.sweep(self._clock(), SWEEP_PORTION)
        swept = functools.partial(self._swept, index, count)
        if seat.node.state.dirty():
            self._keep(seat, swept)
        else:
            swept(True)

    def _swept(self, index: int, count: int, kept: bool) -> None:
        if not self._started:
            return
        if kept and count >= SWEEP_PORTION:
            self._sweep_next(index, SWEEP_PAUSE)
        else:
            self._sweep_next(index + 1)


def _commit(seat: Seat) -> bool:
    """Commit one node, or take its changes back."""
    try:
        seat.node.state.commit()
    except StoreUnavailable as error:
        log.error("node %d: %s", seat.node.index, error)
        seat.node.state.rollback()
        return False
    return True
