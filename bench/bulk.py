"""A large attachment through 25 nodes on loopback TCP, against what its disk and its cores allow.

What is measured: one attachment (256 MiB unless `--size` says otherwise) up and down, nodes and both engines in this
process, everything durable with fsync as in production; and the growth of resident memory on the way.

The peer is the limit of this machine in the same run, for the upload the larger of two times:

- disk: writing as many bytes as the stripes have into 25 files, a page after the other in turn, with one fdatasync each
  at the end. Mean of one such write before and one after, into fresh files that stay, so that neither side gets the
  blocks of the other, which many disks write faster.
- processor: the sum of what each byte must cost, by the same kernels and each step alone, divided by the cores: both
  passes of the encoder (a record carries its path to a root over all of the object), a frame of type 4 (AES-256 and
  HMAC), through a socket, HMAC and AES at the node, a write into the page cache.

For the download, whose stripes come from the page cache: writing the file with one fdatasync, or a frame at the node,
the socket, HMAC and AES at the client, checking and decoding, and a write into the page cache.

The time of all cores is what was used of the processor in all, and hardly changes when the machine is busy with
something else; the rates do.
"""

from __future__ import annotations

import asyncio
import hashlib
import multiprocessing
import os
import secrets
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import uvloop
from qmail_server.demo.world import BOB_TEXT, World
from typing_extensions import Buffer

from bench.measure import Row, resident, row, want
from qmail_core import _framing
from qmail_core.codec import consts as c
from qmail_core.codec import erasure, packet
from qmail_core.codec.cipher import Key
from qmail_core.codec.packet import Batch
from qmail_core.codec.stripes import Shards
from qmail_core.config import striping_for
from qmail_core.model import Source

NODES = 25
SAMPLE = 32 << 20  # bytes whose steps are timed
PORT_BASE = 28080  # below the ports the system hands out
MIB = 1 << 20
SIZE = 256 * MIB


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


# ---- the limits


class Costs(NamedTuple):
    """Seconds of one core for each byte of the object."""

    up: float
    down: float


def spent(step: Callable[[], object], times: int = 2) -> float:
    """Seconds of the processor a step takes, all threads and the kernel included: the best of some."""
    found = []
    for _ in range(times):
        start = time.process_time()
        step()
        found.append(time.process_time() - start)
    return min(found)


def through_sockets(frames: Sequence[Buffer]) -> None:
    """Every frame over loopback TCP, received into a buffer of its size."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as out:
        into, _ = server.accept()

        def send() -> None:
            for frame in frames:
                out.sendall(frame)

        sender = threading.Thread(target=send)
        sender.start()
        with into:
            for frame in frames:
                view = memoryview(bytearray(memoryview(frame).nbytes))
                while view:
                    view = view[into.recv_into(view) :]
        sender.join()


def into_files(folder: Path, pages: list[memoryview], files: int = NODES, *, sync: bool) -> None:
    """Pages one behind the other, in turn over so many files."""
    descriptors = [os.open(folder / str(file), os.O_WRONLY | os.O_CREAT | os.O_TRUNC) for file in range(files)]
    for number, page in enumerate(pages):
        os.pwrite(descriptors[number % files], page, number // files * len(page))
    threads = [threading.Thread(target=os.fdatasync, args=(one,)) for one in descriptors if sync]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in descriptors:
        os.close(one)


def costs(folder: Path) -> Costs:
    """Time each step that no client and no node can do without, alone."""
    striping = striping_for(NODES)
    (folder / "sample").write_bytes(os.urandom(SAMPLE))
    file = os.open(folder / "sample", os.O_RDONLY)

    def read(offset: int, size: int) -> bytes:
        return os.pread(file, size, offset)

    def encoded() -> tuple[erasure.Writer, list[list[memoryview]]]:
        writer = erasure.Writer(striping, SAMPLE, bytes(erasure.SEED_SIZE))
        writer.scan(read)
        return writer, [writer.row(page, read) for page in range(writer.pages)]

    writer, stripes = encoded()
    keys = [Key(c.ENC_COIN256, secrets.token_bytes(32), bytes(5))] * NODES
    frames: list[packet.Sent] = []

    def pack() -> None:
        frames.clear()
        for pages in stripes:
            batch = Batch(c.GROUP_MAIL, c.CMD_UPLOAD_PAGE, list(range(NODES)), keys, [b""] * NODES, list(pages))
            frames.extend(packet.pack(batch, os.urandom(batch.entropy_size())))

    def open_frames() -> None:
        for frame in opened:
            assert _framing.open_long(frame, keys[0].secret)

    def decode() -> None:
        reader = erasure.Reader(writer.layout, writer.root)
        for number, pages in enumerate(stripes):
            found = reader.check_row(number, dict(enumerate(pages[: striping.k])))
            reader.join(number, {stripe: shards for stripe, shards in found.items() if isinstance(shards, Shards)})

    pages = [page for row in stripes for page in row]
    encode, packed = spent(encoded), spent(pack)
    opened = [bytearray(memoryview(sent.frame)) for sent in frames]
    travel = packed + spent(lambda: through_sockets(opened)) + spent(open_frames, times=1)
    store = spent(lambda: into_files(folder, pages, sync=False))
    join = spent(decode)
    save = spent(lambda: (folder / "saved").write_bytes((folder / "sample").read_bytes()))
    os.close(file)
    share = striping.k / striping.n  # of the stripes comes back
    return Costs((encode + travel + store) / SAMPLE, (share * travel + join + save) / SAMPLE)


def disk(folder: Path, size: int) -> tuple[float, float]:
    """Seconds the stripes of `size` bytes take to the disk, and seconds one file of that size takes; nothing else."""
    striping = striping_for(NODES)
    page = memoryview(os.urandom(c.PAGE_SIZE))
    marks = [time.perf_counter()]
    for name, count, files in (("stripes", size * striping.n // striping.k, NODES), ("file", size, 1)):
        (folder / name).mkdir(parents=True)
        into_files(folder / name, [page] * (count // len(page)), files, sync=True)
        marks.append(time.perf_counter())
    return marks[1] - marks[0], marks[2] - marks[1]


# ---- the attachment


def fill(path: Path, size: int) -> None:
    """Make the large file."""
    with open(path, "wb") as file:
        for _ in range(size // MIB):
            file.write(os.urandom(MIB))
        file.flush()
        os.fsync(file.fileno())


def digest(path: Path) -> bytes:
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


async def large(world: World, size: int) -> list[Row]:
    """One large attachment up and down."""
    path, cores = world.data / "alice" / "files" / "big.bin", os.cpu_count() or 1
    peak = Peak()
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as child:
        # not here: what the steps leave in the heap would be taken for the attachment's
        cost = await asyncio.get_running_loop().run_in_executor(child, costs, world.data)
    await asyncio.to_thread(fill, path, size)
    watcher = asyncio.create_task(peak.watch())
    disks = [await asyncio.to_thread(disk, world.data / "before", size)]
    marks, cpu = [time.perf_counter()], [time.process_time()]

    def mark() -> None:
        marks.append(time.perf_counter())
        cpu.append(time.process_time())

    await world.alice.send(world.alice.draft([BOB_TEXT], "large", "", attachments=[Source("big.bin", path=str(path))]))
    mark()
    (mail,) = await world.bob.receive()
    found = await world.bob.attachment(mail.message.id, mail.attachments[0].id)
    mark()
    watcher.cancel()
    disks.append(await asyncio.to_thread(disk, world.data / "after", size))
    assert await asyncio.to_thread(digest, path) == await asyncio.to_thread(digest, Path(found.path))
    name, mib = f"{size // MIB} MiB attachment", size / MIB
    lines = []
    for way, at, cost_of in (("up", 0, cost.up), ("down", 1, cost.down)):
        seconds, used = marks[at + 1] - marks[at], cpu[at + 1] - cpu[at]
        on_disk, on_cores = sum(one[at] for one in disks) / 2, cost_of * size / cores
        peer = "limit of the " + ("disk" if on_disk > on_cores else "processor")
        share = max(on_disk, on_cores) / seconds
        lines += [
            want(row(f"{name}, {way}", mib / seconds, "MiB/s", 0.0, (peer, share)), ">= 0.6 x"),
            row(f"{name}, {way}, limit of the disk", mib / on_disk, "MiB/s", abs(disks[0][at] / on_disk - 1)),
            row(f"{name}, {way}, limit of the processor", mib / on_cores, "MiB/s", 0.0),
            row(f"{name}, {way}, time of all cores", used, "s", 0.0, ("its steps alone", cost_of * size / used)),
        ]
    return [*lines, want(row(f"{name}, memory above start", peak.growth, "MiB", 0.0), "<= 200 MiB")]


async def measure(size: int) -> list[Row]:
    """All in a fresh world."""
    with tempfile.TemporaryDirectory(prefix="qmail-bench-") as folder:
        world = World(Path(folder), PORT_BASE)
        try:
            await world.start()
            return await large(world, size)
        finally:
            await world.stop()


def rows(size: int = SIZE) -> Iterator[Row]:
    """All rows of the large attachment; `size` in bytes."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield from runner.run(measure(size))
