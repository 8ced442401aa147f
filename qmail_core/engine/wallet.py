"""Paying: coins become lockers, lockers pay nodes.

Storage and delivery are paid with lockers: coins re-keyed on every node to a key derived from a code, so that whoever
is told the code can take them. Filling lockers costs a round trip to all nodes, so a pool of funded ones is kept.

What the wallet holds in coins that are too large is broken on the way.

A coin or locker is never spent twice, whatever crashes: coins leave the wallet in the same transaction that creates
the FUNDING locker; a locker is RESERVED for one purpose before its code leaves this machine, and stays so while a send,
a queued tell, a planned repair or an open upload may use it. Whoever lets go of it says which of three it is:

consume  the node it was for took it: CONSUMED, for good
release  its code has never left this machine: AVAILABLE
doubt    anything else, whatever nodes have said: LIMBO, until they have been asked what they hold (`limbo`)
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from qmail_core.codec import coins as codec
from qmail_core.codec import consts as c
from qmail_core.codec.cipher import locker_key
from qmail_core.codec.lockers import build_put, build_put_many
from qmail_core.codec.packet import Reply
from qmail_core.engine.change import AGE
from qmail_core.engine.context import Context
from qmail_core.engine.limbo import Limbo, Pauses
from qmail_core.engine.purse import Purse
from qmail_core.errors import NodeError, NotFound, PaymentError, QMailError
from qmail_core.model import Address, Coin, PoolStatus
from qmail_core.store.base import Claim, Locker, LockerKind, LockerState

log = logging.getLogger("qmail.wallet")

# 32 symbols without I and O, 0 and 1: 5 bits each, 80 bits in the 16 characters the wire has (QMail wire B.5.1)
_ALPHABET = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
_MAX_PUT = 200  # lockers per request; the wire allows 255

_Sort = tuple[LockerKind, int]  # what a locker is for, and its worth


def draw_code(entropy: bytes) -> str:
    """A locker code from 16 random bytes."""
    return bytes(_ALPHABET[byte & 31] for byte in entropy).decode()


def choose(coins: list[Coin], value: int) -> list[Coin] | None:
    """Take coins worth exactly `value` off a list sorted by falling value; None (nothing taken) if none fit."""
    chosen: list[int] = []
    left = value
    for position, coin in enumerate(coins):
        if coin.value <= left:
            chosen.append(position)
            left -= coin.value
            if not left:
                break
    if left:
        return None
    taken = [coins[position] for position in chosen]
    for position in reversed(chosen):
        del coins[position]
    return taken


class Wallet:
    """The lockers of one engine."""

    def __init__(self, ctx: Context, purse: Purse) -> None:
        self._ctx = ctx
        self._store = ctx.store.wallet
        self._purse = purse
        self._limbo = Limbo(ctx)
        self._pauses = Pauses()
        self._open: frozenset[bytes] = frozenset()  # exchanges of coins that could not be ended

    def value(self, kind: LockerKind) -> int:
        """CloudCoins in one locker of the pool."""
        return self._ctx.config.storage_fee if kind == LockerKind.UPLOAD else self._ctx.config.inbox_fee

    def spendable(self, wallet: str) -> int:
        """CloudCoins in the wallet and in its unused lockers."""
        ready = sum(self._ready(wallet, kind) * self.value(kind) for kind in LockerKind)
        return self._store.balance(wallet) + ready

    def pool(self, wallet: str) -> PoolStatus:
        """How much is ready to be spent."""
        upload = self._ready(wallet, LockerKind.UPLOAD)
        balance = self._store.balance(wallet)
        one_mail = self._ctx.config.striping.n * self._ctx.config.storage_fee + self._ctx.config.inbox_fee
        low = self.spendable(wallet) < 2 * one_mail
        states = (LockerState.AVAILABLE, LockerState.RESERVED, LockerState.LIMBO)
        lockers = [x for state in states for x in self._store.lockers(state=state) if x.wallet == wallet]
        by_state = [sum(x.value for x in lockers if x.state == state) for state in states]
        by_kind = [sum(x.value for x in lockers if x.kind == kind) for kind in LockerKind]
        return PoolStatus(upload, self._ready(wallet, LockerKind.INBOX), balance, low, *by_state, *by_kind)

    def _ready(self, wallet: str, kind: LockerKind) -> int:
        return self._store.available(wallet, kind, self.value(kind))

    async def acquire(
        self,
        guid: bytes,
        wallet: str,
        uploads: Sequence[Claim],
        inboxes: Mapping[Claim, int],
        held: Iterable[Locker] | None = None,
    ) -> tuple[dict[Claim, Locker], bool]:
        """Reserve lockers for a send, funding what the pool lacks.

        inboxes  claims and what each is to be worth; one that already has a locker keeps it
        held     what the send has been given before, if that is known
        returns  the locker of each claim, and whether funding had to be done now
        raises   PaymentError if the wallet cannot pay; nothing is reserved then
        """
        claims = [(LockerKind.UPLOAD, claim, self.value(LockerKind.UPLOAD)) for claim in uploads]
        claims += [(LockerKind.INBOX, claim, value) for claim, value in inboxes.items()]
        funded_now = False
        while True:
            if held is None:
                held = self._store.lockers(guid=guid)
            kept = {(x.kind, x.unit, x.node) for x in held}
            wanted = Counter((kind, value) for kind, at, value in claims if (kind, at.unit, at.node) not in kept)
            if self._missing(wallet, wanted):  # looked at before: a reservation that fails costs a write
                await self._fund_missing(wallet, wanted)
                funded_now = True
            try:
                lockers = await self._store.reserve(guid, wallet, claims)
            except NotFound:
                held = None  # somebody else took what was there, or what was in doubt is free by now
                continue
            return {claim: locker for (_, claim, _), locker in zip(claims, lockers, strict=True)}, funded_now

    def _missing(self, wallet: str, wanted: Mapping[_Sort, int]) -> dict[_Sort, int]:
        counts = {sort: count - self._store.available(wallet, *sort) for sort, count in wanted.items()}
        return {sort: count for sort, count in counts.items() if count > 0}

    async def _fund_missing(self, wallet: str, wanted: Mapping[_Sort, int]) -> None:
        async with self._purse.lock:
            missing = self._missing(wallet, wanted)
            if missing and not await self._fund(wallet, missing):
                raise QMailError("Failed to acquire funded locker codes from pool: too few servers confirmed them")

    async def replenish(self, wallet: str) -> None:
        """Fill the pool in the background; what does not work is tried again after a pause that doubles."""
        what = f"pool of {wallet}"
        if not self._pauses.due(what):
            return
        if await self.fill(wallet):
            self._pauses.over(what)
        else:
            self._pauses.longer(what)

    async def fill(self, wallet: str) -> bool:
        """Fill the pool up to its configured size, as far as the wallet reaches; whether all of it worked."""
        async with self._purse.lock:
            missing = self._affordable(wallet)
            try:
                return not missing or await self._fund(wallet, missing) == sum(missing.values())
            except PaymentError as error:
                log.info("pool not filled: %s", error)
                return False

    def _affordable(self, wallet: str) -> dict[_Sort, int]:
        """What the pool lacks and the wallet can pay."""
        config = self._ctx.config
        wanted = {LockerKind.UPLOAD: config.pool_upload, LockerKind.INBOX: config.pool_inbox}
        missing = {}
        balance = self._store.balance(wallet)
        for kind in (LockerKind.INBOX, LockerKind.UPLOAD):
            value = self.value(kind)
            count = min(wanted[kind] - self._ready(wallet, kind), balance // value)
            if count > 0:
                missing[kind, value] = count
                balance -= count * value
        return missing

    async def _fund(self, wallet: str, counts: Mapping[_Sort, int]) -> int:
        """Move coins into new lockers, on all nodes; returns how many a quorum confirmed."""
        plan = await self._plan_or_break(wallet, counts)
        codes = list(plan)
        confirmed = 0
        for start in range(0, len(codes), _MAX_PUT):
            part = {code: plan[code] for code in codes[start : start + _MAX_PUT]}
            await self._store.begin_funding(part, self._ctx.now())
            confirmed += await self._put({code: coins for code, (_, coins) in part.items()})
        return confirmed

    async def _plan_or_break(self, wallet: str, counts: Mapping[_Sort, int]) -> dict[str, tuple[Locker, list[Coin]]]:
        """A plan; coins are broken, the smallest first, until they can pay exactly."""
        while True:
            try:
                return self._plan(wallet, counts)
            except PaymentError as error:
                large = [coin for coin in self._store.coins(wallet) if coin.address.denomination > 0]
                if error.available < error.needed or not large:
                    raise
                try:
                    await self._purse.changer.break_coin(min(large, key=lambda coin: coin.value), wallet)
                except QMailError as failure:
                    log.warning("a coin cannot be broken: %s", failure)
                    raise error from failure

    def _plan(self, wallet: str, counts: Mapping[_Sort, int]) -> dict[str, tuple[Locker, list[Coin]]]:
        coins = sorted(self._store.coins(wallet), key=lambda coin: -coin.value)
        plan = {}
        # the larger values first, so that large coins are not left over
        for kind, value in sorted(counts, key=lambda sort: -sort[1]):
            for _ in range(counts[kind, value]):
                taken = choose(coins, value)
                if taken is None:
                    raise self._too_poor(wallet, counts)
                code = draw_code(self._ctx.entropy(c.LOCKER_CODE_SIZE))
                locker = Locker(code=code, kind=kind, value=value, state=LockerState.FUNDING, wallet=wallet)
                plan[code] = (locker, taken)
        return plan

    def _too_poor(self, wallet: str, counts: Mapping[_Sort, int]) -> PaymentError:
        needed = sum(value * count for (_, value), count in counts.items())
        balance = self._store.balance(wallet)
        hint = "" if balance < needed else " in coins that are too large to pay exactly"
        return PaymentError(
            f"Insufficient balance: need {needed} CC, wallet has {balance} CC{hint}", needed=needed, available=balance
        )

    async def _put(self, filling: dict[str, Sequence[Coin]]) -> int:
        codes, nodes = list(filling), range(self._ctx.nodes)
        bodies = [
            build_put_many([(filling[code], locker_key(code.encode(), node)) for code in codes], node) for node in nodes
        ]

        def judge(reply: Reply) -> list[bool]:
            return codec.parse_verdict(reply, len(codes))

        batch = self._ctx.batch(c.GROUP_LOCKER, c.CMD_LOCKER_PUT_MANY, nodes, bodies)
        run = self._ctx.fanout.run(batch, timeout=self._ctx.config.timeouts.small, judge=judge)
        await run.wait(self._ctx.quorum, settle=2.0)
        answers: dict[int, list[bool]] = {node: found for node, found in run.good.items() if isinstance(found, list)}
        unsure = len(answers) < len(nodes)
        funded, limbo, back = {}, {}, []
        for position, code in enumerate(codes):
            confirmed = frozenset(node for node, passed in answers.items() if passed[position])
            if len(confirmed) >= self._ctx.quorum:
                funded[code] = confirmed
            elif confirmed or unsure:
                limbo[code] = confirmed
            else:
                back.append(code)
        await self._store.end_funding(funded, (), LockerState.AVAILABLE)
        await self._store.end_funding(limbo, back, LockerState.LIMBO)
        log.info("funded %d lockers, %d unclear, %d refused", len(funded), len(limbo), len(back))
        return len(funded)

    async def ensure(self, locker: Locker, node: int) -> bool | None:
        """Make sure one node knows a locker's coins: it may have been away while the locker was filled.

        returns  True if it does, False if it has taken them already, None if it did not say
        """
        if node in locker.funded:
            return True
        coins = self._store.locker_coins(locker.code)
        if not coins:
            return False  # it is spent
        key = locker_key(locker.code.encode(), node)
        batch = self._ctx.batch(c.GROUP_LOCKER, c.CMD_LOCKER_PUT, [node], [build_put(coins, key, node)])
        run = self._ctx.fanout.run(batch, timeout=self._ctx.config.timeouts.small)
        await run.finish()
        error = run.failed.get(node)
        if error is not None:
            # only "these are not the numbers I know" says anything about the coins: they moved here before
            moved = isinstance(error, NodeError) and error.status == c.STATUS_ALL_FAIL
            held = await self._peek(locker.code, node) if moved else None
            if held is None or not held >= {coin.address for coin in coins}:
                return None if held is None else False
        await self._store.add_funded(locker.code, node)
        return True

    async def ensure_all(self, lockers: Iterable[Locker], patience: float) -> None:
        """Tell the nodes that lockers are reserved for of those they do not know, for so many seconds at most."""
        unknown = [(x, x.node) for x in lockers if x.node is not None and x.node not in x.funded]
        asking = [asyncio.ensure_future(self.ensure(locker, node)) for locker, node in unknown]
        if not asking:
            return
        try:
            await asyncio.wait(asking, timeout=patience)
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)

    async def _peek(self, code: str, node: int) -> set[Address] | None:
        """The coins a node holds in a locker; None if it did not say."""

        def judge(reply: Reply) -> set[Address]:
            if reply.status == c.STATUS_ALL_FAIL:
                return set()
            return set(codec.parse_coin_list(reply.expect().payload))

        batch = self._ctx.batch(c.GROUP_LOCKER, c.CMD_LOCKER_PEEK, [node], [locker_key(code.encode(), node)])
        run = self._ctx.fanout.run(batch, timeout=self._ctx.config.timeouts.small, judge=judge)
        await run.finish()
        found = run.good.get(node)
        return found if isinstance(found, set) else None

    async def consume(self, lockers: Iterable[Locker]) -> None:
        """Record that nodes took these lockers."""
        await self._settle(lockers, LockerState.CONSUMED)

    async def release(self, lockers: Iterable[Locker]) -> None:
        """Give reserved lockers back to the pool whose codes nobody has been told."""
        await self._settle(lockers, LockerState.AVAILABLE)

    async def doubt(self, lockers: Iterable[Locker]) -> None:
        """Let go of reserved lockers that nodes may have taken: they are asked in `recover`."""
        await self._limbo.add(lockers)

    async def _settle(self, lockers: Iterable[Locker], state: LockerState) -> None:
        changes = {locker.code: state for locker in lockers}
        await self._store.settle(changes, self._ctx.now(), expected=LockerState.RESERVED)

    async def look_into(self, locker: Locker, node: int) -> None:
        """Record that a node took a reserved locker, if it did: who is on a white list pays nothing.

        Where it lies there still, others that were shown it are asked as well, in `recover`.
        """
        if locker.state != LockerState.RESERVED:
            return
        taken = await self._limbo.taken(locker, node)
        await (self.consume if taken else self.doubt)([locker])

    # ---------------------------------------------------------------------------------------------- in the background

    async def recover(self) -> None:
        """Ask the network what became of lockers and coins whose fate is unknown; run from time to time."""
        # under the lock, so that what is being funded right now is not taken for lost
        async with self._purse.lock:
            orphans = [
                locker
                for locker in self._store.lockers(state=LockerState.FUNDING)
                if self._ctx.past(locker.created_at, AGE)
            ]
            await self._recover_works()
        await self._limbo.settle(orphans)

    async def _recover_works(self) -> None:
        """Take up exchanges of coins; those that stay open are looked at again after a pause."""
        begun = self._works()
        if not begun or (begun == self._open and not self._pauses.due("works")):
            return
        await self._purse.changer.recover()
        self._open = self._works()
        if self._open == begun:
            self._pauses.longer("works")
        else:
            self._pauses.over("works")

    def _works(self) -> frozenset[bytes]:
        return frozenset(work.id for work in self._store.works())
