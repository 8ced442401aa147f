"""The answers of long polls: thousands may wait for the same, so what they are told is encoded once."""

from __future__ import annotations

import asyncio

import msgspec

from qmail_core.model import Polled
from qmail_server.http.leaving import Leaving
from qmail_server.http.params import ClientGone
from qmail_server.http.qmail import schema
from qmail_server.http.respond import Call, Json

_TAIL = b'"elapsed_ms":0,"request_id":""}'  # what is each one's own comes last
_newest: tuple[Polled, schema.BeaconDebug, bytes] | None = None


async def polled(call: Call, timeout: float, since: int) -> Polled:
    """What a wait at the beacons ends with; ClientGone when the client leaves before."""
    answer: asyncio.Future[Polled | Exception] = asyncio.get_running_loop().create_future()

    def told(found: Polled | Exception) -> None:
        if not answer.done():
            answer.set_result(found)

    stop = call.engine.watch(timeout, since, told)
    leaving = Leaving(call.receive, lambda: told(ClientGone()))
    try:
        found = await answer
    finally:
        leaving.close()
        stop()
    if isinstance(found, Exception):
        raise found
    return found


def answer(call: Call, found: Polled, debug: schema.BeaconDebug, elapsed_ms: int) -> Json:
    """One's own answer: the common part, the time it took, and the request's id."""
    own = b'"elapsed_ms":%d,"request_id":"%s"}' % (elapsed_ms, call.request_id.encode())
    return Json.encoded(_common(call, found, debug) + own)


def _common(call: Call, found: Polled, debug: schema.BeaconDebug) -> bytes:
    global _newest  # all who are woken together ask for the same, one after the other
    if _newest is None or _newest[0] is not found or _newest[1] != debug:
        items = [schema.notification(row, call.engine.render(row.tell.sender)) for row in found.notifications]
        body = msgspec.json.encode(schema.ping(items, found, debug))
        _newest = (found, debug, body.removesuffix(_TAIL))
    return _newest[2]
