"""A host in a thread and a loop of its own."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

import uvloop

from qmail_server.raida.host import SLOW_DELAY, RaidaHost
from qmail_server.raida.peers import Mode

log = logging.getLogger("qmail.raida")

T = TypeVar("T")


class HostThread:
    """A RaidaHost in a thread and a loop of its own, so that no fsync of a node stalls the caller's loop.

    All methods may be called from any thread but that one. While it runs, the nodes belong to that thread.
    """

    def __init__(self, host: RaidaHost) -> None:
        self._host = host
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._quit: asyncio.Event | None = None

    def start(self) -> None:
        """Return when every node listens; raises what `RaidaHost.start` raises."""
        ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="raida", daemon=True)
        self._thread.start()
        try:
            ready.result()
        except Exception:
            self._thread.join()
            self._thread = None
            raise

    def stop(self) -> None:
        """Stop the host and its thread; harmless when not running."""
        if self._thread is None or self._loop is None or self._quit is None:
            return
        self._loop.call_soon_threadsafe(self._quit.set)
        self._thread.join()
        self._thread = None

    def ports(self) -> list[int]:
        """The port of each node, by position."""
        return self._host.ports()

    def modes(self) -> list[Mode]:
        """How each node behaves, by position."""
        return self._host.modes()

    def call(self, run: Callable[[], T]) -> T:
        """Run a short function between two turns of the host, and return or raise what it does."""
        loop = self._running()
        return asyncio.run_coroutine_threadsafe(self._host.at_rest(run), loop).result()

    def set_mode(self, index: int, mode: Mode, *, delay: float = SLOW_DELAY) -> None:
        """As `RaidaHost.set_mode`."""
        loop = self._running()
        asyncio.run_coroutine_threadsafe(self._host.set_mode(index, mode, delay=delay), loop).result()

    def lose(self, index: int, guid: bytes) -> None:
        """Drop a mail's stripes at one node, durably."""
        state = self._host.nodes[index].state

        def drop() -> None:
            state.drop(guid)
            state.commit()

        self.call(drop)

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._thread is None or self._loop is None:
            raise RuntimeError("the host thread is not running")
        return self._loop

    def _run(self, ready: Future[None]) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._serve(ready))
        except BaseException as error:  # the only way out of this thread is the future, or the log
            if ready.done():
                log.exception("host thread died")
            else:
                ready.set_exception(error)

    async def _serve(self, ready: Future[None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._quit = asyncio.Event()
        await self._host.start()
        ready.set_result(None)
        try:
            await self._quit.wait()
        finally:
            await self._host.stop()
