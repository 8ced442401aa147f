"""Files named by path in a request: only regular files below the allowed folders are ever opened, and new ones made.

A path is split into components and walked from an opened root with O_NOFOLLOW, so neither "..", symbolic links nor a
folder swapped in between lead outside; what is opened is what was checked. Missing, unreadable and outside are one
error, because the difference would tell a caller what exists on the machine.

Windows paths (the interface's documents use them) mean nothing here unless a drive rule maps their prefix to a folder.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Sequence

from qmail_core.errors import Conflict, PathRefused, UsageError

_MAX_PATH = 4096
_TAKEN = "there is a file of this name already"


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
        folder, name = self._folder(text)
        try:
            return _open_file(name, folder)
        except (OSError, UnicodeError):
            raise PathRefused("not found or not readable") from None
        finally:
            os.close(folder)

    def _folder(self, text: str) -> tuple[int, str]:
        """The opened folder a path is in, and its last component."""
        path = self.resolve(text)
        for root in self._roots:
            if os.path.commonpath((root, path)) == root and path != root:
                *folders, name = os.path.relpath(path, root).split("/")
                try:
                    return _walk(root, folders), name
                except (OSError, UnicodeError):
                    break
        raise PathRefused("not found or not readable")

    def check_new(self, text: str) -> str:
        """The resolved path of a file that may be made there.

        raises   PathRefused if its folder is not below the allowed ones, Conflict if there is something of this name
        """
        folder, name = self._folder(text)
        try:
            os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return self.resolve(text)
        except (OSError, UnicodeError):
            raise PathRefused("not found or not readable") from None
        finally:
            os.close(folder)
        raise Conflict(_TAKEN)

    def put_new(self, source: str, text: str) -> None:
        """Move a finished file of the engine's own to a path, where it appears whole; errors as of `check_new`."""
        folder, name = self._folder(text)
        try:
            _move(source, name, folder)
            os.fsync(folder)
        except FileExistsError:
            raise Conflict(_TAKEN) from None
        finally:
            os.close(folder)

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
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for component in components:
        try:
            below = os.open(component, flags, dir_fd=folder)
        finally:
            os.close(folder)
        folder = below
    return folder


def _open_file(name: str, folder: int) -> int:
    # O_NONBLOCK, so that a FIFO in the place of a file cannot hang us before fstat refuses it
    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise PathRefused("not found or not readable")
    return file


def _move(source: str, name: str, folder: int) -> None:
    """A link replaces nothing, where a rename would."""
    try:
        os.link(source, name, dst_dir_fd=folder)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP):
            raise
        _copy(source, name, folder)
    os.remove(source)


def _copy(source: str, name: str, folder: int) -> None:
    """To another medium, or one without links: the name is taken by an empty file, which the whole one replaces."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    part = f".{os.path.basename(source)}.part"
    os.close(os.open(name, flags, 0o600, dir_fd=folder))
    try:
        with open(source, "rb") as old, os.fdopen(os.open(part, flags, 0o600, dir_fd=folder), "wb") as new:
            shutil.copyfileobj(old, new, 1 << 20)
            new.flush()
            os.fsync(new.fileno())
        os.rename(part, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        for made in (part, name):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(made, dir_fd=folder)
        raise
