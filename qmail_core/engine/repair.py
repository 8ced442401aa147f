"""Looking after stored mails: find missing or wrong stripes, rebuild them from the others, store them again.

The work is done on stripes alone: no key is needed, nothing is unsealed, and the result is byte for byte what was
stored first, so readers cannot tell. Memory is bounded by one page row.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from qmail_core.codec import consts as c
from qmail_core.codec import interop, mail
from qmail_core.codec.cipher import locker_code
from qmail_core.engine import jobs
from qmail_core.engine.context import Context
from qmail_core.engine.fetch import Fetch
from qmail_core.engine.jobs import Job, unit_of
from qmail_core.engine.receipts import Receipts
from qmail_core.engine.wallet import Wallet
from qmail_core.errors import Conflict, ErasureError, NodeError, NodeTimeout, QMailError
from qmail_core.model import FileEntry, Repaired, StripeLocation, Tell
from qmail_core.store.base import Claim, Locker, LockerState

log = logging.getLogger("qmail.repair")

_FIRST_PAUSE = 5  # seconds; doubled with every try
_LAST_PAUSE = 3600
_TRIES = 30

Lockers = dict[tuple[int, int], Locker]  # by (unit, node)


class Repairer:
    """Repairs the mails this engine has sent."""

    def __init__(self, ctx: Context, receipts: Receipts, wallet: Wallet) -> None:
        self._ctx = ctx
        self._receipts = receipts
        self._wallet = wallet

    async def repair(self, guid: bytes) -> Repaired:
        """Check every stripe of a sent mail and store again what is missing.

        What is missing then is tried again in the background: lockers are reserved for it.

        raises   NotFound if this engine did not send it; Conflict while its upload is not complete; QuorumError when
                 too few good stripes are left to rebuild it
        """
        job = self._stored(guid)
        await self._ctx.store.sends.schedule_repair(guid, self._ctx.now() + _FIRST_PAUSE)
        return await self._repair(guid, job)

    def _stored(self, guid: bytes) -> Job:
        job = jobs.decode(self._ctx.store.sends.job(guid)[0])
        if self._receipts.get(guid).upload.status != "success":
            raise Conflict("Upload is not complete; nothing to repair yet")
        return job

    async def _repair(self, guid: bytes, job: Job) -> Repaired:
        lockers: Lockers = {
            (locker.unit or 0, locker.node): locker
            for locker in self._ctx.store.wallet.lockers(guid=guid)
            if locker.node is not None and locker.state != LockerState.LIMBO
        }
        found = _Findings(frozenset(job.servers))
        for entry in job.entries:
            await self._repair_object(job, entry, lockers, found)
        await self._record(job, lockers, found)
        return Repaired(
            guid=guid,
            checked=found.checked,
            missing=found.missing,
            rebuilt=found.rebuilt,
            unreachable=tuple(sorted(found.unreachable)),
            survives_loss_of=len(found.whole) - job.striping.k,
        )

    async def _repair_object(self, job: Job, entry: FileEntry, lockers: Lockers, found: _Findings) -> None:
        fetch = Fetch(self._ctx, _everything(job, self._ctx), entry.file_type, entry)
        fetch.failed |= found.silent
        page, pages = 0, 1
        lacking: set[int] = set()
        refused: set[int] = set()
        while page < pages:
            shards = await fetch.row(page, everybody=True)
            assert fetch.reader is not None
            pages = fetch.reader.pages
            absent = {node for node, error in fetch.failed.items() if isinstance(error, (NodeError, ErasureError))}
            found.unreachable |= set(fetch.failed) - absent
            found.silent |= {node: error for node, error in fetch.failed.items() if isinstance(error, NodeTimeout)}
            if absent:
                lacking |= absent
                donor = next(iter(fetch.pages_seen.values()))
                nodes = sorted(absent)
                stripes = [job.servers.index(node) for node in nodes]
                size = sum(len(shard) for row in shards.values() for shard in row)
                data = await self._ctx.offload(size, fetch.reader.rebuild, page, shards, donor, stripes)
                stored = await self._store(job, entry, page, pages, dict(zip(nodes, data, strict=True)), lockers)
                refused |= absent - stored
            fetch.failed = {n: e for n, e in fetch.failed.items() if n not in absent}
            page += 1
        found.checked += len(job.servers)
        found.missing += len(lacking)
        found.rebuilt += len(lacking - refused)
        found.lost |= refused

    async def _store(
        self,
        job: Job,
        entry: FileEntry,
        page: int,
        pages: int,
        rows: dict[int, bytes],
        lockers: Lockers,
    ) -> set[int]:
        await self._reserve(job, unit_of(entry.file_type), rows, lockers)
        nodes = [node for node in rows if (unit_of(entry.file_type), node) in lockers]
        duration = c.duration_code(job.duration_weeks)
        small = pages == 1 and len(next(iter(rows.values()))) <= interop.SMALL_STRIPE
        heads = []
        for node in nodes:
            locker = lockers[unit_of(entry.file_type), node]
            if locker.state == LockerState.RESERVED:
                await self._wallet.ensure(locker, node)
            fields = (job.guid, locker_code(locker.code), entry.file_type, duration)
            size = len(rows[node])
            heads.append(mail.build_upload(*fields, size) if small else mail.build_upload_page(*fields, page, size))
        if not nodes:
            return set()
        command = c.CMD_UPLOAD if small else c.CMD_UPLOAD_PAGE
        batch = self._ctx.mail_batch(command, nodes, heads, [rows[node] for node in nodes], 0 if small else page)
        run = self._ctx.fanout.run(batch, timeout=self._ctx.config.timeouts.page)
        await run.finish()
        for node, error in run.failed.items():
            log.info("node %d did not take a rebuilt stripe of %s: %s", node, job.guid.hex(), error)
        return set(run.good)

    async def _reserve(self, job: Job, unit: int, nodes: Iterable[int], lockers: Lockers) -> None:
        """Lockers for nodes that have none: they were let go of when an earlier repair was given up."""
        claims = [Claim(unit, node) for node in nodes if (unit, node) not in lockers]
        if not claims:
            return
        try:
            found, _ = await self._wallet.acquire(job.guid, job.wallet, claims, {})
        except QMailError as error:
            log.warning("repair of %s: %s", job.guid.hex(), error)
            return
        lockers |= {(unit, claim.node): locker for claim, locker in found.items() if claim.node is not None}

    async def _record(self, job: Job, lockers: Lockers, found: _Findings) -> None:
        """Bring receipt and lockers up to what the nodes hold now."""
        whole = found.whole
        spent = [
            locker for (_, node), locker in lockers.items() if node in whole and locker.state == LockerState.RESERVED
        ]
        await self._wallet.consume(spent)
        receipt = self._receipts.get(job.guid)
        up = receipt.upload
        up.servers.ok, up.servers.fail = len(whole), job.striping.n - len(whole)
        up.survives_loss_of = len(whole) - job.striping.k
        for row in up.files[0].stripes:
            if row.server_id in whole:
                row.status, row.error = "ok", ""
            else:
                row.status, row.error = "failed", row.error or "not stored"
        for file in up.files:
            file.stripes_uploaded, file.stripes_failed = len(whole), job.striping.n - len(whole)
        await self._receipts.save(receipt)
        if len(whole) == job.striping.n:
            await self._ctx.store.sends.drop_repair(job.guid)

    async def repair_due(self) -> int:
        """Repair the mails whose time has come; returns how many were looked at."""
        due = self._ctx.store.sends.due_repairs(self._ctx.now(), _LAST_PAUSE)
        for guid, tries in due:
            try:
                result = await self._repair(guid, self._stored(guid))
                log.info("repair of %s: %d of %d missing stripes stored", guid.hex(), result.rebuilt, result.missing)
                done = not result.unreachable and result.rebuilt == result.missing
            except QMailError as error:
                log.warning("repair of %s: %s", guid.hex(), error)
                done = False
            if done or tries >= _TRIES:
                lockers = self._ctx.store.wallet.lockers(guid=guid)
                await self._wallet.doubt(locker for locker in lockers if locker.node is not None)
                await self._ctx.store.sends.drop_repair(guid)
            else:
                pause = min(_LAST_PAUSE, _FIRST_PAUSE * 2**tries)
                await self._ctx.store.sends.schedule_repair(guid, self._ctx.now() + pause)
        return len(due)


class _Findings:
    """What a repair has seen so far."""

    def __init__(self, nodes: frozenset[int]) -> None:
        self.nodes = nodes
        self.checked = 0
        self.missing = 0
        self.rebuilt = 0
        self.unreachable: set[int] = set()
        self.silent: dict[int, QMailError] = {}  # of these, the ones that are not asked again
        self.lost: set[int] = set()  # nodes that did not take a rebuilt stripe

    @property
    def whole(self) -> frozenset[int]:
        """Nodes that hold every stripe they should."""
        return self.nodes - self.unreachable - self.lost


def _everything(job: Job, ctx: Context) -> Tell:
    """A tell that names every node a stripe belongs to, whether it was stored there or not."""
    servers = tuple(
        StripeLocation(stripe, stripe >= job.striping.k, node, *ctx.transport.location(node))
        for stripe, node in enumerate(job.servers)
    )
    return Tell(guid=job.guid, sender=ctx.address, timestamp=job.created_at, striping=job.striping, servers=servers)
