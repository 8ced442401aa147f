"""Whether a stored mail is told: now, later, or not at all.

A mail is told or taken back, never both: whatever decides about it looks at what the store has and changes that in one
step, so of two decisions the second knows of the first, and a restart decides the same.
"""

from __future__ import annotations

import asyncio
import contextlib

import msgspec

from qmail_core.engine import jobs
from qmail_core.engine.context import Context
from qmail_core.engine.jobs import Job
from qmail_core.engine.outgoing import Outgoing, begun
from qmail_core.engine.receipts import Receipts
from qmail_core.engine.tasks import Report
from qmail_core.errors import Cancelled, Conflict
from qmail_core.model import FileEntry, Receipt, ReceiptRecipient, Started
from qmail_core.store.base import SendRow


class Decisions:
    """Decides about the sends of one engine."""

    def __init__(self, ctx: Context, receipts: Receipts, outgoing: Outgoing) -> None:
        self._ctx = ctx
        self._receipts = receipts
        self._outgoing = outgoing
        self._holds: dict[bytes, asyncio.Event] = {}  # mails whose tell waits; set: look again
        self._taken_back: set[bytes] = set()

    def job(self, guid: bytes) -> Job:
        """A send's job as it is in the store; NotFound."""
        return jobs.decode(self._ctx.store.sends.job(guid)[0])

    # ---------------------------------------------------------------------------------------------- the task of a send

    async def uploaded(self, job: Job, receipt: Receipt, entries: tuple[FileEntry, ...]) -> None:
        """Commit a complete upload; somebody may have decided about its tell meanwhile."""

        def stored(row: SendRow) -> None:
            kept = msgspec.structs.replace(jobs.decode(row.job), entries=entries)
            row.job, row.stage = jobs.encode(kept), "tell" if kept.tell else "uploaded"
            row.receipt.upload = receipt.upload

        await self._receipts.change(job.guid, stored)

    async def hold(self, job: Job, report: Report) -> bool:
        """Wait until the tell is due or somebody decides about it; False if another task tells the mail by then."""
        wake = self._holds[job.guid] = asyncio.Event()
        try:
            while not wake.is_set() and self.job(job.guid).tell and (left := job.hold_until - self._ctx.clock()) > 0:
                report(90, f"Upload complete; the Tell is held for {round(left)} s")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await wake.wait()
        finally:
            del self._holds[job.guid]
        return self._receipts.get(job.guid).tell.status == "not_started"

    async def claim(self, guid: bytes) -> Receipt | None:
        """The receipt of a mail that is to be told, its rows claimed; None if it is not.

        raises   Cancelled if it was taken back
        """
        with contextlib.suppress(Conflict):  # somebody else tells it, or has
            if self.job(guid).tell or self._receipts.get(guid).tell.status == "in_progress":
                return await self._outgoing.claim(guid, _promised)
        if guid in self._taken_back:
            raise Cancelled("Cancelled; the mail is stored and nobody was told")
        return None

    def watched(self, guid: bytes, report: Report) -> Report:
        """A report that ends the upload of a mail its sender has taken back."""

        def watched(progress: int, text: str) -> None:
            if guid in self._taken_back:
                raise Cancelled("Cancelled before the upload was complete")
            report(progress, text)

        return watched

    def over(self, guid: bytes) -> None:
        """The task of a send has ended."""
        self._taken_back.discard(guid)

    # ---------------------------------------------------------------------------------------------- second thoughts

    async def start_tell(self, guid: bytes) -> Started:
        """Tell a mail now; one whose tell is held does not wait any longer."""
        started = await self._outgoing.start(guid)
        self._wake(guid)
        return started

    async def cancel_hold(self, guid: bytes) -> None:
        """Tell nobody of a mail whose tell is held; it stays stored. NotFound; Conflict if it is too late."""
        self._receipts.get(guid)
        if not self.job(guid).hold_until:
            raise Conflict("This mail was not held")
        await self._drop_tell(guid, "Tell has begun and can no longer be cancelled")

    async def take_back(self, guid: bytes) -> None:
        """End the task of a mail that nobody was told of; Conflict if it is too late."""
        self._taken_back.add(guid)
        try:
            await self._drop_tell(guid, "Task can no longer be undone")
        except Conflict:
            self._taken_back.discard(guid)
            raise

    async def _drop_tell(self, guid: bytes, refusal: str) -> None:
        def untold(row: SendRow) -> None:
            if row.receipt.tell.status != "not_started" or row.receipt.upload.status == "failed":
                raise Conflict(refusal)
            row.job = jobs.encode(msgspec.structs.replace(jobs.decode(row.job), tell=False))
            if row.receipt.upload.status == "success":
                row.stage = "uploaded"

        await self._receipts.change(guid, untold)
        self._wake(guid)

    def _wake(self, guid: bytes) -> None:
        if guid in self._holds:
            self._holds[guid].set()


def _promised(row: SendRow) -> list[ReceiptRecipient]:
    """Whom the task of a send tells: everybody, or after a crash those it had begun with."""
    tell = row.receipt.tell
    if tell.status == "in_progress":
        return begun(row)
    if tell.status != "not_started" or not jobs.decode(row.job).tell:
        raise Conflict("Somebody else has decided about this tell")
    return tell.recipients
