"""Copies of receipts as files, for people and scripts: written by a thread, as making a file may wait for the disk.

What comes while files are being written is the next round, and of one file only the newest text is written. Each file
is replaced by rename, so that a reader never sees half of one.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping

from qmail_core.folders import make_private

log = logging.getLogger("qmail.receipts")


class Mirror:
    """The files of one folder."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._next: dict[str, bytes] = {}  # texts of the round to come, by name
        self._written: asyncio.Future[None] | None = None  # the end of that round
        self._busy = False
        make_private(folder)

    def put(self, name: str, text: bytes) -> asyncio.Future[None]:
        """Replace a file; the future ends when it is there, or could not be written."""
        self._next[name] = text
        written = self._written
        if written is None:
            written = self._written = asyncio.get_running_loop().create_future()
        if not self._busy:
            self._round()
        return written

    def _round(self) -> None:
        texts, self._next = self._next, {}
        written, self._written = self._written, None
        self._busy = True

        def ended(_: object) -> None:
            self._busy = False
            if written is not None and not written.done():
                written.set_result(None)
            if self._next:
                self._round()

        asyncio.get_running_loop().run_in_executor(None, self._write, texts).add_done_callback(ended)

    def _write(self, texts: Mapping[str, bytes]) -> None:
        for name, text in texts.items():
            path = os.path.join(self._folder, name)
            try:
                _replace(path, text)
            except OSError as error:  # the store holds the truth, so a disk that is full stops nothing
                log.warning("the copy %s could not be written: %s", name, error)


def _replace(path: str, text: bytes) -> None:
    # plain calls of the system: a file object makes twice as many, and each gives the interpreter's lock away
    descriptor = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        while text:
            text = text[os.write(descriptor, text) :]
    finally:
        os.close(descriptor)
    os.replace(f"{path}.new", path)
