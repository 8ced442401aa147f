"""Getting one object back from its nodes: page row by page row, from any k good stripes, whoever lies or is silent.

Small objects are asked of everybody at once: the bytes are few and the answer tells who is in trouble. Large ones are
asked of the k healthiest nodes, and one more for each of those that is in doubt. Who fails or lies is replaced at
once; who takes longer than it usually does is hedged by the next healthiest, as far as the budget for extra bytes
goes, and in any case after a quarter of a second.
Stripes are grouped by the digest root in their header; the group that reaches k checked stripes wins, and whoever
answered something else is named.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import cast

from typing_extensions import Buffer

from qmail_core.codec import consts as c
from qmail_core.codec import erasure, mail
from qmail_core.codec.erasure import Reader
from qmail_core.codec.interop import InteropReader
from qmail_core.codec.legacy_reader import OldReader
from qmail_core.codec.packet import Reply
from qmail_core.codec.stripes import Shards, crc32
from qmail_core.engine.context import Context, drop
from qmail_core.errors import ErasureError, NodeTimeout, QMailError, QuorumError
from qmail_core.model import FileEntry, Profile, Striping, Tell
from qmail_core.transport.fanout import Fanout, Run

log = logging.getLogger("qmail.fetch")

_MARGIN = 2  # stripes asked beyond k for large objects at most
_HEDGE = 0.25  # seconds after which a silent node is replaced whatever that costs
_PAGE_BYTES = 200_000  # of a page whose size is not known yet
_SMALL_OBJECT = 1 << 20  # below this everybody is asked at once


class Fetch:
    """One object on its way back."""

    def __init__(self, ctx: Context, tell: Tell, file_type: int, entry: FileEntry | None) -> None:
        self._ctx = ctx
        self._tell = tell
        self._file_type = file_type
        self._entry = entry
        if not (tell.striping.k >= 1 and tell.striping.m >= 1):
            raise ErasureError(f"the tell announces a striping of {tell.striping.k}+{tell.striping.m}")
        # a tell is a stranger's word: it may name servers that do not exist
        places = [(ctx.node_at(server), server.stripe) for server in tell.servers]
        self._stripe_of = {node: stripe for node, stripe in places if node is not None}
        self.reader: Reader | InteropReader | None = None
        self.good: set[int] = set()  # nodes that gave checked stripes
        self.failed: dict[int, QMailError] = {}  # nodes that were asked in vain
        self.pages_seen: dict[int, Buffer] = {}  # by node, of the last row: the repair borrows digest paths from them
        if tell.striping.profile == Profile.INTEROP and entry is not None:
            self.reader = InteropReader(tell.striping.k, entry.size)

    @property
    def is_attachment(self) -> bool:
        """Whether the object is an attachment; early clients stored those with their length before them."""
        return self._file_type >= c.FILE_ATTACHMENT

    @property
    def liars(self) -> set[int]:
        """Nodes whose bytes were not what was stored."""
        return {node for node, error in self.failed.items() if isinstance(error, ErasureError)}

    @property
    def striping(self) -> Striping:
        """As the stripes themselves say, once the first row has come."""
        return self.reader.striping if self.reader is not None else self._tell.striping

    async def plaintext(self) -> AsyncIterator[bytes]:
        """The object, one page row after the other; ErasureError or QuorumError when it cannot be rebuilt."""
        page, checksum, size = 0, 0, 0
        following: asyncio.Future[dict[int, Shards]] | None = None
        try:
            while True:
                shards = await (following or self.row(page))
                assert self.reader is not None
                last = page + 1 == self.reader.pages
                # the next row comes while this one is opened
                following = None if last else asyncio.ensure_future(self.row(page + 1))
                plain = await self._ctx.offload(_row_bytes(shards), self.reader.join, page, shards)
                if self._entry is not None and self._entry.crc32 is not None and self.reader.pages == 1:
                    plain = self._outvote(plain, shards)
                checksum, size = crc32(plain, checksum), size + len(plain)
                if last:
                    self._verify(checksum, size)
                yield plain
                if last:
                    return
                page += 1
        finally:
            if following is not None:
                drop(following)

    def _verify(self, checksum: int, size: int) -> None:
        entry = self._entry
        if entry is not None and (size != entry.size or (entry.crc32 is not None and checksum != entry.crc32)):
            raise ErasureError(f"object {self._file_type} was rebuilt, but is not what the tell announces")

    def _outvote(self, plain: bytes, shards: dict[int, Shards]) -> bytes:
        """`interop` stripes cannot be checked one by one: with one to spare, leave each out until the CRC agrees."""
        assert self._entry is not None
        if crc32(plain) == self._entry.crc32 or not isinstance(self.reader, InteropReader):
            return plain
        for stripe in shards if len(shards) > self.reader.striping.k else ():
            others = {other: found for other, found in shards.items() if other != stripe}
            candidate = self.reader.join(0, others)
            if crc32(candidate) == self._entry.crc32:
                liar = next(node for node, index in self._stripe_of.items() if index == stripe)
                self._blame(liar, ErasureError(f"node {liar} gave a wrong stripe"))
                return candidate
        return plain

    async def row(self, page: int, *, everybody: bool = False) -> dict[int, Shards]:
        """Checked shards of one page row by stripe index, from at least k stripes.

        everybody  ask all nodes and wait for all of them (the repair wants to know who lacks what)
        raises     QuorumError naming the failures when fewer than k good stripes can be had
        """
        search = _RowSearch(self, page)
        # who has been silent for a while is not waited for, unless the repair wants to know about everybody
        need = self.striping.k if self._ask_all(page) and not everybody else None
        run = self._ctx.fanout.run(None, timeout=self._timeout(), judge=_page, need=need)
        try:
            await self._search(run, search, everybody=everybody)
        finally:
            run.cancel()
        self.pages_seen = search.raw
        return search.shards()

    async def _search(self, run: Run, search: _RowSearch, *, everybody: bool) -> None:
        health = self._ctx.fanout.health
        waiting = health.order((n for n in self._stripe_of if self._may_ask(n, everybody=everybody)), bulk=True)
        hedge = None
        if not everybody and not self._ask_all(search.page):
            hedge = _Hedge(self._ctx.fanout, run, self._stripe_size())
            first = self.striping.k + self._margin(waiting)
            waiting, spare = waiting[:first], waiting[first:]
            hedge.budget.earn(hedge.size * len(waiting))
        else:
            spare = []
        self._ask(run, waiting, search.page)
        while True:
            seen = len(run.failed)
            need = len(search.raw) + max(1, self.striping.k - len(search.best()))
            settled = everybody or (search.page == 0 and not spare)

            def enough(seen: int = seen, need: int = need) -> bool:
                return len(run.good) >= need or len(run.failed) > seen

            await run.until(enough, hedge.wait() if hedge is not None and spare else None)
            if settled and len(run.good) >= self.striping.k:
                # so that a mail's first row tells the silent nodes from those that are merely last
                await (run.finish() if everybody else run.wait(len(self._stripe_of), timeout=_settle(run)))
            await self._take(run, search)
            if len(search.best()) >= self.striping.k and (not everybody or not run.pending):
                break
            if spare and hedge is not None:
                # a node that failed or lied is replaced, one that dawdles is hedged
                hedge.look()
                expected = len(search.best()) + len(run.pending - hedge.stood_in_for)
                more = max(0, self.striping.k - expected)
                self._ask(run, spare[:more], search.page)
                spare = spare[more:]
            elif not run.pending and len(run.good) == len(search.raw):
                break
        if hedge is not None:
            hedge.settle(len(run.good) - self.striping.k)
        self._conclude(run, search)

    def _may_ask(self, node: int, *, everybody: bool) -> bool:
        """A node that failed is not asked again; not even for the repair if it was silent, which takes too long."""
        error = self.failed.get(node)
        return error is None or (everybody and not isinstance(error, NodeTimeout))

    def _margin(self, order: Sequence[int]) -> int:
        """One more for each of the first k nodes that failed of late or was never seen."""
        health = self._ctx.fanout.health
        doubtful = sum(health.failures[n] > 0 or not health.median(n, bulk=True) for n in order[: self.striping.k])
        return min(_MARGIN, doubtful)

    def _stripe_size(self) -> int:
        """Bytes of one answer, as far as that can be known."""
        if self.pages_seen:
            return len(memoryview(next(iter(self.pages_seen.values()))))
        return min(self._entry.size // self.striping.k, _PAGE_BYTES) if self._entry is not None else 0

    def _conclude(self, run: Run, search: _RowSearch) -> None:
        self.failed |= run.failed
        if search.page == 0 and self._ask_all(0):
            silent = QMailError("no answer by the time the object was complete")
            self.failed |= dict.fromkeys(run.pending, silent)
        best = search.best()
        if len(best) < self.striping.k:
            wrong = sorted(self.failed)
            raise QuorumError(
                f"only {len(best)} good stripes, {self.striping.k} needed; failed servers: "
                + (", ".join(map(str, wrong)) or "none"),
                dict(self.failed),
            )
        for node in search.outvoted(best):
            self._blame(node, ErasureError(f"node {node} gave a stripe of something else"))
        self.good |= best
        if self.reader is None:
            self.reader = search.reader_of(best)

    def _ask_all(self, page: int) -> bool:
        known = self._entry.size if self._entry is not None else 0
        return page == 0 and known <= _SMALL_OBJECT

    def _ask(self, run: Run, nodes: Sequence[int], page: int) -> None:
        body = mail.build_download(self._tell.guid, self._tell.locker_code, self._file_type, page)
        if nodes:
            run.add(self._ctx.mail_batch(c.CMD_DOWNLOAD, nodes, [body] * len(nodes)), self._stripe_size())

    async def _take(self, run: Run, search: _RowSearch) -> None:
        """Check what has come; a node whose page does not check out is blamed."""
        fresh = {node: data for node, data in run.good.items() if node not in search.raw}
        size = sum(len(memoryview(data)) for data in fresh.values() if isinstance(data, memoryview))
        for node, outcome in (await self._ctx.offload(size, search.check, fresh)).items():
            if isinstance(outcome, ErasureError):
                run.blame(node, outcome)
                log.warning("node %d gave wrong bytes for %s: %s", node, self._tell.guid.hex(), outcome)

    def _blame(self, node: int, error: QMailError) -> None:
        self.failed[node] = error
        self.good.discard(node)
        self._ctx.fanout.health.bad(node)

    def _timeout(self) -> float:
        timeouts = self._ctx.config.timeouts
        return timeouts.small if self._entry is not None and self._entry.size <= _SMALL_OBJECT else timeouts.page


def _page(reply: Reply) -> memoryview:
    return mail.parse_page(reply.expect().payload)


def _settle(run: Run) -> float:
    """How long the last nodes of a small row are waited for: as long as the row took so far, 10 to 300 ms."""
    return min(0.3, max(0.01, run.elapsed))


def _row_bytes(shards: dict[int, Shards]) -> int:
    return sum(len(shard) for row in shards.values() for shard in row)


class _Hedge:
    """Which nodes of a row take longer than they usually do, and who may stand in for them."""

    def __init__(self, fanout: Fanout, run: Run, size: int) -> None:
        self.budget = fanout.budget
        self.size = size  # bytes of one answer
        self.stood_in_for: set[int] = set()
        self._health = fanout.health
        self._typical = fanout.health.typical_p95(bulk=True, default=_HEDGE)  # who stands in is seldom known well
        self._run = run
        self._refused = False  # the budget is spent: only the last resort is left
        self._paid = 0

    def _patience(self, node: int) -> float:
        return _HEDGE if self._refused else min(_HEDGE, self._health.p95(node, bulk=True, default=self._typical))

    def wait(self) -> float | None:
        """Seconds until `look` may find somebody."""
        return self._run.next_overdue(self._patience, self.stood_in_for)

    def look(self) -> None:
        """Find the nodes that have become overdue and may be stood in for."""
        for node in self._run.overdue(self._patience):
            if node in self.stood_in_for:
                continue
            late = self._refused  # then it has been silent for long enough
            if not late and not self.budget.spend(self.size):
                self._refused = True
                break
            self._paid += not late
            self.stood_in_for.add(node)
            self._health.bad(node)  # the next row asks the others first

    def settle(self, surplus: int) -> None:
        """The row is complete with so many answers too many; hedges beyond them have cost nothing."""
        self.budget.give_back(self.size * max(0, self._paid - max(0, surplus)))


class _RowSearch:
    """The answers to one page row, sorted by which object they claim to belong to."""

    def __init__(self, fetch: Fetch, page: int) -> None:
        self.page = page
        self.raw: dict[int, Buffer] = {}  # checked pages by node
        self._fetch = fetch
        self._groups: dict[bytes, dict[int, Shards]] = {}  # shards by node, by digest root
        self._readers: dict[bytes, Reader | InteropReader] = {}

    def check(self, fresh: dict[int, object]) -> dict[int, Reader | InteropReader | ErasureError]:
        """Check pages; heavy, so it may run in a thread. Pure but for filling this search."""
        outcome: dict[int, Reader | InteropReader | ErasureError] = {}
        rows: list[tuple[bytes, dict[int, int]]] = []  # digest root, nodes by stripe index: checked together
        for node, data in fresh.items():
            assert isinstance(data, memoryview)
            stripe = self._fetch._stripe_of[node]
            try:
                reader = self._reader(data, stripe)
            except ErasureError as error:
                outcome[node] = error
                continue
            root = reader.root if isinstance(reader, (Reader, OldReader)) else b""
            self._readers[root] = outcome[node] = reader
            nodes = next((nodes for known, nodes in rows if known == root and stripe not in nodes), None)
            if nodes is None:
                rows.append((root, nodes := {}))
            nodes[stripe] = node
        for root, nodes in rows:
            found = {stripe: cast(memoryview, fresh[node]) for stripe, node in nodes.items()}
            for stripe, shards in self._readers[root].check_row(self.page, found).items():
                node = nodes[stripe]
                if isinstance(shards, ErasureError):
                    outcome[node] = shards
                    continue
                self._groups.setdefault(root, {})[node] = shards
                self.raw[node] = found[stripe]
        return outcome

    def _reader(self, data: memoryview, stripe: int) -> Reader | InteropReader:
        if self._fetch.reader is not None:
            return self._fetch.reader
        if self._fetch._tell.striping.profile == Profile.INTEROP:
            fresh = OldReader(self._fetch._tell.striping.k, len(data), prefixed=self._fetch.is_attachment)
            return self._readers.get(fresh.root, fresh)
        layout, index, root = erasure.parse_header(data)
        entry = self._fetch._entry
        if index != stripe or (entry is not None and layout.length != entry.size):
            raise ErasureError("the stripe belongs to another place or object")
        known = self._readers.get(root)
        return known if isinstance(known, Reader) and known.layout == layout else Reader(layout, root)

    def best(self) -> set[int]:
        """Nodes of the largest group."""
        return set(max(self._groups.values(), key=len, default=()))

    def outvoted(self, best: set[int]) -> Iterable[int]:
        """Nodes whose stripes are consistent, but of something else."""
        return [node for group in self._groups.values() for node in group if node not in best]

    def reader_of(self, best: set[int]) -> Reader | InteropReader:
        """The reader of the winning group."""
        return next(self._readers[root] for root, group in self._groups.items() if best <= set(group))

    def shards(self) -> dict[int, Shards]:
        """The winning group's shards by stripe index."""
        group = max(self._groups.values(), key=len)
        return {self._fetch._stripe_of[node]: shards for node, shards in group.items()}
