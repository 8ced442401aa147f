"""Files that are there whole or not at all, also after the power has failed."""

from __future__ import annotations

import os


def sync_folder(folder: str) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def put_in_place(part: str, path: str) -> None:
    """Give a complete file, whose bytes were brought down to the medium, its name; durable when this returns."""
    os.replace(part, path)
    sync_folder(os.path.dirname(path))
