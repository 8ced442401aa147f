"""Announcing a mail to its recipients' beacons, at once or later.

One tell per recipient, because each carries the locker that pays that recipient's fee. A beacon that does not answer
is followed by the second one; a recipient that could not be reached goes to a queue that is worked off with growing
pauses. Beacons take the same tell twice, so trying again is always safe.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from qmail_core.codec import consts as c
from qmail_core.codec import mail
from qmail_core.codec.cipher import locker_code
from qmail_core.codec.mail import TellRecipient
from qmail_core.engine import jobs
from qmail_core.engine.context import Context
from qmail_core.engine.jobs import Job
from qmail_core.engine.mailbox import Mailbox
from qmail_core.engine.receipts import Receipts
from qmail_core.engine.tasks import Report, Tasks
from qmail_core.engine.wallet import Wallet
from qmail_core.errors import Conflict, NodeError, QMailError, TellError, UsageError
from qmail_core.model import Address, OutgoingTell, Profile, Receipt, ReceiptRecipient, Started, StripeLocation, Tell
from qmail_core.store.base import Claim, Locker, LockerState

log = logging.getLogger("qmail.tell")

_PARALLEL = 16  # tells under way at a time
_KINDS = {"to": 0, "cc": 1, "bcc": 2}
# the beacon is right and will say the same tomorrow: the recipient does not exist, or does not want this sender
_FINAL = frozenset(
    {
        c.STATUS_COIN_NOT_FOUND,
        c.STATUS_SN_NOT_HELD,
        c.STATUS_INVALID_PARAMETER,
        c.STATUS_BLACKLISTED,
        c.STATUS_CLASS_REJECTED,
    }
)
_NO_FALLBACK = frozenset({c.STATUS_COIN_NOT_FOUND, c.STATUS_SN_NOT_HELD})
_SECOND_PATIENCE = 0.5  # seconds the other beacon is given once one has accepted
RETRY_FIRST = 60
RETRY_LAST = 3600
RETRY_TIMES = 10
_LONGEST = RETRY_LAST + RETRY_LAST // 10
_ALL = 1_000_000


def _shown_code(job: Job, code: str) -> bytes:
    """The locker code a tell shows. Deployed clients expect one and get the first storage locker, which is spent at
    its server; at the others its coins still lie, so a tell between our own nodes shows none."""
    return locker_code(code) if job.striping.profile == Profile.INTEROP else bytes(c.LOCKER_CODE_SIZE)


def tell_of(job: Job, receipt: Receipt, ctx: Context) -> Tell:
    """The announcement of a stored mail: only nodes that hold every object are listed."""
    rows = receipt.upload.files[0].stripes if receipt.upload.files else []
    servers = [
        StripeLocation(row.stripe_index, row.is_parity, row.server_id, *ctx.transport.location(row.server_id))
        for row in rows
        if row.status == "ok"
    ]
    if not servers:
        raise UsageError("Receipt has no usable server locations")
    body = next((entry.size for entry in job.entries if entry.file_type == c.FILE_BODY), 0)
    return Tell(
        guid=job.guid,
        sender=ctx.address,
        timestamp=job.created_at,
        tell_type=c.TELL_NEW_MAIL,
        locker_code=_shown_code(job, rows[0].locker_code),
        total_size=body,
        striping=job.striping,
        files=job.entries,
        servers=tuple(servers),
    )


class Outgoing:
    """The tells of one engine."""

    def __init__(self, ctx: Context, tasks: Tasks, receipts: Receipts, wallet: Wallet, mailbox: Mailbox) -> None:
        self._ctx = ctx
        self._tasks = tasks
        self._receipts = receipts
        self._wallet = wallet
        self._mailbox = mailbox

    async def start(self, guid: bytes) -> Started:
        """Begin telling the recipients of an uploaded mail (QMail node API, net/messages/tell)."""
        receipt = self._receipts.get(guid)
        self.claim(receipt)
        await self._receipts.save(receipt, stage="tell")

        async def story(report: Report) -> tuple[str, dict[str, Any]]:
            return await self.tell(receipt, report)

        task_id = self._tasks.new_id()
        count = sum(row.status == "sending" for row in receipt.tell.recipients)
        self._tasks.start(task_id, story, "Tell started")
        return Started(
            task_id=task_id,
            guid=guid,
            request_id=task_id.removeprefix("task_"),
            recipients=count,
            receipt_recipients=len(receipt.tell.recipients),
        )

    def claim(self, receipt: Receipt, *, resume: bool = False) -> None:
        """Mark every row that is not sent as being sent, or say why the mail cannot be told now."""
        tell = receipt.tell
        if receipt.upload.status != "success":
            raise Conflict(f"Upload is not complete; current upload status is {receipt.upload.status}")
        if not tell.recipients:
            raise UsageError("Receipt has no recipients; call /upload with to/cc/bcc first")
        if not resume:
            refusals = {
                "in_progress": "Tell already in progress; poll /api/qmail/receipts for status",
                "success": "Tell already complete for this email",
            }
            if tell.status in refusals:
                raise Conflict(refusals[tell.status])
            if tell.status not in ("not_started", "failed", "partial"):
                raise Conflict(f"Tell cannot start from status {tell.status}")
            if all(row.status == "sent" for row in tell.recipients):
                raise Conflict("No recipients need Tell; all receipt rows are already sent")
        now = self._ctx.now()
        for row in tell.recipients:
            if row.status != "sent":
                row.status, row.finished_at, row.started_at = "sending", 0, row.started_at or now
        tell.roll_up()
        tell.status, tell.started_at, tell.finished_at = "in_progress", tell.started_at or now, 0

    async def tell(self, receipt: Receipt, report: Report) -> tuple[str, dict[str, Any]]:
        """Send every claimed row; returns the task's final message and data."""
        guid = bytes.fromhex(receipt.file_guid)
        job = jobs.decode(self._ctx.store.sends.job(guid)[0])
        report(91, "Resolving recipients")
        positions = [i for i, row in enumerate(receipt.tell.recipients) if row.status == "sending"]
        if not positions:
            return "Tell skipped: all recipients already sent", {"file_guid": guid.hex(), "all_accepted": True}
        report(93, "Building Tell")
        tell = tell_of(job, receipt, self._ctx)
        gate, done = asyncio.Semaphore(_PARALLEL), 0

        async def one(position: int) -> None:
            nonlocal done
            async with gate:
                await self._tell_row(tell, receipt, position)
            done += 1
            report(93 + 6 * done // len(positions), f"Told {done} of {len(positions)} recipients")

        await asyncio.gather(*map(one, positions))
        return await self._conclude(job, receipt, positions)

    async def _conclude(self, job: Job, receipt: Receipt, positions: list[int]) -> tuple[str, dict[str, Any]]:
        rows = [receipt.tell.recipients[i] for i in positions]
        receipt.tell.roll_up()
        receipt.tell.finished_at = self._ctx.now()
        sent = sum(row.status == "sent" for row in rows)
        if sent:
            await self._mailbox.file_sent(job)
        await self._receipts.save_tell(receipt, stage="done")
        data = {
            "file_guid": job.guid.hex(),
            "beacons": len({row.beacon_raida for row in rows}),
            "tell_successes": sent,
            "tell_failures": len(rows) - sent,
            "all_accepted": sent == len(rows),
        }
        if sent == len(rows):
            return "Tell complete: all beacons accepted", data
        if any(row.status == "retry_queued" for row in rows):
            return "Tell complete: some beacons failed (queued for retry)", data
        if sent:
            return "Tell complete: some recipients were refused", data
        raise TellError(f"Tell failed: {rows[0].last_error}", guid=job.guid, files_uploaded=job.files)

    async def _tell_row(self, tell: Tell, receipt: Receipt, position: int) -> None:
        """One recipient: first beacon, second beacon, queue."""
        row = receipt.tell.recipients[position]
        who = Address(row.denomination, row.serial_number)
        locker = await self._fee_locker(tell.guid, position)
        code = locker_code(locker.code) if locker is not None else bytes(c.LOCKER_CODE_SIZE)
        body = mail.build_tell(tell, [TellRecipient(who, _KINDS[row.kind], code)], code)
        row.attempts += 1
        error: QMailError | None = None
        for group in self._groups(self._ctx.beacons(who)):
            row.beacon_raida, error = await self._ask(group, body, locker)
            if error is None or (isinstance(error, NodeError) and error.status in _NO_FALLBACK):
                break
        await self._finish_row(tell.guid, row, position, locker, error)

    def _groups(self, beacons: tuple[int, int]) -> list[list[int]]:
        """Which beacons to ask together. Foreign ones are asked in turn, as the protocol has it; our own both at
        once, so that a mail already told is still announced when its first beacon dies."""
        distinct = list(dict.fromkeys(beacons))
        return [[b] for b in distinct] if self._ctx.config.striping.profile == Profile.INTEROP else [distinct]

    async def _ask(self, beacons: list[int], body: bytes, locker: Locker | None) -> tuple[int, QMailError | None]:
        """The beacon that answers for a group, and its error if none of them accepted."""
        asking = {beacon: asyncio.ensure_future(self._ask_one(beacon, body, locker)) for beacon in beacons}
        try:
            for answer in asyncio.as_completed(asking.values()):
                if await answer is None:
                    break
            await asyncio.wait(asking.values(), timeout=_SECOND_PATIENCE)
            answers = {beacon: task.result() for beacon, task in asking.items() if task.done()}
        finally:
            for task in asking.values():
                task.cancel()
        if None in answers.values():
            return next(beacon for beacon, error in answers.items() if error is None), None
        refusals = [beacon for beacon, error in answers.items() if isinstance(error, NodeError)]
        speaker = (refusals or beacons)[0]
        return speaker, answers[speaker]

    async def _ask_one(self, beacon: int, body: bytes, locker: Locker | None) -> QMailError | None:
        if locker is not None:
            await self._wallet.ensure(locker, beacon)
        batch = self._ctx.mail_batch(c.CMD_TELL, [beacon], [body])
        run = self._ctx.fanout.run(batch, timeout=self._ctx.config.timeouts.small)
        await run.finish()  # when nobody waits any more, the tell still goes on
        return run.failed.get(beacon)

    async def _fee_locker(self, guid: bytes, position: int) -> Locker | None:
        claim = Claim(position)
        for locker in self._ctx.store.wallet.lockers(guid=guid):
            if locker.unit == claim.unit and locker.node is None:
                if locker.state != LockerState.LIMBO:
                    return locker
                # it is about to be shown again: nobody may free it, whatever nodes have said before
                found, _ = await self._wallet.acquire(guid, locker.wallet, (), {claim: locker.value})
                return found[claim]
        return None

    async def _finish_row(
        self, guid: bytes, row: ReceiptRecipient, position: int, locker: Locker | None, error: QMailError | None
    ) -> None:
        now = self._ctx.now()
        row.finished_at = now
        if error is None:
            row.status, row.last_error = "sent", ""
            await self._ctx.store.sends.finish_tell(guid, position, "sent", "", now)
            if locker is not None:
                await self._wallet.look_into(locker, row.beacon_raida)
            return
        row.last_error = error.message
        final = isinstance(error, NodeError) and error.status in _FINAL
        if final or row.attempts > RETRY_TIMES:
            row.status = "failed"
            # the letter first: told twice after a crash is better than never
            await self._mailbox.returned(guid, {row.address: error.message})
            await self._ctx.store.sends.finish_tell(guid, position, "failed", error.message, now)
            if locker is not None:
                await self._wallet.doubt([locker])  # the other beacon may have taken it, whatever this one says
            return
        row.status = "retry_queued"
        pause = min(RETRY_LAST, RETRY_FIRST * 2 ** (row.attempts - 1))
        pause += pause * self._ctx.entropy(1)[0] // 2550  # up to a tenth, so that many senders do not return at once
        await self._ctx.store.sends.queue_tell(guid, position, row.beacon_raida, error.message, now, now + pause)
        log.info("tell of %s to recipient %d queued: %s", guid.hex(), position, error.message)

    def rows(self, status: str | None, limit: int) -> Sequence[OutgoingTell]:
        """Tells that had to be tried again, newest first."""
        return self._ctx.store.sends.outgoing_tells(status, limit)

    def recipient(self, row: OutgoingTell) -> ReceiptRecipient:
        """Whom a queue row is for."""
        return self._receipts.get(row.guid).tell.recipients[row.position]

    async def retry(self, tell_id: int) -> None:
        """Try a tell that was given up again, from the beginning; NotFound if it is not one."""
        row = next((row for row in self.rows("failed", _ALL) if row.id == tell_id), None)
        if row is not None:
            receipt = self._receipts.get(row.guid)
            receipt.tell.recipients[row.position].attempts = 0
            await self._receipts.save(receipt)
        await self._ctx.store.sends.retry_tell(tell_id, self._ctx.now())

    async def clear_sent(self) -> int:
        """Forget tells that were delivered in the end; returns how many."""
        return await self._ctx.store.sends.clear_sent_tells()

    async def retry_due(self) -> int:
        """Try the queue rows whose time has come; returns how many."""
        due = self._ctx.store.sends.due_tells(self._ctx.now(), _LONGEST)
        for item in due:
            receipt = self._receipts.get(item.guid)
            if receipt.tell.status != "in_progress":
                await self._retry(receipt, item)
        return len(due)

    async def _retry(self, receipt: Receipt, item: OutgoingTell) -> None:
        """One queue row; claimed like any tell, so that nobody else tells this mail at the same time."""
        receipt.tell.recipients[item.position].status = "sending"
        receipt.tell.status = "in_progress"
        await self._receipts.save(receipt, stage="tell")
        job = jobs.decode(self._ctx.store.sends.job(item.guid)[0])
        await self._tell_row(tell_of(job, receipt, self._ctx), receipt, item.position)
        receipt.tell.roll_up()
        if receipt.tell.recipients[item.position].status == "sent":
            await self._mailbox.file_sent(job)
        await self._receipts.save_tell(receipt, stage="done")
