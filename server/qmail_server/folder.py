"""The folder of an engine: its owner's alone, and open in one process at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from qmail_core.errors import ConfigError

LOCK = "lock"  # the file whose lock says that a process has the folder open


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold a folder, made with mode 0700 if it is not there; a second process would sweep what comes in at the first.

    raises   ConfigError if others may look into the folder, or another process holds it
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    check_private(folder)
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # gone with the process, however that ends
        except BlockingIOError:
            raise ConfigError(f"{folder}: another process has it open") from None
        yield
    finally:
        os.close(descriptor)


def check_private(folder: Path) -> None:
    """ConfigError if others than its owner may look into a folder."""
    if folder.stat().st_mode & 0o077:
        raise ConfigError(f"{folder} may be read by others; its mode must be 0700 (chmod 700)")
