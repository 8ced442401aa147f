"""TCP around RAIDA nodes: one listener per node, any number of requests one after another on a connection.

Rules: a node is never called from two places at once, and never waits; frames that became whole in one turn of the
loop are handled together, each changed node commits once, and only then their answers leave. One connection has one
request in hand: what the peer sends behind it stays in the kernel or in one small buffer. A parked ping is an entry in
a heap, not a task.
"""

from __future__ import annotations

import asyncio
import functools
import heapq
import itertools
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal, TypeVar, cast

import uvloop
from msgspec import Struct, field

from qmail_core.codec import consts as c
from qmail_core.codec import exchange, packet
from qmail_core.codec.packet import Reply
from qmail_core.errors import RemoteProtocolError, StoreUnavailable
from qmail_core.model import nodes_of
from qmail_core.raida.node import Ask, Node, Outcome, Wait
from qmail_core.transport.peers import Peers
from qmail_core.transport.tcp import TcpTransport

log = logging.getLogger("qmail.raida")

SCRATCH = 4096  # holds any header and most whole requests; larger bodies go straight into their own buffer
FRAME_TIMEOUT = 30.0  # seconds without a byte inside a frame
IDLE_TIMEOUT = 600.0  # seconds without a byte between frames
DRAIN_LIMIT = 2 * c.MAX_BODY  # bytes read and forgotten behind a refused frame
SLOW_DELAY = 2.0
_ERRANDS = 60.0  # seconds between looks at what nodes want to ask for themselves
_COMMITTERS = 4  # nodes whose disks are waited for at the same time

Mode = Literal["up", "down", "slow", "corrupt"]
T = TypeVar("T")


def flip(data: bytes) -> bytes:
    """What a corrupt node serves: every 64th byte altered."""
    changed = bytearray(data)
    for position in range(0, len(changed), 64):
        changed[position] ^= 0x5A
    return bytes(changed)


class _Seat(Struct, eq=False):
    """One node of a host: how it behaves, its listener and its connections."""

    node: Node
    port: int
    mode: Mode = "up"
    delay: float = 0.0
    requests: int = 0  # frames handled since the start
    server: asyncio.Server | None = None
    peers: set[_Connection] = field(default_factory=set)
    parked: dict[bytes, set[_Connection]] = field(default_factory=dict)  # by mailbox


class _Answers(Struct, eq=False):
    """What other nodes answered to one Ask; without a peer nobody waits for what comes of it."""

    seat: _Seat
    peer: _Connection | None
    ask: Ask
    replies: dict[int, Reply]


class _Connection(asyncio.BufferedProtocol):
    """Cuts a byte stream into frames and hands them to the host, one at a time."""

    def __init__(self, host: RaidaHost, seat: _Seat) -> None:
        self._host = host
        self.seat = seat
        self.wait: Wait | None = None
        self.transport: asyncio.Transport | None = None
        self._scratch = memoryview(bytearray(SCRATCH))
        self._filled = 0
        self._frame: memoryview | None = None  # a frame too large for the scratch buffer
        self._have = 0
        self._busy = False  # a frame is with the host
        self._ended = False  # the peer sends nothing more
        self._stalled = False  # the peer does not read its answers
        self._draining: int | None = None  # bytes still forgiven

    # ------------------------------------------------------------------ asyncio
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if self.seat.mode == "down":  # it was accepted just before the listener closed
            self.abort()
        self.seat.peers.add(self)
        self._host.watch(self, inside=False)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self.seat.peers.discard(self)
        self._host.unwatch(self)
        self._host.unpark(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._frame is not None:
            return self._frame[self._have :]
        return self._scratch[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        if self._draining is not None:
            self._drained(nbytes)
        elif self._frame is not None:
            self._have += nbytes
            self._take_large()
        else:
            self._filled += nbytes
            if not self._busy and not self._stalled:
                self._take()
            elif self._filled == SCRATCH:
                self._full()

    def eof_received(self) -> bool:
        """A peer may close its half right behind a request; a parked one that does is gone."""
        self._ended = True
        return self._busy and self.wait is None

    def pause_writing(self) -> None:
        self._stalled = True

    def resume_writing(self) -> None:
        self._stalled = False
        self._go_on()

    # ------------------------------------------------------------------ bytes to frames
    def _take(self) -> None:
        """Hand the next whole frame to the host, or arrange for its missing bytes."""
        try:
            size = exchange.request_size(self._scratch[: self._filled])
        except RemoteProtocolError:
            self._refuse()
            return
        if size is None or size > self._filled:
            self._need_more(size)
            return
        frame = bytearray(self._scratch[:size])
        rest = self._filled - size
        self._scratch[:rest] = self._scratch[size : self._filled].tobytes()
        self._filled = rest
        self._hand_over(frame)

    def _need_more(self, size: int | None) -> None:
        if self._ended:
            self.close()
            return
        if size is not None:
            self._frame = memoryview(bytearray(size))
            self._frame[: self._filled] = self._scratch[: self._filled]
            self._have, self._filled = self._filled, 0
        self._host.watch(self, inside=bool(self._filled or self._frame))

    def _take_large(self) -> None:
        assert self._frame is not None
        if self._have < len(self._frame):
            self._host.watch(self, inside=True)
            return
        frame = cast(bytearray, self._frame.obj)
        self._frame = None
        self._hand_over(frame)

    def _hand_over(self, frame: bytearray) -> None:
        self._busy = True
        self._host.unwatch(self)
        self._host.accept(self, frame)

    def _full(self) -> None:
        """Stop reading behind a request in hand. A parked peer must stay readable, or its leaving goes unnoticed."""
        if self.wait is not None:
            self.abort()
        elif self.transport is not None:
            self.transport.pause_reading()

    def _refuse(self) -> None:
        """Answer a frame too large to accept, before its body came. QMail wire A.11."""
        head = self._scratch[: c.HEADER256_SIZE]
        self._busy = True
        self.answer(packet.build_refusal(packet.read_header(head), c.STATUS_PACKET_LENGTH, echo=False), close=True)

    # ------------------------------------------------------------------ answers
    def answer(self, reply: bytearray, *, close: bool) -> None:
        """Send an answer and go on with what the peer sent meanwhile, or close behind it."""
        if self.transport is None:
            return
        self._busy = False
        self.transport.write(reply)
        if close:
            self._drain()
        else:
            self._go_on()

    def _go_on(self) -> None:
        """Take the next frame, unless one is in hand or the peer lets its answers pile up."""
        if self._busy or self.transport is None or self._draining is not None:
            return
        if self._stalled:
            self._host.watch(self, inside=False)
            return
        if self._filled == SCRATCH:
            self.transport.resume_reading()
        if self._frame is None:
            self._take()

    def park(self, wait: Wait) -> None:
        """Hold the connection until the host answers."""
        self.wait = wait
        if self._ended:
            self.close()
        elif self._filled == SCRATCH:
            self.abort()

    def _drain(self) -> None:
        """Let the peer finish sending: closing with unread bytes would reset the connection and lose the answer."""
        self._filled = 0
        self._draining = DRAIN_LIMIT
        if self._ended or self.transport is None:
            self.close()
            return
        self.transport.write_eof()
        self.transport.resume_reading()
        self._host.watch(self, inside=True)

    def _drained(self, nbytes: int) -> None:
        assert self._draining is not None
        self._draining -= nbytes
        if self._draining < 0:
            self.abort()

    def close(self) -> None:
        """Close once everything written has left."""
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """Close now."""
        if self.transport is not None:
            self.transport.abort()


class _Clock:
    """Deadlines of one host behind a single timer of the loop.

    Idle deadlines all lie the same span ahead, so a dictionary in order of insertion is already sorted.
    """

    def __init__(self, expire: Callable[[_Connection], None]) -> None:
        self._expire = expire
        self._idle: dict[bool, dict[_Connection, float]] = {False: {}, True: {}}
        self._pings: list[tuple[float, int, _Connection, Wait]] = []
        self._count = 0
        self._over = 0  # pings in the heap that nobody waits for, roughly
        self._timer: asyncio.TimerHandle | None = None
        self._armed = 0.0

    def watch(self, peer: _Connection, seconds: float, *, inside: bool) -> None:
        """Expire an idle peer, unless it is watched again or unwatched before."""
        self.unwatch(peer)
        deadline = asyncio.get_running_loop().time() + seconds
        self._idle[inside][peer] = deadline
        self._arm(deadline)

    def unwatch(self, peer: _Connection) -> None:
        for queue in self._idle.values():
            queue.pop(peer, None)

    def watch_ping(self, peer: _Connection, wait: Wait, seconds: float) -> None:
        """Expire a parked peer, if it still waits for the same thing then."""
        self._count += 1
        deadline = asyncio.get_running_loop().time() + seconds
        heapq.heappush(self._pings, (deadline, self._count, peer, wait))
        self._arm(deadline)

    def unwatch_ping(self) -> None:
        """One more ping is over; rebuild the heap when those are the larger part of it."""
        self._over += 1
        if self._over * 2 > len(self._pings) + 64:
            self._pings = [entry for entry in self._pings if entry[2].wait is entry[3]]
            heapq.heapify(self._pings)
            self._over = 0

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._pings.clear()

    def _arm(self, deadline: float) -> None:
        if self._timer is not None:
            if self._armed <= deadline:
                return
            self._timer.cancel()
        self._armed = deadline
        self._timer = asyncio.get_running_loop().call_at(deadline, self._due)

    def _due(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        for peer in self._take_due(now):
            self._expire(peer)
        heads = [next(iter(queue.values())) for queue in self._idle.values() if queue]
        heads += [self._pings[0][0]] if self._pings else []
        if heads:
            self._arm(min(heads))

    def _take_due(self, now: float) -> list[_Connection]:
        due = []
        for queue in self._idle.values():
            late = list(itertools.takewhile(lambda entry: entry[1] <= now, queue.items()))
            due += [peer for peer, _ in late]
        for peer in due:
            self.unwatch(peer)
        while self._pings and self._pings[0][0] <= now:
            _, _, peer, wait = heapq.heappop(self._pings)
            if peer.wait is wait:
                due.append(peer)
        return due


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
        network: Sequence[tuple[str, int]] = (),
    ) -> None:
        self._host = host
        self._clock = clock
        self._spans = {True: frame_timeout, False: idle_timeout}
        self._seats = [_Seat(node, port) for node, port in zip(nodes, ports or [0] * len(nodes), strict=True)]
        self._deadlines = _Clock(self._expire)
        self._frames: list[tuple[_Connection, bytearray]] = []  # whole, for the next turn
        self._woken: dict[_Connection, None] = {}  # parked, to be looked at in the next turn, each once
        self._network = network
        self._peers: Peers | None = None
        self._answers: list[_Answers] = []  # of other nodes, for the next turn
        self._errand_timer: asyncio.TimerHandle | None = None
        self._turn_due = False
        self._started = False
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
        self._open_peers()

    async def stop(self) -> None:
        """Close listeners and connections; what was answered is committed, what was not is dropped."""
        self._started = False
        await self._close_peers()
        for seat in self._seats:
            await self._silence(seat)
        self._deadlines.stop()
        self._frames.clear()
        self._committers.shutdown()
        self._woken.clear()

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

    async def _listen(self, seat: _Seat) -> None:
        loop = asyncio.get_running_loop()
        try:
            seat.server = await loop.create_server(
                lambda: _Connection(self, seat), self._host, seat.port, reuse_address=True, backlog=1024
            )
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)
            raise OSError(
                error.errno, f"node {seat.node.index} cannot listen on {self._host}:{seat.port}: {why}"
            ) from error
        seat.port = seat.server.sockets[0].getsockname()[1]

    async def _silence(self, seat: _Seat) -> None:
        if seat.server is not None:
            seat.server.close()
        for peer in list(seat.peers):
            peer.abort()
        if seat.server is not None:
            await seat.server.wait_closed()
            seat.server = None
        while seat.peers:  # noqa: ASYNC110 - aborts are reported in the next turn of the loop
            await asyncio.sleep(0)

    # ------------------------------------------------------------------ from connections
    def watch(self, peer: _Connection, *, inside: bool) -> None:
        """Close a peer that stays silent too long, inside a frame or between frames."""
        self._deadlines.watch(peer, self._spans[inside], inside=inside)

    def unwatch(self, peer: _Connection) -> None:
        """Let a peer be silent."""
        self._deadlines.unwatch(peer)

    def unpark(self, peer: _Connection) -> None:
        """Forget what a peer waits for."""
        if peer.wait is None:
            return
        parked = peer.seat.parked
        parked[peer.wait.mailbox].discard(peer)
        if not parked[peer.wait.mailbox]:
            del parked[peer.wait.mailbox]
        peer.wait = None
        self._deadlines.unwatch_ping()

    def accept(self, peer: _Connection, frame: bytearray) -> None:
        """Take a whole frame into the next turn."""
        self._frames.append((peer, frame))
        self._schedule()

    def _schedule(self) -> None:
        if not self._turn_due:
            self._turn_due = True
            asyncio.get_running_loop().call_soon(self._turn)

    # ------------------------------------------------------------------ one turn
    def _turn(self) -> None:
        """Handle what is ready, commit each changed node once, then answer."""
        self._turn_due = False
        frames, self._frames = self._frames, []
        woken, self._woken = self._woken, {}
        now = self._clock()
        for peer, _ in frames:
            peer.seat.requests += 1
        settled = self._settle(now)
        done = [(peer, peer.seat.node.handle(frame, now)) for peer, frame in frames if _reachable(peer)]
        done += [(peer, peer.seat.node.resume(peer.wait, now)) for peer in woken if peer.wait is not None]
        done += [(peer, outcome) for _, peer, outcome in settled if peer is not None]
        changed = {peer.seat for peer, outcome in done if outcome.changed}
        changed |= {seat for seat, _, outcome in settled if outcome.changed}
        failed = self._commit(changed)
        for peer, outcome in done:
            self._finish(peer, outcome, now, failed=peer.seat in failed)
        for seat in changed - failed:
            self._run_errands(seat, now)

    def _commit(self, seats: Iterable[_Seat]) -> set[_Seat]:
        """Commit once per changed node, several side by side as each waits for its disk; those where that failed."""
        changed = list(seats)
        kept = map(_commit, changed) if len(changed) < 2 else self._committers.map(_commit, changed)
        return {seat for seat, done in zip(changed, kept, strict=True) if not done}

    def _finish(self, peer: _Connection, outcome: Outcome, now: float, *, failed: bool) -> None:
        seat = peer.seat
        if failed:
            # other requests of the turn may have read what is now undone, so all of them are answered alike
            outcome = seat.node.fail(outcome, c.STATUS_FILESYSTEM)
        if outcome.wait is not None:
            self._park(peer, outcome.wait, now)
            return
        if outcome.ask is not None:
            self._ask(peer, outcome)
            return
        self.unpark(peer)
        assert outcome.reply is not None
        if seat.delay:
            late = functools.partial(peer.answer, outcome.reply, close=outcome.close)
            asyncio.get_running_loop().call_later(seat.delay, late)
        else:
            peer.answer(outcome.reply, close=outcome.close)
        for mailbox in outcome.woken:
            for parked in seat.parked.get(mailbox, ()):
                self._woken[parked] = None
                self._schedule()

    def _park(self, peer: _Connection, wait: Wait, now: float) -> None:
        if peer.wait is not None or peer.transport is None:
            return
        peer.seat.parked.setdefault(wait.mailbox, set()).add(peer)
        self._deadlines.watch_ping(peer, wait, max(wait.until - now, 0.0))
        peer.park(wait)

    def _expire(self, peer: _Connection) -> None:
        """A deadline of a peer passed: answer its ping, or close it."""
        if peer.wait is None:
            peer.abort()
            return
        outcome = peer.seat.node.expire(peer.wait, self._clock())
        self._finish(peer, outcome, self._clock(), failed=False)

    # ------------------------------------------------------------------ from node to node
    def _open_peers(self) -> None:
        own = {seat.node.index: (self._host, seat.port) for seat in self._seats}
        whole = sorted(own) == list(range(len(own)))
        where = self._network or [own[index] for index in range(len(own)) if whole]
        if where:
            self._peers = Peers(TcpTransport(nodes_of(where)), os.urandom)
            self._look_around()

    async def _close_peers(self) -> None:
        if self._errand_timer is not None:
            self._errand_timer.cancel()
        if self._peers is not None:
            await self._peers.close()
            self._peers = None
        self._answers.clear()
        for seat in self._seats:
            seat.node.forget_errands()

    def _ask(self, peer: _Connection, outcome: Outcome) -> None:
        """Put a node's questions; the peer is answered when the answers are in."""
        assert outcome.ask is not None
        seat, ask = peer.seat, outcome.ask
        if self._peers is None:
            self._heard(_Answers(seat, peer, ask, {}))
        elif self._peers.full:
            peer.answer(seat.node.fail(outcome, c.STATUS_RATE_EXCEEDED).reply or bytearray(), close=False)
        else:
            self._peers.ask(ask.inquiry, lambda replies: self._heard(_Answers(seat, peer, ask, replies)))

    def _heard(self, answers: _Answers) -> None:
        self._answers.append(answers)
        self._schedule()

    def _settle(self, now: float) -> list[tuple[_Seat, _Connection | None, Outcome]]:
        """Hand nodes the answers they asked for. That the peer has left changes nothing."""
        ready, self._answers = self._answers, []
        return [(one.seat, one.peer, one.seat.node.answered(one.ask, one.replies, now)) for one in ready]

    def _run_errands(self, seat: _Seat, now: float) -> None:
        if self._peers is None or self._peers.full or seat.mode == "down":
            return
        for ask in seat.node.errands(now):
            self._peers.ask(ask.inquiry, functools.partial(self._errand_done, seat, ask))

    def _errand_done(self, seat: _Seat, ask: Ask, replies: dict[int, Reply]) -> None:
        self._heard(_Answers(seat, None, ask, replies))

    def _look_around(self) -> None:
        now = self._clock()
        for seat in self._seats:
            self._run_errands(seat, now)
        self._errand_timer = asyncio.get_running_loop().call_later(_ERRANDS, self._look_around)


def _commit(seat: _Seat) -> bool:
    """Commit one node, or take its changes back."""
    try:
        seat.node.state.commit()
    except StoreUnavailable as error:
        log.error("node %d: %s", seat.node.index, error)
        seat.node.state.rollback()
        return False
    return True


def _reachable(peer: _Connection) -> bool:
    """Whether the answer can still be delivered; if not, the request is dropped unread."""
    return peer.transport is not None and peer.seat.mode != "down"


class HostThread:
    """A RaidaHost in a thread and a loop of its own, so that no fsync of a node stalls the caller's loop.

    All methods may be called from any thread but that one. While it runs, the nodes belong to that thread.
    """

    def __init__(self, host: RaidaHost) -> None:
        self._host = host
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._quit: asyncio.Event | None = None

    def start(self) -> None:
        """Return when every node listens; raises what `RaidaHost.start` raises."""
        ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="raida", daemon=True)
        self._thread.start()
        try:
            ready.result()
        except Exception:
            self._thread.join()
            self._thread = None
            raise

    def stop(self) -> None:
        """Stop the host and its thread; harmless when not running."""
        if self._thread is None or self._loop is None or self._quit is None:
            return
        self._loop.call_soon_threadsafe(self._quit.set)
        self._thread.join()
        self._thread = None

    def ports(self) -> list[int]:
        """The port of each node, by position."""
        return self._host.ports()

    def modes(self) -> list[Mode]:
        """How each node behaves, by position."""
        return self._host.modes()

    def call(self, run: Callable[[], T]) -> T:
        """Run a short function between two turns of the host, and return or raise what it does."""
        loop = self._running()

        async def step() -> T:
            return run()

        return asyncio.run_coroutine_threadsafe(step(), loop).result()

    def set_mode(self, index: int, mode: Mode, *, delay: float = SLOW_DELAY) -> None:
        """As `RaidaHost.set_mode`."""
        loop = self._running()
        asyncio.run_coroutine_threadsafe(self._host.set_mode(index, mode, delay=delay), loop).result()

    def lose(self, index: int, guid: bytes) -> None:
        """Drop a mail's stripes at one node, durably."""
        state = self._host.nodes[index].state

        def drop() -> None:
            state.drop(guid)
            state.commit()

        self.call(drop)

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._thread is None or self._loop is None:
            raise RuntimeError("the host thread is not running")
        return self._loop

    def _run(self, ready: Future[None]) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._serve(ready))
        except BaseException as error:  # the only way out of this thread is the future, or the log
            if ready.done():
                log.exception("host thread died")
            else:
                ready.set_exception(error)

    async def _serve(self, ready: Future[None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._quit = asyncio.Event()
        await self._host.start()
        ready.set_result(None)
        try:
            await self._quit.wait()
        finally:
            await self._host.stop()
