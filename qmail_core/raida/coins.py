"""Handlers of groups 1 and 8 (detect, lockers), and how a locker pays. Mirrors codec/coins.py.

Rules: authenticity numbers are compared in constant time; a coin listed twice fails the whole request, because a XOR
sum proves nothing about values that cancel out; a request that fails changes nothing.
"""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct

from qmail_core.codec import coins as codec
from qmail_core.codec import consts as c
from qmail_core.codec.cipher import locker_key
from qmail_core.codec.mail import build_selector, read_selector
from qmail_core.codec.packet import Refused, Request
from qmail_core.model import AN_SIZE, Address
from qmail_core.raida.context import Answer, Command, Context
from qmail_core.raida.state import LOCKER_TAIL


def detect(context: Context, request: Request, now: float) -> Answer:
    """Command 10: which coins have the authenticity number claimed for them. QMail wire B.2."""
    pairs = codec.parse_detect(request.payload)
    return _verdict([_matches(context, build_selector(address), an) for address, an in pairs])


def put(context: Context, request: Request, now: float) -> Answer:
    """Command 82: re-key coins to a locker once their XOR sum is proven. QMail wire B.5.2."""
    wanted = codec.parse_put(request.payload)
    if not codec.locker_keys_ok(wanted.key):
        raise Refused(c.STATUS_INVALID_PAN)
    if not _fill(context, wanted):
        raise Refused(c.STATUS_ALL_FAIL)
    return Answer(c.STATUS_ALL_PASS)


def put_many(context: Context, request: Request, now: float) -> Answer:
    """Command 88: fill several lockers, each on its own; a malformed key fails only its locker. QMail wire B.5.2."""
    wanted = codec.parse_put_many(request.payload)
    _refuse_repeats(address for locker in wanted for address in locker.coins)
    return _verdict([codec.locker_keys_ok(locker.key) and _fill(context, locker) for locker in wanted])


def peek(context: Context, request: Request, now: float) -> Answer:
    """Command 83: what a locker holds. QMail wire B.5.2."""
    coins = context.state.locker(codec.parse_peek(request.payload))
    if not coins:
        raise Refused(c.STATUS_ALL_FAIL)
    return Answer(c.STATUS_ALL_PASS, codec.build_coin_list(map(_address, coins)))


def remove(context: Context, request: Request, now: float) -> Answer:
    """Command 84: give coins of a locker the authenticity numbers their new owner chose. QMail wire B.5.2."""
    key, wanted = codec.parse_remove(request.payload)
    _refuse_repeats(address for address, _ in wanted)
    pairs = [(build_selector(address), an) for address, an in wanted]
    # without the locker mark this would be a way to re-key any coin whose number one knows
    held = [codec.locker_keys_ok(key) and _matches(context, selector, key) for selector, _ in pairs]
    context.state.set_ans(pair for pair, ok in zip(pairs, held, strict=True) if ok)
    return _verdict(held)


def _verdict(passed: Sequence[bool]) -> Answer:
    """241, 242, or 243 with a bitmap."""
    if all(passed):
        return Answer(c.STATUS_ALL_PASS)
    if not any(passed):
        return Answer(c.STATUS_ALL_FAIL)
    return Answer(c.STATUS_MIXED, codec.build_bitmap(passed))


def _matches(context: Context, selector: bytes, an: bytes) -> bool:
    known = context.state.an(selector)
    return known is not None and hmac.compare_digest(known, an)


def _refuse_repeats(addresses: Iterable[Address]) -> None:
    if max(Counter(addresses).values()) > 1:
        raise Refused(c.STATUS_ALL_FAIL)


def _fill(context: Context, wanted: codec.LockerPut) -> bool:
    """Move coins into a locker if the XOR sum over what is held for them is right."""
    _refuse_repeats(wanted.coins)
    selectors = [build_selector(address) for address in wanted.coins]
    ans = [an for an in map(context.state.an, selectors) if an is not None]
    if len(ans) != len(selectors):
        return False
    # coins of one locker share a number and cancel out in pairs: a stranger could prove two of them with zeros
    if len(set(ans)) != len(ans):
        return False
    if not hmac.compare_digest(codec.xor_sum(ans), wanted.xor_sum):
        return False
    context.state.set_ans((selector, wanted.key) for selector in selectors)
    return True


def _address(selector: bytes) -> Address:
    return read_selector(selector)


# ------------------------------------------------------------------------------------------------------------------
# Paying with a locker


class Locker(Struct, frozen=True):
    """A locker a request offers as payment, as this node sees it."""

    key: bytes
    coins: tuple[bytes, ...]
    value: int  # whole CC

    def __repr__(self) -> str:
        return f"Locker({self.value} CC)"


def open_locker(context: Context, code: bytes) -> Locker | None:
    """The locker a 16-byte code names here; None if the code is empty or the locker is. QMail wire B.5.1."""
    if not any(code):
        return None
    key = locker_key(code, context.index)
    coins = tuple(context.state.locker(key))
    return Locker(key, coins, codec.value_of(map(_address, coins))) if coins else None


def consume(context: Context, locker: Locker) -> None:
    """Take a locker's coins for the node: fresh secrets, so the code is worth nothing from now on."""
    context.state.earn(zip(locker.coins, fresh_ans(context.entropy, len(locker.coins)), strict=True))


def fresh_ans(entropy: Callable[[int], bytes], count: int) -> list[bytes]:
    """Random authenticity numbers, none of which looks like a locker key."""
    drawn = entropy(count * AN_SIZE)
    ans = [drawn[i : i + AN_SIZE] for i in range(0, len(drawn), AN_SIZE)]
    return [an[:-1] + b"\0" if an.endswith(LOCKER_TAIL) else an for an in ans]


DETECT = {c.CMD_DETECT: Command(detect, 21, c.STATUS_NOT_DIVISIBLE)}
LOCKERS = {
    c.CMD_LOCKER_PUT: Command(put, 37, c.STATUS_NOT_DIVISIBLE),
    c.CMD_LOCKER_PEEK: Command(peek),
    c.CMD_LOCKER_REMOVE: Command(remove, 37, c.STATUS_NOT_DIVISIBLE),
    c.CMD_LOCKER_PUT_MANY: Command(put_many),
}
