"""Keeping freed memory is a wish: it is granted, or nothing happens."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest
from qmail_server import memory


def test_another_c_library_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    memory.keep_freed()


def test_the_c_library_grants_it() -> None:
    """In a process of its own: how this one keeps memory is not for tests to say."""
    code = "from qmail_server.memory import keep_freed; keep_freed(); print(sum(map(len, [bytes(1 << 20)] * 8)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(8 << 20)
