"""Endpoints of the `local` bucket about this process: its state, costs, addresses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qmail_core.errors import AddressError, UsageError
from qmail_core.model import Address, Folder
from qmail_server.http.qmail.answers import money, people, process
from qmail_server.http.qmail.db.contacts import denomination_of, serial_of
from qmail_server.http.qmail.net import attachments_of, complain, recipients_of, wallet_of
from qmail_server.http.respond import Call

if TYPE_CHECKING:
    from qmail_core.engine.engine import Engine

_MOST_LOCKERS = 1_000_000
_DIGITS = 20  # of a number of 64 bits


async def exists(call: Call) -> people.HasId:
    """Whether there is an identity: an engine does not start without one."""
    return people.HasId()


async def status(call: Call) -> process.StatusAnswer:
    """How everything is."""
    engine = call.engine
    counts = engine.mailbox.counts()
    servers = [process.server(server) for server in engine.network.servers()]
    striping = engine.config.striping
    return process.StatusAnswer(
        beacon=process.beacon(engine.beacon.state),
        database=process.DatabasePart(
            inbox_count=counts[Folder.INBOX][0],
            sent_count=counts[Folder.SENT][0],
            trash_count=counts[Folder.TRASH][0],
            unread_count=counts[Folder.INBOX][1],
            contact_count=engine.people.count(),
        ),
        servers=process.ServersPart(
            count=len(servers),
            data_stripes=striping.k,
            parity_stripes=striping.m,
            available=sum(server.is_available for server in servers),
            items=servers,
        ),
    )


def revision(engine: Engine) -> object:
    """While this stays, so does what `status` answers."""
    return engine.revision, engine.network.revision, engine.beacon.state


async def control_beacon(call: Call) -> process.BeaconAnswer:
    """Start or stop watching the beacons, or say how it goes."""
    action = call.params.text("action", default="status").strip().lower()
    if action == "start":
        call.engine.beacon.start()
    elif action == "stop":
        await call.engine.beacon.stop()
    elif action != "status":
        raise UsageError("Invalid action (start, stop or status)")
    return process.beacon_answer(call.engine.beacon.state)


async def inbox_fee(call: Call) -> money.FeeAnswer:
    """What the same parameters would cost as an upload."""
    recipients = recipients_of(call, complain)
    files = 1 + len(attachments_of(call, "Attachment not found or not readable: {}"))
    costs = await call.engine.balances.quote([recipient.address for recipient in recipients], files)
    return money.fee(costs, files, call.engine.config.striping.n, len(recipients))


async def can_send(call: Call) -> money.CanSend:
    """Whether the wallet can pay."""
    recipients = recipients_of(call, complain)
    wallet = wallet_of(call)
    costs = await call.engine.balances.quote([recipient.address for recipient in recipients], 1)
    lockers = call.params.integer("upload_lockers", call.engine.config.striping.n, 0, _MOST_LOCKERS)
    fee = call.params.integer("inbox_fee", costs.inbox, 0, _MOST_LOCKERS)
    return money.can_send(call.engine.balances.affordable(wallet, lockers, fee))


async def from_sn(call: Call) -> people.FromSn:
    """The address of a serial number."""
    serial = serial_of(call.params, "sn")
    known = call.engine.people.by_serial(serial)
    default = known.address.denomination if known else 2
    address = Address(denomination_of(call.params, default, 0, 4), serial)
    if known is not None and known.address != address:
        known = call.engine.people.find(address)
    return people.from_sn(address, known.text if known is not None else call.engine.render(address), known)


async def encode(call: Call) -> people.Base32:
    """A number in letters."""
    text = call.params.text("value").strip()
    if not text:
        raise UsageError("Missing required parameter: value")
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS and int(text) < 1 << 64):
        raise UsageError("Invalid value for encode (must be a non-negative integer)")
    return people.Base32(mode="encode", decimal=int(text), base32=call.engine.base32_encode(int(text)))


async def decode(call: Call) -> people.Base32:
    """The number in letters, back."""
    text = call.params.text("value").strip()
    if not text:
        raise UsageError("Missing required parameter: value")
    try:
        return people.Base32(mode="decode", decimal=call.engine.base32_decode(text), base32=text.upper())
    except AddressError as error:
        raise UsageError("Invalid base32 string (valid chars: ABCDEFGHJKLMNPQRSTUVWXYZ23456789)") from error


async def base32(call: Call) -> people.Base32:
    """Both under one older name: `mode=decode` reads, everything else writes."""
    return await (decode(call) if call.params.text("mode") == "decode" else encode(call))
