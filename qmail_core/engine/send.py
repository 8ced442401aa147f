"""The one send path, top to bottom: accept, stripe, pay, store, announce.

`accept` commits the intent and starts a task; everything after it can be repeated: the same seed makes the same
stripes, the same lockers are found again, nodes take the same upload twice. So a crash anywhere is followed by
running `_upload` again, and ends in either every promise kept or a clean failure with the money given back.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import os
import shutil
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, BinaryIO

from qmail_core.codec import consts as c
from qmail_core.codec import erasure, interop, mail, message
from qmail_core.codec.cbdf import MailMeta, parse_body
from qmail_core.codec.cipher import locker_code
from qmail_core.engine import jobs
from qmail_core.engine.context import Context, drop
from qmail_core.engine.decisions import Decisions
from qmail_core.engine.directory import Directory
from qmail_core.engine.jobs import Job, Object, Objects, unit_of
from qmail_core.engine.mailbox import Mailbox
from qmail_core.engine.outgoing import Outgoing
from qmail_core.engine.paths import Paths
from qmail_core.engine.receipts import Receipts
from qmail_core.engine.tasks import Report, Tasks, persevere
from qmail_core.engine.wallet import Wallet
from qmail_core.errors import (
    Cancelled,
    Conflict,
    PaymentError,
    QMailError,
    QuorumError,
    RemoteProtocolError,
    StoreUnavailable,
    TellError,
    UsageError,
)
from qmail_core.folders import make_private
from qmail_core.model import Costs, Draft, FileEntry, Kind, Receipt, RequestKey, SendResult, Source, Started
from qmail_core.store.base import Claim, Locker, SendRow
from qmail_core.transport.fanout import Run

log = logging.getLogger("qmail.send")

_GROUP_BYTES = 16 << 20  # small objects sent at the same time
_FLIGHT = 4  # page rows under way at the same time: a node brings what came together to its disk with one sync
_WINDOW = 6  # page rows under way before a node that lags is left to the repair; not below _FLIGHT
_AHEAD = 2  # page rows striped at the same time, the one that is waited for among them
_PATIENCE = 1.0  # seconds a mail may wait for nodes that hang, once it is readable at all
_SETTLE = (0.01, 0.5)  # seconds the last nodes are given at least and at most


class Upload:
    """One send's trip to the nodes: what is stored where so far."""

    def __init__(self, ctx: Context, job: Job, lockers: dict[Claim, Locker]) -> None:
        self.ctx = ctx
        self.job = job
        self.lockers = lockers
        self.level = job.durability.level(job.striping)
        self.stored: dict[int, set[int]] = {}  # nodes by file type
        self.entries: dict[int, FileEntry] = {}
        self.sizes: dict[int, int] = {}  # stripe size by file type
        self.errors: dict[tuple[int, int], Exception] = {}  # by (unit, node)
        self.runs: list[Run] = []  # that may still be answered
        self.completed = 0
        self.patience = _PATIENCE  # what is left of it; spent once for all objects, not once for each

    def complete_nodes(self) -> set[int]:
        """Nodes that hold every object."""
        return set.intersection(*self.stored.values()) if self.stored else set()

    def batch_row(self, item: Object, page: int, pages: int, row: Iterable[Any], nodes: Iterable[int]) -> Any:
        """The requests that carry one page row: command 70 for small objects, 75 for pages of large ones."""
        job, kept = self.job, set(nodes)
        duration = c.duration_code(job.duration_weeks)
        chosen, heads, tails = [], [], []
        small = pages == 1 and self.sizes[item.file_type] <= interop.SMALL_STRIPE
        for node, data in zip(job.servers, row, strict=True):
            if node not in kept:
                continue
            code = locker_code(self.lockers[Claim(unit_of(item.file_type), node)].code)
            fields = (job.guid, code, item.file_type, duration)
            head = mail.build_upload(*fields, len(data)) if small else mail.build_upload_page(*fields, page, len(data))
            chosen.append(node)
            heads.append(head)
            tails.append(data)
        command = c.CMD_UPLOAD if small else c.CMD_UPLOAD_PAGE
        return self.ctx.mail_batch(command, chosen, heads, tails, 0 if small else page)

    def note(self, item: Object, run: Run, nodes: set[int]) -> None:
        """Take over what a finished (or good enough) run came to."""
        self.stored[item.file_type] = self.stored.get(item.file_type, nodes) & set(run.good)
        for node, error in run.failed.items():
            self.errors[unit_of(item.file_type), node] = error

    def send(self, batch: Any) -> Run:
        """Start a row on its way; nodes that have been silent for a while are left to the repair."""
        run = self.ctx.fanout.run(batch, timeout=self.ctx.config.timeouts.page, need=self.job.striping.k)
        self.runs = [*(other for other in self.runs if other.pending), run]
        return run

    def cancel(self) -> None:
        """Stop asking: what came to a node later would take a locker that is not this mail's any more."""
        for run in self.runs:
            run.cancel()

    def require(self, item: Object) -> None:
        """QuorumError when too few nodes hold an object for it ever to be read."""
        stored, striping = len(self.stored[item.file_type]), self.job.striping
        if stored >= striping.k:
            self.completed += 1
            return
        failures = {node: error for (unit, node), error in self.errors.items() if unit == unit_of(item.file_type)}
        error = QuorumError(
            f"Upload failed: only {stored} of {striping.n} stripes succeeded for {item.label}", failures
        )
        error.guid, error.files_completed, error.files_failed = self.job.guid, self.completed, 1
        raise error


class Sender:
    """Sends mails of one engine."""

    def __init__(
        self,
        ctx: Context,
        tasks: Tasks,
        paths: Paths,
        receipts: Receipts,
        wallet: Wallet,
        mailbox: Mailbox,
        directory: Directory,
        outgoing: Outgoing,
        decisions: Decisions,
    ) -> None:
        self._ctx = ctx
        self._tasks = tasks
        self._paths = paths
        self._receipts = receipts
        self._wallet = wallet
        self._mailbox = mailbox
        self._directory = directory
        self._outgoing = outgoing
        self._spool = os.path.join(ctx.config.data, "Spool")
        self._decisions = decisions
        self._chosen: tuple[int, tuple[int, ...]] = (-1, ())  # the nodes for a mail, at this revision of their health

    # ---------------------------------------------------------------------------------------------- accepting

    async def accept(self, draft: Draft, *, tell: bool) -> Started:
        """Commit the intent of a send and start working on it.

        raises   UsageError, PathRefused for a draft that cannot be sent; Conflict if its guid has been used
        """
        job, objects = self._plan(draft, tell=tell)
        receipt = self._receipts.new(job)
        mirrored = await self._receipts.accept(receipt, jobs.encode(job), objects, "upload", draft.key)
        self._start(job, "Upload accepted", receipt)
        await mirrored
        return _started(job)

    def repeated(self, key: RequestKey) -> Started | None:
        """What a request started that came before under the same key; Conflict if that was another request."""
        guid = self._ctx.store.sends.send_of(key, self._ctx.now())
        return None if guid is None else _started(self._decisions.job(guid))

    def _plan(self, draft: Draft, *, tell: bool) -> tuple[Job, dict[int, bytes]]:
        if (draft.body is None) == (draft.document is None):
            raise UsageError("Missing body source: supply one of body, plain_text_qmail_path, or email_file")
        if len(draft.attachments) > c.MAX_ATTACHMENTS:
            raise UsageError(f"Too many attachments: maximum is {c.MAX_ATTACHMENTS}")
        if tell and not draft.recipients:
            raise UsageError("At least one recipient required (to/cc/bcc)")
        jobs.check_subject(draft.subject)
        guid = draft.guid or self._ctx.entropy(16)
        if draft.guid and self._ctx.store.sends.has_receipt(guid):
            raise Conflict("A receipt already exists for that file_guid")
        now = self._ctx.now()
        sources, kept = jobs.sources_of(draft.attachments, self._paths)
        kept[c.FILE_META], kept[c.FILE_BODY], subject, text = self._compose(draft, guid, now)
        job = Job(
            guid=guid,
            task_id=self._tasks.new_id(),
            tell=tell,
            wallet=draft.wallet,
            duration_weeks=draft.duration_weeks,
            durability=draft.durability,
            striping=self._ctx.config.striping,
            servers=self._servers(),
            seed=self._ctx.entropy(erasure.SEED_SIZE),
            created_at=now,
            subject=draft.subject or subject,
            body=text,
            recipients=draft.recipients,
            sources=tuple(sources),
            hold_until=now + draft.hold_seconds if tell and draft.hold_seconds else 0,
        )
        return job, kept

    def _compose(self, draft: Draft, guid: bytes, now: int) -> tuple[bytes, bytes, str, str]:
        """The two objects of a mail, and the subject and text they show a reader."""
        names = [source.name for source in draft.attachments]
        if draft.document is not None:
            try:
                meta, body = message.stamp(draft.document, guid, names)
                shown = message.parse(meta, body)
                return meta, body, shown.meta.subject, shown.text
            except RemoteProtocolError as error:
                raise UsageError(f"email_file is not a QMail document: {error.message}") from error
        fields = MailMeta(
            guid=guid,
            subject=draft.subject,
            sender=self._ctx.address,
            to=tuple(r.address for r in draft.recipients if r.kind == Kind.TO),
            cc=tuple(r.address for r in draft.recipients if r.kind == Kind.CC),
            timestamp=now,
            attachment_names=tuple(names),
        )
        meta, body = message.compose(fields, draft.body or "")
        return meta, body, draft.subject, parse_body(body)

    def _servers(self) -> tuple[int, ...]:
        """The nodes that will hold the stripes: all, or the healthiest of a larger network."""
        health = self._ctx.fanout.health
        if self._chosen[0] != health.revision:
            nodes = health.order(range(self._ctx.nodes))[: self._ctx.config.striping.n]
            self._chosen = health.revision, tuple(sorted(nodes))
        return self._chosen[1]

    def spool(self, guid: bytes, name: str) -> tuple[BinaryIO, Source]:
        """A file of our own for attachment bytes that arrive with a request."""
        folder = os.path.join(self._spool, guid.hex())
        make_private(folder)
        path = os.path.join(folder, str(len(os.listdir(folder))))
        file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        return file, Source(name=name, path=path, spooled=True)

    def drop_spool(self, guid: bytes) -> None:
        """Forget uploaded attachment bytes."""
        shutil.rmtree(os.path.join(self._spool, guid.hex()), ignore_errors=True)

    def resume(self) -> None:
        """Take up every send a stop or a crash has interrupted; sweep what was never accepted."""
        alive = set()
        for guid in self._ctx.store.sends.open_sends():
            job = jobs.decode(self._ctx.store.sends.job(guid)[0])
            alive.add(guid.hex())
            self._start(job, "Resumed after a restart")
        for leftover in os.listdir(self._spool) if os.path.isdir(self._spool) else []:
            if leftover not in alive:
                shutil.rmtree(os.path.join(self._spool, leftover), ignore_errors=True)

    def _start(self, job: Job, text: str, receipt: Receipt | None = None) -> None:
        async def story(report: Report) -> tuple[str, dict[str, Any]]:
            return await self._run(job, report, receipt)

        self._tasks.start(job.task_id, story, text, lambda: self._decisions.take_back(job.guid))

    # ---------------------------------------------------------------------------------------------- the story

    async def _run(self, job: Job, report: Report, receipt: Receipt | None = None) -> tuple[str, dict[str, Any]]:
        """receipt: of a send that was accepted just now; without it one that was interrupted is taken up again."""

        async def story(again: bool) -> tuple[str, dict[str, Any]]:
            if receipt and not again:
                return await self._go_through(job, report, receipt, ())
            known = await self._receipts.change(job.guid, _as_it_is) if again else self._receipts.get(job.guid)
            return await self._go_through(job, report, known, self._ctx.store.wallet.lockers(guid=job.guid))

        try:
            return await persevere(story, report)
        finally:
            self._decisions.over(job.guid)

    async def _go_through(
        self, job: Job, report: Report, receipt: Receipt, held: Sequence[Locker]
    ) -> tuple[str, dict[str, Any]]:
        data: dict[str, Any] = {"file_guid": job.guid.hex()}
        if receipt.upload.status == "in_progress":
            used_fallback = await self._upload(job, receipt, report, held)
            data["used_sync_fallback"] = used_fallback
        elif receipt.upload.status == "failed":
            failure = QMailError(receipt.upload.error)
            await self._give_up(job, failure, None, held)
            raise failure
        receipt = self._receipts.get(job.guid)
        data |= {
            "upload_successes": receipt.upload.servers.ok,
            "upload_failures": receipt.upload.servers.fail,
            "low_balance_warning": self._wallet.pool(job.wallet).low_balance,
            "survives_loss_of": receipt.upload.survives_loss_of,
        }
        if job.hold_until and receipt.tell.status == "not_started" and not await self._decisions.hold(job, report):
            return "Upload completed; another task tells it", data
        claimed = await self._decisions.claim(job.guid)
        if claimed is not None:
            text, told = await self._outgoing.tell(claimed, report)
            data |= told
            verb = "Upload + Tell complete" if job.tell else "Tell complete"
            return text.replace("Tell complete", verb), data
        return f"Upload completed{'; Tell pending' if job.recipients else ' (no Tell)'}", data

    async def _upload(self, job: Job, receipt: Receipt, report: Report, held: Sequence[Locker]) -> bool:
        report(1, "Files validated")
        upload: Upload | None = None
        watched = self._decisions.watched(job.guid, report)
        try:
            watched(3, "Identity resolved, acquiring lockers")
            lockers, funded_now = await self._acquire(job, held)
            upload = Upload(self._ctx, job, lockers)
            # nodes that were away while the pool was filled; a few of them can also wait for the repair
            known = sum(node in locker.funded for locker in lockers.values() if (node := locker.node) is not None)
            await self._wallet.ensure_all(lockers.values(), _SETTLE[known < job.striping.k * job.files])
            with contextlib.closing(Objects(job, self._ctx.store.sends, self._paths)) as objects:
                await self._store(upload, objects, watched)
                watched(89, "Files stored")
                nodes = upload.complete_nodes()
                if len(nodes) < job.striping.k:
                    raise QuorumError(
                        f"Upload failed: only {len(nodes)} of {job.striping.n} servers hold every file", {}
                    )
                self._describe(receipt, job, upload, objects)
            entries = tuple(upload.entries[t] for t in sorted(upload.entries))
            await self._settle_lockers(job, upload)
            if len(nodes) < job.striping.n:
                # first, because a crash after the receipt is saved would leave nobody to think of it
                await self._ctx.store.sends.schedule_repair(job.guid, self._ctx.now() + 2)
            await self._decisions.uploaded(job, receipt, entries)
        except StoreUnavailable:
            raise  # nothing has come of it yet
        except QMailError as error:
            await self._give_up(job, error, upload, held)
            raise
        except Exception as error:
            log.exception("upload of %s", job.guid.hex())
            failure = QMailError("Internal error")
            await self._give_up(job, failure, upload, held)
            raise failure from error
        self.drop_spool(job.guid)
        report(90, "Upload complete")
        return funded_now

    async def _acquire(self, job: Job, held: Sequence[Locker]) -> tuple[dict[Claim, Locker], bool]:
        uploads = [Claim(unit, node) for unit in range(job.files) for node in job.servers]
        fees = await self._directory.fees([recipient.address for recipient in job.recipients])
        # what a mail holds it keeps, whatever its recipients ask for meanwhile
        paid = {locker.unit for locker in held if locker.node is None}
        inboxes = {Claim(position): fee for position, fee in enumerate(fees) if fee or position in paid}
        try:
            return await self._wallet.acquire(job.guid, job.wallet, uploads, inboxes, held)
        except PaymentError as error:
            raise PaymentError(
                f"Failed to acquire funded locker codes from pool — {error.message}",
                needed=error.needed,
                available=error.available,
            ) from error

    def _describe(self, receipt: Receipt, job: Job, upload: Upload, objects: Objects) -> None:
        """Write the outcome of a successful upload into its receipt."""
        nodes, up = upload.complete_nodes(), receipt.upload
        up.status, up.finished_at, up.error = "success", self._ctx.now(), ""
        up.files = [
            self._receipts.describe(item, upload.entries[item.file_type], upload.stored[item.file_type], job)
            for item in objects
        ]
        errors = {node: str(error) for (unit, node), error in upload.errors.items() if unit == 0}
        up.files[0].stripes = self._receipts.stripes(
            job, c.FILE_META, upload.sizes[c.FILE_META], nodes, upload.lockers, errors
        )
        up.servers.ok, up.servers.fail = len(nodes), job.striping.n - len(nodes)
        up.total_group_size = sum(entry.size for entry in upload.entries.values())
        up.manifest = self._receipts.manifest(tuple(upload.entries[t] for t in sorted(upload.entries)))
        up.survives_loss_of = len(nodes) - job.striping.k
        claims = map(Claim, range(len(job.recipients)))
        fees = [upload.lockers[claim] for claim in claims if claim in upload.lockers]
        up.inbox_fee_acquired = bool(fees)
        up.inbox_fee_locker = fees[0].code if fees else ""

    async def _settle_lockers(self, job: Job, upload: Upload) -> None:
        """Lockers of nodes that stored their unit are spent; the others stay reserved for the repair."""
        taken = [
            locker
            for claim, locker in upload.lockers.items()
            if claim.node is not None
            and all(claim.node in nodes for t, nodes in upload.stored.items() if unit_of(t) == claim.unit)
        ]
        await self._wallet.consume(taken)

    async def _give_up(self, job: Job, error: QMailError, upload: Upload | None, held: Sequence[Locker]) -> None:
        """End a send that failed. That it has is recorded first: then the letter may go, and nothing is sent again."""
        now, reason = self._ctx.now(), error.message

        def failed(row: SendRow) -> None:
            up = row.receipt.upload
            up.status, up.finished_at, up.error = "failed", now, reason

        await self._receipts.change(job.guid, failed)
        shown = {locker.unit for locker in held if locker.node is not None}  # an earlier process may have come so far
        if upload is not None:
            upload.cancel()
            shown |= {unit_of(t) for t in upload.sizes}
        reserved = self._ctx.store.wallet.lockers(guid=job.guid)
        doubtful = [locker for locker in reserved if locker.node is not None and locker.unit in shown]
        await self._wallet.doubt(doubtful)
        await self._wallet.release(set(reserved) - set(doubtful))
        if not isinstance(error, Cancelled):
            await self._mailbox.returned(job.guid, {who.text: reason for who in job.recipients})
        await self._receipts.change(job.guid, _is_over)
        self.drop_spool(job.guid)
        clear = isinstance(error, Cancelled) or error.message.startswith("Upload failed")
        prefix = "" if clear else f"Upload failed: {error.code} — "
        error.message = prefix + error.message

    # ---------------------------------------------------------------------------------------------- storing

    async def _store(self, upload: Upload, objects: Objects, report: Report) -> None:
        total = len(objects)
        waiting: list[tuple[Object, Any]] = []
        held = 0
        for number, item in enumerate(objects, start=1):
            report(5 + 85 * (number - 1) // total, f"File {number}/{total}: {item.label}")
            seed = hmac.digest(upload.job.seed, bytes((item.file_type,)), "sha256")
            writer = erasure.writer(upload.job.striping, item.size, seed)
            await self._scan(writer, item)
            upload.sizes[item.file_type] = writer.stripe_size
            upload.entries[item.file_type] = FileEntry(item.file_type, item.flags, item.size, writer.crc32)
            if writer.pages > 1:
                await self._store_small(upload, waiting)
                waiting, held = [], 0
                await self._store_large(upload, item, writer, report, (number, total))
                continue
            waiting.append((item, writer))
            held += writer.stripe_size * upload.job.striping.n
            if held > _GROUP_BYTES:
                await self._store_small(upload, waiting)
                waiting, held = [], 0
        await self._store_small(upload, waiting)

    async def _scan(self, writer: Any, item: Object) -> None:
        """The first pass over an object; all cores take part in that of a large one."""
        if writer.pages == 1:
            await self._ctx.offload(item.size, writer.scan, item.read)
            return
        await self._ctx.offload_each(lambda page: writer.scan_page(page, item.read), writer.pages)
        writer.finish_scan()

    async def _store_small(self, upload: Upload, waiting: list[tuple[Object, Any]]) -> None:
        """Objects of one page row each, all at the same time."""
        runs = []
        for item, writer in waiting:
            row = await self._ctx.offload(item.size, writer.row, 0, item.read)
            batch = upload.batch_row(item, 0, writer.pages, row, upload.job.servers)
            runs.append((item, upload.send(batch)))
        for _, run in runs:
            await self._level(upload, run)
        await self._settle(upload, [run for _, run in runs])
        for item, run in runs:
            upload.note(item, run, set(upload.job.servers))
        for item, _ in runs:
            upload.require(item)

    async def _level(self, upload: Upload, run: Run) -> None:
        """Readable first, then durable: nodes that hang delay a mail by `_PATIENCE` at most, and are repaired."""
        await run.wait(upload.job.striping.k)
        await run.wait(upload.level, timeout=upload.patience)
        if run.pending and len(run.good) < upload.level:
            upload.patience = 0.0

    async def _settle(self, upload: Upload, runs: Sequence[Run]) -> None:
        """The last nodes are given as long as the others took, so that few mails need a repair."""
        least, most = _SETTLE
        begun = asyncio.get_running_loop().time()
        ends = begun + min(most, upload.patience, max((run.elapsed for run in runs), default=0.0))
        for run in runs:
            left = ends - asyncio.get_running_loop().time()
            await run.wait(upload.job.striping.n, timeout=max(least, left))
        if any(run.pending for run in runs):
            upload.patience = max(0.0, upload.patience - (asyncio.get_running_loop().time() - begun))

    async def _store_large(
        self, upload: Upload, item: Object, writer: Any, report: Report, place: tuple[int, int]
    ) -> None:
        """Page row after page row; the next rows are striped while this one travels."""
        loop = asyncio.get_running_loop()
        nodes = set(upload.job.servers)
        under_way: deque[Run] = deque()
        following: deque[asyncio.Future[Any]] = deque()
        try:
            for page in range(writer.pages):
                while len(following) < _AHEAD and page + len(following) < writer.pages:
                    ahead = page + len(following)
                    following.append(loop.run_in_executor(None, writer.row, ahead, item.read))
                # nothing keeps the row: it lives on in its frames
                run = upload.send(upload.batch_row(item, page, writer.pages, await following.popleft(), nodes))
                under_way.append(run)
                if len(under_way) >= _FLIGHT:
                    await self._level(upload, under_way[-_FLIGHT])
                nodes = self._drop_failed(upload, item, under_way, nodes)
                number, total = place
                share = ((number - 1) * writer.pages + page + 1) / (total * writer.pages)
                report(5 + int(85 * share), f"{item.label}: part {page + 1} of {writer.pages}")
            for run in under_way:
                await self._level(upload, run)
            await self._settle(upload, under_way)
            for run in under_way:
                upload.note(item, run, nodes)
            upload.require(item)
        finally:
            for run in under_way:
                run.cancel()
            for future in following:
                drop(future)

    def _drop_failed(self, upload: Upload, item: Object, under_way: deque[Run], nodes: set[int]) -> set[int]:
        """Nodes that failed a row, or lag by a whole window, get no further rows of this object."""
        while len(under_way) > _WINDOW:
            oldest = under_way.popleft()
            oldest.cancel()
            upload.note(item, oldest, nodes)
            nodes = nodes & set(oldest.good)
        for run in under_way:
            nodes = nodes - set(run.failed)
        if len(nodes) < upload.job.striping.k:
            upload.stored[item.file_type] = nodes
            upload.require(item)
        return nodes

    # ---------------------------------------------------------------------------------------------- synchronous

    async def send(self, draft: Draft, costs: Costs) -> SendResult:
        """Upload and tell, and wait for both (the synchronous node API)."""
        available = self._wallet.spendable(draft.wallet)
        if available < costs.total:
            raise PaymentError(
                f"Insufficient balance: need {costs.total} CC ({costs.storage} storage + {costs.inbox} inbox),"
                f" wallet has {available} CC",
                needed=costs.total,
                available=available,
            )
        job, objects = self._plan(draft, tell=True)
        receipt = self._receipts.new(job)
        await (await self._receipts.accept(receipt, jobs.encode(job), objects, "upload"))
        failure: list[QMailError] = []

        async def story(report: Report) -> tuple[str, dict[str, Any]]:
            try:
                return await self._run(job, report, receipt)
            except QMailError as error:
                failure.append(error)
                raise

        self._tasks.start(job.task_id, story, "Upload accepted")
        state = await self._tasks.wait(job.task_id)
        if failure and not isinstance(failure[0], TellError):
            raise failure[0]
        receipt = self._receipts.get(job.guid)
        if state.status != "success":  # who waits in the queue will see it
            raise TellError(
                "Files uploaded but recipient notification failed. Recipients will not see this email.",
                guid=job.guid,
                files_uploaded=job.files,
            )
        return _result(receipt, job, costs)


def _as_it_is(row: SendRow) -> None:
    """Change nothing, but find out whether the store can be written."""


def _is_over(row: SendRow) -> None:
    """Nothing is left to do for a send that has failed."""
    row.stage = "failed"


def _started(job: Job) -> Started:
    return Started(
        task_id=job.task_id,
        guid=job.guid,
        request_id=job.task_id.removeprefix("task_"),
        duration_weeks=job.duration_weeks,
        recipients=len(job.recipients),
        receipt_recipients=len(job.recipients),
    )


def _result(receipt: Receipt, job: Job, costs: Costs) -> SendResult:
    """Sums over what a user calls files: the mail's meta and body count as one."""
    rows = [row for row in receipt.upload.files if row.file_type != c.FILE_META]
    return SendResult(
        receipt=receipt,
        files=job.files,
        storage_cost=costs.storage,
        inbox_cost=costs.inbox,
        stripe_successes=sum(row.stripes_uploaded for row in rows),
        stripe_failures=sum(row.stripes_failed for row in rows),
    )
