"""Downloads nobody waits for: one task for each mail, however often it is asked for."""

from __future__ import annotations

from typing import Any

from qmail_core.engine.receive import Receiver
from qmail_core.engine.tasks import Report, Tasks
from qmail_core.model import Downloaded


class Fetching:
    """The downloads of one engine that run in the background."""

    def __init__(self, receiver: Receiver, tasks: Tasks) -> None:
        self._receiver = receiver
        self._tasks = tasks
        self._running: dict[bytes, str] = {}  # mail -> task

    def start(self, guid: bytes, sender_sn: int | None) -> Downloaded | str:
        """Begin to fetch a mail: the id of the task, or the mail if it is here already.

        raises   NotFound without a tell, unless `sender_sn` is given
        """
        stored = self._receiver.look(guid, sender_sn)
        if stored is not None:
            return stored
        if guid not in self._running:
            task_id = self._running[guid] = self._tasks.new_id()

            async def story(_: Report) -> tuple[str, dict[str, Any]]:
                return "Email downloaded and stored", _facts(await self._receiver.download(guid, sender_sn))

            task = self._tasks.start(task_id, story, "Download started")
            task.add_done_callback(lambda _: self._running.pop(guid))
        return self._running[guid]


def _facts(found: Downloaded) -> dict[str, Any]:
    return {
        "file_guid": found.message.guid.hex(),
        "email_id": found.message.id.hex(),
        "stripes_downloaded": found.stripes_downloaded,
        "stripes_recovered": found.stripes_recovered,
    }
