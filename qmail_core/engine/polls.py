"""Polls of the beacons: what they hand out is committed whoever asked, and all who wait share one request to each.

A beacon forgets a tell soon after it answered, at once or after some more servings, whether the answer was read or not.
So no request is given up once it is sent: what it brings is committed and told even when nobody waits any more, and a
ping that stays parked serves whoever waits next.

Who waits is a callback and a timer, no task and no request of its own, and all who are told the same are given the same
object. A beacon hands a tell to one request only, so whatever is new is told to everybody, whatever brought it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial

from qmail_core.codec import consts as c
from qmail_core.codec import mail
from qmail_core.codec.packet import Reply
from qmail_core.engine.context import Context
from qmail_core.engine.keeper import Keep, Keeper, Kept
from qmail_core.errors import NodeTimeout, QMailError, QuorumError, RemoteProtocolError
from qmail_core.model import Polled, Tell
from qmail_core.transport.fanout import Run

_LEAST = 0.05  # seconds a poll takes in any case
_LONGEST = 3600.0  # seconds of one request; beacons end it by themselves long before
_AGAIN = 5.0  # seconds until a beacon that failed, or does not wait, is asked again when somebody new waits
_STALE = 700.0  # seconds after which a ping without an answer is not relied on; clients wait for 600 (QMail wire A.1)
_REPEATED = 1.0  # seconds until a beacon that handed out nothing new is asked again
_WATCHES = 8  # of different `since`; requests stay parked, and there is only so much room at a node
_PEEK_PATIENCE = 0.5  # seconds the second beacon is given once the first has answered; our tells lie at both
_PEEK_LATE = 60.0  # seconds an answer to a peek is listened for
_PEEKS_OWED = 4  # unanswered peeks after which a beacon is not asked more of them
_PARTING = 2.0  # seconds unanswered peeks are given when the engine closes

Told = Callable[[Polled | Exception], None]
_QUIET = Polled(())


def tells_of(reply: Reply) -> list[tuple[Tell, bytes]]:
    """What a poll brought; one that a node ended itself (245) brought nothing."""
    if reply.status == c.STATUS_POLL_TIMEOUT:
        return []
    payload = reply.expect().payload
    found = mail.parse_tells(payload)
    if not found and payload and payload[0]:
        raise RemoteProtocolError(f"node {reply.node}: tells nobody can read")
    return found


def _silent(node: int) -> QMailError:
    return NodeTimeout(f"node {node}: no answer in time")


class Waiting:
    """One who waits. It is told once, unless it is closed before."""

    __slots__ = ("_timer", "_told", "_watch", "after")

    def __init__(self, watch: _Watch, timeout: float, told: Told, after: int) -> None:
        self._watch = watch
        self._told = told
        self.after = after  # how the requests after this one end is for it
        self._timer = asyncio.get_running_loop().call_later(timeout, self._expire)

    def _expire(self) -> None:
        keeper = self._watch.polls.keeper
        if keeper.busy:
            keeper.afterwards.append(self._expire)  # what is being committed may be for it
        else:
            self.tell(_QUIET)

    def tell(self, found: Polled | Exception) -> bool:
        """It waits no longer; whether it did until now."""
        known = self.close()
        if known:
            self._told(found)
        return known

    def close(self) -> bool:
        """Wait no longer and hear nothing; whether it waited until now."""
        self._timer.cancel()
        return self._watch.leave(self)


class _Watch:
    """Those who wait with one `since`, and the requests at the beacons on their behalf."""

    def __init__(self, polls: Polls, since: int) -> None:
        self.polls = polls
        self._since = since
        self.waiting: set[Waiting] = set()
        self._lines: dict[int, asyncio.Task[None]] = {}  # the one that asks a beacon, by beacon
        self._tasks: set[asyncio.Task[None]] = set()  # all of them, with those that hear nothing any more
        self._sent = 0  # requests so far
        self._asked: dict[int, float] = {}  # when each beacon was asked last
        self._ended: dict[int, tuple[int, QMailError | None]] = {}  # which request of each ended last, and how

    def join(self, timeout: float, told: Told) -> Waiting:
        """One more waits."""
        alone = not self.waiting
        waiting = Waiting(self, timeout, told, self._sent)
        self.waiting.add(waiting)
        if not self.polls.draining:
            self._ask(pause=0.0 if alone else _AGAIN)
        return waiting

    def leave(self, waiting: Waiting) -> bool:
        """One waits no longer; what is parked for it stays, because its answer may be on the way."""
        known = waiting in self.waiting
        self.waiting.discard(waiting)
        self._forget()
        return known

    def _forget(self) -> None:
        if not self.waiting and not self._tasks:
            self.polls.forget(self._since, self)

    def tell(self, found: Polled | Exception) -> bool:
        """Tell everybody; whether anybody heard it."""
        heard = [one.tell(found) for one in list(self.waiting)]
        return any(heard)

    def _ask(self, pause: float) -> None:
        """Ask the beacons that are not being asked, but those that were less than `pause` seconds ago."""
        loop = asyncio.get_running_loop()
        for node in self.polls.beacons:
            age = loop.time() - self._asked.get(node, -_STALE)
            if age >= (_STALE if node in self._lines else pause):
                self._asked[node] = loop.time()
                task = self._lines[node] = loop.create_task(self._listen(node), name="qmail-poll")
                self._tasks.add(task)
                task.add_done_callback(partial(self._over, node))

    def _over(self, node: int, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._lines.get(node) is task:
            del self._lines[node]
        if self.waiting and not self.polls.draining:
            self._ask(_AGAIN if self._lines else 0.0)
        self._forget()

    async def _listen(self, node: int) -> None:
        """Ask one beacon, again and again while somebody waits and it does wait too."""
        try:
            while await self._once(node) and self.waiting and not self.polls.draining:
                pass
        except Exception as error:
            self.tell(error)

    async def _once(self, node: int) -> bool:
        """One request to one beacon, to its end; whether it may be asked again at once."""
        loop = asyncio.get_running_loop()
        self._sent += 1
        number, self._asked[node] = self._sent, loop.time()
        if self._ended.get(node, (0, None))[1] is not None:
            del self._ended[node]  # it is given another chance
        run = self.polls.ask(c.CMD_PING, self._since, [node], _LONGEST)
        try:
            await run.finish()
        finally:
            run.cancel()  # the engine closes
        kept = run.good.get(node)
        if isinstance(kept, asyncio.Task):
            if not await asyncio.shield(kept) and self.waiting:
                await asyncio.sleep(_REPEATED)
            return True
        if number > self._ended.get(node, (0, None))[0]:
            self._ended[node] = number, run.failed.get(node)
            self._conclude()
        return node in run.good and loop.time() >= self._asked[node] + _AGAIN

    def _conclude(self) -> None:
        """Tell how the requests ended, when they have at all beacons; for those who came later the next ones count."""
        ends = [self._ended.get(node, (0, None)) for node in self.polls.beacons]
        failures = {node: error for node, (_, error) in self._ended.items() if error is not None}
        found: Polled | Exception = Polled((), timed_out=True, status=c.STATUS_POLL_TIMEOUT)
        if len(failures) == len(ends):
            found = QuorumError("Ping failed", failures)
        first = min(number for number, _ in ends)
        for one in [one for one in self.waiting if one.after < first]:
            one.tell(found)

    async def close(self) -> None:
        """Listen no more."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Polls:
    """The polls of one engine.

    keep     commits what beacons handed out, and announces what is new
    waiting  which of these mails still wait for their download, as they are shown
    """

    def __init__(self, ctx: Context, keep: Keep, waiting: Callable[[Iterable[bytes]], Polled]) -> None:
        self._ctx = ctx
        self.keeper = Keeper(keep)
        self._still = waiting
        self._watches: dict[int, _Watch] = {}
        self._peeks: dict[asyncio.Task[None], Run] = {}  # unanswered, and nobody waits for them
        self._unheard: dict[bytes, None] = {}  # mails that were announced while nobody waited, oldest first
        self.listeners: set[Callable[[Polled], None]] = set()  # hear all news, waiting or not
        self.draining = False  # the process is about to stop: nobody waits any more
        self._closed = False

    @property
    def beacons(self) -> list[int]:
        """The beacons of this mailbox."""
        return list(dict.fromkeys(self._ctx.config.beacons))

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(len(watch.waiting) for watch in self._watches.values())

    # ---------------------------------------------------------------------------------------------- waiting

    def wait(self, timeout: float, since: int, told: Told) -> Waiting:
        """Wait for new tells, or until something ends the wait; `told` is called on the loop, never from in here."""
        if since not in self._watches and len(self._watches) >= _WATCHES:
            since = 0  # brings no less
        watch = self._watches.get(since)
        if watch is None:
            watch = self._watches[since] = _Watch(self, since)
        if self._unheard:
            asyncio.get_running_loop().call_soon(self._tell_unheard)
        return watch.join(0.0 if self.draining else max(_LEAST, timeout), told)

    def announce(self, found: Polled) -> None:
        """Tell everybody what is new; if nobody hears it, whoever waits next is told."""
        for listener in list(self.listeners):
            listener(found)
        if not self._tell(found):
            self._unheard |= dict.fromkeys(item.tell.guid for item in found.notifications)

    def _tell(self, found: Polled) -> bool:
        heard = [watch.tell(found) for watch in list(self._watches.values())]
        return any(heard)

    def heard(self, found: Polled) -> None:
        """Somebody was shown this otherwise."""
        for item in found.notifications:
            self._unheard.pop(item.tell.guid, None)

    def _tell_unheard(self) -> None:
        found = self._still(self._unheard)
        if not found.notifications or self._tell(found):
            self._unheard.clear()

    def forget(self, since: int, watch: _Watch) -> None:
        """Nobody waits there any more."""
        if self._watches.get(since) is watch:
            del self._watches[since]

    def drain(self) -> None:
        """End every wait with "nothing new", now and from now on."""
        self.draining = True
        self._tell(_QUIET)

    # ---------------------------------------------------------------------------------------------- asking

    def ask(self, command: int, since: int, nodes: list[int], timeout: float) -> Run:
        """Ask beacons. An answer in `good` is the commit of what it brought, or None if it brought nothing."""
        batch = self._ctx.mail_batch(command, nodes, [mail.build_poll(since)] * len(nodes))
        return self._ctx.fanout.run(batch if nodes else None, timeout=timeout, judge=self._taken)

    async def peek(self, since: int) -> None:
        """Ask both beacons now, and commit what they have by the time one has answered and the other had its chance.

        raises   QuorumError if none answers
        """
        timeout = self._ctx.config.timeouts.small
        owing = Counter(node for run in self._peeks.values() for node in run.pending)
        nodes = [node for node in self.beacons if owing[node] < _PEEKS_OWED]
        run = self.ask(c.CMD_PEEK, since, nodes, max(timeout, _PEEK_LATE))
        try:
            await run.wait(1, timeout=timeout)
            if not run.good:
                raise QuorumError("Peek failed", {node: run.failed.get(node) or _silent(node) for node in self.beacons})
            await run.wait(len(nodes), timeout=_PEEK_PATIENCE)
            for kept in list(run.good.values()):  # another answer may come meanwhile
                if isinstance(kept, asyncio.Task):
                    await asyncio.shield(kept)
        finally:
            self._let_go_on(run)

    def _let_go_on(self, run: Run) -> None:
        if self._closed:
            run.cancel()
        elif run.pending:
            task = asyncio.get_running_loop().create_task(run.finish(), name="qmail-peek")
            self._peeks[task] = run
            task.add_done_callback(self._peeks.pop)

    def _taken(self, reply: Reply) -> Kept | None:
        """The judge of polls: what comes is committed whoever waits for it."""
        pairs = {record: tell for tell, record in tells_of(reply)}
        return self.keeper.take(pairs) if pairs else None

    async def close(self) -> None:
        """Ask and listen no more; what has come is committed when this returns."""
        self.drain()
        self._closed = True
        if self._peeks:
            await asyncio.wait(self._peeks, timeout=_PARTING)
        for run in self._peeks.values():
            run.cancel()
        await asyncio.gather(*self._peeks)
        for watch in list(self._watches.values()):
            await watch.close()
        await self.keeper.close()
