"""Large files into the file-transfer API and out of it, against a bare Starlette stream under the same uvicorn.

What is measured: one file of `--size` MiB (256) through a server process of ours with every layer on (token, limits,
access line; the file is sealed and summed, and durable when the answer comes), one connection, loopback, the client a
plain socket in this process. The peer takes the same bytes into a plain file and gives them back; it seals nothing.
nginx is a second peer for downloads where it is installed. Files are in memory (/dev/shm) where there is room, so that
no disk is measured. Servers take turns; figures are the best of ROUNDS. Sealing and summing cost as much again as all
else, on a second core: rows by processor time show that, and on a machine whose cores are busy the others do. Memory
is the growth of the server's resident peak over all of it.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.api_clients import Server
from bench.measure import Row, row, want
from bench.transfer_site import PIN

SIZE = 256 << 20
ROUNDS = 5
PORTS = (28190, 28191, 28192)  # below those the system gives to clients
BLOCK = os.urandom(1 << 20)
EDGE = b"-" * 24 + b"lYc8mO1qS3uW5yA7cE9gI2"  # as common clients draw it; how long it is matters to who looks for it
BARE = "bare Starlette"
_SHM = Path("/dev/shm")


class Client:
    """One connection at a time to a server, and what it says."""

    def __init__(self, port: int, token: str = "") -> None:
        self._port = port
        self._lines = f"Host: 127.0.0.1:{port}\r\nConnection: close\r\n"
        if token:
            self._lines += f"Authorization: Bearer {token}\r\n"

    def ask(self, verb: str, path: str, body: object = None) -> Any:
        """The `data` of a JSON answer."""
        raw = b"" if body is None else json.dumps(body).encode()
        return json.loads(self.send(verb, path, [raw], len(raw), "Content-Type: application/json\r\n"))["data"]

    def send(self, verb: str, path: str, blocks: list[bytes], size: int, headers: str = "") -> bytes:
        """Send a body; the answer's."""
        head = f"{verb} {path} HTTP/1.1\r\n{self._lines}{headers}Content-Length: {size}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", self._port)) as sock:
            sock.sendall(head.encode())
            for block in blocks:
                sock.sendall(block)
            answer = b"".join(iter(lambda: sock.recv(1 << 16), b""))
        head_, _, body = answer.partition(b"\r\n\r\n")
        assert head_.split(b" ")[1] in (b"200", b"201", b"204"), answer[:500]
        return answer if verb == "PATCH" or b"location:" in head_.lower() else body

    def fetch(self, path: str, size: int) -> None:
        """Take a file and forget it."""
        buffer = bytearray(1 << 20)
        with socket.create_connection(("127.0.0.1", self._port)) as sock:
            sock.sendall(f"GET {path} HTTP/1.1\r\n{self._lines}\r\n".encode())
            got, head = 0, b""
            while b"\r\n\r\n" not in head:
                head += sock.recv(4096)
            got = len(head.partition(b"\r\n\r\n")[2])
            assert head.split(b" ")[1] == b"200", head
            while count := sock.recv_into(buffer):
                got += count
        assert got == size, (got, size)


class Ours:
    """The documented calls."""

    def __init__(self, client: Client, size: int) -> None:
        self._client, self._size = client, size
        self._key = client.ask("POST", "/api/keys", {"pin": PIN})["key"]

    def form(self) -> str:
        """Upload by a form; returns the file's id."""
        head = (
            b"--" + EDGE + b'\r\nContent-Disposition: form-data; name="file"; filename="bench.bin"\r\n'
            b"Content-Type: application/octet-stream\r\n\r\n"
        )
        blocks = [head, *[BLOCK] * (self._size >> 20), b"\r\n--" + EDGE + b"--\r\n"]
        kind = f"Content-Type: multipart/form-data; boundary={EDGE.decode()}\r\n"
        raw = self._client.send("POST", "/api/files", blocks, sum(map(len, blocks)), kind)
        return str(json.loads(raw)["data"]["id"])

    def tus(self) -> str:
        """Upload by tus, in one request; returns the file's id."""
        lines = (
            f"Tus-Resumable: 1.0.0\r\nUpload-Length: {self._size}\r\nContent-Type: application/offset+octet-stream\r\n"
        )
        answer = self._client.send("POST", "/api/files/tus", [BLOCK] * (self._size >> 20), self._size, lines)
        found = re.search(rb"location: \S*/([0-9a-f-]{36})", answer, re.I)
        assert found is not None
        return found[1].decode()

    def link(self, file: str) -> str:
        """The path of a new download."""
        made = self._client.ask("POST", "/api/downloads", {"files": [file]})["id"]
        url: str = self._client.ask("POST", f"/api/downloads/{made}/keys", {"pinKey": self._key})["url"]
        return "/" + url.split("/", 3)[3]

    def remove(self, file: str) -> None:
        """For good."""
        for _ in range(2):
            self._client.send("DELETE", f"/api/files/{file}", [], 0)


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.perf_counter()
    found = call()
    return time.perf_counter() - begun, found


class Site(Server):
    """One process of bench.transfer_site."""

    def __init__(self, what: str, port: int, folder: Path) -> None:
        super().__init__(what, port, folder, "bench.transfer_site")
        self._before = self.memory()

    def spent(self) -> float:
        """Seconds of processor time of all its threads so far."""
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text(encoding="ascii").split()[0]) for task in tasks) / 1e9

    def growth(self) -> float:
        """MiB the peak of the resident memory is above what it was when the server had started."""
        text = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        peak = int(re.search(r"VmHWM:\s+(\d+)", text)[1]) * 1024  # type: ignore[index]
        return (peak - self._before) / 2**20


@contextmanager
def _site(what: str, port: int, folder: Path) -> Iterator[Site]:
    folder.mkdir(mode=0o700)
    site = Site(what, port, folder)
    try:
        yield site
    finally:
        site.stop()


@contextmanager
def _nginx(port: int, folder: Path, file: Path, size: int) -> Iterator[Callable[[], None] | None]:
    """nginx with its usual settings for files, or None where there is none."""
    program = shutil.which("nginx")
    if program is None:
        yield None
        return
    folder.mkdir()
    lines = (
        f"daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/log; events {{}} http {{ sendfile on;"
        f" access_log off; server {{ listen 127.0.0.1:{port}; root {file.parent}; }} }}"
    )
    (folder / "conf").write_text(lines, encoding="ascii")
    process = subprocess.Popen([program, "-p", str(folder), "-c", str(folder / "conf")])
    try:
        time.sleep(0.5)
        client = Client(port)
        yield lambda: client.fetch(f"/{file.name}", size)
    finally:
        process.terminate()
        process.wait(20)


def _place(size: int) -> Path | None:
    """Where files go: memory, if four of them have room there."""
    return _SHM if _SHM.is_dir() and shutil.disk_usage(_SHM).free > 4 * size else None


class _Times:
    """Seconds by name, a list of each: those that passed, and those a server worked."""

    def __init__(self) -> None:
        self._seconds: dict[str, list[float]] = {}

    def take(self, name: str, call: Callable[[], Any], site: Site | None = None) -> Any:
        before = site.spent() if site is not None else 0.0
        seconds, found = _timed(call)
        self._seconds.setdefault(name, []).append(seconds)
        if site is not None:
            self._seconds.setdefault(f"{name}, worked", []).append(site.spent() - before)
        return found

    def of(self, name: str) -> float:
        return min(self._seconds[name])

    def spread(self, name: str) -> float:
        times = self._seconds[name]
        return (max(times) - min(times)) / 2 / self.of(name)

    def row(self, what: str, name: str, size: int, peer: tuple[str, str]) -> Row:
        """MB per second of `name`, against a peer's times."""
        ratio = self.of(peer[1]) / self.of(name)
        return row(what, size / self.of(name) / 1e6, "MB/s", self.spread(name), (peer[0], ratio))

    def both(self, what: str, name: str, size: int, bare: str) -> Iterator[Row]:
        """In passed time, which has the goal, and by processor time, in which neighbours do not count."""
        yield want(self.row(what, name, size, (BARE, bare)), ">= 0.5 x")
        yield self.row(f"{what}, by processor time", f"{name}, worked", size, (BARE, f"{bare}, worked"))


def rows(size: int = SIZE) -> Iterator[Row]:
    size = max(1, size >> 20) << 20
    with tempfile.TemporaryDirectory(prefix="qmail-bench-", dir=_place(size)) as name:
        folder, times = Path(name), _Times()
        with _site("qmail", PORTS[0], folder / "ours") as site, _site("starlette", PORTS[1], folder / "bare") as other:
            bare, ours = Client(PORTS[1]), Ours(Client(PORTS[0], site.facts["token"]), size)
            blocks = [BLOCK] * (size >> 20)
            with _nginx(PORTS[2], folder / "nginx", folder / "bare" / "plain", size) as nginx:
                for _ in range(ROUNDS):
                    times.take("bare up", lambda: bare.send("POST", "/", blocks, size), other)
                    files = [times.take("form", ours.form, site), times.take("tus", ours.tus, site)]
                    times.take("bare down", lambda: bare.fetch("/", size), other)
                    link = ours.link(files[0])
                    times.take("down", functools.partial(ours._client.fetch, link, size), site)
                    if nginx is not None:
                        times.take("nginx", nginx)
                    for file in files:
                        ours.remove(file)
            mib = f"{size >> 20} MiB"
            yield from times.both(f"upload, form of {mib}", "form", size, "bare up")
            yield from times.both(f"upload, tus of {mib}", "tus", size, "bare up")
            yield from times.both(f"download, {mib}", "down", size, "bare down")
            if nginx is not None:
                yield times.row(f"download, {mib}", "down", size, ("nginx", "nginx"))
            yield want(row(f"memory, growth over {2 * ROUNDS} uploads", site.growth(), "MiB", 0.0), "<= 200 MiB")
