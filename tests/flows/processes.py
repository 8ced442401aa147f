"""The programs of an operator as processes of their own: nodes, engines, and what makes their money."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import httpx

from tests.flows.demo import ROOT_PATH, is_free

FIRST_PORTS = range(5_000, 10_900)  # below those of the demos that run beside these tests


def free_ports(count: int, start: int = 0) -> list[int]:
    """Ports nobody listens on now; `start` keeps tests that run side by side apart."""
    first = FIRST_PORTS.start + (os.getpid() * 613 + start * 101) % (len(FIRST_PORTS) - 500)
    # an engine listens a hundred above as well
    found = [port for port in range(first, first + 400) if is_free(port) and is_free(port + 100)]
    return found[:count]


def qmail(*words: object, expect: int = 0) -> str:
    """A verb that ends by itself: standard output, or standard error if it must fail."""
    done = subprocess.run(command(words), env=environment(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == expect, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stderr if expect else done.stdout


class Program:
    """A verb that runs until it is told to stop."""

    def __init__(self, *words: object) -> None:
        self._words = words
        self.files = 0  # how many it may have open; 0: as many as these tests
        self._process: subprocess.Popen[str] | None = None
        self.facts: dict[str, Any] = {}

    def start(self) -> Self:
        """Start it, and return when it says that it serves."""
        self._process = subprocess.Popen(
            [*self._limited(), *command(self._words)],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._process.stdout is not None
        said = ""
        for line in self._process.stdout:
            if line.startswith('{"ready": true'):
                self.facts = json.loads(line)
                return self
            said += line
        raise AssertionError(said)

    def _limited(self) -> list[str]:
        return ["sh", "-c", f'ulimit -n {self.files}; exec "$@"', "sh"] if self.files else []

    def stop(self) -> str:
        """SIGTERM; what it printed, after a check that it ended well."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        rest, _ = self._process.communicate(timeout=20)
        assert self._process.returncode == 0, rest
        assert "Traceback" not in rest, rest
        self._process = None
        return rest

    def kill(self) -> None:
        """kill -9; harmless when it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate(timeout=20)
            self._process = None


class Engine(Program):
    """`qmail serve`, and its API."""

    def __init__(self, folder: Path, hosts: Path, port: int, *words: object) -> None:
        self._folder = folder
        self.url = f"http://127.0.0.1:{port}"
        super().__init__("serve", "--data", folder, "--hosts", hosts, "--port", port, *words)

    def get(self, path: str, **params: Any) -> dict[str, Any]:
        """A JSON answer that must be 200, asked for with the token of the folder."""
        answer = httpx.get(self.url + path, params=params or None, headers=self.headers(), timeout=60.0)
        assert answer.status_code == 200, answer.text
        result: dict[str, Any] = answer.json()
        return result

    def post(self, path: str, expected: int = 200, **body: Any) -> dict[str, Any]:
        """The same for a request with a body, as httpx takes it."""
        answer = httpx.post(self.url + path, headers=self.headers(), timeout=60.0, **body)
        assert answer.status_code == expected, answer.text
        result: dict[str, Any] = answer.json()
        return result

    def headers(self) -> dict[str, str]:
        """What shows the token of the folder."""
        return {"Authorization": f"Bearer {(self._folder / 'token').read_text().strip()}"}


def command(words: tuple[object, ...]) -> list[str]:
    return [sys.executable, "-m", "qmail_server", *map(str, words)]


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(ROOT_PATH), str(ROOT_PATH / "server"), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
