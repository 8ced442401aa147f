"""What the store owes the file-transfer API beyond what its calls show."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import pytest

from qmail_core.codec.vault import Segments
from qmail_core.errors import Conflict, NotFound
from qmail_core.model import Listing, Receipt, ReceiptRecipient, ReceiptSender
from qmail_core.store.base import SendRow
from qmail_core.store.database import migrate
from qmail_core.store.files import VaultRow
from qmail_core.store.sqlite import SqliteStore
from tests.store.schemas import of_schema

BEFORE = 6  # the schema before this part
OLD = b"QMF1\1\0\0\0"  # how files began when their stored size was not kept


def receipt(guid: bytes, *states: str) -> Receipt:
    sender = ReceiptSender(serial_number=7, denomination=1, email="me")
    found = Receipt(
        file_guid=guid.hex(), request_id="r", created_at=5, updated_at=6, wallet_path="Default", sender=sender
    )
    found.upload.subject = "Grüße"
    found.tell.recipients = [
        ReceiptRecipient(
            address=f"to{at}", kind="to", serial_number=at, denomination=1, beacon_raida=0, status=state, finished_at=9
        )
        for at, state in enumerate(states)
    ]
    return found


def test_mails_of_before_are_listed() -> None:
    with of_schema(BEFORE) as db:
        body = msgspec.json.encode(receipt(b"g" * 16, "sent", "retry_queued"))
        db.execute("INSERT INTO receipt VALUES (?,?,'success','partial',6)", (b"g" * 16, body))
        migrate(db)
        rows = db.execute("SELECT subject, recipient, sent_at, status FROM transfer_mail ORDER BY position").fetchall()
    assert rows == [("Grüße", "to0", 9, "success"), ("Grüße", "to1", 0, "sending")]


def test_files_of_before_have_their_stored_size() -> None:
    sizes = [0, 1, 65_535, 65_536, 65_537, 10_000_000]
    with of_schema(8) as db:
        for size in sizes:
            db.execute(
                "INSERT INTO transfer_file (id, user, filename, extension, type, size, sha256, crc32, sealed,"
                " created_at) VALUES (randomblob(16), 1, 'a', '', '', ?, x'', 0, x'', 5)",
                (size,),
            )
        migrate(db)
        found = [row[0] for row in db.execute("SELECT stored FROM transfer_file ORDER BY size")]
    assert found == [Segments(OLD, bytes(32), b"").stored(size) for size in sizes]


def becomes(receipt: Receipt) -> Callable[[SendRow], None]:
    return lambda row: setattr(row, "receipt", receipt)


def test_a_row_for_each_recipient_follows_its_receipt() -> None:
    async def story() -> None:
        store, guid = SqliteStore(None), b"g" * 16
        await store.sends.accept(receipt(guid, "queued", "queued", "queued"), b"{}", {}, "upload")
        rows = store.files.sent_rows(guid)
        assert [row.status for row in rows] == ["queued"] * 3
        await store.sends.change(guid, becomes(receipt(guid, "sending", "sent", "failed")))
        after = store.files.sent_rows(guid)
        assert [row.status for row in after] == ["sending", "success", "failed"]
        assert [row.id for row in after] == [row.id for row in rows]
        failed = receipt(guid, "queued", "sent", "queued")
        failed.upload.status = "failed"
        await store.sends.change(guid, becomes(failed))
        assert [row.status for row in store.files.sent_rows(guid)] == ["failed", "success", "failed"]
        assert store.files.sent(Listing(limit=2, offset=2))[1] == 3
        await store.close()

    asyncio.run(story())


def test_guesses_are_counted_in_a_sliding_window() -> None:
    async def story() -> None:
        files = SqliteStore(None).files
        waits = [await files.begin_guess(1, now, 900, 2) for now in (0, 10, 20, 899, 900, 901, 910)]
        assert waits == [0, 0, 880, 1, 0, 9, 0]
        await files.forget_guesses(1)
        assert await files.begin_guess(1, 911, 900, 2) == 0
        ahead = 10_000_000  # of a clock that is put right
        assert [await files.begin_guess(1, ahead, 900, 2) for _ in range(2)] == [0, 0]
        assert await files.begin_guess(1, ahead - 1, 900, 2) == 901
        assert [await files.begin_guess(1, 912, 900, 2) for _ in range(3)] == [0, 0, 900]
        await files._db.close()

    asyncio.run(story())


def test_a_first_pin_is_set_once() -> None:
    async def story() -> None:
        store = SqliteStore(None)
        row = VaultRow(user=1, public=b"p", salt=b"s", cost=2, wrapped=b"w")
        await store.files.set_vault(row, new=True)
        with pytest.raises(Conflict):
            await store.files.set_vault(row, new=True)
        await store.files.set_vault(row, new=False)
        with pytest.raises(NotFound):
            await store.files.drop_token(1)
        await store.close()

    asyncio.run(story())
