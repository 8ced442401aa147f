"""Object Transfer with single nodes, as tasks that outlive a crash: upload, download, delete, resume, cancel.

An operation is in the store before its first request leaves, with all that a repetition must say again. One that a
stop or crash has interrupted goes on at the next start; one whose node does not answer is paused until its user
resumes or cancels it; what a node refuses has failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import Iterator
from typing import Any

import msgspec
from typing_extensions import Buffer

from qmail_core.codec import consts as c
from qmail_core.codec import objects
from qmail_core.codec.cipher import locker_code
from qmail_core.codec.objects import Begin, Begun
from qmail_core.engine.context import Context
from qmail_core.engine.jobs import unit_of
from qmail_core.engine.paths import Paths
from qmail_core.engine.source import File
from qmail_core.engine.tasks import Report, Tasks
from qmail_core.engine.transfer import CHUNK, GONE, ObjectNodes, Progress, part_of, retried
from qmail_core.engine.wallet import Wallet
from qmail_core.errors import Cancelled, Conflict, LocalProtocolError, NodeError, QMailError, UsageError
from qmail_core.folders import make_private
from qmail_core.model import Offer, OfferedClass, Operation
from qmail_core.model.operations import CANCELLED, COMPLETED, ENDED, FAILED, PAUSED, RUNNING, WAITING
from qmail_core.store.base import Claim, Locker

OBJECT_TYPE = 2  # file type of objects whose users name none
_ENSURE = 0.5  # seconds for telling the node of a locker it does not know
_PATIENCE = 10.0  # seconds an operation has to end before the answer to its cancellation says that it still runs


class Operations:
    """The operations of one engine."""

    def __init__(self, ctx: Context, tasks: Tasks, paths: Paths, nodes: ObjectNodes, wallet: Wallet) -> None:
        self._ctx = ctx
        self._store = ctx.store.operations
        self._tasks = tasks
        self._paths = paths
        self._nodes = nodes
        self._wallet = wallet
        self._parts = os.path.join(ctx.config.data, "Downloads")
        self._running: dict[bytes, Operation] = {}
        self._work: dict[bytes, asyncio.Task[None]] = {}

    # ---------------------------------------------------------------------------------------------- what users ask for

    async def capabilities(self, node: int | None = None) -> Offer:
        """What a node offers; default: the healthiest."""
        node = self._node(node)
        found, classes = await self._nodes.capabilities(node)
        return Offer(
            node=node,
            enabled=bool(found.server_flags & objects.ENABLED),
            protocol_min=found.protocol_min,
            protocol_max=found.protocol_max,
            preferred_chunk=found.preferred_chunk,
            max_chunk=found.max_chunk,
            max_download_range=found.max_download_range,
            max_active_transfers=found.max_active_transfers,
            max_parallel=found.max_parallel,
            max_object=found.max_object,
            paid=found.payment_mode != objects.PAY_NOTHING,
            classes=tuple(OfferedClass(**msgspec.structs.asdict(row)) for row in classes),
        )

    async def upload(
        self,
        source: str,
        *,
        node: int | None = None,
        file_type: int = OBJECT_TYPE,
        object_id: bytes | None = None,
        locker: str = "",
        retention: int = 0,
        storage_class: int = 0,
        chunk: int = CHUNK,
        replaces: bool = False,
        expected: int = 0,
        target: int | None = None,
        wallet: str = "Default",
    ) -> Operation:
        """Store a file as one object at one node.

        source    a path below the allowed folders
        node      default: the healthiest, or the one that holds the object to be replaced
        locker    the code of a locker that pays; default: one of the wallet's
        expected  generation to be replaced; 0 creates
        target    default: the one behind `expected`
        raises    PathRefused, UsageError, Conflict if it cannot be begun
        """
        target = expected + 1 if target is None else target
        if not replaces and expected:
            raise UsageError("Create requires expected_generation=0")
        if replaces and (object_id is None or not (locker or self._paid(object_id, file_type))):
            raise UsageError("Replacement requires object_id and the original locker_key")
        if locker:
            _code(locker)
        path, state = self._paths.check(source)
        return await self._accept(
            "upload",
            self._node(node, object_id),
            object_id or self._ctx.entropy(16),
            file_type,
            path=path,
            mtime_ns=state.st_mtime_ns,
            total=state.st_size,
            transfer_id=self._ctx.entropy(16),
            replaces=replaces,
            wanted_class=storage_class,
            wanted_chunk=chunk,
            expected_generation=expected,
            target_generation=_above(target, expected),
            retention=retention,
            wallet=wallet,
            locker=locker,
        )

    async def download(
        self,
        object_id: bytes,
        destination: str,
        *,
        node: int | None = None,
        file_type: int = OBJECT_TYPE,
        generation: int = 0,
        chunk: int = CHUNK,
    ) -> Operation:
        """Bring an object of one node into a file, which appears whole and verified.

        destination  a path below the allowed folders where there is nothing yet
        generation   0: the current one
        raises       PathRefused, Conflict
        """
        path = self._paths.check_new(destination)
        return await self._accept(
            "download", self._node(node, object_id), object_id, file_type, path=path, generation=generation,
            wanted_chunk=chunk,
        )  # fmt: skip

    async def delete(
        self,
        object_id: bytes,
        expected: int,
        target: int | None = None,
        *,
        node: int | None = None,
        file_type: int = OBJECT_TYPE,
    ) -> Operation:
        """Put a tombstone in the place of an object's generation `expected`; UsageError."""
        target = expected + 1 if target is None else target
        return await self._accept(
            "delete", self._node(node, object_id), object_id, file_type,
            expected_generation=expected, target_generation=_above(target, expected),
        )  # fmt: skip

    def get(self, operation_id: bytes) -> Operation:
        """How far an operation is; NotFound."""
        return self._running.get(operation_id) or self._store.get(operation_id)

    async def resume(self, operation_id: bytes) -> Operation:
        """Go on with an operation that was paused; NotFound, Conflict if it is not paused."""
        operation = self.get(operation_id)
        if operation.state != PAUSED:
            raise Conflict("Transfer could not be resumed")
        return await self._begin(msgspec.structs.replace(operation, task_id=self._tasks.new_id(), last_status=0))

    async def cancel(self, operation_id: bytes) -> Operation:
        """Give an operation up; what it has stored is dropped. NotFound, Conflict if it has ended."""
        operation = self.get(operation_id)
        if operation.state in ENDED:
            raise Conflict("Transfer could not be cancelled")
        operation = await self._note(operation, cancel_requested=True)
        work = self._work.get(operation_id)
        if work is None:
            await self._undo(operation)
        else:
            work.cancel()
            await asyncio.wait([work], timeout=_PATIENCE)
        return self.get(operation_id)

    def resume_all(self) -> None:
        """Take up what a stop or crash has interrupted."""
        for operation in self._store.unfinished():
            if operation.state != PAUSED:
                self._start(msgspec.structs.replace(operation, task_id=self._tasks.new_id()))

    # ---------------------------------------------------------------------------------------------- life

    def _node(self, node: int | None, object_id: bytes | None = None) -> int:
        if node is not None:
            return node
        known = [row for row in self._store.of_object(object_id) if row.state == COMPLETED] if object_id else []
        return known[0].node if known else self._ctx.fanout.health.order(range(self._ctx.nodes))[0]

    def _paid(self, object_id: bytes, file_type: int) -> bool:
        """Whether an object was paid by a locker of this wallet, which a replacement shows again."""
        return any(x.unit == unit_of(file_type) for x in self._ctx.store.wallet.lockers(guid=object_id))

    async def _accept(self, direction: str, node: int, object_id: bytes, file_type: int, **fields: Any) -> Operation:
        now = self._ctx.now()
        return await self._begin(
            Operation(
                id=self._ctx.entropy(16),
                task_id=self._tasks.new_id(),
                direction=direction,
                state=WAITING,
                node=node,
                object_id=object_id,
                file_type=file_type,
                created_at=now,
                updated_at=now,
                **fields,
            )
        )

    async def _begin(self, operation: Operation) -> Operation:
        operation = msgspec.structs.replace(operation, state=WAITING, updated_at=self._ctx.now())
        await self._store.save(operation)
        self._start(operation)
        return operation

    def _start(self, operation: Operation) -> None:
        async def story(report: Report) -> tuple[str, dict[str, Any]]:
            return await self._run(operation.id, report)

        async def undo() -> None:
            await self.cancel(operation.id)

        self._running[operation.id] = operation
        what = f"Object {operation.direction} accepted"
        self._work[operation.id] = self._tasks.start(operation.task_id, story, what, undo)

    async def _note(self, operation: Operation, **changes: Any) -> Operation:
        """Change an operation and commit it."""
        changed = self._changed(operation, **changes)
        await self._store.save(changed)
        return changed

    def _changed(self, operation: Operation, **changes: Any) -> Operation:
        newest = self._running.get(operation.id, operation)
        changed = msgspec.structs.replace(newest, **changes, updated_at=self._ctx.now())
        if operation.id in self._running:
            self._running[operation.id] = changed
        return changed

    async def _run(self, operation_id: bytes, report: Report) -> tuple[str, dict[str, Any]]:
        try:
            operation = await self._note(self._running[operation_id], state=RUNNING)
            operation = await self._go(operation, report)
        except asyncio.CancelledError:
            operation = self._running[operation_id]
            if not operation.cancel_requested:
                raise  # the engine stops; the next start goes on
            task = asyncio.current_task()
            assert task is not None
            task.uncancel()
            await self._undo(operation)
            raise Cancelled("Transfer cancelled") from None
        except QMailError as error:
            await self._stop(self._running[operation_id], error)
            raise
        finally:
            self._running.pop(operation_id, None)
            self._work.pop(operation_id, None)
        return f"Object {operation.direction} complete", {
            "operation_id": operation_id.hex(),
            "object_id": operation.object_id.hex(),
            "raida_id": operation.node,
        }

    async def _go(self, operation: Operation, report: Report) -> Operation:
        def progress(done: int, total: int) -> None:
            self._changed(operation, completed=done, total=total)
            report(5 + 90 * done // max(1, total), f"{done} of {total} bytes")

        if operation.direction == "upload":
            outcome = await self._upload(operation, progress)
        elif operation.direction == "download":
            outcome = await self._download(operation, progress)
        else:
            outcome = await self._delete(operation)
        return await self._note(operation, state=COMPLETED, last_result="done", last_status=0, **outcome)

    async def _stop(self, operation: Operation, error: QMailError) -> None:
        """Pause what may go better next time, fail the rest."""
        pauses = retried(error) or type(error) is QMailError
        if not pauses:
            await self._leave(operation)
        status = error.status if isinstance(error, NodeError) else 0
        await self._note(operation, state=PAUSED if pauses else FAILED, last_result=error.message, last_status=status)

    async def _undo(self, operation: Operation) -> None:
        await self._leave(operation)
        await self._note(operation, state=CANCELLED, last_result="cancelled")

    async def _leave(self, operation: Operation) -> None:
        """Clean up behind what will not go on."""
        if operation.direction == "download":
            for path in filter(None, (operation.part, self._whole(operation))):
                with contextlib.suppress(FileNotFoundError):
                    os.remove(path)
        elif operation.direction == "upload":
            await self._give_up(operation)

    async def _give_up(self, operation: Operation) -> None:
        """The node drops what it has of an upload; its locker is spent, looked into, or free."""
        lockers = self._lockers(operation)
        if not operation.shown:
            await self._wallet.release(lockers)
            return
        await self._nodes.abort({operation.node: operation.transfer_id})
        if operation.chunk:  # it was begun, which is when it is paid
            await self._wallet.consume(lockers)
            return
        await self._wallet.doubt(lockers)

    def _lockers(self, operation: Operation) -> list[Locker]:
        """Those of the wallet that pay for an upload."""
        unit = unit_of(operation.file_type)
        found = self._ctx.store.wallet.lockers(guid=operation.object_id)
        return [locker for locker in found if (locker.unit, locker.node) == (unit, operation.node)]

    # ---------------------------------------------------------------------------------------------- the three stories

    async def _upload(self, operation: Operation, progress: Progress) -> dict[str, Any]:
        with self._source(operation) as file:
            if not operation.object_hash:
                digest = await self._ctx.offload(file.size, _digest, file)
                operation = await self._note(operation, object_hash=digest)
            code, lockers = await self._payment(operation)
            operation = await self._note(operation, shown=True)

            def begun(answer: Begun) -> None:
                self._changed(
                    operation, chunk=answer.chunk, max_parallel=answer.max_parallel, expires_at=answer.expires_at,
                    storage_class=answer.storage_class,
                )  # fmt: skip

            for again in (False, True):
                try:
                    wish = _wish(operation, code)
                    done = await self._nodes.upload(operation.node, wish, file.read, progress, begun=begun)
                    break
                except NodeError as error:
                    if again or error.status not in GONE:
                        raise
                # the transfer was given up while nobody was looking; the node has not forgotten that it was paid
                operation = await self._note(operation, transfer_id=self._ctx.entropy(16))
        await self._wallet.consume(lockers)
        return {"generation": done.generation, "completed": done.total_size, "storage_class": done.storage_class}

    @contextlib.contextmanager
    def _source(self, operation: Operation) -> Iterator[File]:
        file = File(operation.path, self._paths.open(operation.path))
        try:
            if (file.size, file.mtime_ns) != (operation.total, operation.mtime_ns):
                raise Conflict("the file has changed since its upload was accepted")
            yield file
        finally:
            file.close()

    async def _payment(self, operation: Operation) -> tuple[bytes, list[Locker]]:
        """The code the node is shown, and the wallet's lockers behind it."""
        if operation.locker or not self._ctx.config.storage_fee:
            return (_code(operation.locker) if operation.locker else bytes(c.LOCKER_CODE_SIZE)), []
        claim = Claim(unit_of(operation.file_type), operation.node)
        held = self._lockers(operation)
        found, _ = await self._wallet.acquire(operation.object_id, operation.wallet, [claim], {}, held)
        await self._wallet.ensure_all(found.values(), _ENSURE)
        return locker_code(found[claim].code), list(found.values())

    async def _download(self, operation: Operation, progress: Progress) -> dict[str, Any]:
        make_private(self._parts)
        node, object_id, file_type = operation.node, operation.object_id, operation.file_type
        found = await self._nodes.info(node, object_id, file_type, operation.generation)
        whole = self._whole(operation)
        operation = await self._note(
            operation,
            part=part_of(whole, found),
            total=found.total_size,
            generation=found.generation,
            chunk=min(operation.wanted_chunk, found.recommended_length, CHUNK),
            expires_at=found.expires_at,
            storage_class=found.storage_class,
            object_hash=found.object_hash,
        )
        await self._nodes.fetch(node, found, whole, progress, chunk=operation.chunk)
        await asyncio.get_running_loop().run_in_executor(None, self._paths.put_new, whole, operation.path)
        return {"completed": found.total_size, "part": ""}

    def _whole(self, operation: Operation) -> str:
        return os.path.join(self._parts, operation.id.hex())

    async def _delete(self, operation: Operation) -> dict[str, Any]:
        generation = await self._nodes.delete(
            operation.node,
            operation.object_id,
            operation.file_type,
            operation.expected_generation,
            operation.target_generation,
        )
        return {"generation": generation}


def _wish(operation: Operation, code: bytes) -> Begin:
    return Begin(
        transfer_id=operation.transfer_id,
        object_id=operation.object_id,
        locker=code,
        file_type=operation.file_type,
        retention=operation.retention,
        hash_alg=objects.SHA256,
        operation=objects.REPLACE if operation.replaces else objects.CREATE,
        storage_class=operation.wanted_class,
        reserved=bytes(7),
        chunk=operation.wanted_chunk,
        total_size=operation.total,
        expected_generation=operation.expected_generation,
        target_generation=operation.target_generation,
        object_hash=operation.object_hash,
    )


def _digest(file: File) -> bytes:
    digest = hashlib.sha256()
    for offset in range(0, file.size, CHUNK):
        data: Buffer = file.read(offset, min(CHUNK, file.size - offset))
        digest.update(data)
    return digest.digest()


def _above(target: int, expected: int) -> int:
    if target <= expected:
        raise UsageError("target_generation must be greater than expected_generation")
    return target


def _code(text: str) -> bytes:
    try:
        return locker_code(text)
    except LocalProtocolError as error:
        raise UsageError("Invalid locker_key") from error
