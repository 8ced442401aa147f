"""The directory: who has a mailbox and what it asks of senders. Read by majority, written to every node.

Nodes keep copies of their own and never compare them, so one copy may be old, missing or a lie. What most of the nodes
that answered say is believed, and fewer answers than a quorum say nothing. A change counts once a quorum has it; the
nodes that missed it are told again in the background, as long as this process lives.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from msgspec import Struct

from qmail_core.codec import consts as c
from qmail_core.codec import directory as codec
from qmail_core.codec.directory import Owned, Search
from qmail_core.codec.packet import Reply
from qmail_core.engine.context import Context
from qmail_core.errors import LocalProtocolError, NodeError, QMailError, QuorumError, RemoteProtocolError, UsageError
from qmail_core.model import Address, ListEntry, ListKind, Published, UserProfile, UserRecord
from qmail_core.transport.fanout import Judge, Run

log = logging.getLogger("qmail.directory")

_FRESH = 60.0  # seconds an answer is good for on the send path
_SILENT = 30.0  # seconds it is not asked again on the send path after no answer
_PATIENCE = 1.0  # seconds a mail waits for all its recipients' fees
_PARALLEL = 8  # look-ups under way at a time on the send path
_KNOWN = 1000  # mailboxes remembered
_STRAGGLERS = 1.0  # seconds the others get once a quorum has answered, so that the quickest do not decide alone
_SECOND_TRY = 2.0  # seconds the nodes that are behind get to answer
_PAUSES = (5.0, 3600.0)  # seconds between two tries: first, doubled up to last

# What the nodes should hold: the user record under None (value None: no record), a sender under its address (value: the
# list's kind, None: on neither).
_Wish = Mapping[Address | None, UserProfile | int | None]
_ORDER = (c.CMD_POST_USER, c.CMD_DELETE_USER, c.CMD_LIST_REMOVE, c.CMD_LIST_SET)  # a full list needs room first

T = TypeVar("T")


def _command(key: Address | None, value: UserProfile | int | None) -> int:
    """What brings a node to one wish."""
    if key is None:
        return c.CMD_DELETE_USER if value is None else c.CMD_POST_USER
    return c.CMD_LIST_REMOVE if value is None else c.CMD_LIST_SET


def _part(command: int, wish: _Wish) -> _Wish:
    return {key: value for key, value in wish.items() if _command(key, value) == command}


def _body(command: int, owner: Owned, part: _Wish) -> bytes:
    if command == c.CMD_POST_USER:
        profile = part[None]
        assert isinstance(profile, UserProfile)
        return codec.build_post_user(owner, profile)
    if command == c.CMD_DELETE_USER:
        return codec.build_owned(owner)
    if command == c.CMD_LIST_REMOVE:
        return codec.build_list_remove(owner, (who for who in part if who is not None))
    entries = ((who, kind) for who, kind in part.items() if who is not None and isinstance(kind, int))
    return codec.build_list_set(owner, (ListEntry(who, kind) for who, kind in entries))


class _Known(Struct, frozen=True):
    """A look-up of the send path."""

    fee: int
    until: float  # by the loop's clock


class Directory:
    """The directory as one engine sees and changes it."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._known: OrderedDict[Address, _Known] = OrderedDict()
        self._writing = asyncio.Lock()
        self._behind: dict[int, dict[Address | None, UserProfile | int | None]] = {}
        self._due = 0.0
        self._pause = _PAUSES[0]

    # ---------------------------------------------------------------------------------------------- reading

    async def get(self, who: Address, timeout: float | None = None) -> UserRecord | None:
        """The record most nodes have of a mailbox; None if most have none.

        Nodes stamp records by their own clocks, so the times are the median of those that agree on the rest.

        raises   QuorumError if fewer than a quorum answer, or no record has a majority
        """
        votes: Counter[UserProfile | None] = Counter()

        def judge(reply: Reply) -> UserRecord | None:
            record = None
            if reply.status != c.STATUS_NO_ENTRY:
                record = codec.parse_user_record(reply.expect().payload)
                if record.address != who:
                    raise RemoteProtocolError(f"node {reply.node}: record of another mailbox")
            votes[None if record is None else record.profile] += 1
            return record

        body = _checked(codec.build_get_user, who)
        run = self._ask(c.CMD_GET_USER, self._everybody(body), judge, timeout)
        try:
            # this many cannot be outvoted any more
            await run.until(lambda: max(votes.values(), default=0) >= self._ctx.quorum)
        finally:
            run.cancel()
        profile = self._most(votes, run)
        self._remember(who, self._price(profile), _FRESH)
        return None if profile is None else _median(profile, run.good.values())

    async def search(self, first: str | None, last: str | None, limit: int) -> list[UserRecord]:
        """Records that most of the answering nodes found, by first name, last name and address.

        raises   UsageError without a name to look for; QuorumError
        """
        if not first and not last:
            raise UsageError("a search needs the beginning of a first or last name")
        if not 0 < limit <= codec.MAX_RESULTS:
            raise UsageError(f"limit must be 1 to {codec.MAX_RESULTS}")
        wanted = _checked(codec.build_search_users, Search(first or None, last or None, limit))
        answers = await self._gather(
            c.CMD_SEARCH_USERS, self._everybody(wanted), lambda reply: codec.parse_search_answer(reply.expect().payload)
        )
        votes = Counter(vote for found in answers for vote in {(record.address, record.profile) for record in found})
        records = [record for found in answers for record in found]
        agreed = [
            _median(profile, (record for record in records if record.address == who))
            for (who, profile), count in votes.items()
            if 2 * count > len(answers)
        ]
        return sorted(agreed, key=lambda r: (r.profile.first_name, r.profile.last_name, r.address))[:limit]

    async def listed(self) -> tuple[ListEntry, ...]:
        """The senders most of the answering nodes have on this mailbox's lists, by address. raises QuorumError"""
        bodies = {node: codec.build_owned(self._owner(node)) for node in range(self._ctx.nodes)}
        answers = await self._gather(
            c.CMD_LIST_GET, bodies, lambda reply: codec.parse_list_answer(reply.expect().payload)
        )
        votes = Counter(vote for found in answers for vote in {entry.address: entry for entry in found}.values())
        agreed = [
            ListEntry(entry.address, ListKind(entry.kind))
            for entry, count in votes.items()
            if 2 * count > len(answers) and entry.kind in frozenset(ListKind)
        ]
        return tuple(sorted(agreed, key=lambda entry: entry.address))

    async def _gather(self, command: int, bodies: Mapping[int, bytes], judge: Callable[[Reply], T]) -> list[T]:
        """What the nodes answer, a quorum at least."""
        answers: list[T] = []
        run = self._ask(command, bodies, lambda reply: answers.append(judge(reply)))
        try:
            await run.wait(self._ctx.quorum)
            await run.wait(len(bodies), timeout=_STRAGGLERS)
        finally:
            run.cancel()
        if len(answers) < self._ctx.quorum:
            raise self._too_few(run, "answered")
        return answers

    def _most(self, votes: Counter[T], run: Run) -> T:
        total = votes.total()
        if total < self._ctx.quorum:
            raise self._too_few(run, "answered")
        winner, count = votes.most_common(1)[0]
        if 2 * count <= total:
            raise QuorumError("directory: the nodes disagree", run.failed)
        return winner

    # ---------------------------------------------------------------------------------------------- the send path

    async def fees(self, recipients: Sequence[Address]) -> list[int]:
        """What a mail to each costs in whole CloudCoins, rounded up; what was known last where no answer comes in time,
        else the default."""
        unknown = {who for who in recipients if not self._is_fresh(who)}
        if unknown:
            await self._look_up(unknown)
        return [self._last_fee(who) for who in recipients]

    def _is_fresh(self, who: Address) -> bool:
        known = self._known.get(who)
        return known is not None and known.until > asyncio.get_running_loop().time()

    def _last_fee(self, who: Address) -> int:
        known = self._known.get(who)
        return self._ctx.config.inbox_fee if known is None else known.fee

    async def _look_up(self, unknown: Iterable[Address]) -> None:
        gate = asyncio.Semaphore(_PARALLEL)

        async def one(who: Address) -> None:
            async with gate:
                await self.get(who, _PATIENCE)

        asking = [asyncio.ensure_future(one(who)) for who in unknown]
        try:
            await asyncio.wait(asking, timeout=_PATIENCE)
        finally:
            for task in asking:
                task.cancel()
            ended = await asyncio.gather(*asking, return_exceptions=True)
        for error in ended:
            if isinstance(error, Exception) and not isinstance(error, QMailError):
                raise error
        for who in unknown:
            if not self._is_fresh(who):
                self._remember(who, self._last_fee(who), _SILENT)

    def _price(self, profile: UserProfile | None) -> int:
        config = self._ctx.config
        if profile is None:
            return config.inbox_fee
        if not codec.accepts(profile.class_rejection, self._ctx.address.denomination):
            return 0  # the beacon lets us in free, if we are on the white list, or not at all (E.3)
        fee = -(-profile.fee // codec.UNITS_PER_COIN)
        # who asks for more than the user allows is offered the usual; the beacon then says that it is not enough
        return max(0, fee) if fee <= config.max_inbox_fee else config.inbox_fee

    def _remember(self, who: Address, fee: int, seconds: float) -> None:
        self._known[who] = _Known(fee, asyncio.get_running_loop().time() + seconds)
        self._known.move_to_end(who)
        while len(self._known) > _KNOWN:
            self._known.popitem(last=False)

    # ---------------------------------------------------------------------------------------------- writing

    async def change(self, wish: _Wish) -> Published:
        """Bring every node to what is wished: this mailbox's record, or some of its listed senders.

        raises   UsageError for values that do not fit; NodeError if a quorum refuses with the same status; QuorumError
                 if too few nodes take it. Some may have taken it even then
        """
        commands = {_command(key, value) for key, value in wish.items()}
        if len(commands) != 1:
            raise UsageError("nothing to change in the directory")
        nodes = range(self._ctx.nodes)
        async with self._writing:
            run = self._tell(commands.pop(), dict.fromkeys(nodes, wish))
            await run.wait(self._ctx.quorum, settle=2.0)
            run.cancel()  # a node that has not answered is told again, not waited for
            if len(run.good) < self._ctx.quorum:
                raise self._too_few(run, "accepted the change")
            late = [node for node in nodes if node not in run.good]
            self._settle(run.good, wish)
            for node in late:
                self._behind.setdefault(node, {}).update(wish)
            if late:
                self._pause = _PAUSES[0]
                self._due = asyncio.get_running_loop().time() + self._pause
        return Published(tuple(sorted(run.good)), tuple(late))

    def _tell(self, command: int, parts: Mapping[int, _Wish]) -> Run:
        bodies = {node: _checked(_body, command, self._owner(node), part) for node, part in parts.items()}
        # what is not there any more need not be removed
        return self._ask(command, bodies, lambda reply: reply.expect(c.STATUS_NO_ENTRY))

    def _settle(self, nodes: Iterable[int], wish: _Wish) -> None:
        """These nodes have it, whatever they missed before."""
        for node in nodes:
            left = {key: value for key, value in self._behind.pop(node, {}).items() if key not in wish}
            if left:
                self._behind[node] = left

    async def repair_due(self) -> int:
        """Tell the nodes that are behind what they missed, when its time has come; returns how many took it."""
        now = asyncio.get_running_loop().time()
        if not self._behind or now < self._due:
            return 0
        async with self._writing:
            before = len(self._behind)
            for command in _ORDER:
                parts = {node: part for node, wish in self._behind.items() if (part := _part(command, wish))}
                if parts:
                    await self._catch_up(command, parts)
            self._pause = min(_PAUSES[1], 2 * self._pause)
            self._due = now + self._pause
        return before - len(self._behind)

    async def _catch_up(self, command: int, parts: Mapping[int, _Wish]) -> None:
        run = self._tell(command, parts)
        await run.wait(len(parts), timeout=_SECOND_TRY)
        run.cancel()
        for node in run.good:
            self._settle([node], parts[node])
        log.info("directory: %d of %d nodes that were behind took the change", len(run.good), len(parts))

    # ---------------------------------------------------------------------------------------------- asking

    def _owner(self, node: int) -> Owned:
        return Owned(self._ctx.address, self._ctx.coin.an(node))

    def _everybody(self, body: bytes) -> dict[int, bytes]:
        return dict.fromkeys(range(self._ctx.nodes), body)

    def _ask(self, command: int, bodies: Mapping[int, bytes], judge: Judge, timeout: float | None = None) -> Run:
        batch = self._ctx.batch(c.GROUP_DIRECTORY, command, list(bodies), list(bodies.values()))
        return self._ctx.fanout.run(batch, timeout=timeout or self._ctx.config.timeouts.small, judge=judge)

    def _too_few(self, run: Run, did: str) -> QMailError:
        """Why there is no quorum: what most nodes say with one voice, else who failed how."""
        statuses = Counter(error.status for error in run.failed.values() if isinstance(error, NodeError))
        for status, count in statuses.most_common(1):
            if count >= self._ctx.quorum:
                return NodeError(status, f"directory: {c.status_text(status)} (status {status})")
        return QuorumError(f"directory: only {len(run.good)} of {self._ctx.nodes} nodes {did}", run.failed)


def _checked(build: Callable[..., bytes], *args: object) -> bytes:
    """A request from a caller's values."""
    try:
        return build(*args)
    except LocalProtocolError as error:
        raise UsageError(error.message) from error


def _median(profile: UserProfile, answers: Iterable[object]) -> UserRecord:
    """One record from those that agree but for their times; a few liars cannot move the middle beyond the others."""
    agreed = [record for record in answers if isinstance(record, UserRecord) and record.profile == profile]
    created, updated = (
        sorted(times)[len(agreed) // 2]
        for times in ([record.created_at for record in agreed], [record.updated_at for record in agreed])
    )
    return UserRecord(agreed[0].address, profile, created, updated)
