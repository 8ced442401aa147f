"""The host of RAIDA nodes: requests a second, memory of parked pings, and how fast a tell wakes one.

What is measured: one process with 25 nodes on disk, default policy, on one core; a client in C on another core, over
loopback, with 50 connections that each have one request under way. A request carries 1 KiB and is one the node only
reads for (version), encrypted both ways. The peer of the rates is a C epoll server of 25 ports in the same run, by the
same client, that answers as many bytes and does no cryptography at all (peer.c, compiled when the bench starts).
Memory is what the process grows by, without the kernel's. Nothing but 127.0.0.1 is ever connected to.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from bench.measure import Row, row, want
from qmail_core.codec import cipher, mail, packet
from qmail_core.codec import consts as c
from qmail_core.codec.cipher import Key
from qmail_core.model import Address, Coin, FileEntry, Profile, StripeLocation, Striping, Tell

NODES = 25
LINES = 50
REQUESTS = 20_000
ROUNDS = 5
POLLS = 10_000
WAKES = 200
BODY = bytes(1024)
VERSION_SIZE = 8
PEER = "C epoll, no cryptography"


def library() -> ctypes.CDLL:
    """peer.c as a library."""
    folder = Path(tempfile.mkdtemp())
    try:
        built, source = folder / "peer.so", Path(__file__).parent / "peer.c"
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", str(built), str(source)], check=True)
        found = ctypes.CDLL(str(built))
    finally:
        shutil.rmtree(folder)
    found.peer_load.restype = ctypes.c_double
    found.peer_load.argtypes = [
        ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_long, ctypes.c_size_t
    ]  # fmt: skip
    return found


def coins() -> list[Coin]:
    """The coins that all nodes of this bench know; the same in every process."""
    draw = random.Random(25).randbytes
    return [Coin(Address(1, serial), draw(16 * NODES)) for serial in range(1, POLLS + 2)]


def pin(core: int) -> None:
    """Stay on one core, where there are several."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[core % len(cores)]})


# ------------------------------------------------------------------------------------------------------------------
# The servers: `python -m bench.bench_node nodes|epoll`


def serve_epoll() -> None:
    """The C peer: prints its ports, then answers until it is ended."""
    peer, fds, ports = library(), (ctypes.c_int * NODES)(), (ctypes.c_uint16 * NODES)()
    assert peer.peer_listen(NODES, fds, ports) == 0
    print(json.dumps(list(ports)), flush=True)
    peer.peer_serve(NODES, fds, ctypes.c_size_t(c.HEADER_SIZE + VERSION_SIZE + 2))


async def serve_nodes(folder: Path) -> None:
    """25 nodes: prints their ports, then parked pings and own KiB for every line it reads."""
    from qmail_server.memory import collect_seldom, keep_freed
    from qmail_server.raida import RaidaHost

    from qmail_core.raida.node import Node, Policy
    from qmail_core.store.node import NodeStore

    keep_freed()  # as `qmail raida` does
    known = coins()
    nodes = []
    for index in range(NODES):
        state = NodeStore(folder / str(index))
        state.set_ans((mail.build_selector(coin.address), coin.an(index)) for coin in known)
        state.commit()
        policy = Policy(inbox_fee=0)
        nodes.append(Node(index, state, policy=policy, entropy=os.urandom, timer=time.perf_counter))
    host = RaidaHost(nodes)
    del known
    await host.start()
    collect_seldom()
    print(json.dumps(host.ports()), flush=True)
    asked = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(asked), sys.stdin)
    while await asked.readline():
        parked = sum(len(peers) for seat in host._seats for peers in seat.parked.values())
        print(json.dumps([parked, memory()]), flush=True)
    await host.stop()


def memory() -> int:
    """KiB this process has for itself."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1])


class Server:
    """One of the two as a process of its own."""

    def __init__(self, kind: str, folder: str) -> None:
        args = [sys.executable, "-m", "bench.bench_node", kind, folder]
        self._process = subprocess.Popen(args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.ports: list[int] = json.loads(self._out.readline())

    @property
    def _out(self) -> IO[str]:
        assert self._process.stdout is not None
        return self._process.stdout

    def ask(self) -> tuple[int, int]:
        """(pings parked, KiB of memory)."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        parked, memory = json.loads(self._out.readline())
        return parked, memory

    def until_parked(self, count: int) -> int:
        """Wait for so many pings; KiB of memory then."""
        deadline = time.monotonic() + 30
        while (found := self.ask())[0] != count:
            assert time.monotonic() < deadline, f"{found[0]} of {count} pings are parked"
            time.sleep(0.002)
        return found[1]

    def busy(self) -> float:
        """Seconds on the processor so far."""
        return int(Path(f"/proc/{self._process.pid}/schedstat").read_text(encoding="ascii").split()[0]) / 1e9

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()


# ------------------------------------------------------------------------------------------------------------------
# The client


def frames(keys: list[Key], count: int) -> bytes:
    """`count` fresh requests, for each node in turn."""
    batch = packet.Batch(c.GROUP_STATUS, c.CMD_VERSION, list(range(NODES)), keys, [BODY] * NODES, [b""] * NODES)
    found = []
    for _ in range(count // NODES):
        found += [bytes(sent.frame) for sent in packet.pack(batch, os.urandom(batch.entropy_size()))]
    return b"".join(found)


class Load(NamedTuple):
    """What one run of requests took."""

    rate: float  # requests a second
    core: float  # seconds of the server's core for each


def load(peer: ctypes.CDLL, server: Server, data: bytes, count: int, answer: int) -> Load:
    lines = (ctypes.c_uint16 * LINES)(*(server.ports[i % NODES] for i in range(LINES)))
    before = server.busy()
    spent = peer.peer_load(LINES, lines, data, len(data) // count, count, answer)
    assert spent > 0, "a connection failed or an answer was not 250"
    return Load(count / spent, (server.busy() - before) / count)


def rate_rows(peer: ctypes.CDLL, ours: Server, theirs: Server) -> Iterator[Row]:
    coin = coins()[0]
    short = c.HEADER_SIZE + VERSION_SIZE + 2
    plain = frames([cipher.coin_key(c.ENC_COIN, coin, node) for node in range(NODES)], REQUESTS)
    for enc, answer in ((c.ENC_COIN, short), (c.ENC_COIN256, c.HEADER256_SIZE + VERSION_SIZE + c.HMAC_SIZE + 2)):
        keys = [cipher.coin_key(enc, coin, node) for node in range(NODES)]
        load(peer, ours, frames(keys, 2000), 2000, answer)
        pairs = []
        for _ in range(ROUNDS):
            data = frames(keys, REQUESTS)  # fresh ones: a node refuses a frame it has seen
            pairs.append((load(peer, ours, data, REQUESTS, answer), load(peer, theirs, plain, REQUESTS, short)))
        rates, cores = [one.rate / 1e3 for one, _ in pairs], [one.core * 1e6 for one, _ in pairs]
        name = f"requests of 1 KiB, 25 nodes, type {enc}"
        line = row(name, *middle(rates), (PEER, statistics.median(one.rate / other.rate for one, other in pairs)))
        yield want(line, ">= 0.5 x") if enc == c.ENC_COIN else line
        saved = statistics.median(other.core / one.core for one, other in pairs)
        yield row(f"{name}, time of the core", *middle(cores, "us"), (PEER, saved))


def middle(values: list[float], unit: str = "k/s") -> tuple[float, str, float]:
    """Median, its unit, its spread."""
    low, value, high = statistics.quantiles(values, n=4)
    return value, unit, (high - low) / 2 / value


def talk(port: int) -> socket.socket:
    line = socket.create_connection(("127.0.0.1", port), timeout=10)
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return line


def request(coin: Coin, node: int, command: int, rest: bytes) -> bytes:
    key = cipher.coin_key(c.ENC_COIN256, coin, node)
    batch = packet.Batch(c.GROUP_MAIL, command, [node], [key], [mail.build_identity(coin, node)], [rest])
    return bytes(packet.pack(batch, os.urandom(batch.entropy_size()))[0].frame)


def poll_row(ours: Server, readers: list[Coin]) -> Row:
    before = ours.until_parked(0)
    lines = []
    try:
        for coin in readers:
            lines.append(talk(ours.ports[1]))
            lines[-1].sendall(request(coin, 1, c.CMD_PING, b""))
        after = ours.until_parked(len(readers))
    finally:
        for line in lines:
            line.close()
    ours.until_parked(0)
    value = (after - before) / len(readers)
    return want(row(f"parked ping, one of {len(readers)}", value, "KiB", 0.0), "<= 2.5 KiB")


def tell_of(sender: Coin) -> Tell:
    return Tell(
        guid=os.urandom(16),
        sender=sender.address,
        timestamp=int(time.time()),
        tell_type=0,
        total_size=5,
        striping=Striping(Profile.SEALED, 1, 1),
        files=(FileEntry(1, c.FLAG_BODY, 5, 7),),
        servers=(StripeLocation(0, False, 0), StripeLocation(1, True, 1)),
    )


def wake_rows(ours: Server, sender: Coin, reader: Coin) -> Iterator[Row]:
    spent = []
    with talk(ours.ports[2]) as parked, talk(ours.ports[2]) as other:
        for _ in range(WAKES):
            parked.sendall(request(reader, 2, c.CMD_PING, b""))
            ours.until_parked(1)
            frame = request(
                sender, 2, c.CMD_TELL, mail.build_tell(tell_of(sender), [mail.TellRecipient(reader.address)])
            )
            begun = time.perf_counter()
            other.sendall(frame)
            answer = parked.recv(4096)
            spent.append((time.perf_counter() - begun) * 1e3)
            assert answer[2] == c.STATUS_SUCCESS
            other.recv(4096)
    yield want(row("tell to woken ping, durable", *middle(spent, "ms")), "<= 5 ms")
    yield row("tell to woken ping, durable, 99th percentile", statistics.quantiles(spent, n=100)[98], "ms", 0.0)


def rows() -> Iterator[Row]:
    """Every figure of this file."""
    cores = os.sched_getaffinity(0)
    known = coins()
    peer = library()
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = Server("nodes", folder), Server("epoll", folder)
        pin(1)
        try:
            yield from rate_rows(peer, ours, theirs)
            yield from wake_rows(ours, known[0], known[-1])
            yield poll_row(ours, known[:POLLS])
        finally:
            os.sched_setaffinity(0, cores)
            ours.stop()
            theirs.stop()


def main(kind: str, folder: str) -> None:
    pin(0)
    if kind == "epoll":
        serve_epoll()
        return
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve_nodes(Path(folder)))


if __name__ == "__main__":
    main(*sys.argv[1:])
