"""Handlers of group 0: echo, version, statistics and count. Mirrors codec/status.py; QMail wire B.1."""

from __future__ import annotations

import hmac

from qmail_core.codec import consts as c
from qmail_core.codec import status as codec
from qmail_core.codec.packet import Refused, Request
from qmail_core.raida.context import Answer, Command, Context

COUNT_AGE = 600.0  # seconds a count is repeated: counting reads the whole table of coins


def echo(context: Context, request: Request, now: float) -> Answer:
    """Command 0. Extra bytes are tolerated."""
    return Answer(c.STATUS_SUCCESS)


def version(context: Context, request: Request, now: float) -> Answer:
    """Command 1."""
    return Answer(c.STATUS_SUCCESS, context.policy.version)


def stats(context: Context, request: Request, now: float) -> Answer:
    """Command 2, for whoever has the key of the node's operator; nobody, if there is none."""
    if not context.admin_key or not hmac.compare_digest(context.admin_key, request.payload[: codec.ADMIN_KEY_SIZE]):
        raise Refused(c.STATUS_ADMIN)
    return Answer(c.STATUS_SUCCESS, codec.build_stats(context.numbers))


def count(context: Context, request: Request, now: float) -> Answer:
    """Command 3: coins by denomination, up to ten minutes old. A password behind the challenge is ignored."""
    known = context.counted
    if known is None or not 0 <= now - known[0] < COUNT_AGE:
        known = context.counted = (now, codec.build_count(context.state.denominations()))
    return Answer(c.STATUS_SUCCESS, known[1])


STATUS = {
    c.CMD_ECHO: Command(echo),
    c.CMD_VERSION: Command(version),
    c.CMD_STATS: Command(stats, least=codec.ADMIN_KEY_SIZE),
    c.CMD_COUNT: Command(count),
}
