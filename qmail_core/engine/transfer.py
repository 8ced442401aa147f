"""Object Transfer with single nodes: one object, its ranges, and what to do when an exchange fails.

Retried are silence, and the statuses 0, 167, 252 and 253; every other refusal is final (QMail wire A.8). A repeated
request is packed afresh but says the same, and the node answers it the same. After a commit's 225 the missing ranges
are asked for and put again.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from typing_extensions import Buffer

from qmail_core.codec import consts as c
from qmail_core.codec import mail, objects
from qmail_core.codec.objects import Begin, Begun, Committed, Described
from qmail_core.codec.packet import Reply
from qmail_core.engine.context import Context, drop
from qmail_core.engine.durable import put_in_place
from qmail_core.errors import (
    Conflict,
    ErasureError,
    LocalProtocolError,
    NodeError,
    NodeTimeout,
    QMailError,
    RemoteProtocolError,
    TransportError,
)

CHUNK = 1 << 20  # preferred size of a range
RETRIES = 4
PAUSE = 0.2  # seconds before the first retry, doubled for each further one
SETTLE = 3.0  # seconds nodes are given at least when enough others have answered (D.5)
PARALLEL = 4  # ranges under way with one node
_RETRIED = frozenset({c.STATUS_NO_ERROR, c.STATUS_PAYMENT_PROCESSING, c.STATUS_INTERNAL, c.STATUS_NETWORK})
_DONE = frozenset({c.STATUS_ALL_PASS, c.STATUS_SUCCESS})
# what a node says that knows nothing of Object Transfer, or not this object
NO_OBJECT = frozenset(
    {c.STATUS_INVALID_COMMAND, c.STATUS_TCP_REQUIRED, c.STATUS_PROTOCOL_UNSUPPORTED, c.STATUS_FILE_NOT_EXIST}
)
GONE = frozenset({c.STATUS_TRANSFER_NOT_FOUND, c.STATUS_TRANSFER_EXPIRED, c.STATUS_OBJECT_STATE})

T = TypeVar("T")
Asked = tuple[objects.Fields | None, Buffer]  # fields and data of a request
Progress = Callable[[int, int], object]  # bytes done, bytes in all
Read = Callable[[int, int], Buffer]  # offset, size
Span = tuple[int, int]  # offset, size


def retried(error: QMailError) -> bool:
    """Whether a failed exchange is worth another try."""
    return isinstance(error, TransportError) or (isinstance(error, NodeError) and error.status in _RETRIED)


class ObjectNodes:
    """Object Transfer as one identity speaks it to the nodes."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._parts: set[str] = set()  # files of downloads under way

    # ---------------------------------------------------------------------------------------------- exchanges

    async def ask_many(
        self,
        command: int,
        asked: Mapping[int, Asked],
        read: Callable[[memoryview, int], T],
        *,
        retries: int = RETRIES,
        need: int = 0,
    ) -> tuple[dict[int, T], dict[int, QMailError]]:
        """Ask each node its own, all at once; those whose failure may pass are asked again.

        read     makes the value of an answer's payload, given the request id
        need     once so many have answered well, those that stay silent are given up soon; 0: everybody is waited for
        returns  values and errors, by node
        """
        good: dict[int, T] = {}
        failed: dict[int, QMailError] = {}
        left = dict(asked)
        for attempt in range(retries + 1):
            if attempt:
                await asyncio.sleep(PAUSE * 2 ** (attempt - 1))
            values, failed_now = await self._once(command, left, read, max(0, need - len(good)))
            good |= values
            failed = {node: error for node, error in failed.items() if node not in left} | failed_now
            left = {node: left[node] for node, error in failed_now.items() if retried(error)}
            if not left or (need and len(good) >= need and _all_silent(failed, left)):
                break
        return good, failed

    async def _once(
        self, command: int, asked: Mapping[int, Asked], read: Callable[[memoryview, int], T], need: int
    ) -> tuple[dict[int, Any], dict[int, QMailError]]:
        request_id = int.from_bytes(self._ctx.entropy(8), "big") or 1

        def judge(reply: Reply) -> T:
            if reply.status not in _DONE:
                # 0 means success elsewhere; here it is one of the answers to be tried again
                raise NodeError(reply.status, f"node {reply.node}: {c.status_text(reply.status)} ({reply.status})")
            return read(memoryview(reply.payload), request_id)

        nodes = list(asked)
        heads = [objects.build_request(request_id, fields) for fields, _ in asked.values()]
        batch = self._ctx.mail_batch(command, nodes, heads, [data for _, data in asked.values()])
        run = self._ctx.fanout.run(batch, timeout=self._ctx.config.timeouts.page, judge=judge)
        try:
            if need:
                await run.wait(need)
                await run.until(lambda: not run.pending, max(SETTLE, run.elapsed))
            else:
                await run.finish()
            late = dict.fromkeys(run.pending, NodeTimeout("no answer long after the others"))
        finally:
            run.cancel()
        return run.good, run.failed | late

    async def ask(
        self,
        node: int,
        command: int,
        fields: objects.Fields | None,
        read: Callable[[memoryview, int], T],
        data: Buffer = b"",
        *,
        retries: int = RETRIES,
    ) -> T:
        """Ask one node; its error is raised."""
        good, failed = await self.ask_many(command, {node: (fields, data)}, read, retries=retries)
        if node in failed:
            raise failed[node]
        return good[node]

    async def capabilities(self, node: int) -> tuple[objects.Capabilities, list[objects.StorageClass]]:
        """What a node offers (83)."""
        return await self.ask(node, c.CMD_OBJECT_CAPABILITIES, None, objects.parse_capabilities)

    async def info(self, node: int, object_id: bytes, file_type: int, generation: int = 0) -> Described:
        """What a node holds (81)."""
        return await self.ask(
            node, c.CMD_OBJECT_INFO, objects.Info(object_id, file_type, generation), _reads(Described)
        )

    async def abort(self, nodes: Mapping[int, bytes]) -> dict[int, QMailError]:
        """Give up transfers (80), by node; returns what failed."""
        asked: dict[int, Asked] = {node: (objects.Abort(transfer), b"") for node, transfer in nodes.items()}
        _, failed = await self.ask_many(c.CMD_OBJECT_ABORT, asked, _nothing, retries=1)
        return failed

    async def delete(self, node: int, object_id: bytes, file_type: int, expected: int, target: int) -> int:
        """Put a tombstone in the place of an object (84); returns its generation."""
        wanted = objects.Delete(object_id, file_type, expected, target)
        return (await self.ask(node, c.CMD_OBJECT_DELETE, wanted, _reads(objects.Tombstone))).generation

    # ---------------------------------------------------------------------------------------------- up

    async def begin(self, wishes: Mapping[int, Begin], need: int = 0) -> tuple[dict[int, Begun], dict[int, QMailError]]:
        """Open transfers (76), by node; `need` as in `ask_many`."""
        asked: dict[int, Asked] = {node: (wish, b"") for node, wish in wishes.items()}
        return await self.ask_many(c.CMD_OBJECT_BEGIN, asked, _reads(Begun), need=need)

    async def missing(self, node: int, transfer_id: bytes) -> list[Span]:
        """What a node still lacks (78); empty as well for a transfer that is committed."""
        found: list[Span] = []
        cursor = 0
        while True:
            inquiry = objects.Inquiry(transfer_id, cursor, objects.MISSING, objects.MAX_RANGES)
            progress, some = await self.ask(node, c.CMD_OBJECT_STATUS, inquiry, objects.parse_progress)
            if progress.state not in (objects.OPEN, objects.COMMITTED):
                raise NodeError(c.STATUS_TRANSFER_EXPIRED, f"node {node}: the transfer has ended")
            found += some
            if not progress.flags & objects.MORE or progress.next_cursor <= cursor:
                return found
            cursor = progress.next_cursor

    async def put_many(self, pieces: Mapping[int, tuple[bytes, int, Buffer]], need: int = 0) -> dict[int, QMailError]:
        """Put one range each (77): transfer id, offset and bytes by node; returns what failed."""
        asked: dict[int, Asked] = {}
        for node, (transfer_id, offset, data) in pieces.items():
            size = memoryview(data).nbytes
            digest = hashlib.sha256(data).digest()
            asked[node] = (objects.PutRange(transfer_id, offset, size, objects.SHA256, digest), data)
        _, failed = await self.ask_many(c.CMD_OBJECT_PUT_RANGE, asked, _reads(objects.RangePut), need=need)
        return failed

    async def commit(
        self, wishes: Mapping[int, Begin], need: int = 0
    ) -> tuple[dict[int, Committed], dict[int, QMailError]]:
        """Make transfers objects (79), by node. 225 is not waited out here: bytes are missing."""
        asked: dict[int, Asked] = {
            node: (objects.Commit(wish.transfer_id, wish.total_size, objects.SHA256, wish.object_hash), b"")
            for node, wish in wishes.items()
        }
        return await self.ask_many(c.CMD_OBJECT_COMMIT, asked, _reads(Committed), need=need)

    async def upload(
        self,
        node: int,
        wish: Begin,
        read: Read,
        progress: Progress | None = None,
        *,
        begun: Callable[[Begun], object] = lambda _: None,
    ) -> Committed:
        """Bring one object to one node: begin, all missing ranges, commit. Repeat it to resume.

        wish     the request of command 76; the same for every repetition
        read     gives any range of the object, the same bytes each time
        begun    is told what the node accepted
        raises   NodeError with 222, 223 or 231 if a new transfer id is needed
        """
        good, failed = await self.begin({node: wish})
        if failed:
            raise failed[node]
        accepted = good[node]
        begun(accepted)
        for attempt in range(RETRIES + 1):
            gaps = _cut(await self.missing(node, wish.transfer_id), min(accepted.chunk, CHUNK))
            await self._put_all(node, wish, gaps, read, min(accepted.max_parallel, PARALLEL), progress)
            done, failed = await self._commit_once(node, wish)
            if done is not None:
                return done
            error = failed[node]
            if attempt == RETRIES or not isinstance(error, NodeError) or error.status != c.STATUS_TRANSFER_INCOMPLETE:
                raise error
        raise AssertionError("unreachable")

    async def _commit_once(self, node: int, wish: Begin) -> tuple[Committed | None, dict[int, QMailError]]:
        good, failed = await self.commit({node: wish})
        return good.get(node), failed

    async def _put_all(
        self, node: int, wish: Begin, gaps: Sequence[Span], read: Read, width: int, progress: Progress | None
    ) -> None:
        """Put ranges, `width` at a time; the first failure ends it."""
        left = deque(gaps)
        done = wish.total_size - sum(size for _, size in gaps)

        async def some() -> None:
            nonlocal done
            while left:
                offset, size = left.popleft()
                data = await self._ctx.offload(size, read, offset, size)
                if memoryview(data).nbytes != size:
                    raise LocalProtocolError("the source is shorter than when it was accepted")
                failed = await self.put_many({node: (wish.transfer_id, offset, data)})
                if failed:
                    raise failed[node]
                done += size
                if progress is not None:
                    progress(done, wish.total_size)

        tasks = [asyncio.ensure_future(some()) for _ in range(min(max(1, width), len(gaps)))]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                drop(task)

    # ---------------------------------------------------------------------------------------------- down

    async def get_range(
        self,
        node: int,
        object_id: bytes,
        file_type: int,
        generation: int,
        offset: int,
        size: int,
        *,
        retries: int = RETRIES,
    ) -> memoryview:
        """One range of an object (82)."""
        wanted = objects.GetRange(object_id, file_type, generation, offset, size)

        def read(view: memoryview, request_id: int) -> memoryview:
            got, data = objects.parse_range_got(view, request_id)
            if (got.offset, got.size) != (offset, size):
                raise RemoteProtocolError(f"node {node} answered another range")
            return data

        return await self.ask(node, c.CMD_OBJECT_GET_RANGE, wanted, read, retries=retries)

    async def download(
        self, node: int, object_id: bytes, file_type: int, path: str, progress: Progress | None = None
    ) -> bytes:
        """Bring one object of one node into a file; what came before an interruption is not asked for again.

        A node that does not serve the object by ranges is asked by pages (74), which nothing vouches for.

        returns  the SHA-256 of the object; it is what the node announced, or the file is not there
        raises   ErasureError if the bytes are not what was announced, Conflict if the same download is under way
        """
        try:
            found = await self.info(node, object_id, file_type)
        except NodeError as error:
            if error.status not in NO_OBJECT:
                raise
            return await self._download_pages(node, object_id, file_type, path)
        return await self.fetch(node, found, path, progress)

    async def fetch(
        self, node: int, found: Described, path: str, progress: Progress | None = None, *, chunk: int = CHUNK
    ) -> bytes:
        """The same for what a node has described; ranges of at most `chunk` bytes."""
        part = part_of(path, found)
        with self._alone(part), _Part(part) as file:
            await self._ctx.offload(file.on_disk, file.load)
            if file.size > found.total_size:
                file.restart()
            await self._fill(node, found, file, chunk, progress)
            if file.digest.digest() != found.object_hash:
                file.restart()
                raise ErasureError(f"node {node} gave an object that is not what it announced")
            await self._finish(file, path)
        return found.object_hash

    @contextlib.contextmanager
    def _alone(self, part: str) -> Iterator[None]:
        """Keep others from a file that a repetition goes on with."""
        if part in self._parts:
            raise Conflict("this object is being downloaded to this path")
        self._parts.add(part)
        try:
            yield
        finally:
            self._parts.discard(part)

    async def _finish(self, file: _Part, path: str) -> None:
        """Bring a whole file down to the medium, and give it its name."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, file.sync)
        await loop.run_in_executor(None, put_in_place, file.path, path)

    async def _fill(self, node: int, found: Described, file: _Part, chunk: int, progress: Progress | None) -> None:
        """Append what is missing, in order; the ranges behind are asked for meanwhile."""
        step = max(1, min(found.recommended_length, chunk, CHUNK))
        spans = deque(_cut([(file.size, found.total_size - file.size)], step))
        ahead: deque[asyncio.Future[memoryview]] = deque()
        what = found.object_id, found.file_type, found.generation
        try:
            while spans or ahead:
                while spans and len(ahead) < PARALLEL:
                    ahead.append(asyncio.ensure_future(self.get_range(node, *what, *spans.popleft())))
                data = await ahead[0]
                ahead.popleft()
                await self._ctx.offload(len(data), file.append, data)
                if progress is not None:
                    progress(file.size, found.total_size)
        finally:
            for future in ahead:
                drop(future)

    async def _download_pages(self, node: int, object_id: bytes, file_type: int, path: str) -> bytes:
        """Command 74 until a page is shorter than a page, or is not there. QMail wire C.5."""
        part = f"{path}.{self._ctx.entropy(8).hex()}.part"  # of this call alone: nothing of it can be used again
        with _Part(part) as file:
            try:
                for page in range(1 << 16):
                    data = await self._page(node, object_id, file_type, page)
                    await self._ctx.offload(len(data), file.append, data)
                    if len(data) < c.PAGE_SIZE:
                        break
                await self._finish(file, path)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.remove(part)
                raise
        return file.digest.digest()

    async def _page(self, node: int, object_id: bytes, file_type: int, page: int) -> memoryview:
        body = mail.build_download(object_id, bytes(16), file_type, page)

        def judge(reply: Reply) -> memoryview:
            if page and reply.status in (c.STATUS_FILE_NOT_EXIST, c.STATUS_INVALID_PARAMETER):
                return memoryview(b"")
            return mail.parse_page(reply.expect().payload)

        batch = self._ctx.mail_batch(c.CMD_DOWNLOAD, [node], [body])
        run = self._ctx.fanout.run(batch, timeout=self._ctx.config.timeouts.page, judge=judge)
        try:
            await run.finish()
        finally:
            run.cancel()
        if node in run.failed:
            raise run.failed[node]
        found = run.good[node]
        assert isinstance(found, memoryview)
        return found


class _Part:
    """A file that grows in order and knows the digest of what it holds."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "r+b", buffering=0)
        self.size = 0
        self.digest = hashlib.sha256()

    @property
    def on_disk(self) -> int:
        """Bytes the file has."""
        return os.fstat(self._file.fileno()).st_size

    def __enter__(self) -> _Part:
        return self

    def load(self) -> None:
        """Read what an interrupted download has left."""
        while data := self._file.read(CHUNK):
            self.digest.update(data)
            self.size += len(data)

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def sync(self) -> None:
        """Bring the bytes down to the medium; OSError if they do not get there, and then the file is gone."""
        try:
            os.fsync(self._file.fileno())
        except OSError:
            # it may still read well, from memory: a repetition must not take it for stored
            with contextlib.suppress(OSError):
                os.remove(self.path)
            raise

    def restart(self) -> None:
        """Forget everything."""
        self._file.truncate(0)
        self._file.seek(0)
        self.size, self.digest = 0, hashlib.sha256()

    def append(self, data: Buffer) -> None:
        """Write all of it at the end."""
        view = memoryview(data)
        self.digest.update(view)
        self.size += len(view)
        while view:
            view = view[self._file.write(view) :]


def part_of(path: str, found: Described) -> str:
    """Where a download grows; a repetition goes on with it."""
    return f"{path}.{found.object_hash[:8].hex()}.part"


def _reads(kind: type[objects.F]) -> Callable[[memoryview, int], objects.F]:
    return lambda view, request_id: objects.parse_answer(kind, view, request_id)


def _all_silent(failed: Mapping[int, QMailError], nodes: Iterable[int]) -> bool:
    return all(isinstance(failed[node], NodeTimeout) for node in nodes)


def _nothing(view: memoryview, request_id: int) -> bool:
    objects.parse_empty(view, request_id)
    return True


def _cut(spans: Sequence[Span], step: int) -> list[Span]:
    """The same bytes in ranges of at most `step`."""
    return [(at, min(step, offset + size - at)) for offset, size in spans for at in range(offset, offset + size, step)]
