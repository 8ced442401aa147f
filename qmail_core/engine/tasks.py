"""Long stories as tasks: an id to poll, progress that never falls, one outcome.

A story reports as it goes and returns its final message and data. A QMailError it raises becomes the failure message;
anything else is our bug, logged with its traceback. A story that can be taken back comes with the call that does it,
and ends in Cancelled by itself afterwards.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from qmail_core.errors import Cancelled, Conflict, NotFound, QMailError, StoreUnavailable, UsageError
from qmail_core.model import TaskState

log = logging.getLogger("qmail.tasks")
_KEEP = 1000  # finished tasks that can still be polled
_CANCEL_PATIENCE = 10.0  # seconds a story has to come to its end before the answer says that it still runs

Report = Callable[[int, str], None]
Story = Callable[[Report], Awaitable[tuple[str, dict[str, Any]]]]
Undo = Callable[[], Awaitable[None]]
T = TypeVar("T")
_FIRST_PAUSE, _LAST_PAUSE = 1.0, 60.0  # seconds between tries while the store cannot be written


async def persevere(story: Callable[[bool], Awaitable[T]], report: Report) -> T:
    """Tell a story until the store has taken what it came to; nobody is told an outcome that a restart would not know.

    story  is given whether it began before; then it finds in the store how far it has come, as after a crash
    """
    again, pause = False, _FIRST_PAUSE
    while True:
        try:
            return await story(again)
        except StoreUnavailable as error:
            log.warning("interrupted: %s", error.message)
            report(0, f"Interrupted, and goes on when the store can be written: {error.message}")
        await asyncio.sleep(pause)
        again, pause = True, min(_LAST_PAUSE, 2 * pause)


class Tasks:
    """The tasks of one engine."""

    def __init__(self, clock: Callable[[], float], entropy: Callable[[int], bytes]) -> None:
        self._clock = clock
        self._entropy = entropy
        self._states: OrderedDict[str, TaskState] = OrderedDict()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._undo: dict[str, Undo] = {}
        self._over: deque[str] = deque()  # tasks that have ended, in the order they did
        self.revision = 0  # grows whenever a state changes or is forgotten

    def new_id(self) -> str:
        """An id no other task has."""
        while True:
            task_id = f"task_{self._entropy(4).hex()}"
            if task_id not in self._states:
                return task_id

    def start(self, task_id: str, story: Story, message: str, undo: Undo | None = None) -> asyncio.Task[None]:
        """Run a story in the background under `task_id`.

        undo  has the story end in Cancelled; Conflict when it is too late
        """
        state = TaskState(id=task_id, message=message, started_at=self._clock())
        self._states[task_id] = state
        self.revision += 1
        task = asyncio.get_running_loop().create_task(self._run(state, story), name=task_id)
        self._running[task_id] = task
        if undo is not None:
            self._undo[task_id] = undo
        task.add_done_callback(lambda _: self._ended(task_id))
        self._forget()
        return task

    def _ended(self, task_id: str) -> None:
        self._running.pop(task_id, None)
        self._undo.pop(task_id, None)
        self._over.append(task_id)

    def listed(self) -> Sequence[TaskState]:
        """All tasks that are known, newest first."""
        return tuple(reversed(self._states.values()))

    async def cancel(self, task_id: str) -> TaskState:
        """Take a task back; its state, ended unless it is slow to stop.

        raises   NotFound; UsageError if it has ended; Conflict if it can no longer be undone
        """
        state = self.get(task_id)
        if state.status != "running":
            raise UsageError("Task already finished")
        undo = self._undo.get(task_id)
        if undo is None:
            raise Conflict("Task can no longer be undone")
        await undo()
        running = self._running.get(task_id)
        if running is not None:
            await asyncio.wait([running], timeout=_CANCEL_PATIENCE)
        return state

    def get(self, task_id: str) -> TaskState:
        """A task's state; NotFound if there is none, or it is long over."""
        try:
            return self._states[task_id]
        except KeyError:
            raise NotFound("Task not found") from None

    async def wait(self, task_id: str) -> TaskState:
        """The state of a task once it has ended."""
        task = self._running.get(task_id)
        if task is not None:
            await asyncio.wait([task])
        return self.get(task_id)

    async def close(self) -> None:
        """Stop what runs; its intent is in the store and is taken up again at the next start."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _run(self, state: TaskState, story: Story) -> None:
        def report(progress: int, message: str) -> None:
            state.progress = max(state.progress, min(progress, 99))
            state.message = message
            self.revision += 1

        try:
            state.message, state.data = await story(report)
            state.progress, state.status = 100, "success"
        except Cancelled as error:
            state.message, state.status = error.message, "cancelled"
        except QMailError as error:
            state.message, state.status = error.message, "failed"
            log.warning("%s failed: %s", state.id, error.message)
        except Exception:
            state.message, state.status = "Internal error", "failed"
            log.exception("%s failed", state.id)
        finally:
            state.finished_at = self._clock()
            self.revision += 1

    def _forget(self) -> None:
        while len(self._states) > _KEEP and self._over:
            del self._states[self._over.popleft()]
