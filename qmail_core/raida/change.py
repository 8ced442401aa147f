"""Handlers of group 9: break and join. Mirrors codec/change.py.

Rule: a change is one transaction, and both its sides are worth the same: the coins given in cease to exist here and
their serial numbers are free, the coins taken out get serial numbers that were kept for the session and no coin has.
"""

from __future__ import annotations

from collections.abc import Iterable

from qmail_core.codec import change as codec
from qmail_core.codec import consts as c
from qmail_core.codec.change import Change, Operation
from qmail_core.codec.mail import build_selector
from qmail_core.codec.packet import Refused, Request
from qmail_core.model import Address
from qmail_core.raida.coins import matches
from qmail_core.raida.context import Answer, Command, Context

Pairs = Iterable[tuple[Address, bytes]]


def available(context: Context, request: Request, now: float) -> Answer:
    """Command 91: serial numbers for a session, kept for it for a few seconds. QMail wire B.6."""
    session, operation, denomination = codec.parse_available(request.payload)
    if denomination not in _made_by(operation):
        raise Refused(c.STATUS_INVALID_PARAMETER)

    def free(first: int, last: int) -> list[int]:
        held = set(context.state.held(*(build_selector(Address(denomination, serial)) for serial in (first, last))))
        return [sn for sn in range(first, last + 1) if build_selector(Address(denomination, sn)) not in held]

    serials = context.pages.reserve(session, denomination, now, free)
    if not serials:
        raise Refused(c.STATUS_SN_NOT_AVAILABLE)
    return Answer(c.STATUS_SUCCESS, codec.build_serials(denomination, serials))


def _made_by(operation: int) -> range:
    """Denominations of the coins an operation makes: never the largest by breaking, never the smallest by joining."""
    if operation == Operation.BREAK:
        return c.DENOMINATIONS[:-1]
    return c.DENOMINATIONS[1:] if operation == Operation.JOIN else range(0)


def break_coin(context: Context, request: Request, now: float) -> Answer:
    """Command 92: one coin becomes ten. QMail wire B.6."""
    wanted = _checked(codec.parse_change(request.payload))
    return _exchange(context, wanted.session, [wanted.one], wanted.ten, now)


def join(context: Context, request: Request, now: float) -> Answer:
    """Command 93: ten coins become one. QMail wire B.6."""
    wanted = _checked(codec.parse_change(request.payload))
    return _exchange(context, wanted.session, wanted.ten, [wanted.one], now)


def _checked(wanted: Change) -> Change:
    if not codec.parts_match(wanted.one[0], [address for address, _ in wanted.ten]):
        raise Refused(c.STATUS_INVALID_PARAMETER)
    return wanted


def _exchange(context: Context, session: int, given: Pairs, taken: Pairs, now: float) -> Answer:
    """Put coins that are proven in the place of others."""
    state = context.state
    new = [(build_selector(address), pan) for address, pan in taken]
    old = [(build_selector(address), an) for address, an in given]
    denomination = int.from_bytes(new[0][0][:1], "big", signed=True)
    serials = [int.from_bytes(selector[1:], "big") for selector, _ in new]
    if not context.pages.kept(session, denomination, serials, now):
        raise Refused(c.STATUS_PAGE_NOT_RESERVED)
    if any(state.an(selector) is not None for selector, _ in new):
        raise Refused(c.STATUS_SN_NOT_AVAILABLE)
    for selector, an in old:
        if state.an(selector) is None:
            raise Refused(c.STATUS_SN_NOT_HELD)
        if not matches(context, selector, an):
            raise Refused(c.STATUS_INVALID_AN)
    state.drop_coins(selector for selector, _ in old)
    state.set_ans(new)
    return Answer(c.STATUS_SUCCESS)


CHANGE = {
    c.CMD_AVAILABLE: Command(available),
    c.CMD_BREAK: Command(break_coin),
    c.CMD_JOIN: Command(join),
}
