"""What is brought down to the medium, for tests of what a power failure leaves."""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Callable

import pytest


class Syncs:
    """Names of what is synced; files can be made to fail."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.names: list[str] = []
        self.fails = False
        for call in ("fsync", "fdatasync"):
            patch.setattr(os, call, functools.partial(self._sync, getattr(os, call)))

    def _sync(self, real: Callable[[int], None], descriptor: int) -> None:
        name = os.readlink(f"/proc/self/fd/{descriptor}")
        if self.fails and os.path.isfile(name):
            raise OSError(errno.EIO, "the medium is broken")
        self.names.append(name)
        real(descriptor)
