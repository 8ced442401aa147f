"""Objects of any size in stripe objects over n nodes: put, resume, cancel, get back from any k.

An upload is in the journal before its first request leaves, with all that a repetition needs to say the same: ids of
the transfers, the seed of the stripes, the lockers. So a crash anywhere is followed by `resume`, which asks each node
what it lacks and brings only that.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from typing_extensions import Buffer

from qmail_core.codec import consts as c
from qmail_core.codec import erasure, object_stripes, objects
from qmail_core.codec.cipher import locker_code
from qmail_core.codec.objects import Begin, Begun
from qmail_core.codec.stripes import Shards
from qmail_core.engine.context import Context, drop
from qmail_core.engine.durable import put_in_place
from qmail_core.engine.jobs import unit_of
from qmail_core.engine.journal import Journal, Upload
from qmail_core.engine.source import File, Reader
from qmail_core.engine.transfer import CHUNK, GONE, RETRIES, ObjectNodes, Progress, Span, retried
from qmail_core.engine.wallet import Wallet
from qmail_core.errors import Conflict, ErasureError, NodeError, QMailError, QuorumError, UsageError
from qmail_core.model import ObjectManifest, StripeObject, Striping
from qmail_core.store.base import Claim, Locker

_ENSURE = 0.5  # seconds for telling nodes of lockers they do not know
_ROUNDS = 3  # of bringing what is missing, before nodes that still lack something are given up
_ROWS = 4  # page rows under way
_MARGIN = 1  # nodes asked beyond k
_HEDGE = 0.5  # seconds after which the other nodes are asked as well


@contextlib.contextmanager
def _opened(source: str | os.PathLike[str] | Reader) -> Iterator[Any]:
    if not isinstance(source, (str, os.PathLike)):
        yield source
        return
    file = File.at(os.fspath(source))
    try:
        yield file
    finally:
        file.close()


class Objects:
    """Objects of one engine."""

    def __init__(self, ctx: Context, wallet: Wallet) -> None:
        self.nodes = ObjectNodes(ctx)
        self._ctx = ctx
        self._wallet = wallet
        self._journal = Journal(os.path.join(ctx.config.data, "Transfers"))

    # ---------------------------------------------------------------------------------------------- up

    async def put_object(
        self,
        source: str | os.PathLike[str] | Reader,
        striping: Striping | None = None,
        *,
        object_id: bytes | None = None,
        file_type: int = c.FILE_ATTACHMENT,
        generation: int = 1,
        expected: int = 0,
        retention: int = 0,
        wallet: str | None = "Default",
        upload_id: bytes | None = None,
        progress: Progress | None = None,
    ) -> ObjectManifest:
        """Stripe an object and store every stripe at its node.

        source     a path, or a Reader
        striping   default: the engine's
        wallet     pays one locker per node; None where storage is free
        upload_id  16 bytes to resume or cancel it by; default: drawn
        raises     QuorumError if fewer than k nodes have it; the upload can be resumed
        """
        with _opened(source) as reader:
            striping = striping or self._ctx.config.striping
            nodes = sorted(self._ctx.fanout.health.order(range(self._ctx.nodes))[: striping.n])
            if len(nodes) < striping.n:
                raise UsageError(f"{striping.n} nodes needed, the network has {len(nodes)}")
            upload = Upload(
                id=upload_id or self._ctx.entropy(16),
                object_id=object_id or self._ctx.entropy(16),
                file_type=file_type,
                generation=generation,
                expected=expected,
                retention=retention,
                striping=striping,
                seed=self._ctx.entropy(erasure.SEED_SIZE),
                wallet=wallet or "",
                size=reader.size,
                path=reader.path if isinstance(reader, File) else "",
                mtime_ns=getattr(reader, "mtime_ns", 0),
                nodes=tuple(nodes),
                transfers=tuple(self._ctx.entropy(16) for _ in nodes),
            )
            return await self._put(upload, reader, progress)

    async def resume(
        self, upload_id: bytes, source: Reader | None = None, *, progress: Progress | None = None
    ) -> ObjectManifest:
        """Go on with an upload that was interrupted.

        source   needed if it was not a file
        raises   NotFound; Conflict if the source has changed
        """
        upload = self._journal.load(upload_id)
        with _opened(source or upload.path) as reader:
            if (reader.size, getattr(reader, "mtime_ns", 0)) != (upload.size, upload.mtime_ns):
                raise Conflict("the file has changed since its upload began")
            return await self._put(upload, reader, progress)

    async def cancel(self, upload_id: bytes) -> None:
        """Give up an upload: its nodes drop what they have, its lockers are looked into."""
        upload = self._journal.load(upload_id)
        await self.nodes.abort(dict(zip(upload.nodes, upload.transfers, strict=True)))
        await self._wallet.doubt(self._ctx.store.wallet.lockers(guid=upload.object_id))
        self._journal.remove(upload_id)

    def interrupted(self) -> list[bytes]:
        """Ids of uploads that wait for `resume` or `cancel`."""
        return self._journal.open_uploads()

    async def _put(self, upload: Upload, reader: Reader, progress: Progress | None) -> ObjectManifest:
        await asyncio.get_running_loop().run_in_executor(None, self._journal.save, upload)
        lockers: dict[Claim, Locker] = {}
        if upload.wallet:
            claims = [Claim(unit_of(upload.file_type), node) for node in upload.nodes]
            lockers, _ = await self._wallet.acquire(upload.object_id, upload.wallet, claims, {})
            await self._wallet.ensure_all(lockers.values(), _ENSURE)
        codes = {claim.node: locker_code(locker.code) for claim, locker in lockers.items() if claim.node is not None}
        trip = _Trip(self._ctx, self.nodes, self._journal, upload, reader, codes)
        manifest = await trip.run(progress)
        await self._settle(lockers, trip)
        self._journal.remove(upload.id)
        return manifest

    async def _settle(self, lockers: Mapping[Claim, Locker], trip: _Trip) -> None:
        """Lockers of nodes that opened a transfer are spent; about the others they are asked: one that refuses now
        may have taken its locker before."""
        await self._wallet.consume([locker for claim, locker in lockers.items() if claim.node in trip.begun])
        await self._wallet.doubt([locker for claim, locker in lockers.items() if claim.node not in trip.begun])

    # ---------------------------------------------------------------------------------------------- down

    async def get_object(
        self, manifest: ObjectManifest, path: str | os.PathLike[str], *, progress: Progress | None = None
    ) -> tuple[int, ...]:
        """Rebuild an object from any k of its stripe objects, into a file that is there whole or not at all.

        returns  nodes that gave wrong bytes
        raises   QuorumError if fewer than k can be had, ErasureError if it is not what the manifest says
        """
        path = os.fspath(path)
        part = f"{path}.{self._ctx.entropy(8).hex()}.part"  # of this call alone
        fetch = _Fetch(self._ctx, self.nodes, manifest)
        loop = asyncio.get_running_loop()
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            try:
                while not await fetch.into(file, progress):
                    file.seek(0)
                    file.truncate()
                await loop.run_in_executor(None, _sync, file)
                await loop.run_in_executor(None, put_in_place, part, path)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.remove(part)
                raise
        return tuple(sorted(fetch.liars))


def _sync(file: Any) -> None:
    file.flush()
    os.fdatasync(file.fileno())


# ------------------------------------------------------------------------------------------------------------------


class _Trip:
    """One upload on its way to its nodes."""

    def __init__(
        self,
        ctx: Context,
        nodes: ObjectNodes,
        journal: Journal,
        upload: Upload,
        reader: Reader,
        codes: Mapping[int, bytes],
    ) -> None:
        self._ctx = ctx
        self._nodes = nodes
        self._journal = journal
        self._reader = reader
        self._codes = codes
        self.upload = upload
        self.begun: dict[int, Begun] = {}
        self.failed: dict[int, QMailError] = {}
        self._writer = object_stripes.writer(upload.striping, upload.size, upload.seed)
        self._starts = object_stripes.page_starts(upload.striping, upload.size)
        self._stripe_of = {node: stripe for stripe, node in enumerate(upload.nodes)}
        self._fresh = not upload.hashes  # no request of it has ever left

    async def run(self, progress: Progress | None) -> ObjectManifest:
        """Measure, begin, bring what is missing, commit."""
        await self._measure()
        missing = await self._begin()
        stored: set[int] = set()
        for attempt in range(_ROUNDS):
            await self._bring(missing, None if attempt else progress)
            wishes = {node: self._wish(node) for node in self._alive() if node not in stored}
            done, failed = await self._nodes.commit(wishes, min(len(wishes), self.upload.striping.k))
            stored |= set(done)
            again = [node for node, error in failed.items() if _incomplete(error) and attempt + 1 < _ROUNDS]
            self.failed |= {node: error for node, error in failed.items() if node not in again}
            if not again:
                break
            missing = await self._missing(again)
        return self._manifest(stored)

    def _alive(self) -> list[int]:
        return [node for node in self.upload.nodes if node in self.begun and node not in self.failed]

    def _require(self, nodes: Iterable[int], what: str) -> None:
        k, count = self.upload.striping.k, len(set(nodes))
        if count < k:
            raise QuorumError(f"only {count} of {self.upload.striping.n} servers {what}, {k} needed", self.failed)

    async def _measure(self) -> None:
        """Both passes that must come first: over the source for the root, over the stripes for their digests."""
        writer, pages, upload = self._writer, self._writer.pages, self.upload
        await self._ctx.offload_each(lambda page: writer.scan_page(page, self._reader.read), pages)
        writer.finish_scan()
        if upload.hashes and upload.root != writer.root:
            raise Conflict("the source has changed since its upload began")
        if upload.hashes:
            return
        digests = [hashlib.sha256() for _ in upload.nodes]
        for page in range(pages):
            row = await self._row(page)
            await self._ctx.offload(sum(map(_size, row)), _update, digests, row)
        whole = hashlib.sha256()
        for offset in range(0, upload.size, CHUNK):
            await self._ctx.offload(CHUNK, self._hash_source, whole, offset)
        hashes = tuple(digest.digest() for digest in digests)
        self.upload = msgspec.structs.replace(upload, hashes=hashes, sha256=whole.digest(), root=writer.root)
        await self._save()  # from here on every repetition announces the same

    async def _save(self) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self._journal.save, self.upload)

    def _hash_source(self, whole: Any, offset: int) -> None:
        whole.update(self._reader.read(offset, min(CHUNK, self.upload.size - offset)))

    async def _row(self, page: int) -> Sequence[Buffer]:
        size = (self._starts[page + 1] - self._starts[page]) * self.upload.striping.k
        row: Sequence[Buffer] = await self._ctx.offload(size, self._writer.row, page, self._reader.read)
        return row

    def _wish(self, node: int) -> Begin:
        upload, stripe = self.upload, self._stripe_of[node]
        return Begin(
            transfer_id=upload.transfers[stripe],
            object_id=upload.object_id,
            locker=self._codes.get(node, bytes(c.LOCKER_CODE_SIZE)),
            file_type=upload.file_type,
            retention=upload.retention,
            hash_alg=objects.SHA256,
            operation=objects.REPLACE if upload.expected else objects.CREATE,
            storage_class=0,
            reserved=bytes(7),
            chunk=CHUNK,
            total_size=self._starts[-1],
            expected_generation=upload.expected,
            target_generation=upload.generation,
            object_hash=upload.hashes[stripe],
        )

    async def _begin(self) -> dict[int, list[Span]]:
        """Open all transfers; one that has ended meanwhile is opened anew under a new id."""
        k = self.upload.striping.k
        self.begun, self.failed = await self._nodes.begin({node: self._wish(node) for node in self.upload.nodes}, k)
        ended = [node for node, error in self.failed.items() if isinstance(error, NodeError) and error.status in GONE]
        if ended:
            fresh = [
                self._ctx.entropy(16) if node in ended else transfer
                for node, transfer in zip(self.upload.nodes, self.upload.transfers, strict=True)
            ]
            self.upload = msgspec.structs.replace(self.upload, transfers=tuple(fresh))
            await self._save()
            begun, failed = await self._nodes.begin({node: self._wish(node) for node in ended})
            self.begun |= begun
            self.failed = {node: error for node, error in self.failed.items() if node not in ended} | failed
        self._require(self.begun, "accept the object")
        if self._fresh:
            return {node: [(0, self._starts[-1])] for node in self.begun}
        return await self._missing(list(self.begun))

    async def _missing(self, nodes: Sequence[int]) -> dict[int, list[Span]]:
        """What each node lacks; nodes that do not say are given up."""
        transfers = [self.upload.transfers[self._stripe_of[node]] for node in nodes]
        found = await asyncio.gather(*map(self._nodes.missing, nodes, transfers), return_exceptions=True)
        missing = {}
        for node, spans in zip(nodes, found, strict=True):
            if isinstance(spans, QMailError):
                self.failed[node] = spans
            elif isinstance(spans, BaseException):
                raise spans
            else:
                missing[node] = spans
        return missing

    async def _bring(self, missing: Mapping[int, list[Span]], progress: Progress | None) -> None:
        """Row by row, each node what it lacks of it; the next row is made and some are sent meanwhile."""
        under_way: set[asyncio.Task[None]] = set()
        arrived = 0

        async def put(page: int, row: Sequence[Buffer], wanted: Mapping[int, list[Span]]) -> None:
            nonlocal arrived
            await self._put_row(page, row, wanted)
            arrived += self._starts[page + 1] - self._starts[page]
            if progress is not None:
                progress(arrived * self.upload.size // max(1, self._starts[-1]), self.upload.size)

        try:
            for page in range(self._writer.pages):
                wanted = {node: self._lacks(spans, page) for node, spans in missing.items() if node not in self.failed}
                wanted = {node: spans for node, spans in wanted.items() if spans}
                row = await self._row(page) if wanted else ()
                if len(under_way) >= _ROWS:
                    done, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        task.result()
                under_way.add(asyncio.ensure_future(put(page, row, wanted)))
                self._require(self._alive(), "take the object")
            await asyncio.gather(*under_way)
        finally:
            for task in under_way:
                drop(task)

    def _lacks(self, spans: Sequence[Span], page: int) -> list[Span]:
        """What of one page a node lacks."""
        low, high = self._starts[page], self._starts[page + 1]
        cut = [(max(low, at), min(high, at + size)) for at, size in spans if at < high and at + size > low]
        return [(start, end - start) for start, end in cut]

    async def _put_row(self, page: int, row: Sequence[Buffer], wanted: Mapping[int, list[Span]]) -> None:
        """One range at a time for each node, all nodes at once."""
        start = self._starts[page]
        left = {
            node: [
                (at, min(self.begun[node].chunk, offset + size - at))
                for offset, size in spans
                for at in range(offset, offset + size, self.begun[node].chunk)
            ]
            for node, spans in wanted.items()
        }
        while left := {node: spans for node, spans in left.items() if spans and node not in self.failed}:
            pieces = {}
            for node, spans in left.items():
                at, size = spans.pop(0)
                stripe = self._stripe_of[node]
                data = memoryview(row[stripe])[at - start : at - start + size]
                pieces[node] = (self.upload.transfers[stripe], at, data)
            self.failed |= await self._nodes.put_many(pieces, min(len(pieces), self.upload.striping.k))

    def _manifest(self, stored: set[int]) -> ObjectManifest:
        self._require(stored, "stored the object")
        upload = self.upload
        return ObjectManifest(
            object_id=upload.object_id,
            file_type=upload.file_type,
            generation=upload.generation,
            size=upload.size,
            sha256=upload.sha256,
            striping=upload.striping,
            stripe_size=self._starts[-1],
            root=upload.root,
            stripes=tuple(
                StripeObject(stripe, node, upload.hashes[stripe])
                for stripe, node in enumerate(upload.nodes)
                if node in stored
            ),
            failed=tuple(node for node in upload.nodes if node not in stored),
        )


def _incomplete(error: QMailError) -> bool:
    return isinstance(error, NodeError) and error.status == c.STATUS_TRANSFER_INCOMPLETE


def _size(data: Buffer) -> int:
    return memoryview(data).nbytes


def _update(digests: Sequence[Any], row: Sequence[Buffer]) -> None:
    for digest, data in zip(digests, row, strict=True):
        digest.update(data)


# ------------------------------------------------------------------------------------------------------------------


class _Fetch:
    """One object on its way back, page row by page row, from nodes that have not failed yet."""

    def __init__(self, ctx: Context, nodes: ObjectNodes, manifest: ObjectManifest) -> None:
        self._ctx = ctx
        self._manifest = manifest
        self._nodes = nodes
        self._reader = object_stripes.reader(manifest.striping, manifest.size, manifest.root)
        self._starts = object_stripes.page_starts(manifest.striping, manifest.size)
        self._stripe_of = {place.node: place.stripe for place in manifest.stripes if place.node < ctx.nodes}
        self.failed: dict[int, QMailError] = {}

    @property
    def liars(self) -> set[int]:
        """Nodes whose bytes were not what was stored."""
        return {node for node, error in self.failed.items() if isinstance(error, ErasureError)}

    async def into(self, file: Any, progress: Progress | None) -> bool:
        """Write the object; False if it came out wrong and the nodes to blame are known now.

        raises   ErasureError if it came out wrong and nobody is to blame
        """
        whole = hashlib.sha256()
        following: asyncio.Future[dict[int, Shards]] | None = None
        try:
            for page in range(self._reader.pages):
                shards = await (following or self._row(page))
                last = page + 1 == self._reader.pages
                following = None if last else asyncio.ensure_future(self._row(page + 1))
                size = (self._starts[page + 1] - self._starts[page]) * self._manifest.striping.k
                await self._ctx.offload(size, self._open_row, page, shards, whole, file)
                if progress is not None:
                    progress(file.tell(), self._manifest.size)
        finally:
            if following is not None:
                drop(following)
        return whole.digest() == self._manifest.sha256 or await self._name_liars()

    def _open_row(self, page: int, shards: Mapping[int, Shards], whole: Any, file: Any) -> None:
        plain = self._reader.join(page, shards)
        whole.update(plain)
        file.write(plain)

    async def _name_liars(self) -> bool:
        """Read the stripes again, each for itself. Only `interop` comes here: of it a single page proves nothing."""
        wrong = False
        for place in self._manifest.stripes:
            digest = hashlib.sha256()
            for page in range(self._reader.pages) if place.node not in self.failed else ():
                for data in (await self._get(place.node, page, patient=True)).values():
                    digest.update(data)
            if place.node not in self.failed and digest.digest() != place.sha256:
                self._blame(place.node, ErasureError(f"node {place.node} gave a stripe that was not stored"))
                wrong = True
        if not wrong:
            raise ErasureError("the object was rebuilt, but is not what its manifest announces")
        return False

    def _blame(self, node: int, error: QMailError) -> None:
        self.failed[node] = error
        self._ctx.fanout.health.bad(node)

    async def _row(self, page: int) -> dict[int, Shards]:
        """Checked shards of one page row, from k nodes at least."""
        k = self._manifest.striping.k
        good: dict[int, Shards] = {}
        waiting = self._ctx.fanout.health.order(node for node in self._stripe_of if node not in self.failed)
        patient = False
        asking: set[asyncio.Task[dict[int, memoryview]]] = set()

        def ask(count: int) -> None:
            for node in waiting[:count]:
                asking.add(asyncio.ensure_future(self._get(node, page, patient=patient)))
            del waiting[:count]

        try:
            while len(good) < k:
                ask(k + _MARGIN - len(good) - len(asking))
                if not asking:
                    if patient:
                        raise QuorumError(f"only {len(good)} good stripes, {k} needed", dict(self.failed))
                    # nobody is left to ask instead: those that only failed to answer get another chance
                    patient = True
                    waiting += [node for node, error in self.failed.items() if retried(error)]
                    continue
                done, asking = await asyncio.wait(
                    asking, timeout=_HEDGE if waiting else None, return_when=asyncio.FIRST_COMPLETED
                )
                if not done:  # somebody dawdles: ask one more for each
                    ask(len(asking))
                await self._check(page, {node: data for task in done for node, data in task.result().items()}, good)
        finally:
            for task in asking:
                drop(task)
        return good

    async def _get(self, node: int, page: int, *, patient: bool) -> dict[int, memoryview]:
        """One page of a node's stripe; nothing if it cannot be had."""
        start, end = self._starts[page], self._starts[page + 1]
        try:
            wanted = (self._manifest.object_id, self._manifest.file_type, self._manifest.generation)
            data = await self._nodes.get_range(node, *wanted, start, end - start, retries=RETRIES if patient else 0)
            return {node: data}
        except QMailError as error:
            self._blame(node, error)
            return {}

    async def _check(self, page: int, found: Mapping[int, memoryview], good: dict[int, Shards]) -> None:
        """Take over pages that check out."""
        stripes = {self._stripe_of[node]: data for node, data in found.items()}
        nodes = {self._stripe_of[node]: node for node in found}
        size = sum(map(len, stripes.values()))
        for stripe, shards in (await self._ctx.offload(size, self._reader.check_row, page, stripes)).items():
            node = nodes[stripe]
            if isinstance(shards, ErasureError):
                self._blame(node, shards)
                continue
            good[stripe] = shards
            self.failed.pop(node, None)
