"""The only concurrency policy: the same command to many nodes, and when that is enough.

A Run starts requests, counts answers by callbacks (no task per request) and lets its owner wait for "enough": so many
good answers, then a short settling time for the stragglers. What is still under way goes on in the background until
the run's deadline; one timer serves the whole run. A failure of one node is data here, not an exception.

Every transmission is packed with fresh randomness. The only repetition is one new attempt when a kept connection
turns out to be closed before anything came back, because then the node has most likely not seen the request at all.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from qmail_core.codec import packet
from qmail_core.codec.packet import Batch, Reply, Sent
from qmail_core.errors import ConnectError, NodeTimeout, QMailError, RemoteProtocolError, TransportError
from qmail_core.transport.base import Cancel, Transport

log = logging.getLogger("qmail.fanout")

Judge = Callable[[Reply], object]  # raises a QMailError when the answer is not what was asked for


def expect_success(reply: Reply) -> object:
    """The default judge: any success status is good."""
    return reply.expect()


class Health:
    """What is known of each node: smoothed latency and failures in a row. Orders nodes, excludes none."""

    def __init__(self, nodes: int) -> None:
        self.latency = [0.0] * nodes
        self.failures = [0] * nodes

    def good(self, node: int, seconds: float) -> None:
        """A node answered."""
        self.failures[node] = 0
        known = self.latency[node]
        self.latency[node] = seconds if not known else known + 0.2 * (seconds - known)

    def bad(self, node: int) -> None:
        """A node failed, lied or was too slow."""
        self.failures[node] += 1

    def order(self, nodes: Iterable[int]) -> list[int]:
        """Nodes, the most promising first."""
        return sorted(nodes, key=lambda node: (min(self.failures[node], 3), self.latency[node]))


class Run:
    """Requests under way and what came of them. Make one with `Fanout.run`."""

    def __init__(self, fanout: Fanout, timeout: float, judge: Judge) -> None:
        self.good: dict[int, object] = {}
        self.failed: dict[int, QMailError] = {}
        self._fanout = fanout
        self._judge = judge
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()
        self._pending: dict[int, Cancel] = {}
        self._enough: Callable[[], bool] = self._nothing_pending
        self._waiter: asyncio.Future[None] | None = None
        self._ends = self._started + timeout
        self._timer = self._loop.call_at(self._ends, self._expire)

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return self._loop.time() - self._started

    @property
    def pending(self) -> frozenset[int]:
        """Nodes that were asked and have neither answered nor failed."""
        return frozenset(self._pending)

    def add(self, batch: Batch) -> None:
        """Ask more nodes, with the same deadline. A node is asked once per run at a time."""
        # the timer is gone when all who were asked before have answered
        self._timer.cancel()
        self._timer = self._loop.call_at(self._ends, self._expire)
        for position, sent in enumerate(packet.pack(batch, self._fanout.entropy(batch.entropy_size()))):
            self._send(sent, batch, position, again=True)

    def _send(self, sent: Sent, batch: Batch, position: int, *, again: bool) -> None:
        node, begun = sent.node, self._loop.time()

        def done(answer: memoryview | TransportError) -> None:
            self._pending.pop(node, None)
            if again and isinstance(answer, ConnectError) and answer.stale:
                fresh = batch.only([position])
                retry = packet.pack(fresh, self._fanout.entropy(fresh.entropy_size()))[0]
                self._send(retry, batch, position, again=False)
                return
            self._settle_one(sent, answer, self._loop.time() - begun)

        self._pending[node] = self._fanout.transport.send(node, sent.frame, sent.key.enc, done)

    def _settle_one(self, sent: Sent, answer: memoryview | TransportError, seconds: float) -> None:
        node = sent.node
        try:
            if isinstance(answer, TransportError):
                raise answer
            reply = packet.open_reply(sent, answer)
            self._fanout.health.good(node, seconds)
            self.good[node] = self._judge(reply)
        except RemoteProtocolError as error:
            log.warning("node %d: %s", node, error)
            self._fail(node, error)
        except QMailError as error:
            self._fail(node, error)
        self._check()

    def _fail(self, node: int, error: QMailError) -> None:
        self.failed[node] = error
        if not isinstance(error, TransportError):
            log.debug("node %d failed: %s", node, error)
        self._fanout.health.bad(node)

    def blame(self, node: int, error: QMailError) -> None:
        """Move an answer that looked good to the failures: its content was found to be wrong."""
        self.good.pop(node, None)
        self._fail(node, error)

    def _nothing_pending(self) -> bool:
        return not self._pending

    def _check(self) -> None:
        if self._waiter is not None and not self._waiter.done() and (not self._pending or self._enough()):
            self._waiter.set_result(None)
        if not self._pending:
            self._timer.cancel()

    async def until(self, enough: Callable[[], bool], timeout: float | None = None) -> None:
        """Wait until a condition over `good` and `failed` holds, nothing more can come, or `timeout` seconds pass."""
        if not self._pending or enough():
            return
        self._enough = enough
        self._waiter = self._loop.create_future()
        handle = None if timeout is None else self._loop.call_later(timeout, self._release, self._waiter)
        try:
            await self._waiter
        finally:
            self._waiter = None
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
        if settle and self._pending and len(self.good) >= need:
            await self.until(self._nothing_pending, min(0.5, max(0.01, self.elapsed * settle)))

    async def finish(self) -> None:
        """Wait until every node has answered, failed or run out of time."""
        await self.until(self._nothing_pending)

    def cancel(self) -> None:
        """Stop asking; nodes still pending count neither as good nor as failed."""
        self._timer.cancel()
        pending, self._pending = self._pending, {}
        for cancel in pending.values():
            cancel()
        self._check()

    def _expire(self) -> None:
        pending, self._pending = self._pending, {}
        for node, cancel in pending.items():
            cancel()
            self._fail(node, NodeTimeout(f"node {node}: no answer in time"))
        self._check()


class Fanout:
    """Starts runs over one transport.

    entropy  cryptographically strong random bytes; called once per batch
    """

    def __init__(self, transport: Transport, entropy: Callable[[int], bytes]) -> None:
        self.transport = transport
        self.entropy = entropy
        self.health = Health(transport.nodes())

    def run(self, batch: Batch | None, *, timeout: float, judge: Judge = expect_success) -> Run:
        """Send a batch; the run ends by itself `timeout` seconds from now."""
        run = Run(self, timeout, judge)
        if batch is not None:
            run.add(batch)
        return run
