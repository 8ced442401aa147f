"""Long polls at the beacons: one request to each beacon for all who wait with the same `since`.

Who waits is a callback and a timer, no task and no request of its own, and all who are told the same are given the same
object. A beacon hands a tell to one request only, so whatever is new is told to everybody, whatever brought it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from qmail_core.codec import consts as c
from qmail_core.codec import mail
from qmail_core.codec.packet import Batch, Reply
from qmail_core.engine.context import Context
from qmail_core.errors import QuorumError, RemoteProtocolError
from qmail_core.model import Polled, Tell
from qmail_core.transport.fanout import Run

_LEAST = 0.05  # seconds a poll takes in any case
_LONGEST = 3600.0  # seconds of one request; beacons end it by themselves long before
_AGAIN = 5.0  # seconds until a beacon that failed is asked again, when somebody new waits

Told = Callable[[Polled | Exception], None]
Keep = Callable[[Run], Awaitable[object]]  # commits what the beacons handed out, and tells of what is new
_QUIET = Polled(())


def tells_of(reply: Reply) -> list[tuple[Tell, bytes]]:
    """The judge of polls; a poll that a node ended itself (245) is an empty answer."""
    if reply.status == c.STATUS_POLL_TIMEOUT:
        return []
    payload = reply.expect().payload
    found = mail.parse_tells(payload)
    if not found and payload and payload[0]:
        raise RemoteProtocolError(f"node {reply.node}: tells nobody can read")
    return found


class Waiting:
    """One who waits. It is told once, unless it is closed before."""

    __slots__ = ("_timer", "_told", "_watch")

    def __init__(self, watch: _Watch, timeout: float, told: Told) -> None:
        self._watch = watch
        self._told = told
        self._timer = asyncio.get_running_loop().call_later(timeout, self._expire)

    def _expire(self) -> None:
        if self._watch.keeping:
            self._watch.late.append(self)  # what is being committed may be for it
        else:
            self.tell(_QUIET)

    def tell(self, found: Polled | Exception) -> None:
        """It waits no longer."""
        if self.close():
            self._told(found)

    def close(self) -> bool:
        """Wait no longer and hear nothing; whether it waited until now."""
        self._timer.cancel()
        return self._watch.leave(self)


class _Watch:
    """Those who wait with one `since`, and the request at the beacons on their behalf."""

    def __init__(self, polls: Polls, since: int) -> None:
        self._polls = polls
        self._since = since
        self._first: set[Waiting] = set()  # wait since this request began: how it ends is for them
        self._later: set[Waiting] = set()
        self._run: Run | None = None
        self._asked = 0.0  # when a beacon was asked last
        self.late: list[Waiting] = []  # their time ended while tells were being committed
        self.keeping = False
        self._task = asyncio.get_running_loop().create_task(self._ask(), name="qmail-poll")

    def join(self, timeout: float, told: Told) -> Waiting:
        """One more waits."""
        waiting = Waiting(self, timeout, told)
        if self._run is None:
            self._first.add(waiting)
        else:
            self._later.add(waiting)
            self._ask_again(self._run)
        return waiting

    def leave(self, waiting: Waiting) -> bool:
        """One waits no longer; without anybody the request is given up."""
        known = waiting in self._first or waiting in self._later
        self._first.discard(waiting)
        self._later.discard(waiting)
        if known and not self._first and not self._later and not self._has_tells():
            self._task.cancel()
            self._polls.forget(self._since, self)
        return known

    def _has_tells(self) -> bool:
        """Whether a beacon has handed out what must be kept, whoever still waits."""
        return self.keeping or (self._run is not None and any(self._run.good.values()))

    def tell(self, found: Polled) -> None:
        """Tell everybody."""
        self._tell([*self._first, *self._later], found)

    @staticmethod
    def _tell(waiting: list[Waiting], found: Polled | Exception) -> None:
        for one in waiting:
            one.tell(found)

    async def _ask(self) -> None:
        try:
            while self._first and not self._polls.draining:
                await self._once()
                self._first, self._later = self._later | self._first, set()
        except Exception as error:
            self._tell([*self._first, *self._later], error)
        finally:
            self._polls.forget(self._since, self)

    async def _once(self) -> None:
        """One request to every beacon, to its end."""
        run = self._run = self._polls.ask(c.CMD_PING, self._since, _LONGEST)
        self._asked = run.loop.time()
        try:
            await run.until(lambda: any(run.good.values()))
            if any(run.good.values()):
                await self._keep(run)
            elif run.good:
                self._tell(list(self._first), Polled((), timed_out=True, status=c.STATUS_POLL_TIMEOUT))
            else:
                self._tell(list(self._first), QuorumError("Ping failed", run.failed))
        finally:
            self._run = None
            run.cancel()

    async def _keep(self, run: Run) -> None:
        self.keeping = True
        try:
            await self._polls.keep(run)
        finally:
            self.keeping = False
            late, self.late = self.late, []
            self._tell(late, _QUIET)

    def _ask_again(self, run: Run) -> None:
        """Beacons that failed may be back: whoever waits from now on would have asked them."""
        if run.failed and run.loop.time() >= self._asked + _AGAIN:
            self._asked = run.loop.time()
            nodes = list(run.failed)
            run.failed.clear()
            run.add(self._polls.batch(c.CMD_PING, self._since, nodes))


class Polls:
    """The long polls of one engine."""

    def __init__(self, ctx: Context, keep: Keep) -> None:
        self._ctx = ctx
        self.keep = keep
        self._watches: dict[int, _Watch] = {}
        self.draining = False  # the process is about to stop: nobody waits any more

    def wait(self, timeout: float, since: int, told: Told) -> Waiting:
        """Wait for new tells, or until something ends the wait; `told` is called on the loop, never from in here."""
        watch = self._watches.get(since)
        if watch is None:
            watch = self._watches[since] = _Watch(self, since)
        return watch.join(0.0 if self.draining else max(_LEAST, timeout), told)

    def tell(self, found: Polled) -> None:
        """Tell everybody who waits."""
        for watch in list(self._watches.values()):
            watch.tell(found)

    def drain(self) -> None:
        """End every wait with "nothing new", now and from now on."""
        self.draining = True
        self.tell(_QUIET)

    def ask(self, command: int, since: int, timeout: float) -> Run:
        """Ask the beacons."""
        beacons = list(dict.fromkeys(self._ctx.config.beacons))
        return self._ctx.fanout.run(self.batch(command, since, beacons), timeout=timeout, judge=tells_of)

    def batch(self, command: int, since: int, nodes: list[int]) -> Batch:
        """A poll of these beacons."""
        return self._ctx.mail_batch(command, nodes, [mail.build_poll(since)] * len(nodes))

    def forget(self, since: int, watch: _Watch) -> None:
        """Nobody waits there any more."""
        if self._watches.get(since) is watch:
            del self._watches[since]
