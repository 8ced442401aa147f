"""A whole mail through 25 nodes on loopback TCP, and memory with a large attachment.

What is measured: medians over MAILS mails of 64 KiB, each uploaded, told, peeked for and downloaded, nodes and both
engines in this process; then one attachment of BIG_MIB up and down, with the growth of resident memory on the way.
Everything durable is on disk with fsync, as in production. The peer of the large attachment is copying the same file
with an fsync at the end, on the same disk in the same run.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import uvloop
from qmail_server.demo.world import BOB_TEXT, World

from qmail_core.model import Source

MAILS = 30
BODY = 64 << 10
BIG_MIB = int(os.environ.get("QMAIL_BENCH_MIB", "512"))
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


def resident() -> float:
    """Resident memory in MiB."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


class Peak:
    """Highest growth of resident memory while it is watched."""

    def __init__(self) -> None:
        self.start = resident()
        self.growth = 0.0

    async def watch(self) -> None:
        """Look fifty times a second until cancelled."""
        while True:
            self.growth = max(self.growth, resident() - self.start)
            await asyncio.sleep(0.02)


def copy(source: Path) -> float:
    """Seconds a plain copy with fsync takes."""
    start = time.perf_counter()
    with open(source, "rb") as read, open(f"{source}.copy", "wb") as write:
        shutil.copyfileobj(read, write, 1 << 20)
        os.fsync(write.fileno())
    spent = time.perf_counter() - start
    os.unlink(f"{source}.copy")
    return spent


def fill(path: Path) -> None:
    """Make the large file."""
    with open(path, "wb") as file:
        for _ in range(BIG_MIB):
            file.write(os.urandom(1 << 20))


def digest(path: Path) -> bytes:
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


async def large(world: World) -> list[Row]:
    """One large attachment up and down."""
    path = world.data / "alice" / "files" / "big.bin"
    await asyncio.to_thread(fill, path)
    plain = await asyncio.to_thread(copy, path)
    peak = Peak()
    watcher = asyncio.create_task(peak.watch())
    marks = [time.perf_counter()]
    draft = world.alice.draft([BOB_TEXT], "large", "", attachments=[Source("big.bin", path=str(path))])
    await world.alice.send(draft)
    marks.append(time.perf_counter())
    (mail,) = await world.bob.receive()
    found = await world.bob.attachment(mail.message.id, mail.attachments[0].id)
    marks.append(time.perf_counter())
    watcher.cancel()
    assert await asyncio.to_thread(digest, path) == await asyncio.to_thread(digest, Path(found.path))
    up, down = marks[1] - marks[0], marks[2] - marks[1]
    name = f"{BIG_MIB} MiB attachment"
    return [
        row(f"{name}, up", BIG_MIB / up, "MiB/s", peer="of a plain copy", ratio=plain / up),
        row(f"{name}, down", BIG_MIB / down, "MiB/s", peer="of a plain copy", ratio=plain / down),
        row(f"{name}, memory above start", peak.growth, "MiB", goal=200.0),
    ]


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
    for part in (small, large):
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            yield from runner.run(measure(part))
