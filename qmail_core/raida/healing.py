"""Handlers of group 2: tickets, find and fix. Mirrors codec/healing.py.

A node that does not know a coin, or knows it under another number, takes the word of more than half of the nodes, its
own not counted: with 25 nodes, 13 confirmations (QMail wire B.3: a counter that starts at 1 must pass 13).
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping

from qmail_core.codec import consts as c
from qmail_core.codec import healing as codec
from qmail_core.codec.coins import PAIR_SIZE, SELECTOR_SIZE, TRIPLE_SIZE, parse_coin_list
from qmail_core.codec.healing import Fix, Held
from qmail_core.codec.mail import build_selector, read_selector
from qmail_core.codec.packet import Refused, Reply, Request
from qmail_core.errors import RemoteProtocolError
from qmail_core.model import Address
from qmail_core.raida.coins import matches, verdict
from qmail_core.raida.context import Answer, Command, Context, Inquiry

_FIX_LEAST = SELECTOR_SIZE + c.SEED_SIZE + c.MAX_TICKETS * c.TICKET_SIZE


def get_ticket(context: Context, request: Request, now: float) -> Answer:
    """Command 40: a ticket for the coins whose numbers are right. QMail wire B.3."""
    pairs = [(build_selector(address), an) for address, an in codec.parse_get_ticket(request.payload)]
    passed = [matches(context, selector, an) for selector, an in pairs]
    if not any(passed):
        raise Refused(c.STATUS_ALL_FAIL)
    proof = tuple(pair for pair, ok in zip(pairs, passed, strict=True) if ok)
    return Answer(*codec.build_ticket(passed, context.tickets.issue(proof, context.entropy, now)))


def validate_ticket(context: Context, request: Request, now: float) -> Answer:
    """Command 50: the coins of a ticket, for another node. QMail wire B.3."""
    asker, number = codec.parse_validate(request.payload)
    if asker >= context.nodes:
        raise Refused(c.STATUS_WRONG_RAIDA)
    proof = context.tickets.claim(number, asker, now)
    # a coin that changed hands since is not vouched for: its former owner may still hold the ticket
    still = {selector for selector, an in proof if matches(context, selector, an)}
    if not still:
        raise Refused(c.STATUS_TICKET_NOT_FOUND)
    return Answer(c.STATUS_SUCCESS, codec.build_validated(map(read_selector, sorted(still))))


def find(context: Context, request: Request, now: float) -> Answer:
    """Command 60: which of two numbers is held for each coin. QMail wire B.3."""
    wanted = codec.parse_find(request.payload)
    return Answer(*codec.build_found([_held(context, build_selector(coin), an, pan) for coin, an, pan in wanted]))


def _held(context: Context, selector: bytes, an: bytes, pan: bytes) -> Held:
    if matches(context, selector, an):
        return Held.AN
    return Held.PAN if matches(context, selector, pan) else Held.NEITHER


def fix(context: Context, request: Request, now: float) -> Answer:
    """Command 80: ask the nodes that gave tickets, then take the coins over. QMail wire B.3."""
    wanted = codec.parse_fix(request.payload)
    others = [node for node in range(min(context.nodes, c.MAX_TICKETS)) if node != context.index]
    questions = {
        node: codec.build_validate(context.index, wanted.tickets[node])
        for node in others
        if wanted.tickets[node] != codec.NO_TICKET
    }
    if not _enough(context, len(questions)):
        raise Refused(c.STATUS_ALL_FAIL)
    inquiry = Inquiry(c.GROUP_HEALING, c.CMD_VALIDATE_TICKET, questions, functools.partial(_fixed, wanted))
    return Answer(c.STATUS_ALL_FAIL, inquiry=inquiry)


def _fixed(wanted: Fix, context: Context, replies: Mapping[int, Reply], now: float) -> Answer:
    votes = Counter(address for reply in replies.values() for address in _vouched(reply))
    passed = [_enough(context, votes[address]) for address in wanted.coins]
    context.state.set_ans(
        (build_selector(address), codec.healed_an(context.index, address, wanted.pg))
        for address, ok in zip(wanted.coins, passed, strict=True)
        if ok
    )
    return verdict(passed)


def _vouched(reply: Reply) -> set[Address]:
    """The coins a node stands for; a node that answers nonsense stands for none."""
    if reply.status != c.STATUS_SUCCESS:
        return set()
    try:
        return set(parse_coin_list(reply.payload))
    except RemoteProtocolError:
        return set()


def _enough(context: Context, confirmations: int) -> bool:
    return 2 * confirmations > context.nodes


HEALING = {
    c.CMD_GET_TICKET: Command(get_ticket, PAIR_SIZE, c.STATUS_NOT_DIVISIBLE),
    c.CMD_VALIDATE_TICKET: Command(validate_ticket),
    c.CMD_FIND: Command(find, TRIPLE_SIZE, c.STATUS_NOT_DIVISIBLE),
    c.CMD_FIX: Command(fix, _FIX_LEAST, c.STATUS_NOT_DIVISIBLE),
}
