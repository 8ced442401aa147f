"""Folders that only their owner may look into, and whose names last."""

from __future__ import annotations

import contextlib
import os


def make_private(path: str) -> None:
    """Make a folder of mode 0700 and those missing above it, which `os.makedirs` would make readable; or find it."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        if not os.path.isdir(path):
            raise
    except FileNotFoundError:
        above = os.path.dirname(path)
        if above == path:
            raise
        make_private(above)
        with contextlib.suppress(FileExistsError):  # somebody else was quicker
            os.mkdir(path, 0o700)


def sync_folder(path: str) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
