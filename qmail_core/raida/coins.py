"""Handlers of group 1: detect and pown. Mirrors codec/coins.py.

Rules: authenticity numbers are compared in constant time; a coin listed twice fails a whole request that changes or
sums, because a XOR proves nothing about values that cancel out; a request that fails changes nothing.
"""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from qmail_core.codec import coins as codec
from qmail_core.codec import consts as c
from qmail_core.codec.mail import build_selector
from qmail_core.codec.packet import Refused, Request
from qmail_core.model import AN_SIZE, Address
from qmail_core.raida.context import Answer, Command, Context
from qmail_core.raida.state import LOCKER_TAIL


def detect(context: Context, request: Request, now: float) -> Answer:
    """Command 10: which coins have the authenticity number claimed for them. QMail wire B.2."""
    pairs = codec.parse_detect(request.payload)
    return verdict([matches(context, build_selector(address), an) for address, an in pairs])


def detect_sum(context: Context, request: Request, now: float) -> Answer:
    """Command 11: whether the XOR of the coins' numbers is the one claimed. QMail wire B.2."""
    wanted = codec.parse_detect_sum(request.payload)
    return verdict([proven(context, wanted.coins, wanted.xor_sum) is not None])


def pown(context: Context, request: Request, now: float) -> Answer:
    """Command 20: give coins new numbers, each proven by its old one. QMail wire B.2."""
    wanted = codec.parse_pown(request.payload)
    refuse_repeats(address for address, _, _ in wanted)
    rows = [(build_selector(address), an, pan) for address, an, pan in wanted]
    passed = [matches(context, selector, an) for selector, an, _ in rows]
    context.state.set_ans((selector, pan) for (selector, _, pan), ok in zip(rows, passed, strict=True) if ok)
    return verdict(passed)


def pown_sum(context: Context, request: Request, now: float) -> Answer:
    """Command 21: change coins' numbers by a delta, all proven by one XOR. QMail wire B.2."""
    wanted = codec.parse_pown_sum(request.payload)
    held = proven(context, wanted.coins, wanted.xor_sum)
    if held is None:
        raise Refused(c.STATUS_ALL_FAIL)
    context.state.set_ans((selector, codec.xor(an, wanted.delta)) for selector, an in held)
    return Answer(c.STATUS_ALL_PASS)


# ------------------------------------------------------------------------------------------------------------------
# Shared by all groups that deal in coins


def verdict(passed: Sequence[bool]) -> Answer:
    """241, 242, or 243 with a bitmap."""
    return Answer(*codec.build_verdict(passed))


def matches(context: Context, selector: bytes, an: bytes) -> bool:
    """Whether a coin's number is this one."""
    known = context.state.an(selector)
    return known is not None and hmac.compare_digest(known, an)


def refuse_repeats(addresses: Iterable[Address]) -> None:
    """End a request that names a coin twice."""
    if max(Counter(addresses).values()) > 1:
        raise Refused(c.STATUS_ALL_FAIL)


def proven(context: Context, coins: Sequence[Address], claimed: bytes) -> list[tuple[bytes, bytes]] | None:
    """(selector, number held) of coins whose XOR is the one claimed; None if it proves nothing."""
    refuse_repeats(coins)
    held = [(selector, context.state.an(selector)) for selector in map(build_selector, coins)]
    known = [(selector, an) for selector, an in held if an is not None]
    # coins of one locker share a number and cancel out in pairs: a stranger could prove two of them with zeros
    if len({an for _, an in known}) != len(coins):
        return None
    return known if hmac.compare_digest(codec.xor_sum(an for _, an in known), claimed) else None


def fresh_ans(entropy: Callable[[int], bytes], count: int) -> list[bytes]:
    """Random authenticity numbers, none of which looks like a locker key."""
    drawn = entropy(count * AN_SIZE)
    ans = [drawn[i : i + AN_SIZE] for i in range(0, len(drawn), AN_SIZE)]
    return [an[:-1] + b"\0" if an.endswith(LOCKER_TAIL) else an for an in ans]


AUTH = {
    c.CMD_DETECT: Command(detect, codec.PAIR_SIZE, c.STATUS_NOT_DIVISIBLE),
    c.CMD_DETECT_SUM: Command(detect_sum, codec.PAIR_SIZE, c.STATUS_NOT_DIVISIBLE),
    c.CMD_POWN: Command(pown, codec.TRIPLE_SIZE, c.STATUS_NOT_DIVISIBLE),
    c.CMD_POWN_SUM: Command(pown_sum, codec.TRIPLE_SIZE, c.STATUS_NOT_DIVISIBLE),
}
