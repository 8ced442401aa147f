"""What the benches do when they cannot measure."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from bench.api_clients import Server


def test_a_port_that_is_taken_ends_a_bench_with_a_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit, match=f"^port {port} is taken, and the bench needs it for its server raw$"):
            Server("raw", port, tmp_path)


def test_a_server_that_does_not_start_ends_a_bench_with_a_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(SystemExit, match=f"^the server raw of the bench did not start on port {port}$"):
        Server("raw", port, tmp_path, module="bench.nothing")
