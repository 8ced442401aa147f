"""Telling senders that their mail was opened: a Tell of type 1, the read receipt (QMail wire C.6.2).

The store notes which mails are opened, whichever surface they are opened in; here that goes to the sender's beacons. It
names the mail by its GUID, carries no locker, and is sent only for mail of our own striping profiles: clients of the
`interop` profile have never been seen to expect one, and might take it for a mail. A beacon that wants money for it has
its way: nothing is told then.
"""

from __future__ import annotations

import logging

import msgspec

from qmail_core.codec import consts as c
from qmail_core.codec import mail
from qmail_core.codec.mail import TellRecipient
from qmail_core.engine.context import Context
from qmail_core.errors import NodeError, NotFound
from qmail_core.model import Address, FileEntry, Profile, Tell
from qmail_core.store.files import OpenedRow

log = logging.getLogger("qmail.opened")

_AT_ONCE = 20  # senders told in one go
_TRIES = 8
_PAUSE = 60  # seconds before the second try, doubled for each further one
_LONGEST = _PAUSE << (_TRIES - 2)
_NOTHING = FileEntry(c.FILE_META, c.FLAG_META, 0, None)  # every tell lists a file


class Opened:
    """The read receipts one engine sends."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._store = ctx.store.files

    async def tell_due(self) -> int:
        """Tell senders whose mails were opened; returns how many mails were looked at."""
        now = self._ctx.now()
        due = self._store.due_opened(now, _AT_ONCE, _LONGEST)
        for row in due:
            at = row.opened_at or now
            told = await self._tell(row, at)
            again = None if told or row.tries + 1 >= _TRIES else now + _PAUSE * 2**row.tries
            await self._store.put_off_opened(row.guid, at, again)
        return len(due)

    async def _tell(self, row: OpenedRow, at: int) -> bool:
        """Tell one sender; False if it is worth another try."""
        who = Address(row.denomination, row.serial)
        if who == self._ctx.address:
            await self._store.mark_opened(row.guid, who, at)
            return True
        announced = self._announced(row.guid) if self._ctx.config.read_receipts else None
        if announced is None or announced.striping.profile == Profile.INTEROP:
            return True
        body = mail.build_tell(receipt_of(announced, self._ctx.address, at), [TellRecipient(who)])
        beacons = list(dict.fromkeys(self._ctx.beacons(who)))
        batch = self._ctx.mail_batch(c.CMD_TELL, beacons, [body] * len(beacons))
        run = self._ctx.fanout.run(batch, timeout=self._ctx.config.timeouts.small)
        await run.finish()
        if run.good:
            return True
        log.info("nobody takes the receipt of %s", row.guid.hex())
        return any(isinstance(error, NodeError) for error in run.failed.values())

    def _announced(self, guid: bytes) -> Tell | None:
        try:
            return mail.parse_record(memoryview(self._ctx.store.mail.tell(guid).record))[0]
        except NotFound:  # fetched without a tell: nothing says what its sender understands
            return None


def receipt_of(announced: Tell, reader: Address, at: int) -> Tell:
    """The read receipt for a mail, from its reader; it names the mail and its profile, and nothing of its content."""
    return msgspec.structs.replace(
        announced,
        sender=reader,
        timestamp=at,
        tell_type=c.TELL_READ_RECEIPT,
        locker_code=bytes(c.LOCKER_CODE_SIZE),
        total_size=0,
        files=(_NOTHING,),
        servers=announced.servers[:1],
    )
