"""The one concurrency policy, in virtual time: enough is enough, nothing hangs, no frame is sent twice."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest
from typing_extensions import Buffer

from qmail_core.codec import cipher, packet
from qmail_core.codec import consts as c
from qmail_core.codec.cipher import NO_KEY, Key
from qmail_core.codec.packet import Batch, Reply
from qmail_core.errors import ConnectError, NodeError, NodeTimeout, QMailError, RemoteProtocolError
from qmail_core.transport.base import Cancel, Done
from qmail_core.transport.fanout import Fanout
from qmail_core.transport.health import Health
from tests.conftest import virtual


class Wire:
    """A transport whose nodes do as they are told, after so many seconds."""

    def __init__(self, nodes: int = 6) -> None:
        self.delay = dict.fromkeys(range(nodes), 0.0)
        self.hang: set[int] = set()
        self.down: set[int] = set()
        self.stale: dict[int, int] = {}  # how often a kept connection turns out to be closed
        self.status = dict.fromkeys(range(nodes), c.STATUS_SUCCESS)
        self.twist: Callable[[bytearray], bytearray] = lambda frame: frame
        self.frames: list[bytes] = []
        self.cancelled: list[int] = []
        self.go_on = False  # the keystream of answers
        self._nodes = nodes

    def nodes(self) -> int:
        return self._nodes

    def location(self, node: int) -> tuple[str, int]:
        return "127.0.0.1", node

    async def close(self) -> None:
        return None

    def send(self, node: int, frame: Buffer, enc: int, done: Done) -> Cancel:
        raw = bytes(frame)
        assert raw not in self.frames, "a frame was sent twice"
        self.frames.append(raw)
        if node in self.hang:
            return lambda: self.cancelled.append(node)
        handle = asyncio.get_running_loop().call_later(self.delay[node], self._answer, node, raw, done)

        def cancel() -> None:
            self.cancelled.append(node)
            handle.cancel()

        return cancel

    def _answer(self, node: int, raw: bytes, done: Done) -> None:
        if self.stale.get(node):
            self.stale[node] -= 1
            error = ConnectError("closed")
            error.stale = True
            done(error)
        elif node in self.down:
            done(ConnectError("refused"))
        else:
            view = memoryview(bytearray(raw))
            request = packet.open_request(view, packet.read_header(view), _NoKeys())
            status, iv = self.status[node], bytes(16)
            done(memoryview(self.twist(packet.build_reply(request, status, b"answer", 0, iv, go_on=self.go_on))))


AN = bytes(range(16))


class _NoKeys:
    """Knows one coin."""

    def coin_an(self, selector: bytes) -> bytes | None:
        return AN if selector == b"known" else None

    def locker_an(self, prefix: bytes) -> None: ...


def batch(nodes: range | list[int] = range(6)) -> Batch:
    count = len(nodes)
    return Batch(c.GROUP_STATUS, c.CMD_ECHO, list(nodes), [NO_KEY] * count, [b""] * count, [b""] * count)


def fanout(wire: Wire) -> Fanout:
    return Fanout(wire, random.Random(3).randbytes)


def now() -> float:
    return asyncio.get_running_loop().time()


def test_all_answers_are_collected() -> None:
    async def story() -> None:
        run = fanout(Wire()).run(batch(), timeout=10)
        assert run.pending == set(range(6))
        await run.finish()
        assert set(run.good) == set(range(6))
        reply = run.good[3]
        assert isinstance(reply, Reply)
        assert bytes(reply.payload) == b"answer"
        assert (run.failed, run.pending) == ({}, frozenset())

    virtual(story())


def test_enough_answers_end_the_wait_but_not_the_run() -> None:
    async def story() -> None:
        wire = Wire()
        wire.delay |= {4: 1.0, 5: 2.0}
        run = fanout(wire).run(batch(), timeout=10)
        await run.wait(4)
        assert now() == 0.0
        assert run.pending == {4, 5}
        await run.wait(5)
        assert now() == pytest.approx(1.0)
        await run.finish()
        assert now() == pytest.approx(2.0)
        assert set(run.good) == set(range(6))

    virtual(story())


def test_the_settling_time_is_a_share_of_what_it_took() -> None:
    async def story() -> None:
        wire = Wire()
        wire.delay = {0: 0.1, 1: 0.1, 2: 0.1, 3: 0.15, 4: 0.19, 5: 0.3}
        run = fanout(wire).run(batch(), timeout=10)
        await run.wait(3, settle=1.0)
        assert now() == pytest.approx(0.2)
        assert run.pending == {5}

    virtual(story())


@pytest.mark.parametrize(("first", "settled"), [(0.0, 0.01), (5.0, 5.5)])
def test_the_settling_time_is_10_ms_at_least_and_half_a_second_at_most(first: float, settled: float) -> None:
    async def story() -> None:
        wire = Wire()
        wire.delay = dict.fromkeys(range(5), first) | {5: 100.0}
        run = fanout(wire).run(batch(), timeout=1000)
        await run.wait(5, settle=2.0)
        assert now() == pytest.approx(settled)

    virtual(story())


def test_a_wait_ends_when_nothing_more_can_come() -> None:
    async def story() -> None:
        wire = Wire()
        wire.down = {0, 1, 2}
        wire.status[3] = c.STATUS_FILESYSTEM
        run = fanout(wire).run(batch(), timeout=10)
        await run.wait(5)
        assert now() == 0.0
        assert set(run.good) == {4, 5}
        assert {type(error) for node, error in run.failed.items() if node != 3} == {ConnectError}
        refusal = run.failed[3]
        assert isinstance(refusal, NodeError)
        assert refusal.status == c.STATUS_FILESYSTEM

    virtual(story())


def test_a_wait_may_have_a_time_of_its_own() -> None:
    async def story() -> None:
        wire = Wire()
        wire.hang = {2}
        run = fanout(wire).run(batch(), timeout=10)
        await run.wait(6, timeout=0.5)
        assert now() == 0.5
        assert run.pending == {2}
        assert not run.failed

    virtual(story())


def test_whoever_is_silent_at_the_deadline_has_failed() -> None:
    async def story() -> None:
        wire = Wire()
        wire.hang = {1, 4}
        fan = fanout(wire)
        run = fan.run(batch(), timeout=7)
        await run.finish()
        assert now() == pytest.approx(7)
        assert {node: type(error) for node, error in run.failed.items()} == {1: NodeTimeout, 4: NodeTimeout}
        assert wire.cancelled == [1, 4]
        assert fan.health.failures == [0, 1, 0, 0, 1, 0]

    virtual(story())


def test_nodes_asked_later_have_the_same_deadline() -> None:
    """Also when all that was asked before has been answered, and when the deadline has passed."""

    async def story() -> None:
        wire = Wire()
        wire.hang = {5}
        run = fanout(wire).run(batch(range(3)), timeout=10)
        await run.finish()
        run.add(batch([3, 5]))
        await run.finish()
        assert now() == pytest.approx(10)
        assert set(run.good) == {0, 1, 2, 3}
        assert isinstance(run.failed[5], NodeTimeout)
        wire.hang = {4}
        run.add(batch([4]))
        await run.finish()
        assert now() == pytest.approx(10)
        assert isinstance(run.failed[4], NodeTimeout)

    virtual(story())


def test_a_run_may_start_with_nobody() -> None:
    async def story() -> None:
        run = fanout(Wire()).run(None, timeout=10)
        await run.finish()
        await run.wait(3)
        run.add(batch([1]))
        await run.wait(1)
        assert set(run.good) == {1}

    virtual(story())


def test_a_cancelled_run_lets_go_of_everything() -> None:
    async def story() -> None:
        wire = Wire()
        wire.hang = {0}
        wire.delay[1] = 1.0
        run = fanout(wire).run(batch(), timeout=10)
        waiting = asyncio.create_task(run.wait(6))
        await asyncio.sleep(0.5)
        run.cancel()
        await waiting
        assert now() == 0.5
        await asyncio.sleep(20)
        assert set(run.good) == {2, 3, 4, 5}
        assert run.failed == {}
        assert sorted(wire.cancelled) == [0, 1]
        run.cancel()

    virtual(story())


def test_a_waiter_that_is_cancelled_leaves_the_run_usable() -> None:
    async def story() -> None:
        wire = Wire()
        wire.delay[5] = 1.0
        run = fanout(wire).run(batch(), timeout=10)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await run.finish()
        await run.finish()
        assert set(run.good) == set(range(6))

    virtual(story())


def test_a_stale_connection_is_followed_by_one_fresh_frame() -> None:
    async def story() -> None:
        wire = Wire()
        wire.stale = {2: 1}
        run = fanout(wire).run(batch(), timeout=10)
        await run.finish()
        assert set(run.good) == set(range(6))
        assert len(wire.frames) == 7  # and Wire has seen that no two are alike

    virtual(story())


def test_a_connection_that_is_stale_twice_is_a_failure() -> None:
    async def story() -> None:
        wire = Wire()
        wire.stale = {2: 2}
        run = fanout(wire).run(batch(), timeout=10)
        await run.finish()
        assert isinstance(run.failed[2], ConnectError)
        assert len(wire.frames) == 7

    virtual(story())


def test_other_failures_are_not_repeated() -> None:
    async def story() -> None:
        wire = Wire()
        wire.down = {2}
        await fanout(wire).run(batch(), timeout=10).finish()
        assert len(wire.frames) == 6

    virtual(story())


def test_an_answer_that_claims_another_node_is_a_protocol_error() -> None:
    async def story() -> None:
        wire = Wire()

        def claim_node_0(frame: bytearray) -> bytearray:
            frame[0] = 0
            return frame

        wire.twist = claim_node_0
        fan = fanout(wire)
        run = fan.run(batch(), timeout=10)
        await run.finish()
        assert set(run.good) == {0}
        assert all(isinstance(error, RemoteProtocolError) for error in run.failed.values())
        assert fan.health.failures == [0, 1, 1, 1, 1, 1]

    virtual(story())


def test_the_judge_decides_what_is_good() -> None:
    async def story() -> None:
        def judge(reply: Reply) -> int:
            if reply.node % 2:
                raise QMailError("odd")
            return reply.node * 10

        run = fanout(Wire()).run(batch(), timeout=10, judge=judge)
        await run.finish()
        assert run.good == {0: 0, 2: 20, 4: 40}
        assert set(run.failed) == {1, 3, 5}

    virtual(story())


def test_a_good_answer_can_be_found_wrong_later() -> None:
    async def story() -> None:
        fan = fanout(Wire())
        run = fan.run(batch(), timeout=10)
        await run.finish()
        run.blame(3, QMailError("a lie"))
        assert 3 not in run.good
        assert str(run.failed[3]) == "a lie"
        assert fan.health.failures[3] == 1

    virtual(story())


def test_until_watches_failures_as_well() -> None:
    async def story() -> None:
        wire = Wire()
        wire.delay = dict.fromkeys(range(6), 1.0) | {4: 0.25}
        wire.down = {4}
        run = fanout(wire).run(batch(), timeout=10)
        await run.until(lambda: bool(run.failed))
        assert run.elapsed == now() == pytest.approx(0.25)

    virtual(story())


def test_the_healthiest_nodes_come_first() -> None:
    health = Health(5)
    for node, seconds in enumerate((0.3, 0.1, 0.2, 0.4, 0.5)):
        health.good(node, seconds)
    assert health.order(range(5)) == [1, 2, 0, 3, 4]
    health.bad(1)
    assert health.order(range(5)) == [2, 0, 3, 4, 1]
    for _ in range(9):
        health.bad(2)
    for _ in range(3):
        health.bad(0)
    assert health.order(range(5)) == [3, 4, 1, 2, 0]  # beyond three failures it is latency again
    health.good(2, 0.2)
    assert health.order(range(5)) == [2, 3, 4, 1, 0]
    assert health.order([4, 1]) == [4, 1]


def one(enc: int) -> Batch:
    """A request to node 3 under the known coin."""
    key = Key(enc, cipher.secret_of(enc, AN), b"known")
    return Batch(c.GROUP_STATUS, c.CMD_ECHO, [3], [key], [b""], [b""])


def test_a_node_that_proved_an_answer_must_prove_the_next() -> None:
    def stripped(frame: bytearray) -> bytearray:
        frame[40:46] = bytes(6)
        return frame

    async def story() -> None:
        wire = Wire()
        asker = fanout(wire)
        for twist, good in ((stripped, {3}), (lambda frame: frame, {3}), (stripped, set())):
            wire.twist = twist
            run = asker.run(one(c.ENC_COIN256), timeout=10)
            await run.finish()
            assert set(run.good) == good
        assert isinstance(run.failed[3], RemoteProtocolError)
        wire.status[3] = c.STATUS_INTERNAL
        run = asker.run(one(c.ENC_COIN256), timeout=10)  # an unproven refusal with a payload
        await run.finish()
        assert isinstance(run.failed[3], RemoteProtocolError)
        assert asker.proving == {3}

    virtual(story())


@pytest.mark.parametrize("go_on", [False, True])
def test_a_keystream_that_goes_on_is_read(go_on: bool) -> None:
    def judge(reply: Reply) -> bytes:
        if bytes(reply.payload) != b"answer":
            raise RemoteProtocolError("no answer")
        return bytes(reply.payload)

    async def story() -> None:
        wire = Wire()
        wire.go_on = go_on
        run = fanout(wire).run(one(c.ENC_COIN), timeout=10, judge=judge)
        await run.finish()
        assert run.good == {3: b"answer"}

    virtual(story())
