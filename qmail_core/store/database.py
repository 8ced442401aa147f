"""SQLite with one writer thread and group commit.

Every change is a function over a connection, queued to the writer. The thread takes all that is queued, runs each in
a savepoint of one transaction, commits once (WAL, synchronous FULL: on disk), and only then answers; so sixteen
concurrent writers cost one fsync, and a caller that was answered has lost nothing whatever happens next. Reads run on
a connection of their own, on the caller's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator
from importlib import resources
from typing import Any, TypeVar

from qmail_core.errors import StoreError, StoreUnavailable

log = logging.getLogger("qmail.store")
T = TypeVar("T")
Change = Callable[[sqlite3.Connection], T]
_MAX_GROUP = 256
_OWN_FAULTS = frozenset(
    {
        sqlite3.SQLITE_ERROR,
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_MISMATCH,
        sqlite3.SQLITE_TOOBIG,
        sqlite3.SQLITE_RANGE,
        sqlite3.SQLITE_MISUSE,
    }
)


class _Job:
    """One queued change and whom to tell."""

    def __init__(self, change: Change[Any], loop: asyncio.AbstractEventLoop) -> None:
        self.change = change
        self.loop = loop
        self.future: asyncio.Future[Any] = loop.create_future()
        self.result: Any = None
        self.error: BaseException | None = None

    def answer(self) -> None:
        """Wake the caller; on its loop."""
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class Database:
    """One SQLite database; `path` None keeps it in memory."""

    def __init__(self, path: str | None) -> None:
        self._lock: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
        self._writer = _open(path)
        if path is None:
            # one connection serves both sides: an in-memory database cannot be opened twice
            self._reader, self._lock = self._writer, threading.RLock()
        else:
            self._reader = _connect(path)
            self._reader.execute("PRAGMA query_only=ON")
        self.revision = 0  # grows with every commit, after it and before anybody is told of it
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="qmail-store", daemon=True)
        self._thread.start()

    async def write(self, change: Change[T]) -> T:
        """Run a change in the writer; returns its value once it is on disk, or raises what it raised."""
        if self._closed:
            raise StoreUnavailable("the store is closed")
        job = _Job(change, asyncio.get_running_loop())
        self._queue.put(job)
        result: T = await job.future  # whoever is cancelled here does not keep it from being done
        return result

    @contextlib.contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """The reading connection."""
        if self._closed:
            raise StoreUnavailable("the store is closed")
        with self._lock:
            yield self._reader

    async def close(self) -> None:
        """Finish what is queued, then close."""
        if self._closed:
            return
        self._closed = True
        self._queue.put(None)
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join)
        if self._reader is not self._writer:
            self._reader.close()
        self._writer.close()

    def _run(self) -> None:
        last = False
        while not last:
            group: list[_Job] = []
            job = self._queue.get()
            while job is not None:
                group.append(job)
                if len(group) >= _MAX_GROUP or self._queue.empty():
                    break
                job = self._queue.get()
            last = job is None
            if group:
                with self._lock:
                    self._commit(group)
                _answer(group)

    def _commit(self, group: list[_Job]) -> None:
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            for job in group:
                self._apply(job)
            self._writer.execute("COMMIT")
        except sqlite3.Error as error:
            log.error("commit of %d changes failed: %s", len(group), error)
            with contextlib.suppress(sqlite3.Error):
                self._writer.execute("ROLLBACK")
            for job in group:
                job.error = StoreUnavailable(f"the store could not be written: {error}")
        self.revision += 1

    def _apply(self, job: _Job) -> None:
        """Run one change; what it did before it failed is undone, the others of its group stand."""
        self._writer.execute("SAVEPOINT change")
        try:
            job.result = job.change(self._writer)
        except Exception as error:  # handed to the caller as it is
            if isinstance(error, sqlite3.Error) and not _is_own_fault(error):
                raise  # the medium, not the change: the whole group fails
            self._writer.execute("ROLLBACK TO change")
            job.error = error if not isinstance(error, sqlite3.Error) else StoreError(str(error))
        self._writer.execute("RELEASE change")


def _is_own_fault(error: sqlite3.Error) -> bool:
    """Whether a change is to blame, and not the medium; errors of the Python module itself have no code."""
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return code & 0xFF in _OWN_FAULTS  # the upper bits only say more


def _answer(group: list[_Job]) -> None:
    """Wake all callers, those of one loop together; those whose loop has gone wait no more."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Job]] = {}
    for job in group:
        by_loop.setdefault(job.loop, []).append(job)
    for loop, jobs in by_loop.items():
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_wake, jobs)


def _wake(jobs: list[_Job]) -> None:
    for job in jobs:
        job.answer()


def _open(path: str | None) -> sqlite3.Connection:
    """A connection to a database of the newest schema."""
    try:
        with contextlib.ExitStack() as undo:
            connection = undo.enter_context(contextlib.closing(_connect(path)))
            migrate(connection)
            undo.pop_all()
            return connection
    except sqlite3.Error as error:
        raise StoreUnavailable(f"the store {path or 'in memory'} cannot be opened: {error}") from error


def _connect(path: str | None) -> sqlite3.Connection:
    connection = sqlite3.connect(path or ":memory:", isolation_level=None, check_same_thread=False, timeout=10.0)
    with contextlib.ExitStack() as undo:
        undo.callback(connection.close)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA cache_size=-16384")  # KiB; the 2000 of the default do not hold a large index's top
        undo.pop_all()
    return connection


def migrate(connection: sqlite3.Connection) -> None:
    """Bring a database to the newest schema, one numbered file after the other; each in its own transaction."""
    done: int = connection.execute("PRAGMA user_version").fetchone()[0]
    folder = resources.files("qmail_core.store").joinpath("schema")
    scripts = sorted((entry for entry in folder.iterdir() if entry.name[0].isdigit()), key=lambda entry: entry.name)
    if done > len(scripts):
        raise StoreError(f"the store has schema {done}, this version knows {len(scripts)}: use a newer version")
    for number, script in enumerate(scripts[done:], start=done + 1):
        sql = script.read_text(encoding="utf-8")
        connection.executescript(f"BEGIN IMMEDIATE;\n{sql}\nPRAGMA user_version={number};\nCOMMIT;")
