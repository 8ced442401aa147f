"""Handlers of group 8, and how a locker pays. Mirrors codec/lockers.py.

With `Policy.redeem` "network" a node that was paid takes the locker's coins at the other nodes too, afterwards and
behind nobody's back: the numbers it draws for them are committed with the payment, before any request leaves.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

from msgspec import Struct

from qmail_core.codec import consts as c
from qmail_core.codec import lockers as codec
from qmail_core.codec.cipher import Key, locker_key
from qmail_core.codec.coins import build_coin_list, parse_verdict, value_of
from qmail_core.codec.mail import build_selector, read_selector
from qmail_core.codec.packet import Refused, Reply, Request
from qmail_core.errors import NodeError, RemoteProtocolError
from qmail_core.raida.coins import fresh_ans, matches, proven, refuse_repeats, verdict
from qmail_core.raida.context import Answer, Command, Context, Inquiry
from qmail_core.raida.state import Claim, MemoryClaim

_CLAIMS = 256  # looked at in one go


def put(context: Context, request: Request, now: float) -> Answer:
    """Command 82: re-key coins to a locker once their XOR sum is proven. QMail wire B.5.2."""
    wanted = codec.parse_put(request.payload)
    if not codec.locker_keys_ok(wanted.key):
        raise Refused(c.STATUS_INVALID_PAN)
    return verdict([_fill(context, wanted)])


def put_many(context: Context, request: Request, now: float) -> Answer:
    """Command 88: fill several lockers, each on its own; a malformed key fails only its locker. QMail wire B.5.2."""
    wanted = codec.parse_put_many(request.payload)
    refuse_repeats(address for locker in wanted for address in locker.coins)
    return verdict([codec.locker_keys_ok(locker.key) and _fill(context, locker) for locker in wanted])


def _fill(context: Context, wanted: codec.LockerPut) -> bool:
    """Move coins into a locker if the XOR sum over what is held for them is right."""
    held = proven(context, wanted.coins, wanted.xor_sum)
    if held is None:
        return False
    context.state.set_ans((selector, wanted.key) for selector, _ in held)
    return True


def peek(context: Context, request: Request, now: float) -> Answer:
    """Command 83: what a locker holds. QMail wire B.5.2."""
    coins = context.state.locker(codec.parse_peek(request.payload))
    if not coins:
        raise Refused(c.STATUS_ALL_FAIL)
    return Answer(c.STATUS_ALL_PASS, build_coin_list(map(read_selector, coins)))


def remove(context: Context, request: Request, now: float) -> Answer:
    """Command 84: give coins of a locker the authenticity numbers their new owner chose. QMail wire B.5.2."""
    key, wanted = codec.parse_remove(request.payload)
    refuse_repeats(address for address, _ in wanted)
    pairs = [(build_selector(address), an) for address, an in wanted]
    # without the locker mark this would be a way to re-key any coin whose number one knows
    held = [codec.locker_keys_ok(key) and matches(context, selector, key) for selector, _ in pairs]
    context.state.set_ans(pair for pair, ok in zip(pairs, held, strict=True) if ok)
    return verdict(held)


def download(context: Context, request: Request, now: float) -> Answer:
    """Command 8: all coins of a locker at once, with numbers made of the seed. QMail wire B.5.2."""
    key, seed = codec.parse_download(request.payload)
    selectors = context.state.locker(key)
    if not selectors:
        raise Refused(c.STATUS_ALL_FAIL)
    coins = list(map(read_selector, selectors))
    context.state.set_ans(zip(selectors, (codec.seeded_an(coin, seed) for coin in coins), strict=True))
    return Answer(c.STATUS_ALL_PASS, build_coin_list(coins))


LOCKERS = {
    c.CMD_LOCKER_DOWNLOAD: Command(download),
    c.CMD_LOCKER_PUT: Command(put, 37, c.STATUS_NOT_DIVISIBLE),
    c.CMD_LOCKER_PEEK: Command(peek),
    c.CMD_LOCKER_REMOVE: Command(remove, 37, c.STATUS_NOT_DIVISIBLE),
    c.CMD_LOCKER_PUT_MANY: Command(put_many),
}


# ------------------------------------------------------------------------------------------------------------------
# Paying with a locker


class Locker(Struct, frozen=True):
    """A locker a request offers as payment, as this node sees it."""

    code: bytes
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
    return Locker(code, key, coins, value_of(map(read_selector, coins))) if coins else None


def consume(context: Context, locker: Locker) -> None:
    """Take a locker's coins for the node: fresh secrets, so the code is worth nothing here from now on."""
    context.state.earn(zip(locker.coins, fresh_ans(context.entropy, len(locker.coins)), strict=True))
    if context.policy.redeem == "network":
        others = [node for node in range(context.nodes) if node != context.index]
        payment = context.entropy(16)
        context.state.add_claims([_claim(context, payment, locker, node) for node in others])


# ------------------------------------------------------------------------------------------------------------------
# Redeeming at the other nodes


def _claim(context: Context, payment: bytes, locker: Locker, node: int) -> Claim:
    ans = fresh_ans(context.entropy, len(locker.coins))
    coins = b"".join(selector + an for selector, an in zip(locker.coins, ans, strict=True))
    return MemoryClaim(payment, node, locker_key(locker.code, node), coins)


def due_claims(context: Context, now: float) -> list[Inquiry]:
    """What other nodes are to be asked for now, one inquiry per payment; what is under way is left alone."""
    payments: dict[bytes, dict[int, Claim]] = {}
    for claim in context.state.claims_due(now, _CLAIMS):
        if (claim.payment, claim.node) not in context.asked:
            context.asked.add((claim.payment, claim.node))
            payments.setdefault(claim.payment, {})[claim.node] = claim
    return [
        Inquiry(
            c.GROUP_LOCKER,
            c.CMD_LOCKER_REMOVE,
            {node: claim.key + claim.coins for node, claim in claims.items()},
            functools.partial(_claimed, claims),
            # the locker's own key: nobody who listens learns the new numbers, or can be first to take the coins
            {node: Key(c.ENC_LOCKER, claim.key, claim.key[:5]) for node, claim in claims.items()},
        )
        for claims in payments.values()
    ]


def _claimed(claims: Mapping[int, Claim], context: Context, replies: Mapping[int, Reply], now: float) -> Answer:
    """Record which coins are the node's everywhere; a node that did not say is asked again."""
    state = context.state
    for node, claim in claims.items():
        context.asked.discard((claim.payment, node))
        taken = _taken(claim, replies.get(node))
        if taken is None:
            state.postpone_claim(claim, now + context.policy.redeem_retry)
        else:
            state.end_claim(claim, taken)
    return Answer(c.STATUS_SUCCESS)


def _taken(claim: Claim, reply: Reply | None) -> bytes | None:
    """The coins a node gave, as (selector, AN) pairs; None if it did not say."""
    if reply is None:
        return None
    pairs = [claim.coins[i : i + 21] for i in range(0, len(claim.coins), 21)]
    try:
        passed: Sequence[bool] = parse_verdict(reply, len(pairs))
    except NodeError as error:
        # it knows no locker of that key: never told of it, or it took the coins itself
        return b"" if error.status == c.STATUS_INVALID_ENCRYPTION else None
    except RemoteProtocolError:
        return None
    return b"".join(pair for pair, ok in zip(pairs, passed, strict=True) if ok)
