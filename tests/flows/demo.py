"""The demo as a process of its own, for tests that use it as its users do: over HTTP, with kill -9 in the middle."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

ROOT_PATH = Path(__file__).parents[2]
START_SECONDS = 30.0
NODE_SPAN = range(1000, 1025)


def free_port_base() -> int:
    """A port base whose three API ports and 25 node ports can all be bound now."""
    for _ in range(200):
        base = random.randrange(11_000, 31_000)  # below the range the system hands out for outgoing connections
        if all(is_free(base + offset) for offset in (0, 1, 2, *NODE_SPAN)):
            return base
    raise RuntimeError("no free range of ports")


def is_free(port: int) -> bool:
    """For connections and for datagrams: nodes take both."""
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            if kind == socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True


class Demo:
    """`qmail demo` with its state in `data`; Alice on `alice`, Bob on `bob`."""

    def __init__(self, data: Path, *arguments: str) -> None:
        self.data = data
        self.base = free_port_base()
        self.alice = f"http://127.0.0.1:{self.base}"
        self.bob = f"http://127.0.0.1:{self.base + 2}"
        self.http = httpx.Client(timeout=60.0)
        self._arguments = arguments
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start the process and return when it serves."""
        path = os.pathsep.join([str(ROOT_PATH), str(ROOT_PATH / "server"), os.environ.get("PYTHONPATH", "")])
        command = [sys.executable, "-m", "qmail_server", "demo", "--no-tour", "--no-open"]
        command += ["--port-base", str(self.base), "--data", str(self.data), *self._arguments]
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"},
        )
        assert self._process.stdout is not None
        first = self._process.stdout.readline()
        assert first.startswith("qmail demo, ready"), first + self._process.stdout.read()

    @property
    def pid(self) -> int:
        """The process."""
        assert self._process is not None
        return self._process.pid

    def stop(self) -> str:
        """Ctrl-C; returns the rest of what it printed, after checking that it ended cleanly."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        rest, _ = self._process.communicate(timeout=20)
        assert self._process.returncode == 0, rest
        assert "Traceback" not in rest, rest
        self._process = None
        return rest

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate(timeout=20)
            self._process = None

    def get(self, url: str, **params: Any) -> dict[str, Any]:
        """A JSON answer that must be 200."""
        answer = self.http.get(url, params=params or None)  # an empty dict would drop the query of `url`
        assert answer.status_code == 200, answer.text
        result: dict[str, Any] = answer.json()
        return result

    def node(self, number: int, state: str) -> None:
        """Change what a node does."""
        answer = self.http.post(f"{self.alice}/api/demo/nodes/{number}", data={"state": state})
        assert answer.status_code == 200, answer.text

    def task(self, task_id: str, seconds: float = 60.0, api: str = "") -> dict[str, Any]:
        """A task once it has left `running`."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            task = self.get(f"{api or self.alice}/api/system/tasks", id=task_id)
            if task["status"] != "running":
                return task
            time.sleep(0.01)
        raise AssertionError(f"{task_id} still runs after {seconds} s")

    def until(self, holds: Callable[[], bool], seconds: float = 60.0) -> None:
        """Ask until it holds."""
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, f"does not hold after {seconds} s"
            time.sleep(0.01)

    def send(self, **params: Any) -> dict[str, Any]:
        """upload_and_tell by Alice, which must be accepted."""
        return self.get(f"{self.alice}/api/qmail/net/messages/upload_and_tell", **params)

    def close(self) -> None:
        """Make sure nothing is left."""
        self.http.close()
        self.kill()


@contextmanager
def running(data: Path) -> Iterator[Demo]:
    """A demo that serves, and that must end cleanly when the test is over."""
    demo = Demo(data)
    try:
        demo.start()
        yield demo
        demo.stop()
    finally:
        demo.close()
