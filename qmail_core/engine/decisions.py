"""Whether a stored mail is told: now, later, or not at all.

A mail is told or taken back, never both: whatever decides about it changes its job under one lock, and the job in the
store is the truth, so a restart decides the same.
"""

from __future__ import annotations

import asyncio
import contextlib

import msgspec

from qmail_core.engine import jobs
from qmail_core.engine.context import Context
from qmail_core.engine.jobs import Job
from qmail_core.engine.outgoing import Outgoing
from qmail_core.engine.receipts import Receipts
from qmail_core.engine.tasks import Report
from qmail_core.errors import Cancelled, Conflict
from qmail_core.model import FileEntry, Receipt, Started


class Decisions:
    """Decides about the sends of one engine."""

    def __init__(self, ctx: Context, receipts: Receipts, outgoing: Outgoing) -> None:
        self._ctx = ctx
        self._receipts = receipts
        self._outgoing = outgoing
        self._lock = asyncio.Lock()
        self._holds: dict[bytes, asyncio.Event] = {}  # mails whose tell waits; set: look again
        self._taken_back: set[bytes] = set()

    def job(self, guid: bytes) -> Job:
        """A send's job as it is in the store; NotFound."""
        return jobs.decode(self._ctx.store.sends.job(guid)[0])

    # ---------------------------------------------------------------------------------------------- the task of a send

    async def uploaded(self, job: Job, receipt: Receipt, entries: tuple[FileEntry, ...]) -> None:
        """Commit a complete upload; somebody may have decided about its tell meanwhile."""
        async with self._lock:
            tell = self.job(job.guid).tell
            kept = msgspec.structs.replace(job, tell=tell, entries=entries)
            await self._receipts.save(receipt, stage="tell" if tell else "uploaded", job=jobs.encode(kept))

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
        async with self._lock:
            receipt = self._receipts.get(guid)
            if self.job(guid).tell or receipt.tell.status == "in_progress":
                self._outgoing.claim(receipt, resume=True)
                await self._receipts.save(receipt, stage="tell")
                return receipt
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
        async with self._lock:
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
        async with self._lock:
            job, receipt = self.job(guid), self._receipts.get(guid)
            if receipt.tell.status != "not_started" or receipt.upload.status == "failed":
                raise Conflict(refusal)
            if job.tell:
                stage = "uploaded" if receipt.upload.status == "success" else None
                untold = jobs.encode(msgspec.structs.replace(job, tell=False))
                await self._receipts.save(receipt, stage=stage, job=untold)
        self._wake(guid)

    def _wake(self, guid: bytes) -> None:
        if guid in self._holds:
            self._holds[guid].set()
