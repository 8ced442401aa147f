"""Clients of the API benches: wrk for rates, and connections that only wait. All on core CLIENT_CORE, all loopback."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from bench.api_site import TOKEN

CLIENT_CORE = (os.cpu_count() or 1) - 1
SECONDS = 1
_LATENCY = re.compile(r"(50|99)%\s+([\d.]+)(us|ms|s)")
_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1000.0}


class Load(NamedTuple):
    """What wrk saw."""

    rate: float  # good answers per second of the server's processor time: what a core of its own would give
    median: float  # ms
    p99: float  # ms


class Server:
    """One process of a module of servers."""

    def __init__(self, what: str, port: int, folder: Path, module: str = "bench.api_site") -> None:
        if _listens(port):  # it would be measured in the place of ours
            raise SystemExit(f"port {port} is taken, and the bench needs it for its server {what}")
        command = [sys.executable, "-m", module, what, str(port), str(folder)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)
        self.port = port
        assert self.process.stdout is not None
        first = self.process.stdout.readline()
        self.facts: dict[str, Any] = json.loads(first or "{}")
        for _ in range(100 if first else 0):  # uvicorn's own start does not say when it listens
            if _listens(port):
                return
            time.sleep(0.05)
        self.stop()
        raise SystemExit(f"the server {what} of the bench did not start on port {port}")

    def spent(self) -> float:
        """Seconds of processor time so far, of all its threads."""
        threads = Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return sum(int(path.read_text(encoding="ascii").split()[0]) for path in threads) / 1e9

    def memory(self) -> int:
        """Resident bytes."""
        text = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) * 1024  # type: ignore[index]

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)
        if self.process.stdout is not None:
            self.process.stdout.close()


def _listens(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def serving(what: str, port: int, folder: Path) -> Iterator[Server]:
    """A server while it is needed."""
    server = Server(what, port, folder)
    try:
        yield server
    finally:
        server.stop()


def has_wrk() -> bool:
    return shutil.which("wrk") is not None and shutil.which("taskset") is not None


def wrk(server: Server, path: str, connections: int = 32, form: str = "", seconds: float = SECONDS) -> Load:
    """Rate and latency of one request; AssertionError if anything but 2xx came."""
    script = ["-s", str(Path(__file__).with_name("post.lua")), f"http://127.0.0.1:{server.port}{path}", "--", form]
    command = ["taskset", "-c", str(CLIENT_CORE), "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
    command += ["-H", f"Authorization: Bearer {TOKEN}"]
    command += script if form else [f"http://127.0.0.1:{server.port}{path}"]
    begun = server.spent()
    text = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    assert "Non-2xx" not in text, text
    spent = server.spent() - begun
    count = re.search(r"(\d+) requests in", text)
    assert count is not None, text
    found = {name: float(value) * _UNITS[unit] for name, value, unit in _LATENCY.findall(text)}
    return Load(int(count[1]) / spent, found["50"], found["99"])


class Parked(asyncio.Protocol):
    """A connection that asks once and waits."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self.seen = b""
        self.done = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        transport.write(self._crowd.request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self.seen += data
        self._crowd.heard(self)


class Crowd:
    """Many parked connections. `greeting` ends what each gets at once, `call` is in what wakes it."""

    def __init__(self, port: int, path: str, greeting: bytes, call: bytes) -> None:
        self.request = (
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
        ).encode()
        self._port, self._greeting, self._call = port, greeting, call
        self.members: list[Parked] = []
        self.greeted = self.woken = 0
        self.last = 0.0

    def heard(self, one: Parked) -> None:
        if not one.done and self._call in one.seen:
            one.done = True
            self.woken += 1
            self.last = time.perf_counter()

    async def gather(self, count: int) -> None:
        """Connect, a hundred at a time, and let all be parked."""
        loop = asyncio.get_running_loop()
        while len(self.members) < count:
            batch = [loop.create_connection(lambda: Parked(self), "127.0.0.1", self._port) for _ in range(100)]
            self.members += [protocol for _, protocol in await asyncio.gather(*batch)]
            if self._greeting:
                while not all(self._greeting in one.seen for one in self.members[-100:]):  # noqa: ASYNC110
                    await asyncio.sleep(0.002)
        await asyncio.sleep(1.0)

    async def wake(self, call: Any, patience: float = 10.0) -> float:
        """Seconds from `call` until the last was woken."""
        begun = time.perf_counter()
        call()
        while self.woken < len(self.members) and time.perf_counter() < begun + patience:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        return self.last - begun if self.woken == len(self.members) else float("inf")

    def leave(self) -> None:
        for one in self.members:
            one.transport.close()
