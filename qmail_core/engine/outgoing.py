"""Announcing a mail to its recipients' beacons, at once or later.

One tell per recipient, because each carries the locker that pays that recipient's fee. A beacon that does not answer
is followed by the second one; a recipient that could not be reached goes to a queue that is worked off with growing
pauses. Beacons take the same tell twice, so trying again is always safe.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from qmail_core.codec import consts as c
from qmail_core.codec import mail
from qmail_core.codec.cipher import locker_code
from qmail_core.codec.mail import TellRecipient
from qmail_core.engine import jobs
from qmail_core.engine.context import Context, drop
from qmail_core.engine.directory import Directory
from qmail_core.engine.jobs import Job
from qmail_core.engine.mailbox import Mailbox
from qmail_core.engine.receipts import Receipts
from qmail_core.engine.tasks import Report, Tasks, persevere
from qmail_core.engine.wallet import Wallet
from qmail_core.errors import Conflict, NodeError, QMailError, StoreUnavailable, TellError, UsageError
from qmail_core.model import Address, OutgoingTell, Profile, Receipt, ReceiptRecipient, Started, StripeLocation, Tell
from qmail_core.store.base import Claim, Locker, LockerKind, LockerState, SendRow

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
_BEING_TOLD = "Tell already in progress; poll /api/qmail/receipts for status"


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

    def __init__(
        self,
        ctx: Context,
        tasks: Tasks,
        receipts: Receipts,
        wallet: Wallet,
        mailbox: Mailbox,
        directory: Directory,
    ) -> None:
        self._ctx = ctx
        self._tasks = tasks
        self._receipts = receipts
        self._wallet = wallet
        self._mailbox = mailbox
        self._directory = directory
        self._telling: set[bytes] = set()  # mails somebody in this process tells, or is about to

    async def start(self, guid: bytes) -> Started:
        """Begin telling the recipients of an uploaded mail (QMail node API, net/messages/tell)."""
        receipt = await self.claim(guid, _asked)

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

    async def claim(self, guid: bytes, choose: Callable[[SendRow], Sequence[ReceiptRecipient]]) -> Receipt:
        """Take a mail to tell it, which is up to the caller then; its receipt, the chosen rows marked.

        choose  the rows to tell; Conflict if there is nothing to do
        raises  Conflict if it is being told
        """
        if guid in self._telling:
            raise Conflict(_BEING_TOLD)
        now = self._ctx.now()

        def claimed(row: SendRow) -> None:
            for each in choose(row):
                each.status, each.finished_at, each.started_at = "sending", 0, each.started_at or now
            tell = row.receipt.tell
            tell.roll_up()
            tell.status, tell.started_at, tell.finished_at = "in_progress", tell.started_at or now, 0
            row.stage = "tell"

        self._telling.add(guid)
        try:
            return await self._receipts.change(guid, claimed)
        except BaseException:
            self._telling.discard(guid)
            raise

    async def tell(self, receipt: Receipt, report: Report) -> tuple[str, dict[str, Any]]:
        """Send every row of a claimed mail; returns the task's final message and data."""
        guid = bytes.fromhex(receipt.file_guid)

        async def story(again: bool) -> tuple[str, dict[str, Any]]:
            claimed = await self.claim(guid, begun) if again else receipt
            try:
                return await self._tell(guid, claimed, report)
            except (StoreUnavailable, TellError):
                raise
            except Exception as error:
                await self._fail(claimed, error)
                raise
            finally:
                self._telling.discard(guid)

        return await persevere(story, report)

    async def _fail(self, receipt: Receipt, error: Exception) -> None:
        """A tell that could not be finished: who was not told can be told again on request."""
        reason, now = error.message if isinstance(error, QMailError) else "Internal error", self._ctx.now()
        for row in receipt.tell.recipients:
            if row.status == "sending":
                row.status, row.last_error, row.finished_at = "failed", reason, now
        await self._conclude(receipt)

    async def _tell(self, guid: bytes, receipt: Receipt, report: Report) -> tuple[str, dict[str, Any]]:
        job = jobs.decode(self._ctx.store.sends.job(guid)[0])
        report(91, "Resolving recipients")
        positions = [i for i, row in enumerate(receipt.tell.recipients) if row.status == "sending"]
        report(93, "Building Tell")
        tell = tell_of(job, receipt, self._ctx)
        gate, done = asyncio.Semaphore(_PARALLEL), 0

        async def one(position: int) -> None:
            nonlocal done
            async with gate:
                await self._tell_row(job, tell, receipt, position)
            done += 1
            report(93 + 6 * done // len(positions), f"Told {done} of {len(positions)} recipients")

        ends = await asyncio.gather(*map(one, positions), return_exceptions=True)
        for end in ends:
            if end is not None:
                raise end
        rows = [receipt.tell.recipients[i] for i in positions]
        if any(row.status == "sent" for row in rows):
            await self._mailbox.file_sent(job)
        await self._conclude(receipt)
        return self._outcome(job, rows)

    async def _conclude(self, receipt: Receipt) -> None:
        """Commit only the tell's part: a repair may have brought the upload's part up to date meanwhile."""
        receipt.tell.roll_up()
        receipt.tell.finished_at = self._ctx.now()

        def told(row: SendRow) -> None:
            row.receipt.tell, row.stage = receipt.tell, "done"

        await self._receipts.change(bytes.fromhex(receipt.file_guid), told)

    def _outcome(self, job: Job, rows: list[ReceiptRecipient]) -> tuple[str, dict[str, Any]]:
        sent = sum(row.status == "sent" for row in rows)
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

    async def _tell_row(self, job: Job, tell: Tell, receipt: Receipt, position: int) -> None:
        """One recipient: first beacon, second beacon, queue."""
        row = receipt.tell.recipients[position]
        who = Address(row.denomination, row.serial_number)
        row.attempts += 1
        try:
            locker = await self._fee_locker(job, who, position)
        except StoreUnavailable:
            raise
        except QMailError as unpaid:
            await self._finish_row(job.guid, row, position, None, unpaid)
            return
        code = locker_code(locker.code) if locker is not None else bytes(c.LOCKER_CODE_SIZE)
        body = mail.build_tell(tell, [TellRecipient(who, _KINDS[row.kind], code)], code)
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
                drop(task)
        if None in answers.values():
            return next(beacon for beacon, error in answers.items() if error is None), None
        refusals = [beacon for beacon, error in answers.items() if isinstance(error, NodeError)]
        speaker = (refusals or beacons)[0]
        return speaker, answers[speaker]

    async def _ask_one(self, beacon: int, body: bytes, locker: Locker | None) -> QMailError | None:
        if locker is not None and locker.state == LockerState.RESERVED:  # not one that a beacon has taken before
            await self._wallet.ensure(locker, beacon)
        batch = self._ctx.mail_batch(c.CMD_TELL, [beacon], [body])
        run = self._ctx.fanout.run(batch, timeout=self._ctx.config.timeouts.small)
        await run.finish()  # when nobody waits any more, the tell still goes on
        return run.failed.get(beacon)

    async def _fee_locker(self, job: Job, who: Address, position: int) -> Locker | None:
        """What pays a recipient's fee: as a rule it was reserved with the upload, but a tell that was given up has let
        go of it. None if the recipient asks for nothing."""
        found = self._ctx.store.wallet.lockers(guid=job.guid)
        held = [each for each in found if each.kind == LockerKind.INBOX and each.unit == position]
        if held and held[0].state != LockerState.LIMBO:
            return held[0]
        fee = held[0].value if held else (await self._directory.fees([who]))[0]
        if not fee:
            return None
        claim = Claim(position)
        lockers, _ = await self._wallet.acquire(job.guid, job.wallet, (), {claim: fee}, held)
        return lockers[claim]

    async def _finish_row(
        self, guid: bytes, row: ReceiptRecipient, position: int, locker: Locker | None, error: QMailError | None
    ) -> None:
        now = self._ctx.now()
        row.finished_at = now
        if error is None:
            row.status, row.last_error = "sent", ""
            await self._ctx.store.sends.finish_tell(guid, position, "sent", "", now)
            if locker is not None and locker.state == LockerState.RESERVED:
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
            position = row.position

            def fresh(kept: SendRow) -> None:
                kept.receipt.tell.recipients[position].attempts = 0

            await self._receipts.change(row.guid, fresh)
        await self._ctx.store.sends.retry_tell(tell_id, self._ctx.now())

    async def clear_sent(self) -> int:
        """Forget tells that were delivered in the end; returns how many."""
        return await self._ctx.store.sends.clear_sent_tells()

    async def retry_due(self) -> int:
        """Try the queue rows whose time has come; returns how many."""
        due = self._ctx.store.sends.due_tells(self._ctx.now(), _LONGEST)
        for item in due:
            with contextlib.suppress(Conflict, TellError):  # somebody else tells it; it has come to nothing again
                receipt = await self.claim(item.guid, partial(_due, position=item.position))
                await self.tell(receipt, _nobody_asks)
        return len(due)


def _asked(row: SendRow) -> list[ReceiptRecipient]:
    """Whom to tell when the user asks for it: all that have not been, or why that is not possible now."""
    receipt, tell = row.receipt, row.receipt.tell
    if receipt.upload.status != "success":
        raise Conflict(f"Upload is not complete; current upload status is {receipt.upload.status}")
    if not tell.recipients:
        raise UsageError("Receipt has no recipients; call /upload with to/cc/bcc first")
    refusals = {"in_progress": _BEING_TOLD, "success": "Tell already complete for this email"}
    if tell.status in refusals:
        raise Conflict(refusals[tell.status])
    if tell.status not in ("not_started", "failed", "partial"):
        raise Conflict(f"Tell cannot start from status {tell.status}")
    unsent = [each for each in tell.recipients if each.status != "sent"]
    if not unsent:
        raise Conflict("No recipients need Tell; all receipt rows are already sent")
    return unsent


def _due(row: SendRow, position: int) -> list[ReceiptRecipient]:
    """The one recipient a queue row is for."""
    tell = row.receipt.tell
    if tell.status == "in_progress" or tell.recipients[position].status == "sent":
        raise Conflict(_BEING_TOLD)
    return [tell.recipients[position]]


def begun(row: SendRow) -> list[ReceiptRecipient]:
    """Whom somebody had begun to tell before he was interrupted."""
    return [each for each in row.receipt.tell.recipients if each.status == "sending"]


def _nobody_asks(progress: int, text: str) -> None:
    """A report for what has no task."""
