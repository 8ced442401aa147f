"""A stand-in for the engine: the facade over dicts. It decides nothing beyond what a test of a surface needs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import httpx
from qmail_server.http.app import build_app
from qmail_server.http.guard import GuardSettings, hosts_for

from qmail_core.codec.address import split_list
from qmail_core.config import EngineConfig
from qmail_core.engine.payments import Payment
from qmail_core.errors import AddressError, Forbidden, NotFound, PathRefused, QMailError, UsageError
from qmail_core.model import (
    Address,
    Costs,
    Downloaded,
    Draft,
    FileEntry,
    Folder,
    Kind,
    Message,
    MessagePage,
    Notification,
    PaymentStatus,
    Polled,
    PoolStatus,
    Profile,
    Receipt,
    ReceiptSender,
    Recipient,
    Repaired,
    SendResult,
    Source,
    Started,
    StoredAttachment,
    Striping,
    TaskState,
    Tell,
)

T = TypeVar("T")

ALICE = Address(1, 0x100000)
BOB = Address(1, 0x110000)
GUID = bytes.fromhex("a1b2c3d4e5f6a7b8c9d0e1f2a3b4c5d6")
BASE = "http://127.0.0.1:8080"
OPEN = GuardSettings(hosts=hosts_for(8080), compat_open=True)


class Payments:
    """Nothing was paid."""

    def of(self, message: Message) -> Payment:
        return Payment(message.id, message.guid, bytes(16), PaymentStatus.UNCLAIMED)


class FakeEngine:
    """Answers at once. `fail` names a method and the error it raises; `drafts` keeps what was accepted."""

    def __init__(self, folder: Path) -> None:
        self.config = EngineConfig(data=str(folder))
        self.address = ALICE
        self.address_text = "16.0.0@byte"
        self.folder = folder
        self.fail: dict[str, QMailError | Exception] = {}
        self.drafts: list[Draft] = []
        self.tells: list[bytes] = []
        self.tasks: dict[str, TaskState] = {}
        self.receipts: dict[bytes, Receipt] = {}
        self.stored: dict[bytes, Message] = {}
        self.files: dict[bytes, list[StoredAttachment]] = {}
        self.waiting: dict[bytes, Message] = {}
        self.asked: list[Any] = []
        self.ping_cancelled = False
        self.quiet: asyncio.Event | None = None
        self.payments = Payments()
        self._revision = 0

    @property
    def revision(self) -> int:
        """Never the same: tests change the dicts as they like."""
        self._revision += 1
        return self._revision

    def _maybe(self, method: str) -> None:
        if method in self.fail:
            raise self.fail[method]

    # --- words -----------------------------------------------------------------------------------------------

    def resolve(self, text: str) -> Address:
        if "#" not in text and (("@" not in text) or not text.endswith(("byte", "bit"))):
            raise AddressError("Missing domain separator '#'.")
        return BOB

    split_list = staticmethod(split_list)

    def render(self, address: Address) -> str:
        return "16.0.0@byte" if address == ALICE else "17.0.0@byte"

    def costs(self, files: int, recipients: int) -> Costs:
        return Costs(5 * files, 10 * recipients)

    def balance(self, wallet: str) -> int:
        return 320

    def wallet_name(self, text: str, *, pays: bool = True) -> str:
        if "?" in text:
            raise UsageError("Invalid wallet_path")
        name = text.rstrip("/").rpartition("/")[2]
        if name == "Mail":
            raise UsageError("Invalid wallet_path")
        if name != "Default":
            raise NotFound("Wallet not found")
        return name

    # --- files -----------------------------------------------------------------------------------------------

    def allow_path(self, text: str, limit: int | None = None) -> str:
        path = os.path.realpath(self.folder / text)
        if "\\" in text or os.path.dirname(path) != os.path.realpath(self.folder) or not os.path.isfile(path):
            raise PathRefused("not found or not readable")
        return path

    def read_path(self, text: str, limit: int) -> bytes:
        data = Path(self.allow_path(text)).read_bytes()
        if not data or len(data) > limit:
            raise UsageError("file is empty or too large")
        return data

    def spool(self, guid: bytes, name: str) -> tuple[BinaryIO, Source]:
        path = self.folder / f"spool-{guid.hex()}-{len(list(self.folder.glob('spool-*')))}"
        return path.open("wb"), Source(name=name, path=str(path), spooled=True)

    def drop_spool(self, guid: bytes) -> None:
        for path in self.folder.glob(f"spool-{guid.hex()}-*"):
            path.unlink()

    def spooled(self) -> list[Path]:
        return sorted(self.folder.glob("spool-*"))

    # --- sending ---------------------------------------------------------------------------------------------

    def receipt_exists(self, guid: bytes) -> bool:
        return guid in self.receipts

    def new_guid(self) -> bytes:
        return GUID

    async def start_upload(self, draft: Draft, *, tell: bool) -> Started:
        self._maybe("start_upload")
        self.drafts.append(draft)
        guid = draft.guid or self.new_guid()
        self.receipts[guid] = receipt_of(guid, draft)
        message = "Upload + Tell complete: all beacons accepted" if tell else "Upload completed; Tell pending"
        self.tasks["task_5a91c802"] = done("task_5a91c802", message, guid)
        return Started("task_5a91c802", guid, "5a91c802", draft.duration_weeks, len(draft.recipients))

    async def start_tell(self, guid: bytes) -> Started:
        self._maybe("start_tell")
        self.tells.append(guid)
        return Started("task_1b9d03ee", guid, "1b9d03ee", 0, 2, 3)

    async def send(self, draft: Draft) -> SendResult:
        self._maybe("send")
        self.drafts.append(draft)
        receipt = receipt_of(GUID, draft)
        receipt.tell.status = "success"
        costs = self.costs(1 + len(draft.attachments), len(draft.recipients))
        files = 1 + len(draft.attachments)
        return SendResult(receipt, files, costs.storage, costs.inbox, 5 * files, 0)

    def receipt(self, guid: bytes) -> Receipt:
        if guid not in self.receipts:
            raise NotFound("no such row")
        return self.receipts[guid]

    def task(self, task_id: str) -> TaskState:
        if task_id not in self.tasks:
            raise NotFound("no such row")
        return self.tasks[task_id]

    # --- receiving -------------------------------------------------------------------------------------------

    def _polled(self) -> Polled:
        return Polled(tuple(notification(mail, number) for number, mail in enumerate(self.waiting.values(), 1)))

    async def peek(self, since: int = 0) -> Polled:
        self._maybe("peek")
        self.asked.append(("peek", since))
        return self._polled()

    async def ping(self, timeout: float, since: int = 0) -> Polled:
        self._maybe("ping")
        self.asked.append(("ping", timeout, since))
        if self.quiet is not None:
            self.quiet.set()
            try:
                await asyncio.sleep(timeout)
            except asyncio.CancelledError:
                self.ping_cancelled = True
                raise
        return Polled(self._polled().notifications, True, 245, 5003, "aa12")

    def watch(self, timeout: float, since: int, told: Callable[[Polled | Exception], None]) -> Callable[[], object]:
        task = asyncio.ensure_future(self.ping(timeout, since))

        def ended(done: asyncio.Task[Polled]) -> None:
            if not done.cancelled():
                told(done.exception() or done.result())  # type: ignore[arg-type]

        task.add_done_callback(ended)
        return task.cancel

    async def download(self, guid: bytes, sender_sn: int | None = None) -> Downloaded:
        self._maybe("download")
        self.asked.append(("download", guid, sender_sn))
        again = guid in self.stored
        if not again and guid not in self.waiting:
            raise NotFound("no such row")
        if not again:
            self.stored[guid] = self.waiting.pop(guid)
        return Downloaded(self.stored[guid], tuple(self.files.get(guid, ())), 20, 5, again, (3,))

    def messages(self, folder: Folder, limit: int, offset: int, sort: str = "newest") -> MessagePage:
        self.asked.append(("messages", folder, limit, offset, sort))
        found = [mail for mail in self.stored.values() if mail.folder == folder]
        return MessagePage(tuple(found[offset : offset + limit]), len(found), len(found))

    async def message(self, message_id: bytes, *, mark_read: bool = True) -> Message:
        self.asked.append(("message", mark_read))
        if message_id not in self.stored:
            raise NotFound("no such row")
        return self.stored[message_id]

    def attachments(self, message_id: bytes) -> list[StoredAttachment]:
        if message_id not in self.stored:
            raise NotFound("no such row")
        return self.files.get(message_id, [])

    async def attachment(self, message_id: bytes, attachment_id: int, *, fetch: bool = True) -> StoredAttachment:
        self._maybe("attachment")
        for guid, rows in self.files.items():
            for row in rows:
                if row.id == attachment_id and guid != message_id:
                    raise Forbidden("Attachment does not belong to the specified email")
                if row.id == attachment_id:
                    return row
        raise NotFound("no such row")

    async def repair(self, guid: bytes) -> Repaired:
        return Repaired(guid, 25, 2, 2, (7,), 4)

    def wallets(self) -> list[str]:
        return ["Default", "Mail"]

    def pool_status(self, wallet: str = "Default") -> PoolStatus:
        return PoolStatus(50, 4, 320, False)

    # --- scenery ---------------------------------------------------------------------------------------------

    def add_file(self, guid: bytes, name: str, data: bytes) -> StoredAttachment:
        rows = self.files.setdefault(guid, [])
        number = 1 + sum(len(found) for found in self.files.values())
        path = self.folder / f"attachment-{number}"
        path.write_bytes(data)
        row = StoredAttachment(
            id=number, message_id=guid, position=len(rows), name=name, size=len(data), mode=1, path=str(path)
        )
        rows.append(row)
        return row


def mail(guid: bytes = GUID, subject: str = "Q4 Budget Report", body: str = "Dear all", folder: int = 0) -> Message:
    return Message(
        id=guid,
        guid=guid,
        outgoing=folder == Folder.SENT,
        folder=Folder(folder),
        uid=1,
        modseq=1,
        subject=subject,
        body=body,
        sender=ALICE,
        sender_text="16.0.0@byte",
        recipients=(Recipient(Kind.TO, "17.0.0@byte", BOB), Recipient(Kind.CC, "Ada#9", Address(0, 9))),
        received_at=1767000055,
        sent_at=1767000040,
        is_read=False,
        is_starred=False,
        attachments=1,
    )


def notification(message: Message, number: int) -> Notification:
    tell = Tell(
        guid=message.id,
        sender=message.sender,
        timestamp=1767000040,
        total_size=412,
        striping=Striping(Profile.SEALED, 20, 5),
        files=(FileEntry(1, 1, 412, None),),
    )
    return Notification(id=number, tell=tell, received_at=1767000041)


def receipt_of(guid: bytes, draft: Draft) -> Receipt:
    sender = ReceiptSender(serial_number=ALICE.serial, denomination=1, email="16.0.0@byte")
    return Receipt(
        file_guid=guid.hex(), request_id="r", created_at=1, updated_at=2, wallet_path=draft.wallet, sender=sender
    )


def done(task_id: str, message: str, guid: bytes) -> TaskState:
    data = {"file_guid": guid.hex(), "upload_successes": 25, "upload_failures": 0}
    return TaskState(
        id=task_id, status="success", progress=100, message=message, data=data, started_at=1.0, finished_at=1.5
    )


def run(engine: FakeEngine, story: Callable[[httpx.AsyncClient], Awaitable[T]], **settings: Any) -> T:
    """Run a story against the engine's API."""
    guard = settings.pop("guard", OPEN)
    transport = httpx.ASGITransport(build_app(engine, guard, **settings))  # type: ignore[arg-type]

    async def whole() -> T:
        async with httpx.AsyncClient(transport=transport, base_url=BASE) as client:
            return await story(client)

    return asyncio.run(whole())


def ask(engine: FakeEngine, method: str, path: str, **options: Any) -> httpx.Response:
    """One request."""
    keywords = {name: options.pop(name) for name in ("guard", "extra_routes") if name in options}

    def story(client: httpx.AsyncClient) -> Coroutine[Any, Any, httpx.Response]:
        return client.request(method, path, **options)

    return run(engine, story, **keywords)


def assert_contains_in_order(answer: Mapping[str, Any], example: Mapping[str, Any]) -> None:
    """All members of a documented example are there, with values of the same type, in the same order."""
    kept = [name for name in answer if name in example]
    assert kept == list(example)
    for name, value in example.items():
        assert type(answer[name]) is type(value), name
