"""The only concurrency policy: the same command to many nodes, and when that is enough.

A Run starts requests, counts answers by callbacks (no task per request) and lets its owner wait for "enough": so many
good answers, then a short settling time for the stragglers. What is still under way goes on in the background until
the run's deadline; one timer serves the whole run. A failure of one node is data here, not an exception.

Every transmission is packed with fresh randomness. The only repetition is one new attempt when a kept connection
turns out to be closed before anything came back, because then the node has most likely not seen the request at all.
A node that has been silent for a while is failed without being asked where others are enough (`health`), and no more
is under way than the gate allows (`gate`). What answers of a node mean may hang on who it is (`introductions`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from msgspec import Struct

from qmail_core.codec import consts as c
from qmail_core.codec import packet
from qmail_core.codec.packet import Batch, Reply, Sent
from qmail_core.errors import ConnectError, NodeTimeout, QMailError, RemoteProtocolError, TransportError
from qmail_core.transport.base import Cancel, Transport
from qmail_core.transport.gate import SMALL, Gate, Limits
from qmail_core.transport.health import Health
from qmail_core.transport.hedge import Budget
from qmail_core.transport.introductions import Introductions

log = logging.getLogger("qmail.fanout")

Judge = Callable[[Reply], object]  # raises a QMailError when the answer is not what was asked for


def expect_success(reply: Reply) -> object:
    """The default judge: any success status is good."""
    return reply if reply.status == c.STATUS_SUCCESS else reply.expect()


class _Exchange(Struct, eq=False):
    """One request of a run, from the gate to its answer. Called by the transport with the outcome."""

    run: Run
    sent: Sent
    weight: int  # bytes of question and answer
    timed: bool  # its latency says something
    again: bool = True  # it may be repeated once
    begun: float = -1.0  # negative while it waits at the gate
    cancel: Cancel | None = None

    def start(self) -> None:
        """Its place at the gate is taken: send."""
        sent, run = self.sent, self.run
        self.begun = run.loop.time()
        self.cancel = run.fanout.transport.send(sent.node, sent.frame, sent.key.enc, self)

    def drop(self) -> None:
        """Let go of it."""
        if self.cancel is not None:
            self.cancel()
            self.cancel = None
            self.run.fanout.gate.leave(self.sent.node, self.weight)

    def __call__(self, answer: memoryview | TransportError) -> None:
        run, node = self.run, self.sent.node
        if isinstance(answer, TransportError):
            if self.again and isinstance(answer, ConnectError) and answer.stale:
                self._repeat()
                return
            outcome: Reply | QMailError = answer
        else:
            try:
                outcome = self._opened(answer)
            except RemoteProtocolError as error:
                outcome = error
            else:
                if node in run.fanout.introductions.unmet and self._must_wait(outcome):
                    return
        self._leave()
        run.settle(node, outcome, self)

    def offer(self, answer: memoryview) -> bool:
        """A datagram that may be the answer: take it if it is, else go on waiting, as anybody can send datagrams."""
        try:
            reply = self._opened(answer)
        except RemoteProtocolError as error:
            log.debug("node %d: datagram ignored: %s", self.sent.node, error)
            return False
        run, node = self.run, self.sent.node
        if not (node in run.fanout.introductions.unmet and self._must_wait(reply)):
            self._leave()
            run.settle(node, reply, self)
        return True

    def _must_wait(self, reply: Reply) -> bool:
        """Whether an answer cannot be read before its node has said who it is."""
        return self.run.fanout.introductions.meet(reply, self.sent.key, partial(self._read_on, reply))

    def _read_on(self, reply: Reply) -> None:
        if self.run.exchanges.get(self.sent.node) is self:  # else the run is over
            self._leave()
            self.run.settle(self.sent.node, reply, self)

    def _opened(self, answer: memoryview) -> Reply:
        """The answer, if it can be trusted as far as its node can prove it."""
        node, proving = self.sent.node, self.run.fanout.proving
        reply = packet.open_reply(self.sent, answer, proof=node in proving)
        if reply.proven:
            proving.add(node)
        return reply

    def _leave(self) -> None:
        self.cancel = None  # it leads back here: what is a circle waits for the collector
        del self.run.exchanges[self.sent.node]
        self.run.fanout.gate.leave(self.sent.node, self.weight)

    def _repeat(self) -> None:
        self.again = False
        self.sent = packet.repack(self.sent, self.run.fanout.entropy)
        self.start()


class Run:
    """Requests under way and what came of them. Make one with `Fanout.run`."""

    def __init__(self, fanout: Fanout, timeout: float, judge: Judge, need: int | None) -> None:
        self.good: dict[int, object] = {}
        self.failed: dict[int, QMailError] = {}
        self.exchanges: dict[int, _Exchange] = {}
        self.fanout = fanout
        self._judge = judge
        self._need = need
        self._held: dict[int, _Exchange] = {}  # failed without being asked
        self.loop = fanout.loop
        self._started = self.loop.time()
        self._enough: Callable[[], bool] | None = None  # no method of its own: a run would outlive its last use
        self._waiter: asyncio.Future[None] | None = None
        self._ends = self._started + timeout
        self._timer: asyncio.TimerHandle | None = None

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return self.loop.time() - self._started

    @property
    def remaining(self) -> float:
        """Seconds until the deadline, for runs that are part of the same story."""
        return max(0.0, self._ends - self.loop.time())

    @property
    def pending(self) -> frozenset[int]:
        """Nodes that were asked and have neither answered nor failed."""
        return frozenset(self.exchanges)

    def add(self, batch: Batch, answer_size: int = 0) -> None:
        """Ask more nodes, with the same deadline. A node is asked once per run at a time.

        answer_size  bytes an answer will have, if they are many: they count against what may be under way
        """
        if self._timer is None:
            # the timer is gone when all who were asked before have answered
            self._timer = self.loop.call_at(self._ends, self._expire)
        fanout, now = self.fanout, self.loop.time()
        enter, send, enc = fanout.gate.enter, fanout.transport.send, batch.enc
        timed = batch.command != c.CMD_PING or batch.group != c.GROUP_MAIL  # a ping takes as long as it is told to
        for sent in packet.pack(batch, fanout.entropy(batch.entropy_size())):
            node, frame = sent.node, sent.frame
            weight = len(memoryview(frame)) + answer_size
            exchange = _Exchange(self, sent, weight, timed)
            if self._need is not None and not fanout.health.allows(node, now):
                self._held[node] = exchange
                self.failed[node] = NodeTimeout(f"node {node}: not asked, it has been silent")
                continue
            self.exchanges[node] = exchange
            if enter(node, weight):
                exchange.begun = now
                exchange.cancel = send(node, frame, enc, exchange)
            else:
                fanout.gate.wait(self, node, weight, exchange.start)
        self._reconsider()

    def _reconsider(self) -> None:
        """Ask the silent ones after all when the others cannot be enough."""
        if self._held and self._need is not None and len(self.good) + len(self.exchanges) < self._need:
            held, self._held = self._held, {}
            gate = self.fanout.gate
            for node, exchange in held.items():
                del self.failed[node]
                self.exchanges[node] = exchange
                if gate.enter(node, exchange.weight):
                    exchange.start()
                else:
                    gate.wait(self, node, exchange.weight, exchange.start)

    def settle(self, node: int, outcome: Reply | QMailError, exchange: _Exchange) -> None:
        """Take an exchange's outcome over."""
        if isinstance(outcome, Reply):
            try:
                self.good[node] = self._judged(node, outcome)
            except QMailError as error:
                self.fanout.health.alive(node)
                self._fail(node, error)
            else:
                if exchange.timed:
                    seconds = self.loop.time() - exchange.begun
                    self.fanout.health.good(node, seconds, bulk=exchange.weight > SMALL)
                else:
                    self.fanout.health.alive(node)
        else:
            self._fail(node, outcome)
        if self._held:
            self._reconsider()
        self._check()

    def _judged(self, node: int, reply: Reply) -> object:
        if reply.sent is None:
            return self._judge(reply)
        known = self.fanout.introductions
        expected = node in known.going_on
        found, goes_on = packet.judged(reply, self._judge, goes_on=expected)
        if goes_on != expected:
            known.read(node, goes_on=goes_on)
        return found

    def _fail(self, node: int, error: QMailError) -> None:
        self.failed[node] = error
        health = self.fanout.health
        if isinstance(error, NodeTimeout):
            health.silent(node, self.loop.time())
            return
        if isinstance(error, RemoteProtocolError):
            log.warning("node %d: %s", node, error)
        elif not isinstance(error, TransportError):
            log.debug("node %d failed: %s", node, error)
        health.bad(node)

    def blame(self, node: int, error: QMailError) -> None:
        """Move an answer that looked good to the failures: its content was found to be wrong."""
        self.good.pop(node, None)
        self._fail(node, error)

    def _check(self) -> None:
        waiter = self._waiter
        over = not self.exchanges
        if waiter is not None and (over or (self._enough is not None and self._enough())) and not waiter.done():
            waiter.set_result(None)
        if over:
            self._disarm()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def until(self, enough: Callable[[], bool] | None, timeout: float | None = None) -> None:
        """Wait until a condition over `good` and `failed` holds, nothing more can come, or `timeout` seconds pass."""
        if not self.exchanges or (enough is not None and enough()):
            return
        self._enough = enough
        self._waiter = self.loop.create_future()
        handle = None if timeout is None else self.loop.call_later(timeout, self._release, self._waiter)
        try:
            await self._waiter
        finally:
            self._waiter = self._enough = None
            if handle is not None:
                handle.cancel()

    @staticmethod
    def _release(waiter: asyncio.Future[None]) -> None:
        if not waiter.done():
            waiter.set_result(None)

    async def wait(self, need: int, *, timeout: float | None = None, settle: float = 0.0) -> None:
        """Wait until `need` answers are good, or nothing more can come.

        timeout  seconds to wait at most; the run itself goes on
        settle   share of the time it took so far that the remaining nodes are given on top, at most half a second;
                 0 returns at once
        """
        await self.until(lambda: len(self.good) >= need, timeout)
        if settle and self.exchanges and len(self.good) >= need:
            await self.until(None, min(0.5, max(0.01, self.elapsed * settle)))

    async def finish(self) -> None:
        """Wait until every node has answered, failed or run out of time."""
        await self.until(None)

    def cancel(self) -> None:
        """Stop asking; nodes still pending count neither as good nor as failed."""
        self._disarm()
        now = self.loop.time()
        for node, exchange in self._drop_all().items():
            if exchange.timed and exchange.begun >= 0:
                self.fanout.health.late(node, now - exchange.begun, bulk=exchange.weight > SMALL)
        self._check()

    def overdue(self, after: Callable[[int], float]) -> list[int]:
        """Nodes that have been silent for longer than `after(node)` seconds since they were asked."""
        now = self.loop.time()
        return [n for n, exchange in self.exchanges.items() if exchange.begun >= 0 and now - exchange.begun >= after(n)]

    def next_overdue(self, after: Callable[[int], float], but: set[int]) -> float | None:
        """Seconds until the next node other than `but` is overdue; None when there is none."""
        now = self.loop.time()
        spans = [
            (exchange.begun if exchange.begun >= 0 else now) + after(node) - now
            for node, exchange in self.exchanges.items()
            if node not in but
        ]
        return max(0.0, min(spans)) if spans else None

    def _drop_all(self) -> dict[int, _Exchange]:
        pending, self.exchanges = self.exchanges, {}
        self.fanout.gate.forget(self)
        for exchange in pending.values():
            exchange.drop()
        return pending

    def _expire(self) -> None:
        self._timer = None
        for node, exchange in self._drop_all().items():
            error = NodeTimeout(f"node {node}: no answer in time")
            if exchange.begun >= 0:
                self._fail(node, error)
            else:
                self.failed[node] = error  # it never was asked
        self._check()


class Fanout:
    """Starts runs over one transport.

    entropy    cryptographically strong random bytes; called once per batch
    limits     what may be under way at the same time; without, what suits the place of the nodes
    introduce  ask each node once who it is (`introductions`)
    """

    def __init__(
        self,
        transport: Transport,
        entropy: Callable[[int], bytes],
        *,
        limits: Limits | None = None,
        introduce: bool = False,
    ) -> None:
        nodes = transport.nodes()
        self.transport = transport
        self.entropy = entropy
        self.health = Health(nodes)
        self.budget = Budget()
        if limits is None:
            near = all(transport.location(node)[0].startswith("127.") for node in range(nodes))
            limits = Limits.local() if near else Limits()
        self.gate = Gate(nodes, limits)
        self._loop: asyncio.AbstractEventLoop | None = None
        self.introductions = Introductions(transport, entropy, ask=introduce)
        self.proving: set[int] = set()  # nodes that proved an answer once, and must from then on

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop of the first run."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop

    def run(
        self, batch: Batch | None, *, timeout: float, judge: Judge = expect_success, need: int | None = None
    ) -> Run:
        """Send a batch; the run ends by itself `timeout` seconds from now.

        need  good answers without which the run is of no use: as long as others can still give so many, nodes that
              have been silent for a while fail at once; without it everybody is asked
        """
        run = Run(self, timeout, judge, need)
        if batch is not None:
            run.add(batch)
        return run
