"""Files named by path in a request: only regular files below the allowed folders are ever opened.

A path is split into components and walked from an opened root with O_NOFOLLOW, so neither "..", symbolic links nor a
folder swapped in between lead outside; what is opened is what was checked. Missing, unreadable and outside are one
error, because the difference would tell a caller what exists on the machine.

Windows paths (the interface's documents use them) mean nothing here unless a drive rule maps their prefix to a folder.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from qmail_core.errors import PathRefused, UsageError

_MAX_PATH = 4096


class Paths:
    """The allowed folders of one engine.

    home    where relative paths start; always allowed
    roots   further allowed folders
    drives  (Windows prefix, folder) pairs, such as ("E:\\\\Client1", "/srv/client1")
    """

    def __init__(self, home: str, roots: Sequence[str] = (), drives: Sequence[tuple[str, str]] = ()) -> None:
        self._home = os.path.abspath(home)
        self._drives = [(prefix.replace("\\", "/").rstrip("/").lower(), folder) for prefix, folder in drives]
        folders = [self._home, *roots, *(folder for _, folder in drives)]
        # a root may be reached through a link the administrator made; what is below it may not. The innermost root
        # comes first, because such a link may itself lie below another root
        allowed = {os.path.abspath(f) for f in folders} | {os.path.realpath(f) for f in folders}
        self._roots = sorted(allowed, key=len, reverse=True)

    def resolve(self, text: str) -> str:
        """The absolute path a text means; purely lexical, touches no file. PathRefused if it can mean none here."""
        if not text or "\0" in text or len(text) > _MAX_PATH or text.startswith(("\\\\", "//")):
            raise PathRefused("not found or not readable")
        path = self._from_windows(text)
        path = os.path.join(self._home, path)
        if ".." in path.split("/"):
            raise PathRefused("not found or not readable")
        return os.path.normpath(path)

    def _from_windows(self, text: str) -> str:
        if "\\" not in text and text[1:2] != ":":
            return text
        slashed = text.replace("\\", "/")
        for prefix, folder in self._drives:
            if slashed.lower() == prefix or slashed.lower().startswith(prefix + "/"):
                return os.path.join(folder, slashed[len(prefix) :].lstrip("/"))
        raise PathRefused("not found or not readable")

    def open(self, text: str) -> int:
        """Open a regular file for reading; returns its descriptor. PathRefused for everything else."""
        path = self.resolve(text)
        for root in self._roots:
            if os.path.commonpath((root, path)) == root and path != root:
                try:
                    return _walk(root, os.path.relpath(path, root).split("/"))
                except (OSError, UnicodeError):
                    break
        raise PathRefused("not found or not readable")

    def check(self, text: str) -> tuple[str, os.stat_result]:
        """The resolved path of a readable file, and its state."""
        descriptor = self.open(text)
        try:
            return self.resolve(text), os.fstat(descriptor)
        finally:
            os.close(descriptor)

    def read(self, text: str, limit: int) -> bytes:
        """A small file's bytes; UsageError when it is larger than `limit`."""
        with os.fdopen(self.open(text), "rb") as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise UsageError(f"file is larger than {limit} bytes")
        return data


def _walk(root: str, components: Sequence[str]) -> int:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for component in components[:-1]:
            below = os.open(component, flags | os.O_DIRECTORY, dir_fd=folder)
            os.close(folder)
            folder = below
        # O_NONBLOCK, so that a FIFO in the place of a file cannot hang us before fstat refuses it
        file = os.open(components[-1], flags | os.O_NONBLOCK, dir_fd=folder)
    finally:
        os.close(folder)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise PathRefused("not found or not readable")
    return file
