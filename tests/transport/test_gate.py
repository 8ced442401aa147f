"""What is under way is bounded, small requests pass, and runs that wait take turns."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from qmail_core.codec import consts as c
from qmail_core.codec.cipher import NO_KEY
from qmail_core.codec.packet import Batch
from qmail_core.errors import NodeTimeout
from qmail_core.transport.fanout import Fanout
from qmail_core.transport.gate import SMALL, Gate, Limits
from tests.conftest import virtual
from tests.transport.test_fanout import Wire, batch, now

BULK = SMALL + 1


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(1, 5 * BULK)), max_size=60),
    st.integers(0, 1 << 32),
)
def test_whatever_is_asked_the_limits_hold_and_all_is_started(asked: list[tuple[int, int, int]], seed: int) -> None:
    rng = random.Random(seed)
    limits = Limits(node_requests=3, requests=6, node_bytes=4 * BULK, bytes=8 * BULK)
    gate = Gate(4, limits)
    under_way: list[tuple[int, int]] = []
    started = 0

    def start(node: int, weight: int) -> None:
        nonlocal started
        started += 1
        under_way.append((node, weight))
        heavy = [w for _, w in under_way if w > SMALL]
        assert len(under_way) == gate.requests <= limits.requests
        assert sum(heavy) == gate.bytes
        assert gate.bytes <= limits.bytes or len(heavy) == 1
        assert sum(n == node for n, _ in under_way) <= limits.node_requests

    for run, node, weight in asked:
        if gate.enter(node, weight):
            start(node, weight)
        else:
            gate.wait(run, node, weight, lambda node=node, weight=weight: start(node, weight))  # type: ignore[misc]
        if under_way and rng.random() < 0.3:
            gate.leave(*under_way.pop(rng.randrange(len(under_way))))
    while under_way:
        gate.leave(*under_way.pop(rng.randrange(len(under_way))))
    assert started == len(asked)
    assert (gate.requests, gate.bytes) == (0, 0)


def test_runs_take_turns() -> None:
    gate = Gate(2, Limits(bytes=BULK))
    assert gate.enter(0, BULK)
    order: list[str] = []
    for run in ("a", "a", "a", "b", "b"):
        gate.wait(run, 0, BULK, lambda run=run: order.append(run))  # type: ignore[misc]
    assert gate.enter(1, 100)  # small ones pass
    for _ in range(5):
        gate.leave(0, BULK)
    assert order == ["a", "b", "a", "b", "a"]


def test_a_run_that_is_over_starts_nothing_more() -> None:
    gate = Gate(1, Limits(node_requests=1))
    assert gate.enter(0, 1)
    gate.wait("a", 0, 1, lambda: _never())
    gate.forget("a")
    gate.leave(0, 1)
    assert gate.requests == 0


def _never() -> None:
    raise AssertionError("started after its run was over")


def bulk(nodes: range) -> Batch:
    """Half of these fit into the limits of the tests below."""
    size = 100_000
    count = len(nodes)
    return Batch(c.GROUP_MAIL, c.CMD_UPLOAD_PAGE, list(nodes), [NO_KEY] * count, [b""] * count, [bytes(size)] * count)


def test_a_fanout_sends_no_more_than_the_limits_allow_and_then_the_rest() -> None:
    async def story() -> None:
        wire = Wire()
        wire.delay = dict.fromkeys(range(6), 1.0)
        fan = Fanout(wire, random.Random(3).randbytes, limits=Limits(bytes=310_000))
        run = fan.run(bulk(range(6)), timeout=10)
        small = fan.run(batch(), timeout=10)
        assert len(wire.frames) == 3 + 6
        await small.finish()
        assert now() == 1.0
        await run.finish()
        assert now() == 2.0
        assert set(run.good) == set(range(6))
        assert fan.gate.requests == fan.gate.bytes == 0

    virtual(story())


def test_what_never_left_is_no_fault_of_the_node() -> None:
    async def story() -> None:
        wire = Wire()
        wire.hang = {0, 1, 2}
        fan = Fanout(wire, random.Random(3).randbytes, limits=Limits(bytes=310_000))
        run = fan.run(bulk(range(6)), timeout=5)
        await run.finish()
        assert {type(error) for error in run.failed.values()} == {NodeTimeout}
        assert fan.health.failures == [1, 1, 1, 0, 0, 0]
        assert fan.gate.requests == fan.gate.bytes == 0
        fan.run(bulk(range(6)), timeout=5).cancel()
        assert fan.gate.requests == fan.gate.bytes == 0

    virtual(story())


def test_silent_nodes_are_not_asked_where_the_others_are_enough() -> None:
    async def story() -> None:
        wire = Wire()
        fan = Fanout(wire, random.Random(3).randbytes)
        wire.hang = {2}
        for _ in range(4):
            await fan.run(batch(), timeout=5).finish()
        wire.frames.clear()
        run = fan.run(batch(), timeout=5, need=4)
        await run.finish()
        assert now() == 20.0
        assert len(wire.frames) == 5
        assert isinstance(run.failed[2], NodeTimeout)
        assert set(fan.run(batch(), timeout=5).pending) == set(range(6))  # without a number everybody is asked
        wire.hang = set()
        wire.down = {0, 1}
        run = fan.run(batch(), timeout=5, need=4)
        await run.finish()  # two others failed, so it is asked after all
        assert set(run.good) == {2, 3, 4, 5}
        assert set(run.failed) == {0, 1}
        assert not fan.health.circuits[2].open

    virtual(story())
