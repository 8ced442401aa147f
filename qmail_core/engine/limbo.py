"""Lockers nobody can tell the fate of from here: the nodes are asked.

There are two kinds. One that was reserved may have been taken by a node it was shown to: if any of these has it no
more it is spent, if all of them have it still it is free again. One whose filling was cut short, or reached too few
nodes, was shown to nobody: it is filled where it is not yet, and where more than half of the nodes will never know
it, its coins leave it again.

Every node is asked on its own about all lockers at once, so one that is slow holds up nothing but its own. What cannot
be settled is asked about again after a pause that doubles.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

from qmail_core.codec import coins as codec
from qmail_core.codec import consts as c
from qmail_core.codec import healing
from qmail_core.codec.cipher import locker_key
from qmail_core.codec.healing import Held
from qmail_core.codec.lockers import build_put_many
from qmail_core.codec.packet import Reply
from qmail_core.engine.change import AGE, FRACKED
from qmail_core.engine.context import Context
from qmail_core.model import AN_SIZE, Address, Coin
from qmail_core.store.base import Locker, LockerState

log = logging.getLogger("qmail.wallet")

_AT_ONCE = 500  # coins in one request
_MOST_LOCKERS = 200  # in one request; the wire allows 255
_FIRST_PAUSE = 2.0  # seconds
_LAST_PAUSE = 3600.0
_NONE = bytes(AN_SIZE)

Sides = dict[int, list[Held]]  # by node, which number it has for each coin: PAN for the locker's; not there if silent


class Pauses:
    """When to try again what did not work: each pause is twice as long as the one before."""

    def __init__(self) -> None:
        self._next: dict[str, tuple[float, float]] = {}  # when, and the pause that follows

    def due(self, what: str, first: float = 0.0) -> bool:
        """Whether to try now; what is new is due in `first` seconds."""
        if what not in self._next:
            self.begin(what, first)
        return asyncio.get_running_loop().time() >= self._next[what][0]

    def begin(self, what: str, first: float) -> None:
        """Something is to be tried for the first time in so many seconds."""
        self._next[what] = asyncio.get_running_loop().time() + first, _FIRST_PAUSE

    def longer(self, what: str) -> None:
        """It did not work."""
        _, pause = self._next.get(what, (0.0, _FIRST_PAUSE))
        self._next[what] = asyncio.get_running_loop().time() + pause, min(_LAST_PAUSE, 2 * pause)

    def over(self, what: str) -> None:
        """It worked."""
        self._next.pop(what, None)

    def keep(self, wanted: Iterable[str]) -> None:
        """Forget everything else."""
        self._next = {what: self._next[what] for what in wanted if what in self._next}

    def mark(self, what: str) -> object:
        """Something that is the same object for as long as nobody has begun or tried it again."""
        return self._next.get(what)


class Limbo:
    """Settles the lockers of one engine that are in LIMBO, or were left FUNDING."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._store = ctx.store.wallet
        self._pauses = Pauses()

    async def add(self, lockers: Iterable[Locker]) -> None:
        """Nodes may have taken these reserved lockers.

        They are asked when a request that is still on its way must have come to them.
        """
        changes = {locker.code: LockerState.LIMBO for locker in lockers if locker.state == LockerState.RESERVED}
        for code in changes:
            self._pauses.begin(code, AGE)
        await self._store.settle(changes, self._ctx.now(), expected=LockerState.RESERVED)

    async def settle(self, orphans: Sequence[Locker]) -> None:
        """Ask about everything that is due.

        orphans  FUNDING lockers that nobody is filling
        """
        doubtful = self._store.lockers(state=LockerState.LIMBO)
        self._pauses.keep(locker.code for locker in (*orphans, *doubtful))
        unfilled = [x for x in (*orphans, *doubtful) if x.guid is None and self._pauses.due(x.code)]
        shown = [x for x in doubtful if x.guid is not None and self._pauses.due(x.code, AGE)]
        groups: dict[int | None, list[Locker]] = defaultdict(list)
        for locker in shown:
            groups[locker.node].append(locker)
        everybody = range(self._ctx.nodes)
        await asyncio.gather(
            *(self._look(group, everybody if node is None else [node]) for node, group in groups.items()),
            *(self._fill(part) for part in self._parts(unfilled)),
        )

    # ---------------------------------------------------------------------------------------------- taken or not

    async def taken(self, locker: Locker, node: int) -> bool:
        """Whether a node says it has taken a locker."""
        found = await self._find([locker], [node])
        return Held.NEITHER in found[locker.code].get(node, ())

    async def _look(self, lockers: Sequence[Locker], nodes: Sequence[int]) -> None:
        """Lockers that may have been taken.

        Of a fee all nodes are asked, because its recipient may have had other beacons when it was told.
        """
        marks = {locker.code: self._pauses.mark(locker.code) for locker in lockers}
        found = await self._find(lockers, nodes)
        changes = {}
        for locker in lockers:
            if self._pauses.mark(locker.code) is not marks[locker.code]:
                continue  # it was shown to a node meanwhile
            state = self._judge(locker, found[locker.code])
            if state is None:
                self._pauses.longer(locker.code)
            else:
                changes[locker.code] = state
        await self._store.settle(changes, self._ctx.now(), expected=LockerState.LIMBO)

    def _judge(self, locker: Locker, sides: Sides) -> LockerState | None:
        takers = self._takers(locker)
        gone = {node for node, held in sides.items() if Held.NEITHER in held}
        if gone & (takers | locker.funded):
            return LockerState.CONSUMED
        return LockerState.AVAILABLE if takers <= sides.keys() else None

    def _takers(self, locker: Locker) -> set[int]:
        """Nodes that must all say they have not taken a locker."""
        if locker.node is not None:
            return {locker.node}
        assert locker.guid is not None
        row = self._ctx.store.sends.receipt(locker.guid).tell.recipients[locker.unit or 0]
        return {row.beacon_raida, *self._ctx.beacons(Address(row.denomination, row.serial_number))}

    # ---------------------------------------------------------------------------------------------- filled or not

    async def _fill(self, lockers: Sequence[Locker]) -> None:
        """Lockers that were shown to nobody: made known to more than half of the nodes, or emptied."""
        nodes, quorum = self._ctx.nodes, self._ctx.quorum
        found = await self._find(lockers, range(nodes))
        full = {x.code: {n for n, held in found[x.code].items() if set(held) == {Held.PAN}} for x in lockers}
        hopes = {
            x.code: nodes - sum(Held.NEITHER in held for held in found[x.code].values()) for x in lockers
        }  # nodes that know it or may yet
        going_on = [x for x in lockers if full[x.code] and hopes[x.code] >= quorum]
        for code, passed in (await self._put(going_on, found)).items():
            full[code] |= passed
        ready, waiting = {}, {}
        for locker in lockers:
            code, known = locker.code, frozenset(full[locker.code])
            if len(known) >= quorum:
                ready[code] = known
            elif hopes[code] < quorum or (not known and len(found[code]) >= quorum):
                await self._store.dissolve(code, self._emptied(locker, found[code]))
            else:
                self._pauses.longer(code)
                if known:
                    waiting[code] = known | locker.funded
        await self._store.end_funding(ready, (), LockerState.AVAILABLE)
        await self._store.end_funding(waiting, (), LockerState.LIMBO)

    def _emptied(self, locker: Locker, sides: Sides) -> Mapping[str, Sequence[Coin]]:
        """The coins with the numbers the nodes have; those most nodes do not know go where they pay nothing."""
        silent = self._ctx.nodes - len(sides)
        wallets: dict[str, list[Coin]] = {locker.wallet: [], FRACKED: []}
        for position, (old, new) in enumerate(self._numbers(locker, range(self._ctx.nodes))):
            held = {node: found[position] for node, found in sides.items()}
            moved = {node for node in locker.funded if node not in held}
            moved |= {node for node, side in held.items() if side == Held.PAN}
            ans = (_an(new if node in moved else old, node) for node in range(self._ctx.nodes))
            known = sum(side != Held.NEITHER for side in held.values())
            name = locker.wallet if known + silent >= self._ctx.quorum else FRACKED
            wallets[name].append(Coin(old.address, b"".join(ans)))
        if wallets[FRACKED]:
            log.warning("%d coins are known to too few servers", len(wallets[FRACKED]))
        return wallets

    async def _put(self, lockers: Sequence[Locker], found: Mapping[str, Sides]) -> dict[str, set[int]]:
        """Fill lockers at the nodes that have the old numbers; which of them said they did."""
        wanted: dict[int, list[Locker]] = defaultdict(list)
        for locker in lockers:
            for node, held in found[locker.code].items():
                if set(held) == {Held.AN}:
                    wanted[node].append(locker)
        coins = {locker.code: self._store.locker_coins(locker.code) for locker in lockers}
        bodies = {
            node: build_put_many([(coins[x.code], locker_key(x.code.encode(), node)) for x in part], node)
            for node, part in wanted.items()
        }
        answers, _ = await self._ctx.poll(
            c.GROUP_LOCKER,
            c.CMD_LOCKER_PUT_MANY,
            bodies,
            lambda reply: codec.parse_verdict(reply, len(wanted[reply.node])),
        )
        passed: dict[str, set[int]] = defaultdict(set)
        for node, verdict in answers.items():
            for locker, ok in zip(wanted[node], verdict, strict=True):
                if ok:
                    passed[locker.code].add(node)
        return passed

    # ---------------------------------------------------------------------------------------------- asking

    async def _find(self, lockers: Sequence[Locker], nodes: Iterable[int]) -> dict[str, Sides]:
        """What nodes have for the coins of lockers."""
        asked = set(nodes)
        found: dict[str, Sides] = {locker.code: {} for locker in lockers}
        for part in self._parts(lockers):
            numbers = {locker.code: self._numbers(locker, asked) for locker in part}
            given, taken = zip(*(pair for pairs in numbers.values() for pair in pairs), strict=True)
            bodies = {node: healing.build_find(given, taken, node) for node in asked}

            def judge(reply: Reply, count: int = len(given)) -> list[Held]:
                return healing.parse_found(reply, count)

            answers, failed = await self._ctx.poll(c.GROUP_HEALING, c.CMD_FIND, bodies, judge)
            for node, held in answers.items():
                sides = iter(held)
                for code, pairs in numbers.items():
                    found[code][node] = [next(sides) for _ in pairs]
            asked -= failed.keys()  # nobody is waited for twice
        return found

    def _parts(self, lockers: Sequence[Locker]) -> Iterator[list[Locker]]:
        """As many lockers as fit into one request."""
        part: list[Locker] = []
        room = _AT_ONCE
        for locker in lockers:
            count = len(self._store.locker_coins(locker.code))
            if part and (count > room or len(part) == _MOST_LOCKERS):
                yield part
                part, room = [], _AT_ONCE
            part.append(locker)
            room -= count
        if part:
            yield part

    def _numbers(self, locker: Locker, nodes: Container[int]) -> list[tuple[Coin, Coin]]:
        """The coins of a locker with the numbers from before, and with those some nodes have for them in it."""
        code = locker.code.encode()
        keys = (locker_key(code, node) if node in nodes else _NONE for node in range(self._ctx.nodes))
        ans = b"".join(keys)
        return [(coin, Coin(coin.address, ans)) for coin in self._store.locker_coins(locker.code)]


def _an(coin: Coin, node: int) -> bytes:
    return coin.ans[node * AN_SIZE : (node + 1) * AN_SIZE]
