"""Coins for coins: pown, break and join at the nodes, and lockers taken over.

Each exchange is a Work in the store, with the numbers of both sides, before its first request leaves. So whatever
moment a process dies at, every node can be asked which side it holds, and every coin is in some side. A node that
still holds what was given is asked again; an exchange has happened when more than half of the nodes hold what was
taken, and has not when as many refuse it: what did not answer may still come to pass.

All methods run under the purse's lock: the coins of a wallet have one user at a time.
"""

from __future__ import annotations

import enum
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from qmail_core.codec import change, coins, healing, lockers
from qmail_core.codec import consts as c
from qmail_core.codec.change import PARTS, Operation
from qmail_core.codec.cipher import locker_key
from qmail_core.codec.healing import Held
from qmail_core.codec.packet import Reply
from qmail_core.engine.context import Context
from qmail_core.errors import NodeError, NotFound, QMailError, RemoteProtocolError, UsageError
from qmail_core.model import AN_SIZE, Address, Coin, PaymentStatus, Powned
from qmail_core.store.base import Work, WorkKind

log = logging.getLogger("qmail.wallet")

FRACKED = "Fracked"  # the wallet of coins that too few nodes know; it never pays
AGE = 5  # seconds after which a request sent by a process that died has reached its node or never will
_AT_ONCE = 500  # coins in one request

Sides = dict[int, Held]  # by node: AN for what was given, PAN for what was taken; left out if it did not say


class Fate(enum.Enum):
    """What became of a work."""

    TAKEN = enum.auto()
    BACK = enum.auto()
    LOST = enum.auto()
    OPEN = enum.auto()


class Changer:
    """Exchanges coins for others."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._store = ctx.store.wallet

    # ---------------------------------------------------------------------------------------------- stories

    async def pown(self, given: Sequence[Coin], wallet: str) -> Powned:
        """Take coins over: give them numbers that nobody else knows."""
        if len({coin.address for coin in given}) != len(given):
            raise UsageError("A coin is listed twice")
        if any(len(coin.ans) != self._ctx.nodes * AN_SIZE for coin in given):
            raise UsageError("A coin has one authenticity number for each node")
        works = [self._work(WorkKind.POWN, wallet, [coin], [coin.address]) for coin in given]
        await self._store.begin_work(works, self._ctx.now())
        fates = {work.id: Fate.OPEN for work in works}
        for start in range(0, len(works), _AT_ONCE):
            part = works[start : start + _AT_ONCE]
            fates |= await self._settle(part, await self._pown(dict.fromkeys(range(self._ctx.nodes), part)))
        return _powned(works, fates)

    async def take(self, code: bytes, wallet: str, payment: bytes = b"") -> Powned:
        """Take what lies in a locker. Only coins more than half of the nodes have in it count.

        payment  guid of the mail it came with: that it was claimed is noted whenever the coins come, or never will
        raises   NotFound if there are none
        """
        nodes = range(self._ctx.nodes)
        keys = {node: locker_key(code, node) for node in nodes}
        seen, _ = await self._ctx.poll(c.GROUP_LOCKER, c.CMD_LOCKER_PEEK, keys, _peeked)
        votes = Counter(address for found in seen.values() for address in found)
        listed = sorted(address for address, count in votes.items() if count >= self._ctx.quorum)
        if not listed:
            raise NotFound("The locker is empty or unknown")
        ans = b"".join(keys.values())
        works = [
            self._work(WorkKind.POWN, wallet, [Coin(address, ans)], [address], payment=payment) for address in listed
        ]
        await self._store.begin_work(works, self._ctx.now())
        taken = [work.taken[0] for work in works]
        bodies = {node: lockers.build_remove(keys[node], taken, node) for node in nodes}
        passed, _ = await self._ctx.poll(
            c.GROUP_LOCKER, c.CMD_LOCKER_REMOVE, bodies, lambda reply: coins.parse_verdict(reply, len(taken))
        )
        return _powned(works, await self._settle(works, _passes(works, dict.fromkeys(nodes, works), passed)))

    async def break_coin(self, coin: Coin, wallet: str) -> tuple[Coin, ...]:
        """Ten coins of the next smaller denomination for one."""
        return await self._swap(WorkKind.BREAK, [coin], coin.address.denomination - 1, wallet)

    async def join(self, ten: Sequence[Coin], wallet: str) -> Coin:
        """One coin for ten of the next smaller denomination."""
        (one,) = await self._swap(WorkKind.JOIN, ten, ten[0].address.denomination + 1, wallet)
        return one

    async def _swap(self, kind: WorkKind, given: Sequence[Coin], denomination: int, wallet: str) -> tuple[Coin, ...]:
        session = int.from_bytes(self._ctx.entropy(4), "big")
        offers, _ = await self._offers(session, kind, denomination, range(self._ctx.nodes))
        votes = Counter(serial for offered in offers.values() for serial in offered)
        wanted = PARTS if kind == WorkKind.BREAK else 1
        serials = sorted(votes, key=lambda serial: (-votes[serial], serial))[:wanted]
        nodes = [node for node, offered in offers.items() if offered.issuperset(serials)]
        if len(serials) < wanted or len(nodes) < self._ctx.quorum:
            raise QMailError("Too few servers can change coins now")
        work = self._work(kind, wallet, given, [Address(denomination, sn) for sn in serials], session)
        await self._store.begin_work([work], self._ctx.now())
        done, _ = await self._change(work, nodes)
        fates = await self._settle([work], {work.id: done})
        if fates[work.id] != Fate.TAKEN:
            later = "" if fates[work.id] == Fate.BACK else "; it is looked into in the background"
            raise QMailError(f"Coins could not be changed: too few servers confirmed it{later}")
        return work.taken

    def _work(
        self,
        kind: WorkKind,
        wallet: str,
        given: Iterable[Coin],
        taken: Iterable[Address],
        session: int = 0,
        payment: bytes = b"",
    ) -> Work:
        return Work(
            id=self._ctx.entropy(16),
            kind=kind,
            wallet=wallet,
            given=tuple(given),
            taken=tuple(Coin(address, self._fresh()) for address in taken),
            session=session,
            payment=payment,
        )

    def _fresh(self) -> bytes:
        """New numbers for one coin; none may look like a locker's key."""
        drawn = self._ctx.entropy(self._ctx.nodes * AN_SIZE)
        ans = (drawn[at : at + AN_SIZE] for at in range(0, len(drawn), AN_SIZE))
        return b"".join(an[:-1] + b"\0" if lockers.locker_keys_ok(an) else an for an in ans)

    # ---------------------------------------------------------------------------------------------- after a crash

    async def recover(self) -> None:
        """Bring works to an end that a crash, or nodes that were away, left open."""
        due = [work for work in self._store.works() if self._ctx.past(work.created_at, AGE)]
        powns = [work for work in due if work.kind == WorkKind.POWN]
        others = [[work] for work in due if work.kind != WorkKind.POWN]
        for group in [*(powns[at : at + _AT_ONCE] for at in range(0, len(powns), _AT_ONCE)), *others]:
            fates = await self._settle(group, {work.id: {} for work in group})
            log.info("took up %d exchanges of coins, %d stay open", len(group), list(fates.values()).count(Fate.OPEN))

    # ---------------------------------------------------------------------------------------------- the end of works

    async def _settle(self, works: Sequence[Work], sides: Mapping[bytes, Sides]) -> dict[bytes, Fate]:
        """End every work whose fate is clear; ask the nodes about the others first, and once more for them."""
        sides = dict(sides)
        fates = {work.id: self._judge(work, sides[work.id], final=False) for work in works}
        unsure = [work for work in works if fates[work.id] == Fate.OPEN]
        if unsure:
            sides |= await self._look(unsure)
            await self._repeat(unsure, sides)
            for work in unsure:
                fates[work.id] = self._judge(work, sides[work.id], final=True)
        ends = {}
        for work in works:
            found = set(sides[work.id].values())
            if fates[work.id] != Fate.OPEN:
                ends[work.id] = _end(work, fates[work.id], known=bool(found - {Held.NEITHER}))
        await self._store.end_work(ends, _payments(works, fates))
        return fates

    def _judge(self, work: Work, sides: Sides, *, final: bool) -> Fate:
        """What became of a work; `final` if the nodes have been asked what they hold."""
        counts = Counter(sides.values())
        silent = self._ctx.nodes - len(sides)
        if counts[Held.PAN] >= self._ctx.quorum:
            return Fate.TAKEN
        if not final:
            return Fate.OPEN
        if counts[Held.AN] >= self._ctx.quorum:
            return Fate.OPEN if work.kind == WorkKind.POWN else Fate.BACK
        most = max(counts[Held.PAN], counts[Held.AN])
        return Fate.LOST if most + silent < self._ctx.quorum else Fate.OPEN

    async def _look(self, works: Sequence[Work]) -> dict[bytes, Sides]:
        """Which side of each work each node holds."""
        powns = [work for work in works if work.kind == WorkKind.POWN]
        given, taken = [work.given[0] for work in powns], [work.taken[0] for work in powns]
        sides: dict[bytes, Sides] = {work.id: {} for work in works}
        if powns:
            bodies = {node: healing.build_find(given, taken, node) for node in range(self._ctx.nodes)}
            found, _ = await self._ctx.poll(
                c.GROUP_HEALING, c.CMD_FIND, bodies, lambda reply: healing.parse_found(reply, len(powns))
            )
            for node, held in found.items():
                for work, side in zip(powns, held, strict=True):
                    sides[work.id][node] = side
        for work in works:
            if work.kind != WorkKind.POWN:
                sides[work.id] = await self._look_at_change(work)
        return sides

    async def _look_at_change(self, work: Work) -> Sides:
        listed = [*work.given, *work.taken]
        bodies = {node: coins.build_detect(listed, node) for node in range(self._ctx.nodes)}
        found, _ = await self._ctx.poll(
            c.GROUP_AUTH, c.CMD_DETECT, bodies, lambda reply: coins.parse_verdict(reply, len(listed))
        )
        count = len(work.given)
        return {
            node: Held.PAN if all(passed[count:]) else Held.AN if all(passed[:count]) else Held.NEITHER
            for node, passed in found.items()
        }

    async def _repeat(self, works: Sequence[Work], sides: Mapping[bytes, Sides]) -> None:
        """Ask nodes again that hold what was given."""
        holders = {work.id: [node for node, held in sides[work.id].items() if held == Held.AN] for work in works}
        powns = [work for work in works if work.kind == WorkKind.POWN]
        wanted = {
            node: [work for work in powns if node in holders[work.id]] for work in powns for node in holders[work.id]
        }
        for work_id, passed in (await self._pown(wanted)).items():
            sides[work_id].update(passed)
        for work in works:
            if work.kind != WorkKind.POWN and holders[work.id]:
                await self._repeat_change(work, holders[work.id], sides[work.id])

    async def _repeat_change(self, work: Work, nodes: Sequence[int], sides: Sides) -> None:
        denomination = work.taken[0].address.denomination
        serials = {coin.address.serial for coin in work.taken}
        offers, failed = await self._offers(work.session, work.kind, denomination, nodes)
        done, refused = await self._change(work, [node for node, offered in offers.items() if offered >= serials])
        sides.update(done)
        for node in nodes:
            error = refused.get(node) or failed.get(node)
            if error is not None and not isinstance(error, NodeError):
                del sides[node]  # the request may still be on its way

    # ---------------------------------------------------------------------------------------------- requests

    async def _pown(self, wanted: Mapping[int, Sequence[Work]]) -> dict[bytes, Sides]:
        """Send pown of some works to each node; a coin that failed is not said to be anything yet."""
        bodies = {
            node: coins.build_pown([work.given[0] for work in works], [work.taken[0] for work in works], node)
            for node, works in wanted.items()
        }

        def judge(reply: Reply) -> list[bool]:
            return coins.parse_verdict(reply, len(wanted[reply.node]))

        passed, _ = await self._ctx.poll(c.GROUP_AUTH, c.CMD_POWN, bodies, judge)
        return _passes({work.id: work for works in wanted.values() for work in works}.values(), wanted, passed)

    async def _change(self, work: Work, nodes: Sequence[int]) -> tuple[Sides, dict[int, QMailError]]:
        """Send break or join; who did it, and who did not."""
        breaking = work.kind == WorkKind.BREAK
        (one,), ten = (work.given, work.taken) if breaking else (work.taken, work.given)
        bodies = {node: change.build_change(work.session, one, ten, node) for node in nodes}
        command = c.CMD_BREAK if breaking else c.CMD_JOIN
        done, failed = await self._ctx.poll(c.GROUP_CHANGE, command, bodies, Reply.expect)
        return dict.fromkeys(done, Held.PAN), failed

    async def _offers(
        self, session: int, kind: WorkKind, denomination: int, nodes: Iterable[int]
    ) -> tuple[dict[int, frozenset[int]], dict[int, QMailError]]:
        operation = Operation.BREAK if kind == WorkKind.BREAK else Operation.JOIN
        body = change.build_available(session, operation, denomination)

        def judge(reply: Reply) -> frozenset[int]:
            found, serials = change.parse_serials(reply.expect().payload)
            if found != denomination:
                raise RemoteProtocolError(f"node {reply.node}: serial numbers of denomination {found}")
            return frozenset(serials)

        return await self._ctx.poll(c.GROUP_CHANGE, c.CMD_AVAILABLE, dict.fromkeys(nodes, body), judge)


def _peeked(reply: Reply) -> frozenset[Address]:
    if reply.status == c.STATUS_ALL_FAIL:
        return frozenset()
    return frozenset(coins.parse_coin_list(reply.expect().payload))


def _passes(
    works: Iterable[Work], wanted: Mapping[int, Sequence[Work]], passed: Mapping[int, Sequence[bool]]
) -> dict[bytes, Sides]:
    sides: dict[bytes, Sides] = {work.id: {} for work in works}
    for node, verdicts in passed.items():
        for work, ok in zip(wanted[node], verdicts, strict=True):
            if ok:
                sides[work.id][node] = Held.PAN
    return sides


def _end(work: Work, fate: Fate, *, known: bool) -> tuple[str, Sequence[Coin]]:
    """Which coins a work leaves, and where."""
    if fate == Fate.TAKEN:
        return work.wallet, work.taken
    if fate == Fate.BACK:
        return work.wallet, work.given
    if work.kind == WorkKind.POWN:
        return FRACKED, work.taken if known else ()
    return FRACKED, work.given


def _payments(works: Sequence[Work], fates: Mapping[bytes, Fate]) -> dict[bytes, PaymentStatus]:
    """What becomes of the payments some works take: one coin that came is enough."""
    ended: dict[bytes, PaymentStatus] = {}
    for work in works:
        if work.payment and fates[work.id] == Fate.TAKEN:
            ended[work.payment] = PaymentStatus.CLAIMED
        elif work.payment and fates[work.id] == Fate.LOST:
            ended.setdefault(work.payment, PaymentStatus.FAILED)
    return ended


def _powned(works: Sequence[Work], fates: Mapping[bytes, Fate]) -> Powned:
    def those(fate: Fate) -> tuple[Address, ...]:
        return tuple(work.taken[0].address for work in works if fates[work.id] == fate)

    return Powned(those(Fate.TAKEN), those(Fate.LOST), those(Fate.OPEN))
