"""A whole mail through 25 nodes on loopback TCP.

What is measured: medians over MAILS mails of 64 KiB, each uploaded, told, peeked for and downloaded, nodes and both
engines in this process. Everything durable is on disk with fsync, as in production. Large attachments: bulk.py.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import uvloop
from qmail_server.demo.world import BOB_TEXT, World

MAILS = 30
BODY = 64 << 10
PORT_BASE = 28080  # below the ports the system hands out

Row = dict[str, Any]


def row(what: str, value: float, unit: str, goal: float | None = None, peer: str = "", ratio: float = 0.0) -> Row:
    """One line; a goal on `value` is an upper bound."""
    holds = goal is None or value <= goal
    return {"what": what, "value": value, "unit": unit, "peer": peer, "ratio": ratio, "goal": goal, "holds": holds}


async def small(world: World) -> list[Row]:
    """Time per stop of a 64 KiB mail."""
    body, times = "x" * BODY, []
    for number in range(MAILS):
        marks = [time.perf_counter()]
        draft = world.alice.draft([BOB_TEXT], f"mail {number}", body)
        started = await world.alice.start_upload(draft, tell=False)
        await world.alice.wait(started.task_id)
        marks.append(time.perf_counter())
        told = await world.alice.start_tell(started.guid)
        await world.alice.wait(told.task_id)
        marks.append(time.perf_counter())
        await world.bob.peek()
        marks.append(time.perf_counter())
        mail = await world.bob.download(started.guid)
        marks.append(time.perf_counter())
        assert mail.message.body == body
        times.append([b - a for a, b in itertools.pairwise(marks)] + [marks[-1] - marks[0]])
        await world.alice.fill_pool()  # between mails, as the background does it
    medians = [statistics.median(column) * 1000 for column in zip(*times, strict=True)]
    stops = ("upload", "tell", "peek", "download", "all four")
    goals = (None, None, None, None, 50.0)
    return [row(f"64 KiB mail, {w}", v, "ms", g) for w, v, g in zip(stops, medians, goals, strict=True)]


async def measure(part: Callable[[World], Any]) -> list[Row]:
    """Run one part in a fresh world."""
    with tempfile.TemporaryDirectory(prefix="qmail-bench-") as folder:
        world = World(Path(folder), PORT_BASE)
        try:
            await world.start()
            result: list[Row] = await part(world)
            return result
        finally:
            await world.stop()


def rows() -> Iterator[Row]:
    """All rows of this bench."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield from runner.run(measure(small))
